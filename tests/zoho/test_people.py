"""From a number to its lead or contact: found however it was typed, never taken for another, never made twice."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from consumer.core.errors import TransientError
from consumer.core.model import Deferred, Delivered, Module, Parent, Rejected, Stage
from consumer.zoho.people import LeadOptions, MatchPolicy
from sandbox.zoho import Answer, Drop, DropKind, FailRow, Garble, LateEffect, Throttle
from tests.zoho.room import Client, World, delivery, number, run

if TYPE_CHECKING:
    from collections.abc import Callable

RUSSIAN = "+79161234567"
LOCKED = Answer(status=400, body={"data": [{"code": "RECORD_LOCKED", "details": {}, "message": "", "status": "error"}]})
BROKEN = Answer(status=500, body={"code": "INTERNAL_ERROR", "details": {}, "message": "", "status": "error"})
TOGETHER = "__composite_requests"


@pytest.mark.parametrize(
    "stored",
    [
        "+79161234567",
        "79161234567",
        "0079161234567",
        "89161234567",
        "9161234567",
        "+7 916 123-45-67",
        "+7-916-123-45-67",
        "+7 (916) 123 45 67",
        "8 (916) 123-45-67",
        "8-916-123-45-67",
        "8 916 123 45 67",
        "(916) 1234567",
    ],
)
@pytest.mark.parametrize("field", ["Phone", "Mobile"])
@pytest.mark.parametrize("module", ["Leads", "Contacts"])
def test_a_person_is_found_however_the_number_was_typed(stored: str, field: str, module: str) -> None:
    """In either field of either module, with any punctuation."""

    async def scenario() -> None:
        world = World()
        client = Client(world, region="RU")
        record_id = world.insert(module, **{field: stored})
        assert await client.resolve(RUSSIAN) == [Parent(Module(module), record_id)]
        assert world.operations()["records.insert"] == 0

    run(scenario())


def test_a_search_that_does_not_know_converted_is_asked_without_it() -> None:
    """Zoho refuses the parameter: the person is found all the same, and not made twice."""

    async def scenario() -> None:
        world = World()
        client = Client(world, region="DE")
        record_id = world.insert("Leads", Phone="(0170) 555-0001")
        refused = Answer(status=400, body={"code": "INVALID_QUERY", "details": {}, "message": "", "status": "error"})
        plan = world.fault(refused, operation="records.search", times=None, predicate=_asks_for_converted)
        assert await client.resolve("+491705550001") == [Parent(Module.LEADS, record_id)]
        await client.parent("+491705550002")
        assert plan.fired == 1
        assert len(world.dump("Leads")) == 2

    run(scenario())


def spoil(client: Client, change: Callable[[Any, Any], None]) -> None:
    """Each answer within a composite call goes through `change(what was asked, response)`."""
    send = client.people._send

    async def spoiled(call: Any) -> Any:
        reply = await send(call)
        if call.operation == "people.search_together":
            for asked, answer in zip(call.body[TOGETHER], (reply.body or {})[TOGETHER], strict=True):
                change(asked, answer["details"]["response"])
        return reply

    client.people._send = spoiled


def test_a_search_that_fails_within_a_composite_call_is_repeated_alone() -> None:
    """Out of two hundred a few fail for now: two calls more for each, and nobody waits for it."""

    async def scenario() -> None:
        world = World()
        odd = world.insert("Leads", Phone="+7.916.000.00.03")
        client = Client(world, composite=True)

        def fail(asked: Any, response: Any) -> None:
            if str(asked["params"]["phone"]).endswith(("0000003", "0000040")):
                response.update(status_code=500, body=BROKEN.body)

        spoil(client, fail)
        found = await client.resolve(*map(number, range(100)))
        assert all(isinstance(each, Parent) for each in found)
        assert found[3].id == odd
        assert world.operations()["composite"] == 40
        assert world.operations()["records.search"] == 200 + 4
        assert client.told.people["composite_refused"] == 0

    run(scenario())


def test_a_search_within_a_composite_call_that_does_not_know_converted_is_asked_without_it() -> None:
    """As the single search: the person is found, and not made twice."""

    async def scenario() -> None:
        world = World()
        client = Client(world, region="DE", composite=True)
        record_id = world.insert("Leads", Phone="(0170) 555-0001")
        refused = Answer(status=400, body={"code": "INVALID_QUERY", "details": {}, "message": "", "status": "error"})
        world.fault(refused, operation="records.search", times=None, predicate=_asks_for_converted)

        def refuse(asked: Any, response: Any) -> None:
            if "converted" in asked["params"]:
                response.update(status_code=400, body=refused.body)

        spoil(client, refuse)
        assert await client.resolve("+491705550001") == [Parent(Module.LEADS, record_id)]
        await client.parent("+491705550002")
        assert len(world.dump("Leads")) == 2

    run(scenario())


def test_a_composite_call_without_an_answer_puts_off_nobody() -> None:
    """Its searches are made one by one."""

    async def scenario() -> None:
        world = World()
        client = Client(world, composite=True)
        world.fault(BROKEN, operation="composite", times=4)
        assert isinstance((await client.resolve(number(1)))[0], Parent)

    run(scenario())


def test_a_search_that_fails_for_one_person_puts_off_nobody_else() -> None:
    """Zoho answers the others, so it is not Zoho."""

    async def scenario() -> None:
        world = World()
        client = Client(world)
        world.fault(
            BROKEN,
            operation="records.search",
            times=None,
            predicate=lambda call: "0000001" in "".join(call.params.values()),
        )
        first, *others = await client.resolve(*map(number, range(1, 5)))
        assert isinstance(first, Deferred)
        assert all(isinstance(each, Parent) for each in others)

    run(scenario())


@pytest.mark.parametrize(
    ("stored", "phone"),
    [
        ("+5511987654321", "+551187654321"),
        ("(11) 8765-4321", "+5511987654321"),
        ("+55 (11) 8765 4321", "+5511987654321"),
        ("+5215512345678", "+525512345678"),
        ("+52 1 55 1234 5678", "+525512345678"),
        ("+541123456789", "+5491123456789"),
        ("+54 9 11 2345-6789", "+5491123456789"),
    ],
)
def test_the_safe_variants_of_a_country_are_one_person(stored: str, phone: str) -> None:
    """Brazil's ninth digit both ways, Mexico's 521, Argentina's 549 stored as 54."""

    async def scenario() -> None:
        world = World()
        record_id = world.insert("Leads", Phone=stored)
        assert await Client(world).resolve(phone) == [Parent(Module.LEADS, record_id)]

    run(scenario())


