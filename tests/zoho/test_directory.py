"""New people are found in odd forms without a search for each: all odd numbers are read, and then what changed."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consumer.core.model import Deferred, Module, Parent
from consumer.zoho.directory import Directory
from consumer.zoho.people import MatchPolicy
from sandbox.zoho import Answer, Drop, DropKind, Throttle
from tests.zoho.room import EPOCH_S, Client, World, number, run

NEVER = (1e6, 1e6)
"""A search index that shows nothing in the time of a test."""


def odd(index: int) -> str:
    """The number of the same index, as nobody can list it."""
    return f"7.916.{index:07d}"


def searches(world: World) -> int:
    return world.operations()["records.search"]


def readings(world: World) -> int:
    """Pages of the directory."""
    return sum("Modified_Time >=" in str(entry.detail) for entry in world.engine.journal.calls)


async def known(client: Client, *, people: int = 10, start: int = 900_000) -> Client:
    """A client that has read everything, for so many people who are new."""
    await client.resolve(*(number(start + index) for index in range(people)))
    return client


@pytest.mark.parametrize("module", ["Leads", "Contacts"])
@pytest.mark.parametrize("field", ["Phone", "Mobile"])
def test_odd_numbers_are_found_without_a_search(module: str, field: str) -> None:
    """In either field of either module, at once, although the search index shows nothing yet."""

    async def scenario() -> None:
        world = World({"search_lag_s": NEVER})
        ids = [world.insert(module, **{field: odd(index)}) for index in range(5)]
        client = Client(world, directory_from=10)
        found = await client.resolve(*map(number, range(20)))
        assert [parent.id for parent in found[:5]] == ids
        assert len(world.dump("Leads")) == (20 if module == "Leads" else 15)
        assert searches(world) == 0
        assert world.engine.violations() == []

    run(scenario())


def test_few_new_people_are_searched_for() -> None:
    """Fewer than the setting says: reading everything for them would be dearer."""

    async def scenario() -> None:
        world = World()
        lead = world.insert("Leads", Phone=odd(1))
        client = Client(world, directory_from=10)
        found = await client.resolve(*map(number, range(9)))
        assert found[1].id == lead
        assert searches(world) == 18

    run(scenario())


def test_one_person_is_not_searched_for_once_all_is_read() -> None:
    """What a new person costs then is what has changed: two calls, as the searches did."""

    async def scenario() -> None:
        world = World({"search_lag_s": NEVER})
        rows = [{"Last_Name": "X", "Phone": number(100_000 + index)} for index in range(3000)]
        world.step("insert", module="Leads", records=rows)
        await asyncio.sleep(60)
        world.insert("Leads", Phone=number(200_000))
        client = await known(Client(world, directory_from=10))
        await asyncio.sleep(60)
        lead = world.insert("Contacts", Mobile=odd(1))
        credits = world.credits()
        assert await client.resolve(number(1)) == [Parent(Module.CONTACTS, lead)]
        assert searches(world) == 0
        assert world.credits() - credits <= 5

    run(scenario())


def test_many_pages_are_read_in_the_order_of_changes() -> None:
    """More records than fit into a page, many of them changed in one second, the odd ones among them found."""

    async def scenario() -> None:
        world = World({"search_lag_s": NEVER})
        rows = [{"Last_Name": "X", "Phone": odd(index) if index % 500 == 7 else number(index)} for index in range(5000)]
        ids = world.step("insert", module="Leads", records=rows)
        client = Client(world, directory_from=10)
        found = await client.resolve(*(number(index) for index in range(7, 5000, 500)))
        assert [parent.id for parent in found] == ids[7::500]
        assert searches(world) == 0

    run(scenario())


def test_reading_costs_at_most_what_the_searches_would() -> None:
    """A large organisation is read over several batches; until then they search, and nobody is made twice."""

    async def scenario() -> None:
        world = World()
        rows = [{"Last_Name": "X", "Phone": number(100_000 + index)} for index in range(20_000)]
        world.step("insert", module="Leads", records=rows)
        world.insert("Leads", Phone=odd(1))
        client = Client(world, directory_from=10)
        await client.sink.prepare()
        for start in range(0, 60, 10):
            before, searched = world.credits(), searches(world)
            await client.resolve(*map(number, range(start, start + 10)))
            assert world.credits() - before <= 2 + 20 + 20 + 1 + 1 + 6
            if searches(world) == searched:
                break
        assert 0 < start < 50
        assert len(world.dump("Leads")) == 20_001 + start + 9

    run(scenario())


def test_a_mass_import_is_read_by_and_by() -> None:
    """More has changed than a few people are worth: they are searched for, until all is read again."""

    async def scenario() -> None:
        world = World()
        client = await known(Client(world, directory_from=10))
        await asyncio.sleep(60)
        rows = [{"Last_Name": "X", "Phone": number(100_000 + index)} for index in range(700)]
        world.step("insert", module="Leads", records=rows)
        await asyncio.sleep(60)
        counts = []
        for index in range(8):
            before = searches(world)
            await client.resolve(number(index))
            counts.append(searches(world) - before)
        assert counts[0] == 2
        assert counts[-1] == 0

    run(scenario())


def test_what_a_user_typed_a_moment_ago_is_found() -> None:
    """A number changed to an odd form, and one created with it, although both stand behind the place read last."""

    async def scenario() -> None:
        world = World({"search_lag_s": NEVER})
        changed = world.insert("Leads", Phone="+441632960000")
        client = await known(Client(world, directory_from=10))
        for turn in range(3):
            world.step("update", module="Leads", record_id=changed, changes={"Phone": odd(turn)})
            assert (await client.resolve(number(turn)))[0].id == changed
        assert searches(world) == 0

    run(scenario())


def test_a_number_that_was_changed_since_is_not_taken() -> None:
    """The record is read again: it is somebody else's by now."""

    async def scenario() -> None:
        world = World({"search_lag_s": NEVER})
        lead = world.insert("Leads", Phone=odd(1))
        client = await known(Client(world, directory_from=10))
        world.step("update", module="Leads", record_id=lead, changes={"Phone": "+441632960000"})
        [found] = await client.resolve(number(1))
        assert found.id != lead
        assert {row["Phone"] for row in world.dump("Leads")} >= {"+441632960000", number(1)}

    run(scenario())


def test_a_record_that_was_deleted_or_merged_since() -> None:
    """Deleted: a new lead; merged: the other lead."""

    async def scenario() -> None:
        world = World({"search_lag_s": NEVER})
        deleted, merged = world.insert("Leads", Phone=odd(1)), world.insert("Leads", Phone=odd(2))
        client = await known(Client(world, directory_from=10))
        master = world.insert("Leads", Last_Name="Master")
        world.step("delete", module="Leads", record_id=deleted)
        world.step("merge", lead_id=merged, into=master)
        first, second = await client.resolve(number(1), number(2))
        assert first.id not in (deleted, master)
        assert second == Parent(Module.LEADS, master)

    run(scenario())


@pytest.mark.parametrize("may_read_fields", [True, False])
@pytest.mark.parametrize("is_known", [True, False])
def test_a_converted_lead_leads_to_its_contact(may_read_fields: bool, is_known: bool) -> None:
    """Converted before or after it was read, with or without the right to read fields."""

    async def scenario() -> None:
        world = World({"search_lag_s": NEVER})
        if not may_read_fields:
            world.step("revoke_scope", scope="ZohoCRM.settings.ALL")
        lead = world.insert("Leads", Phone=odd(1))
        client = Client(world, directory_from=10)
        if is_known:
            await known(client)
        contact = world.step("convert", lead_id=lead)
        world.step("update", module="Contacts", record_id=contact, changes={"Phone": "", "Mobile": ""})
        found = await client.resolve(*map(number, range(1, 11)))
        assert found[0] == Parent(Module.CONTACTS, contact)
        assert searches(world) == 0

    run(scenario())


@pytest.mark.parametrize(("prefer", "expected"), [("contact", "Contacts"), ("lead", "Leads")])
def test_several_records_are_decided_by_policy_and_counted(prefer: str, expected: str) -> None:
    """As with the search: all records of the person stand to choice together."""

    async def scenario() -> None:
        world = World({"search_lag_s": NEVER})
        for module in ("Leads", "Contacts", "Leads"):
            world.insert(module, Phone=odd(1))
        client = Client(world, directory_from=1, policy=MatchPolicy(prefer))
        [found] = await client.resolve(number(1))
        assert found.module == expected
        assert client.told.ambiguous == 1

    run(scenario())