@pytest.mark.parametrize(
    ("stored", "phone"),
    [
        ("+5511987654321", "+551187654321"),
        ("+551187654321", "+5511987654321"),
        ("5215512345678", "+525512345678"),
        ("+541123456789", "+5491123456789"),
    ],
)
def test_safe_variants_are_found_without_the_search(stored: str, phone: str) -> None:
    """The search lags: who was stored a moment ago in another form is found by the query."""

    async def scenario() -> None:
        world = World({"search_lag_s": (1e6, 1e6)})
        record_id = world.insert("Leads", Phone=stored)
        assert await Client(world).resolve(phone) == [Parent(Module.LEADS, record_id)]

    run(scenario())


@pytest.mark.parametrize(
    ("stored", "phone"),
    [
        ("+5491123456789", "+541123456789"),
        ("+19161234567", "+79161234567"),
        ("+995916123456", "+7916123456" + "7"),
        ("1234567", "+79161234567"),
        ("+79161234568", "+79161234567"),
        ("+7 916 123-45-67 99", "+79161234567"),
        ("+551132654321", "+5511932654321"),
    ],
)
def test_look_alikes_are_refused(stored: str, phone: str) -> None:
    """The same ending, a landline, another country: a lead of its own is made."""

    async def scenario() -> None:
        world = World()
        other = world.insert("Leads", Phone=stored)
        [found] = await Client(world, region="RU").resolve(phone)
        assert isinstance(found, Parent)
        assert found.id != other
        assert len(world.dump("Leads")) == 2

    run(scenario())


@pytest.mark.parametrize(
    ("prefer", "order", "expected"),
    [
        ("contact", "oldest", "contact1"),
        ("contact", "newest", "contact2"),
        ("lead", "oldest", "lead1"),
        ("lead", "newest", "lead2"),
    ],
)
def test_several_hits_are_decided_by_policy_and_counted(prefer: str, order: str, expected: str) -> None:
    """Contact before lead and oldest first, or as the operator says; nobody has to guess that it happened."""

    async def scenario() -> None:
        world = World()
        ids = {
            "lead1": world.insert("Leads", Phone=number(1)),
            "contact1": world.insert("Contacts", Mobile=number(1)),
            "contact2": world.insert("Contacts", Phone=number(1)),
            "lead2": world.insert("Leads", Mobile=number(1)),
        }
        client = Client(world, policy=MatchPolicy(prefer, order))
        [found] = await client.resolve(number(1))
        assert found.id == ids[expected]
        assert client.told.ambiguous == 1

    run(scenario())


def test_however_many_batches_ask_one_person_is_resolved_once() -> None:
    """Twenty batches with the same new number cause one creation and one set of look-ups."""

    async def scenario() -> None:
        world = World()
        client = Client(world)
        found = await asyncio.gather(*(client.resolve(number(1), number(1)) for _ in range(20)))
        assert len({parent for pair in found for parent in pair}) == 1
        assert len(world.dump("Leads")) == 1
        assert world.operations()["records.insert"] == 1
        before = world.calls()
        assert await client.resolve(number(1)) == found[0][:1]
        assert world.calls() == before

    run(scenario())


def test_who_waits_for_a_cancelled_resolution_is_told_to_try_again() -> None:
    """A batch that is cancelled leaves nobody hanging."""

    async def scenario() -> None:
        client = Client(World())
        await client.sink.prepare()
        first = asyncio.create_task(client.resolve(number(1)))
        await asyncio.sleep(0.1)
        second = asyncio.create_task(client.resolve(number(1)))
        await asyncio.sleep(0.1)
        first.cancel()
        assert await second == [Deferred("INTERRUPTED")]
        assert isinstance(await client.parent(number(1)), Parent)

    run(scenario())


def test_a_new_lead_has_name_number_source_and_rule() -> None:
    """Name from the message or the number itself, cut to the field; source and assignment rule as set."""

    async def scenario() -> None:
        world = World()
        rule = world.step("add_assignment_rule")
        client = Client(world, options=LeadOptions("WhatsApp", rule, ()))
        named = delivery("m1", number(1), contact_name="  Anna\n" + "x" * 200)
        nameless = delivery("m2", number(2), contact_name=None)
        await client.sink.resolve([named, nameless])
        [first, second] = sorted(world.dump("Leads"), key=lambda row: row["Phone"])
        assert first["Last_Name"].startswith("Anna xxx")
        assert len(first["Last_Name"]) == 80
        assert first["Last_Name"].endswith("…")
        assert second["Last_Name"] == second["Phone"] == number(2)
        assert first["Lead_Source"] == "WhatsApp"
        entry = next(each for each in world.engine.journal.calls if each.operation == "records.insert")
        assert (entry.lar_id, entry.ran) == (rule, [])

    run(scenario())


def test_a_lead_that_exists_is_never_changed() -> None:
    """Not its name, not its number's form."""

    async def scenario() -> None:
        world = World()
        world.insert("Leads", Last_Name="Typed by hand", Mobile="8 916 000-00-01")
        before = world.dump("Leads")
        await Client(world, region="RU").deliver([delivery("m1", number(1), contact_name="Other")])
        assert world.dump("Leads") == before

    run(scenario())


@pytest.mark.parametrize("sees", [True, False])
def test_a_converted_lead_leads_to_its_contact(sees: bool) -> None:
    """Whether or not queries show converted leads; no new lead is made."""

    async def scenario() -> None:
        world = World({"coql_finds_converted": sees})
        lead = world.insert("Leads", Phone=number(1))
        contact = world.step("convert", lead_id=lead)
        world.step("update", module="Contacts", record_id=contact, changes={"Phone": "", "Mobile": ""})
        assert await Client(world).resolve(number(1)) == [Parent(Module.CONTACTS, contact)]
        assert len(world.dump("Leads")) == 1

    run(scenario())


@pytest.mark.parametrize("form", ["v8", "id_only", "api_name_and_id"])
def test_duplicate_data_yields_the_record_that_it_names(form: str) -> None:
    """When the organisation made Phone unique, a refused creation finds the lead - here one that no look-up shows."""

    async def scenario() -> None:
        world = World({"duplicate_form": form, "search_lag_s": (1e6, 1e6), "coql_lag_s": (1e6, 1e6)})
        world.step("set_field", module="Leads", api_name="Phone", unique=False)
        first = await Client(world).parent(number(1))
        assert await Client(world).resolve(number(1)) == [first]
        assert len(world.dump("Leads")) == 1

    run(scenario())


def test_a_duplicate_that_cannot_be_read_now_costs_its_batch_mates_nothing() -> None:
    """It is read later; the leads that were made beside it are known at once, and their twins looked for."""

    async def scenario() -> None:
        world = World()
        old = world.insert("Leads", Last_Name="Anna")
        client = Client(world)
        await client.sink.prepare()
        clash = FailRow(code="DUPLICATE_DATA", index=0, details={"id": old, "api_name": "Phone"})
        world.fault(clash, operation="records.insert")
        world.fault(BROKEN, operation="records.get", times=4)
        # Another process creates them in the same moment.
        both = await asyncio.gather(
            client.resolve(*map(number, range(1, 4))), Client(world).resolve(*map(number, range(2, 4)))
        )
        first, *others = both[0]
        assert isinstance(first, Deferred)
        assert all(isinstance(each, Parent) for each in others)
        phones = [row["Phone"] for row in world.dump("Leads")]
        assert sorted(phone for phone in phones if phone) == [number(2), number(3)]

    run(scenario())


@pytest.mark.parametrize("form", ["v8", "no_id"])
def test_a_race_for_a_unique_number_ends_in_one_lead_for_all(form: str) -> None:
    """Who comes second finds the other one's lead, whether or not Zoho names it."""

    async def scenario() -> None:
        world = World({"duplicate_form": form})
        world.step("set_field", module="Leads", api_name="Phone", unique=False)
        clients = [Client(world), Client(world)]
        for client in clients:
            await client.sink.prepare()
        found = await asyncio.gather(*(client.parent(number(1)) for client in clients))
        assert found[0] == found[1]
        assert world.operations()["records.insert"] == 2
        assert len(world.dump("Leads")) == 1

    run(scenario())


def test_a_number_that_is_taken_by_a_record_that_nobody_shows_is_rejected_after_a_few_tries() -> None:
    """The user may not see it: nobody waits for ever."""

    async def scenario() -> None:
        hidden = {"duplicate_form": "no_id", "search_lag_s": (1e6, 1e6), "coql_lag_s": (1e6, 1e6)}
        world = World(hidden)
        world.step("set_field", module="Leads", api_name="Phone", unique=False)
        await Client(world).parent(number(1))
        client = Client(world)
        outcomes = [(await client.resolve(number(1)))[0] for _ in range(5)]
        assert [type(each) for each in outcomes] == [Deferred] * 4 + [Rejected]
        assert outcomes[-1].reason == "zoho.DUPLICATE_DATA"

    run(scenario())