def test_who_was_created_while_everything_was_read_is_not_made_again() -> None:
    """A long reading leaves time for a user to create the person: the forms are looked for once more."""

    async def scenario() -> None:
        world = World({"search_lag_s": NEVER})
        rows = [{"Last_Name": "X", "Phone": number(100_000 + index)} for index in range(9000)]
        world.step("insert", module="Leads", records=rows)
        client = Client(world, directory_from=10)
        await client.sink.prepare()
        resolving = asyncio.create_task(client.resolve(*map(number, range(20))))
        await asyncio.sleep(1.5)
        contact = world.insert("Contacts", Phone=number(1))
        assert (await resolving)[1] == Parent(Module.CONTACTS, contact)
        assert searches(world) == 0

    run(scenario())


def test_batches_that_ask_together_share_a_reading() -> None:
    """Twenty batches at once cause few readings, and each sees what stood when it asked."""

    async def scenario() -> None:
        world = World({"search_lag_s": NEVER})
        client = await known(Client(world, directory_from=10))
        lead = world.insert("Leads", Phone=odd(19))
        before = readings(world)
        found = await asyncio.gather(*(client.resolve(number(index)) for index in range(20)))
        assert found[19][0].id == lead
        assert readings(world) - before <= 2 * 2

    run(scenario())


REFUSED: list[Any] = [
    Answer(status=400, body={"code": "INVALID_QUERY", "details": {}, "message": "", "status": "error"}),
    Answer(status=400, body={"code": "SYNTAX_ERROR", "details": {}, "message": "", "status": "error"}),
    Answer(status=403, body={"code": "NO_PERMISSION", "details": {}, "message": "", "status": "error"}),
    Answer(status=404, body="<html>"),
    Answer(status=200, body={"data": [{"id": "1", "Phone": "1"}], "info": {"more_records": True}}),
    Answer(status=200, body={"data": [], "info": {"more_records": True}}),
    Answer(
        status=200,
        body={
            "data": [
                {"id": "2", "Phone": "1", "Modified_Time": "2026-01-02T00:00:00+00:00"},
                {"id": "1", "Phone": "1", "Modified_Time": "2026-01-01T00:00:00+00:00"},
            ]
        },
    ),
]


def _is_reading(call: Any) -> bool:
    return "Modified_Time >=" in (call.payload or {}).get("select_query", "")


def _is_reading_of_leads(call: Any) -> bool:
    return _is_reading(call) and " from Leads " in call.payload["select_query"]


@pytest.mark.parametrize("action", REFUSED)
def test_an_organisation_that_does_not_take_the_query_is_searched(action: Any) -> None:
    """It is given up at once and for good, told, nothing halts, and everybody is found."""

    async def scenario() -> None:
        world = World()
        ids = [world.insert("Leads", Phone=odd(index)) for index in range(12)]
        plan = world.fault(action, times=None, operation="coql", predicate=_is_reading)
        client = Client(world, directory_from=10)
        closed: list[Any] = []
        client.gate.close = lambda *args, **_named: closed.append(args)  # type: ignore[method-assign]
        assert [parent.id for parent in await client.resolve(*map(number, range(12)))] == ids
        fired = plan.fired
        await known(client)
        assert plan.fired == fired
        assert closed == []
        assert client.told.people["directory_refused"] == 1

    run(scenario())


@pytest.mark.parametrize("hidden", ["everything", "converted"])
def test_queries_that_hide_records_are_not_relied_on(hidden: str) -> None:
    """What a plain read shows and a query does not would be made a second time."""

    async def scenario() -> None:
        world = World({"coql_finds_converted": hidden != "converted"})
        lead = world.insert("Leads", Phone=odd(1))
        contact = world.step("convert", lead_id=lead)
        world.step("update", module="Contacts", record_id=contact, changes={"Phone": "", "Mobile": ""})
        if hidden == "everything":
            world.fault(Answer(status=204), times=None, operation="coql", predicate=_is_reading)
        client = Client(world, directory_from=10)
        found = await client.resolve(*map(number, range(12)))
        assert found[1] == Parent(Module.CONTACTS, contact)
        assert client.told.people["directory_refused"] == 1

    run(scenario())