@pytest.mark.parametrize("form", ["v8", "id_only", "api_name_and_id"])
@pytest.mark.parametrize("is_readable", [True, False])
def test_a_duplicate_of_something_else_is_not_adopted(form: str, is_readable: bool) -> None:
    """A record that clashes in another way is another person; its message must not go there."""
    if form == "id_only" and not is_readable:
        return  # nothing tells it from a clash of numbers

    async def scenario() -> None:
        world = World({"duplicate_form": form})
        if not is_readable:
            world.fault(Answer(status=204), operation="records.get", times=None)
        world.insert("Leads", Last_Name="Anna", Phone=number(7))
        world.step("set_field", module="Leads", api_name="Last_Name", unique=False)
        client = Client(world)
        [found] = await client.sink.resolve([delivery("m", number(1), contact_name="Anna")])
        assert found == Rejected(Stage.LEAD, "zoho.DUPLICATE_DATA", "" if form == "id_only" else "Last_Name")

    run(scenario())


def test_two_processes_that_create_one_person_at_once_keep_one_lead() -> None:
    """Everybody sees both leads, the older one wins, the younger one is taken back."""

    async def scenario() -> None:
        world = World()
        clients = [Client(world) for _ in range(4)]
        found = await asyncio.gather(*(client.parent(number(1)) for client in clients))
        assert len(set(found)) == 1
        assert [row["id"] for row in world.dump("Leads")] == [found[0].id]
        withdrawn = [each for client in clients for each in client.told.withdrawn]
        assert withdrawn == [True] * (world.operations()["records.insert"] - 1)
        assert withdrawn

    run(scenario())


def test_two_forms_of_one_number_in_a_race_are_seen_as_one() -> None:
    """A Brazilian with and without the ninth digit, created at once by two processes."""

    async def scenario() -> None:
        world = World()
        found = await asyncio.gather(
            Client(world).parent("+5511987654321"),
            Client(world).parent("+551187654321"),
        )
        assert found[0] == found[1]
        assert len(world.dump("Leads")) == 1

    run(scenario())


def test_a_race_is_settled_later_when_the_second_look_fails() -> None:
    """The look after the creation gets no answer: the next attempt makes up for it."""

    async def scenario() -> None:
        world = World()
        first, second = Client(world), Client(world)
        plan = world.fault(Answer(status=500, body="<html>"), operation="coql", times=10, predicate=_is_second_look)
        found = await asyncio.gather(first.parent(number(1)), second.parent(number(1)))
        assert plan.fired == 10
        assert found[0] == found[1]
        assert len(world.dump("Leads")) == 1

    run(scenario())


def _is_second_look(call: Any) -> bool:
    return "Created_Time from Leads" in call.payload["select_query"]


async def with_a_stuck_twin(world: World, answer: Answer, *, times: int | None = None) -> Client:
    """Who made the younger of two leads of person 1, and cannot delete it."""
    clients = [Client(world), Client(world)]
    for client in clients:
        await client.sink.prepare()
    world.fault(answer, operation="records.delete_one", times=times)
    found = await asyncio.gather(*(client.resolve(number(1)) for client in clients))
    [young] = [client for client, [each] in zip(clients, found, strict=True) if isinstance(each, Deferred)]
    return young


@pytest.mark.parametrize("answer", [LOCKED, BROKEN])
def test_a_twin_that_cannot_be_deleted_holds_up_its_own_person_alone_and_not_for_ever(answer: Answer) -> None:
    """The others are found at once; after a few tries the person gets the older lead, and what stays is told."""

    async def scenario() -> None:
        world = World()
        young = await with_a_stuck_twin(world, answer)
        mates = [world.insert("Leads", Phone=number(index)) for index in range(2, 5)]
        kinds = []
        for _ in range(4):
            first, *others = await young.resolve(*map(number, range(1, 5)))
            assert [each.id for each in others] == mates
            kinds.append(type(first))
        assert kinds == [Deferred] * 3 + [Parent]
        elder, twin = (row["id"] for row in world.dump("Leads") if row["Phone"] == number(1))
        assert first.id == min(elder, twin)
        assert young.told.withdrawn == [False]

    run(scenario())


def test_batches_of_others_do_not_pay_for_a_twin_that_cannot_be_deleted() -> None:
    """Its deletion is tried with the tries of its person."""

    async def scenario() -> None:
        world = World()
        young = await with_a_stuck_twin(world, BROKEN)
        before = world.operations()["records.delete_one"]
        for index in range(2, 12):
            await young.resolve(number(index))
        assert world.operations()["records.delete_one"] == before

    run(scenario())


def test_a_twin_for_which_nobody_asks_any_more_is_deleted_when_that_is_possible_again() -> None:
    """Its messages were taken away by a rebalance: other work of the process makes up for it, once in a while."""

    async def scenario() -> None:
        world = World()
        young = await with_a_stuck_twin(world, LOCKED, times=6)
        for index in range(2, 6):
            await asyncio.sleep(90)
            await young.resolve(number(index))
        assert sum(row["Phone"] == number(1) for row in world.dump("Leads")) == 1
        assert young.told.withdrawn == [True]

    run(scenario())


@pytest.mark.parametrize("when", ["at_once", "late", "never"])
@pytest.mark.parametrize("how", [DropKind.RESET, DropKind.HANG, DropKind.CUT])
def test_a_creation_whose_answer_was_lost_makes_one_lead(when: str, how: DropKind) -> None:
    """Whether Zoho had stored it, stores it a minute later, or never: one lead in the end."""

    async def scenario() -> None:
        world = World()
        action: Any = {
            "at_once": Drop(how=how, commit=True),
            "never": Drop(how=how, commit=False),
            "late": LateEffect(effect_after_s=58, how=how),
        }[when]
        world.fault(action, operation="records.insert")
        await Client(world).parent(number(1))
        await asyncio.sleep(100)
        assert len(world.dump("Leads")) == 1
        assert world.operations()["records.search"] <= 4

    run(scenario())


@pytest.mark.parametrize(
    "action",
    [
        Answer(status=500, body="<html>", commit=True),
        Answer(status=502, body="", commit=True),
        Garble(),
        Throttle(),
        FailRow(code="INTERNAL_ERROR", index=0, commit=True),
        FailRow(code="RECORD_LOCKED", index=0),
        Answer(status=201, body={"data": []}, commit=True),
    ],
)
def test_an_unclear_answer_to_a_creation_makes_one_lead(action: Any) -> None:
    """HTML, cut JSON, too few answers, a failure that was none: look before making another."""

    async def scenario() -> None:
        world = World()
        world.fault(action, operation="records.insert")
        client = Client(world)
        for _ in range(100):
            found = await client.resolve(number(1), number(2))
            if all(isinstance(each, Parent) for each in found):
                break
            await asyncio.sleep(2)
        assert sorted(row["Phone"] for row in world.dump("Leads")) == [number(1), number(2)]

    run(scenario())


def test_a_remembered_record_that_is_gone_is_looked_up_again_once() -> None:
    """Deleted: the next message finds out and makes a new lead; the message is there with its new parent."""

    async def scenario() -> None:
        world = World()
        client = Client(world)
        old = await client.parent(number(1))
        world.step("delete", module="Leads", record_id=old.id)
        await client.deliver([delivery(f"m{index}", number(1)) for index in range(5)])
        [lead] = world.dump("Leads")
        assert lead["id"] != old.id
        assert {row["Lead"]["id"] for row in world.dump("Messages")} == {lead["id"]}
        assert world.operations()["records.insert"] == 2

    run(scenario())


@pytest.mark.parametrize("form", ["field", "id"])
def test_a_remembered_lead_that_was_merged_or_converted_is_followed(form: str) -> None:
    """Merged: the master; converted: the contact."""

    async def scenario() -> None:
        world = World({"lookup_fault_form": form})
        client = Client(world)
        merged, converted = await client.parent(number(1)), await client.parent(number(2))
        master = world.insert("Leads", Mobile=number(1))
        world.step("merge", lead_id=merged.id, into=master)
        contact = world.step("convert", lead_id=converted.id)
        await client.deliver([delivery("m1", number(1)), delivery("m2", number(2))])
        rows = {row["Message_ID"]: row for row in world.dump("Messages")}
        assert rows["m1"]["Lead"]["id"] == master
        assert rows["m2"]["Contact"]["id"] == contact
        assert world.engine.violations() == []

    run(scenario())


def test_a_converted_lead_whose_contact_is_gone_gets_a_new_lead() -> None:
    """The old lead still names the contact; a link to it is refused, and that is checked before it is believed."""

    async def scenario() -> None:
        world = World()
        lead = world.insert("Leads", Phone=number(1))
        contact = world.step("convert", lead_id=lead)
        client = Client(world)
        assert (await client.parent(number(1))).id == contact
        world.step("delete", module="Contacts", record_id=contact)
        await client.deliver([delivery("m1", number(1))])
        [row] = world.dump("Messages")
        assert row["Lead"]["id"] != lead

    run(scenario())


def test_a_deleted_lead_that_queries_still_show_is_not_believed() -> None:
    """If the read without delay lags after all, the refused link is checked by the record itself."""

    async def scenario() -> None:
        world = World({"coql_lag_s": (0.0, 0.0)})
        client = Client(world)
        old = await client.parent(number(1))
        world.step("configure", coql_lag_s=[600, 600], search_lag_s=[600, 600])
        world.step("delete", module="Leads", record_id=old.id)
        assert await client.deliver([delivery("m1", number(1))]) == [Delivered()]
        [lead] = world.dump("Leads")
        assert lead["id"] != old.id

    run(scenario())