async def in_tens(client: Client, count: int) -> list[Any]:
    """The leads of so many people, as batches ask for them."""
    parts = [await client.resolve(*map(number, range(start, start + 10))) for start in range(0, count, 10)]
    return [parent for part in parts for parent in part]


@pytest.mark.parametrize("times", [1, 1000])
def test_a_reading_that_is_refused_for_an_unknown_reason_is_tried_a_few_times(times: int) -> None:
    """One strange answer does not make the process search for everybody until its end."""

    async def scenario() -> None:
        world = World()
        ids = [world.insert("Leads", Phone=odd(index)) for index in range(40)]
        world.fault(Answer(status=400, body="<html>"), times=times, operation="coql", predicate=_is_reading)
        client = Client(world, directory_from=10)
        assert [parent.id for parent in await in_tens(client, 40)] == ids
        assert client.told.people["directory_refused"] == (times == 1000)

    run(scenario())


@pytest.mark.parametrize(
    "action", [Throttle(), Answer(status=500, body="<html>"), Drop(how=DropKind.RESET, commit=False)]
)
@pytest.mark.parametrize("times", [1, 4, 1000])
def test_trouble_with_a_reading_stops_nobody(action: Any, times: int) -> None:
    """It is read again, or searched; nobody is made anew, and nobody waits for ever."""

    async def scenario() -> None:
        world = World()
        ids = [world.insert("Leads", Phone=odd(index)) for index in range(40)]
        world.fault(
            action, times=times if not isinstance(action, Throttle) else 1, operation="coql", predicate=_is_reading
        )
        client = Client(world, directory_from=10)
        assert [parent.id for parent in await in_tens(client, 40)] == ids
        assert client.told.people["directory_refused"] == (times == 1000 and not isinstance(action, Throttle))

    run(scenario())


def test_trouble_now_and_then_is_no_reason_to_give_up() -> None:
    """Only failures in a row are."""

    async def scenario() -> None:
        world = World()
        client = Client(world, directory_from=10)
        for turn in range(4):
            world.fault(Answer(status=500, body="<html>"), times=4, operation="coql", predicate=_is_reading_of_leads)
            for start in (2000 * turn, 2000 * turn + 1000):
                await known(client, start=start)
        assert client.told.people["directory_refused"] == 0

    run(scenario())


def test_an_organisation_full_of_odd_numbers_is_searched() -> None:
    """Memory is bounded: beyond so many odd numbers none is kept."""

    async def scenario() -> None:
        world = World()
        for index in range(5):
            world.insert("Leads", Phone=odd(index))
        client = Client(world)
        given_up: list[bool] = []
        directory = Directory(
            client.send,
            client.phones,
            phone_fields=lambda _module: ["Phone", "Mobile"],
            worth_from=1,
            on_given_up=lambda: given_up.append(True),
            max_odd=4,
        )
        assert await directory.current(100) is None
        assert given_up == [True]

    run(scenario())


def test_a_candidate_that_cannot_be_read_is_searched_for() -> None:
    """The query for records by id is refused: the directory is given up, and the person found."""

    async def scenario() -> None:
        world = World()
        lead = world.insert("Leads", Phone=odd(1))
        client = await known(Client(world, directory_from=10))
        world.fault(REFUSED[0], operation="coql", predicate=lambda call: "where (id in" in call.payload["select_query"])
        assert (await client.resolve(number(1)))[0].id == lead
        assert client.told.people["directory_refused"] == 1

    run(scenario())


def test_without_a_token_everything_waits() -> None:
    """A token that is refused while the directory is read is no reason to give it up, nor to create anybody."""

    async def scenario() -> None:
        world = World()
        client = await known(Client(world, directory_from=10))
        leads = len(world.dump("Leads"))
        world.step("revoke_refresh_token")
        world.step("expire_access_tokens")
        [found] = await client.resolve(number(1))
        assert isinstance(found, Deferred)
        assert found.halted
        assert len(world.dump("Leads")) == leads
        assert client.told.people["directory_refused"] == 0

    run(scenario())