def test_many_deleted_leads_of_a_person_are_not_believed() -> None:
    """Somebody tidied up twenty double leads, and the search shows them all for some time yet."""

    async def scenario() -> None:
        world = World()
        old = [world.insert("Leads", Phone="+7 (916) 000-00.01") for _ in range(20)]
        await asyncio.sleep(600)
        world.step("configure", search_lag_s=[600, 600])
        for gone in old:
            world.step("delete", module="Leads", record_id=gone)
        assert await Client(world).deliver([delivery("m1", number(1))]) == [Delivered()]
        [lead] = world.dump("Leads")
        assert lead["id"] not in old

    run(scenario())


def test_a_refused_link_to_a_lead_that_is_there_makes_no_second_lead() -> None:
    """The field may point to another module: then the message is at fault, and its person stays one lead."""

    async def scenario() -> None:
        world = World()
        world.step("set_field", module="Messages", api_name="Lead", lookup="Contacts")
        client = Client(world)
        [outcome] = await client.deliver([delivery("m1", number(1))])
        assert isinstance(outcome, Rejected)
        assert outcome.reason == "zoho.INVALID_DATA"
        assert len(world.dump("Leads")) == 1

    run(scenario())


def test_what_zoho_finds_too_complex_is_halved() -> None:
    """A query that is refused is asked in smaller parts, and everybody is found."""

    async def scenario() -> None:
        world = World()
        ids = [world.insert("Leads", Phone=number(index)) for index in range(40)]
        client = Client(world)
        client.send = client.send
        world.fault(
            Answer(status=400, body={"code": "LIMIT_EXCEEDED", "details": {}, "message": "", "status": "error"}),
            times=None,
            predicate=lambda call: (
                "select_query" in (call.payload or {}) and call.payload["select_query"].count("+7") > 60
            ),
        )
        found = await client.resolve(*map(number, range(40)))
        assert [each.id for each in found] == ids

    run(scenario())


def test_a_look_up_that_is_refused_for_one_person_halts_and_says_so() -> None:
    """Nobody is made anew because the look-up does not work."""

    async def scenario() -> None:
        world = World()
        client = Client(world)
        body = {"code": "INVALID_QUERY", "details": {}, "message": "invalid query formed", "status": "error"}
        world.fault(Answer(status=400, body=body), times=None, operation="coql")
        [found] = await client.resolve(number(1))
        assert found == Deferred("INVALID_QUERY", halted=True)
        assert [halt[:2] for halt in client.gate.halts()] == [("people.find", "INVALID_QUERY")]
        assert world.dump("Leads") == []

    run(scenario())


UNKNOWN = [
    Answer(status=400, body="<html>400 Bad Request</html>", headers={"content-type": "text/html"}),
    Answer(status=400, body={"code": "UNABLE_TO_PARSE", "details": {}, "message": "", "status": "error"}),
    Answer(status=422, body=None),
]


@pytest.mark.parametrize("answer", UNKNOWN)
def test_a_search_that_is_refused_for_an_unknown_reason_makes_no_second_lead(answer: Answer) -> None:
    """It says nothing about who is there: the person is put off and found later, its batch-mates at once."""

    async def scenario() -> None:
        world = World()
        odd = world.insert("Leads", Phone="+7.916.000.00.01")
        refused = world.fault(
            answer,
            operation="records.search",
            times=4,
            predicate=lambda call: "0000001" in "".join(call.params.values()),
        )
        client = Client(world)
        first, *others = await client.resolve(*map(number, range(1, 5)))
        assert isinstance(first, Deferred)
        assert not first.halted
        assert all(isinstance(each, Parent) for each in others)
        assert (await client.parent(number(1))).id == odd
        assert refused.fired == 4
        assert len(world.dump("Leads")) == 4

    run(scenario())


def test_a_search_that_is_refused_for_ever_counts_as_a_refusal_after_a_few_tries() -> None:
    """Nobody waits for ever because of a code that no table knows."""

    async def scenario() -> None:
        world = World()
        client = Client(world)
        world.fault(UNKNOWN[0], operation="records.search", times=None)
        outcomes = [(await client.resolve(number(1)))[0] for _ in range(5)]
        assert [type(each) for each in outcomes] == [Deferred] * 4 + [Parent]

    run(scenario())


def test_one_unknown_refusal_does_not_end_the_search_for_converted_leads() -> None:
    """Only an answer that means it teaches that Zoho does not know the parameter."""

    async def scenario() -> None:
        world = World()
        client = Client(world)
        world.fault(UNKNOWN[0], operation="records.search", predicate=_asks_for_converted)
        await client.parent(number(1))
        later = world.fault(Throttle(), operation="records.search", predicate=_asks_for_converted)
        await client.parent(number(2))
        assert later.fired == 1

    run(scenario())


def _asks_for_converted(call: Any) -> bool:
    return "converted" in call.params


@pytest.mark.parametrize("answer", UNKNOWN)
def test_a_query_that_is_refused_for_an_unknown_reason_puts_off_its_person_alone(answer: Answer) -> None:
    """The others are found, nothing halts, and nobody is made twice."""

    async def scenario() -> None:
        world = World()
        ids = [world.insert("Leads", Phone=number(index)) for index in range(4)]
        client = Client(world)
        await client.sink.prepare()
        world.fault(
            answer,
            operation="coql",
            times=6,
            predicate=lambda call: number(3) in call.payload["select_query"],
        )
        *others, last = await client.resolve(*map(number, range(4)))
        assert [each.id for each in others] == ids[:3]
        assert isinstance(last, Deferred)
        assert client.gate.halts() == []
        assert (await client.parent(number(3))).id == ids[3]
        assert len(world.dump("Leads")) == 4

    run(scenario())


def test_queries_that_are_all_refused_for_an_unknown_reason_hold_everybody() -> None:
    """Then it is not the people: it is said, costs few calls, and when it is over all are found."""

    async def scenario() -> None:
        world = World()
        ids = [world.insert("Leads", Phone=number(index)) for index in range(64)]
        client = Client(world)
        await client.sink.prepare()
        before = world.calls()
        trouble = world.fault(UNKNOWN[0], operation="coql", times=None)
        found = await client.resolve(*map(number, range(64)))
        assert all(each.halted for each in found)
        assert world.calls() - before < 30
        trouble.times = 0
        await asyncio.sleep(60)
        assert [each.id for each in await client.resolve(*map(number, range(64)))] == ids

    run(scenario())


@pytest.mark.parametrize("answer", UNKNOWN)
def test_a_record_that_cannot_be_read_for_an_unknown_reason_is_not_taken_for_gone(answer: Answer) -> None:
    """Two processes created one person; the elder lead is read before the younger one is taken back."""

    async def scenario() -> None:
        world = World()
        clients = [Client(world), Client(world)]
        for client in clients:
            await client.sink.prepare()
        refused = world.fault(answer, operation="records.get", times=2)
        found = await asyncio.gather(*(client.parent(number(1)) for client in clients))
        assert refused.fired == 2
        assert found[0] == found[1]
        assert len(world.dump("Leads")) == 1

    run(scenario())


def test_a_deletion_that_is_refused_for_an_unknown_reason_is_tried_again() -> None:
    """One strange answer leaves no second lead."""

    async def scenario() -> None:
        world = World()
        young = await with_a_stuck_twin(world, UNKNOWN[0], times=2)
        await young.parent(number(1))
        assert len(world.dump("Leads")) == 1
        assert young.told.withdrawn == [True]

    run(scenario())


def test_finding_somebody_for_a_link_takes_no_unknown_refusal_for_an_answer() -> None:
    """Whoever asks is told that there was none, however often; nor does that count for the messages."""

    async def scenario() -> None:
        world = World()
        client = Client(world)
        await client.sink.prepare()
        world.fault(UNKNOWN[0], operation="records.search", times=None)
        person = client.phones.person(number(1))
        for _ in range(6):
            with pytest.raises(TransientError):
                await client.people.find(person)
        assert isinstance((await client.resolve(number(1)))[0], Deferred)

    run(scenario())


@pytest.mark.parametrize("knows_fields", [True, False])
def test_an_organisation_without_mobile_fields(knows_fields: bool) -> None:
    """With the right to read fields it is told once; without it the first refused query teaches it."""

    async def scenario() -> None:
        world = World()
        for module in ("Leads", "Contacts"):
            world.step("remove_field", module=module, api_name="Mobile")
        if not knows_fields:
            world.step("revoke_scope", scope="ZohoCRM.settings.ALL")
        lead = world.insert("Leads", Phone=number(1))
        client = Client(world)
        assert (await client.parent(number(1))).id == lead
        refused = sum(entry.status == 400 for entry in world.engine.journal.calls)
        await client.parent(number(2))
        assert sum(entry.status == 400 for entry in world.engine.journal.calls) == refused
        assert client.gate.halts() == []
        assert client.told.missing == ([("Leads", "Mobile"), ("Contacts", "Mobile")] if knows_fields else [])

    run(scenario())


def test_the_read_without_delay_comes_first_and_search_only_before_creating() -> None:
    """A lead made a second ago is found although search does not show it; who is found is not searched for."""

    async def scenario() -> None:
        world = World({"search_lag_s": (1e6, 1e6)})
        lead = world.insert("Leads", Phone=number(1))
        assert (await Client(world).parent(number(1))).id == lead
        assert world.operations()["records.search"] == 0

    run(scenario())


def test_a_missing_right_to_search_creates_nobody() -> None:
    """Without the search a person might be made twice: work halts and says so."""

    async def scenario() -> None:
        world = World()
        world.step("revoke_scope", scope="ZohoSearch.securesearch.READ")
        client = Client(world)
        [found] = await client.resolve(number(1))
        assert (found.code, found.halted) == ("OAUTH_SCOPE_MISMATCH", True)
        assert world.dump("Leads") == []

    run(scenario())


def test_a_look_up_that_fails_leaves_no_calls_behind() -> None:
    """While a right is missing, attempts do not pile up calls that wait for nobody."""

    async def scenario() -> None:
        world = World()
        world.step("revoke_scope", scope="ZohoSearch.securesearch.READ")
        client = Client(world)
        for _ in range(5):
            await client.resolve(*map(number, range(40)))
        await asyncio.sleep(0)
        assert len(asyncio.all_tasks()) == 1
        assert client.turnstile.waiting == 0

    run(scenario())