def test_everything_is_read_again_after_a_day() -> None:
    """A record that was restored with its old time stands where the reading has been already."""

    async def scenario() -> None:
        world = World({"search_lag_s": NEVER})
        client = await known(Client(world, directory_from=10))
        await asyncio.sleep(60)
        await known(client, start=910_000)
        restored = world.insert("Leads", Phone=odd(1))
        table = world.engine.org.table(world.engine.org.schema.module("Leads"))
        row = table.get(restored)
        assert row
        table.put(row._replace(modified_at_s=EPOCH_S - 1e6))
        await asyncio.sleep(90_000)
        found = await client.resolve(*map(number, range(1, 11)))
        assert found[0].id == restored

    run(scenario())


@pytest.mark.parametrize(
    ("phone", "stored"),
    [
        ("+5491123456789", "011 15 2345 6789"),
        ("+491705550001", "+49 (0)170 5550001 ext 12"),
        ("+491705550001", "0170 5550001 x12"),
    ],
)
def test_more_is_found_than_the_search_finds(phone: str, stored: str) -> None:
    """Digits within the number, as Argentina writes mobiles, and an extension behind it."""

    async def scenario() -> None:
        world = World()
        lead = world.insert("Leads", Last_Name="X")
        table = world.engine.org.table(world.engine.org.schema.module("Leads"))
        row = table.get(lead)
        assert row
        table.put(row._replace(values={**row.values, "Phone": stored}))
        assert (await Client(world, directory_from=1).resolve(phone))[0].id == lead

    run(scenario())


# -- the same as the search ---------------------------------------------------------------------------------------

PEOPLE = (
    ("+79161234567", "7.916.123.45.67", "8 916 123 4567", "+7(916)1234567", "+79161234567"),
    ("+491705550001", "0170.555 00 01", "+49 (0)170 5550001", "(0170) 555-0001", "0049 170 555 0001"),
    ("+14155552671", "415.555.2671", "+1 (415) 555-2671", "1-415-555-2671", "(415) 5552671"),
    ("+5511987654321", "(11) 9.8765.4321", "11 8765 4321", "+55 11 8765.4321", "0 21 11 98765-4321"),
    ("+525512345678", "+52 1 55 1234.5678", "55.1234.5678", "+52 (55) 12345678", "+5215512345678"),
    ("+5491123456789", "+54.9.11.2345.6789", "+54 9 11 2345.6789", "+54 11 2345.6789", "11.2345.6789"),
    ("+442079460958", "(0)20 7946.0958", "+44 (0)20 7946-0958", "020.7946.0958", "442079460958"),
)


@st.composite
def organisations(draw: st.DrawFn) -> list[tuple[str, str, str, bool]]:
    """Records: module, field, number, and whether the lead was converted to a contact without a number."""
    record = st.tuples(
        st.sampled_from(["Leads", "Contacts"]),
        st.sampled_from(["Phone", "Mobile"]),
        st.sampled_from([form for person in PEOPLE for form in person]),
        st.booleans(),
    )
    return draw(st.lists(record, max_size=12))


@given(
    records=organisations(),
    region=st.sampled_from([None, "RU", "DE", "US", "BR", "AR", "MX"]),
    policy=st.builds(MatchPolicy, st.sampled_from(["contact", "lead"]), st.sampled_from(["oldest", "newest"])),
)
@settings(max_examples=60, deadline=None)
def test_the_directory_finds_whom_the_search_finds(
    records: list[tuple[str, str, str, bool]], region: str | None, policy: MatchPolicy
) -> None:
    """Whatever stands in the organisation, in whatever form, each person gets the same record."""

    async def found(directory_from: int) -> list[str]:
        world = World()
        for module, field, stored, is_converted in records:
            record_id = world.insert(module, **{field: stored})
            if module == "Leads" and is_converted:
                contact = world.step("convert", lead_id=record_id)
                world.step("update", module="Contacts", record_id=contact, changes={"Phone": "", "Mobile": ""})
        old = {row["id"] for module in ("Leads", "Contacts") for row in world.dump(module)}
        client = Client(world, region=region, policy=policy, directory_from=directory_from)
        parents = await client.resolve(*(person[0] for person in PEOPLE))
        assert (searches(world) == 0) == bool(directory_from)
        return [parent.id if parent.id in old else "new" for parent in parents]

    assert run(found(1)) == run(found(0))