def test_without_the_right_to_read_fields_a_converted_lead_is_followed_all_the_same() -> None:
    """Queries cannot ask for what is not known; the refused link leads to the record, and that to the contact."""

    async def scenario() -> None:
        world = World()
        world.step("revoke_scope", scope="ZohoCRM.settings.ALL")
        lead = world.insert("Leads", Phone=number(1))
        contact = world.step("convert", lead_id=lead)
        world.step("update", module="Contacts", record_id=contact, changes={"Phone": ""})
        client = Client(world)
        assert await client.deliver([delivery("m1", number(1))]) == [Delivered()]
        assert client.told.unreadable == ["OAUTH_SCOPE_MISMATCH"] * 3
        [row] = world.dump("Messages")
        assert row["Contact"]["id"] == contact

    run(scenario())


def test_a_person_whose_lead_zoho_refuses_is_rejected_and_the_others_are_not() -> None:
    """One bad record of a batch does not stop the rest."""

    async def scenario() -> None:
        world = World()
        client = Client(world)
        details = {"api_name": "Phone", "expected_data_type": "phone"}
        world.fault(
            FailRow(code="INVALID_DATA", key="Phone", value=number(3), details=details), operation="records.insert"
        )
        found = await client.resolve(*map(number, range(6)))
        assert [isinstance(each, Parent) for each in found] == [True, True, True, False, True, True]
        assert found[3] == Rejected(found[3].stage, "zoho.INVALID_DATA", "Phone expected_data_type=phone")

    run(scenario())


def test_a_refused_batch_is_split_until_the_bad_record_stands_alone() -> None:
    """A call that Zoho refuses as a whole costs one record, not a hundred."""

    async def scenario() -> None:
        world = World()
        client = Client(world)
        world.fault(
            Answer(status=400, body={"code": "INVALID_DATA", "details": {}, "message": "body", "status": "error"}),
            times=None,
            operation="records.insert",
            predicate=lambda call: any(row["Phone"] == number(5) for row in call.data()),
        )
        found = await client.resolve(*map(number, range(16)))
        assert [index for index, each in enumerate(found) if not isinstance(each, Parent)] == [5]

    run(scenario())


def test_an_unknown_code_for_one_lead_is_tried_a_few_times_then_rejected() -> None:
    """Nobody knows whose fault it is, so it is not tried for ever."""

    async def scenario() -> None:
        world = World()
        client = Client(world)
        world.fault(FailRow(code="BRAND_NEW_CODE", index=0, details={}), times=None, operation="records.insert")
        outcomes = [(await client.resolve(number(1)))[0] for _ in range(5)]
        assert [type(each) for each in outcomes] == [Deferred] * 4 + [Rejected]

    run(scenario())


def test_tries_that_held_everybody_count_against_nobody() -> None:
    """A code that struck all of a batch for some minutes leaves each person all its own tries."""

    async def scenario() -> None:
        world = World()
        client = Client(world)
        body = {"code": "BRAND_NEW_CODE", "details": {}, "message": "", "status": "error"}
        world.fault(Answer(status=400, body=body), operation="records.insert", times=None)
        for _ in range(6):
            found = await client.resolve(*map(number, range(4)))
            assert all(each.halted for each in found)
            await asyncio.sleep(60)
        outcomes = [(await client.resolve(number(0)))[0] for _ in range(5)]
        assert [type(each) for each in outcomes] == [Deferred] * 4 + [Rejected]

    run(scenario())


def test_a_wrong_assignment_rule_halts_and_names_the_setting() -> None:
    """A setting that Zoho does not know is no fault of the people."""

    async def scenario() -> None:
        client = Client(World(), options=LeadOptions(assignment_rule_id="4711"))
        [found] = await client.resolve(number(1))
        assert found.halted
        assert "ZOHO_ASSIGNMENT_RULE_ID" in client.gate.halts()[0][2]

    run(scenario())


def test_a_last_name_field_that_is_shorter_is_learned() -> None:
    """Without the right to read fields, a refusal tells the length; the name is cut and the lead made."""

    async def scenario() -> None:
        world = World()
        world.step("revoke_scope", scope="ZohoCRM.settings.ALL")
        world.step("set_field", module="Leads", api_name="Last_Name", length=20)
        client = Client(world)
        await client.deliver([delivery(f"m{each}", number(each), contact_name="A" * 70) for each in range(3)])
        assert {len(row["Last_Name"]) for row in world.dump("Leads")} == {20}

    run(scenario())


def test_find_looks_and_never_creates() -> None:
    """For the link in the admin panel."""

    async def scenario() -> None:
        world = World()
        client = Client(world)
        await client.sink.prepare()
        assert await client.people.find(client.phones.person(number(1))) is None
        lead = world.insert("Leads", Mobile=number(1))
        assert await client.people.find(client.phones.person(number(1))) == Parent(Module.LEADS, lead)
        assert len(world.dump("Leads")) == 1

    run(scenario())
