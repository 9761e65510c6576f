"""The message record: one for one message id, complete, and in a form that Zoho takes."""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import Any

import pytest

from consumer.core.model import Delivered, NotePolicy, Rejected
from consumer.zoho.messages import zoho_datetime
from sandbox.zoho import Answer, Drop, DropKind, FailRow, Garble, LateEffect, Throttle
from tests.zoho.room import Client, World, delivery, number, run

FULL = {
    "contact_name": "Anna",
    "text": "Hello\r\nthere\x00",
    "channel": "whatsapp",
    "attachments": [{"url": "https://files.example/1.jpg"}, {"url": "https://files.example/2.jpg"}],
    "campaign": {"id": "c1", "name": "Spring"},
    "agent": {"id": "a1", "name": "Oleg", "email": "oleg@example.com"},
    "origin": "chat",
    "direction": "outbound",
}


def test_every_field_is_written() -> None:
    """Each field of the contract, as the organisation's module has it."""

    async def scenario() -> None:
        world = World({"utc_offset_min": 0})
        await Client(world).deliver([delivery("m1", number(1), **FULL)])
        [row] = world.dump("Messages")
        [lead] = world.dump("Leads")
        assert row["Name"] == "Anna, 2026-01-05 07:12:30"
        assert row["Message_ID"] == "m1"
        assert row["Lead"]["id"] == lead["id"]
        assert row["Contact"] is None
        assert (row["Phone"], row["Direction"], row["Channel"], row["Origin"]) == (
            number(1),
            "outbound",
            "whatsapp",
            "chat",
        )
        assert (row["Campaign"], row["Agent"], row["Dialog_ID"]) == ("Spring", "Oleg", f"dialog-{number(1)}")
        assert row["Body"] == "Hello\nthere"
        assert row["Media_URLs"] == "https://files.example/1.jpg\nhttps://files.example/2.jpg"
        assert datetime.fromisoformat(row["Sent_At"]) == datetime.fromisoformat("2026-01-05T10:12:30+03:00")

    run(scenario())


@pytest.mark.parametrize(
    ("given", "written"),
    [
        ("2026-01-05T10:12:30.761+03:00", "2026-01-05T07:12:30+00:00"),
        ("2026-01-05T23:59:59.999999-11:00", "2026-01-06T10:59:59+00:00"),
        ("1970-01-01T00:00:00+14:00", "1969-12-31T10:00:00+00:00"),
    ],
)
def test_times_have_an_offset_and_no_fractions(given: str, written: str) -> None:
    """Zoho refuses milliseconds and `Z`."""
    assert zoho_datetime(datetime.fromisoformat(given)) == written


def test_long_texts_are_cut_with_a_mark_and_whole_addresses() -> None:
    """No text is too long for its field; a link is whole or left out."""

    async def scenario() -> None:
        world = World()
        urls = [{"url": f"https://files.example/{index}/{'x' * 90}"} for index in range(40)]
        long: dict[str, Any] = {
            "contact_name": "N" * 300,
            "text": "😀" * 40_000,
            "channel": "c" * 300,
            "attachments": urls,
        }
        long |= {"campaign": {"name": "C" * 300}, "agent": {"name": "A" * 300}, "dialog_id": "d" * 300}
        [outcome] = await Client(world).deliver([delivery("m1", number(1), **long)])
        [row] = world.dump("Messages")
        assert outcome == Delivered()
        assert row["Body"] == "😀" * 15_999 + "…"
        assert all(line == "…" or line in {item["url"] for item in urls} for line in row["Media_URLs"].splitlines())
        assert row["Media_URLs"].endswith("\n…")

    run(scenario())


def test_missing_optional_fields_are_left_out_and_told_once() -> None:
    """An organisation may keep less; a hundred messages do not tell it a hundred times."""

    async def scenario() -> None:
        world = World({"unknown_keys": "reject"})
        world.step("remove_field", module="Messages", api_name="Agent")
        world.step("remove_field", module="Messages", api_name="Media_URLs")
        client = Client(world)
        await client.deliver([delivery(f"m{index}", number(1), **FULL) for index in range(100)])
        assert len(world.dump("Messages")) == 100
        assert client.told.missing == [("Messages", "Media_URLs"), ("Messages", "Agent")]

    run(scenario())


def test_a_picklist_takes_its_own_spelling_or_nothing() -> None:
    """`inbound` where the list says `Inbound`; an option that is missing is left out and told once."""

    async def scenario() -> None:
        world = World()
        world.step("set_field", module="Messages", api_name="Direction", values=["Inbound", "Outbound"])
        world.step("set_field", module="Messages", api_name="Origin", values=["campaign"])
        client = Client(world)
        await client.deliver([delivery("m1", number(1)), delivery("m2", number(2))])
        rows = world.dump("Messages")
        assert {(row["Direction"], row["Origin"]) for row in rows} == {("Inbound", None)}
        assert client.told.missing == [("Messages", "Origin: an option of its list")]

    run(scenario())


def test_one_message_id_is_one_record_whatever_is_repeated() -> None:
    """A redelivery finds the record; its automations do not run again."""

    async def scenario() -> None:
        world = World()
        await Client(world).deliver([delivery("m1", number(1))])
        again = delivery("m1", number(1))
        again.may_exist = True
        await Client(world).deliver([again])
        await Client(world).deliver([delivery("m1", number(1))])
        assert len(world.dump("Messages")) == 1
        assert world.operations()["records.upsert"] == 2

    run(scenario())


@pytest.mark.parametrize("message_id", ["it's", "back\\slash", 'quote"', "(a),b", "{}", "ünïcode 😀", "a b", "x" * 255])
def test_ids_that_cannot_stand_in_a_query_are_delivered_once(message_id: str) -> None:
    """Quotes and backslashes are not asked for; the unique field keeps the record single."""

    async def scenario() -> None:
        world = World()
        for _ in range(2):
            repeated = delivery(message_id, number(1))
            repeated.may_exist = True
            assert await Client(world).deliver([repeated]) == [Delivered()]
        assert [row["Message_ID"] for row in world.dump("Messages")] == [message_id]
        assert not [entry for entry in world.engine.journal.calls if entry.operation == "coql" and entry.status == 400]

    run(scenario())


@pytest.mark.parametrize(
    "action",
    [
        Drop(how=DropKind.RESET, commit=True),
        Drop(how=DropKind.HANG, commit=False),
        Drop(how=DropKind.CUT, commit=True),
        LateEffect(effect_after_s=30),
        Answer(status=500, body="<html>", commit=True),
        Answer(status=503, body="", commit=False),
        Garble(),
        Throttle(),
        FailRow(code="INTERNAL_ERROR", index=1, commit=True),
        FailRow(code="RECORD_LOCKED", index=0),
        Answer(status=200, body={"data": []}, commit=True),
    ],
)
@pytest.mark.parametrize("policy", list(NotePolicy))
def test_an_unclear_answer_to_a_write_doubles_nothing(action: Any, policy: NotePolicy) -> None:
    """Whatever becomes of the answer: one record and one note in the end."""

    async def scenario() -> None:
        world = World()
        world.fault(action, operation="records.upsert")
        client = Client(world, note_policy=policy)
        await client.deliver([delivery(f"m{index}", number(index)) for index in range(3)])
        await asyncio.sleep(100)
        assert len(world.dump("Messages")) == 3
        assert len(world.dump("Notes")) == 3
        assert world.engine.violations() == []

    run(scenario())


@pytest.mark.parametrize("form", ["v8", "id_only", "api_name_and_id", "no_id"])
def test_a_duplicate_message_id_is_a_delivered_message(form: str) -> None:
    """Zoho says that the record exists: so it does."""

    async def scenario() -> None:
        world = World({"duplicate_form": form})
        client = Client(world)
        details = {
            "v8": {"api_name": "Message_ID", "id": "1"},
            "id_only": {"id": "1"},
            "api_name_and_id": {"api_name": "Message_ID", "id": "1"},
            "no_id": {"api_name": "Message_ID"},
        }[form]
        world.fault(FailRow(code="DUPLICATE_DATA", index=0, details=details, commit=True), operation="records.upsert")
        assert await client.deliver([delivery("m1", number(1))]) == [Delivered()]
        assert len(world.dump("Messages")) == 1

    run(scenario())


def test_a_refused_record_is_rejected_alone() -> None:
    """With a code, a field and no value of it."""

    async def scenario() -> None:
        world = World()
        world.step("set_field", module="Messages", api_name="Dialog_ID", data_type="email")
        outcomes = await Client(world).deliver(
            [delivery("m1", number(1), dialog_id="a@example.com"), delivery("m2", number(2), dialog_id="+79169999999")]
        )
        assert outcomes[0] == Delivered()
        assert outcomes[1] == Rejected("message", "zoho.INVALID_DATA", "Dialog_ID expected_data_type=email")  # type: ignore[arg-type]

    run(scenario())


def test_a_refused_batch_is_split_until_the_bad_record_stands_alone() -> None:
    """A hundred records, one of them too big for the whole call: ninety-nine are delivered."""

    async def scenario() -> None:
        world = World({"max_body_bytes": 60_000})
        items = [
            delivery(f"m{index}", number(index), text="x" * (31_000 if index == 57 else 10)) for index in range(100)
        ]
        outcomes = await Client(world).deliver(items)
        assert outcomes == [Delivered()] * 100
        world = World({"max_body_bytes": 25_000})
        outcomes = await Client(world).deliver(
            items := [delivery(each.event.message_id, each.phone, text=each.event.text) for each in items]
        )
        assert [index for index, each in enumerate(outcomes) if each != Delivered()] == [57]

    run(scenario())


def test_an_unknown_code_for_a_whole_batch_is_held_and_told() -> None:
    """A code that this version does not know, for every record: nothing is dead-lettered, few calls are made."""

    async def scenario() -> None:
        world = World()
        client = Client(world)
        items = [delivery(f"m{index}", number(index)) for index in range(40)]
        await client.sink.resolve(items)
        for item in items:
            item.parent = client.sink.parent_of(item.phone)
        body = {"code": "BRAND_NEW_CODE", "details": {}, "message": "?", "status": "error"}
        plan = world.fault(Answer(status=400, body=body), times=None, operation="records.upsert")
        outcomes = await client.sink.write_messages(items)
        assert {(outcome.code, outcome.halted) for outcome in outcomes} == {("BRAND_NEW_CODE", True)}  # type: ignore[union-attr]
        assert plan.fired <= 8
        assert client.gate.halts()[0][:2] == ("messages.upsert", "BRAND_NEW_CODE")
        world.engine.faults.clear()
        assert await client.deliver(items) == [Delivered()] * 40
        assert client.gate.halts() == []

    run(scenario())


def test_an_unknown_code_in_most_records_of_a_batch_is_held() -> None:
    """The same, told record by record."""

    async def scenario() -> None:
        world = World()
        client = Client(world)
        for index in range(9):
            world.fault(
                FailRow(code="BRAND_NEW_CODE", index=index, details={}),
                times=3,
                operation="records.upsert",
                min_rows=10,
            )
        items = [delivery(f"m{index}", number(index)) for index in range(10)]
        assert await client.deliver(items) == [Delivered()] * 10
        assert ("messages.upsert", "BRAND_NEW_CODE") in [halt[:2] for halt in client.told.halts]

    run(scenario())


def test_a_single_unknown_code_is_tried_a_few_times_then_rejected() -> None:
    """One record must not be tried for ever."""

    async def scenario() -> None:
        world = World()
        world.fault(FailRow(code="BRAND_NEW_CODE", key="Message_ID", value="m1", details={}), times=None)
        outcomes = await Client(world).deliver(
            [delivery("m0", number(0)), delivery("m1", number(1)), delivery("m2", number(2))]
        )
        assert [each == Delivered() for each in outcomes] == [True, False, True]
        assert outcomes[1].reason == "zoho.BRAND_NEW_CODE"
        assert 3 <= world.operations()["records.upsert"] <= 7

    run(scenario())


def test_a_module_whose_key_is_not_unique_halts_and_says_what_to_do() -> None:
    """Without the unique field a repetition would double messages, so nothing is written at all."""

    async def scenario() -> None:
        world = World()
        world.step("set_field", module="Messages", api_name="Message_ID", unique=None)
        client = Client(world)
        waiting = asyncio.create_task(client.deliver([delivery("m1", number(1))]))
        await asyncio.sleep(30)
        [halt] = client.gate.halts()
        assert halt[0] == "messages.upsert"
        assert "setup" in halt[2]
        world.step("set_field", module="Messages", api_name="Message_ID", unique=False)
        assert await waiting == [Delivered()]

    run(scenario())


@pytest.mark.parametrize("trouble", ["module", "scope", "right"])
def test_what_is_no_messages_fault_waits_and_goes_on_by_itself(trouble: str) -> None:
    """A missing module, scope or right: nothing is rejected, and all is delivered when the cause is gone."""

    async def scenario() -> None:
        world = World()
        client = Client(world)
        await client.sink.prepare()
        if trouble == "module":
            world.step("rename_module", module="Messages", api_name="Elsewhere")
        elif trouble == "scope":
            world.step("revoke_scope", scope="ZohoCRM.modules.ALL")
        else:
            world.step("configure", inactive_user="no_permission")
            world.step("deactivate_user")
        waiting = asyncio.create_task(client.deliver([delivery(f"m{index}", number(index)) for index in range(20)]))
        await asyncio.sleep(600)
        assert not waiting.done()
        assert client.gate.halts()[0][2]
        calls = world.calls() + len([e for e in world.engine.journal.calls if e.status in (400, 401, 403)])
        assert calls < 80
        if trouble == "module":
            world.step("rename_module", module="Elsewhere", api_name="Messages")
        elif trouble == "scope":
            world.step("grant_scope", scope="ZohoCRM.modules.ALL")
        else:
            world.step("activate_user")
        assert await waiting == [Delivered()] * 20
        assert client.gate.halts() == []

    run(scenario())


def test_a_field_that_is_shorter_than_we_could_know_is_learned() -> None:
    """Without the right to read fields, Zoho's refusal tells the length: cut and repeated, not dead-lettered."""

    async def scenario() -> None:
        world = World()
        world.step("revoke_scope", scope="ZohoCRM.settings.ALL")
        world.step("set_field", module="Messages", api_name="Body", length=2000)
        client = Client(world)
        outcomes = await client.deliver([delivery(f"m{index}", number(index), text="x" * 9000) for index in range(5)])
        assert outcomes == [Delivered()] * 5
        assert {len(row["Body"]) for row in world.dump("Messages")} == {2000}
        before = world.operations()["records.upsert"]
        await client.deliver([delivery("m9", number(9), text="x" * 9000)])
        assert world.operations()["records.upsert"] == before + 1

    run(scenario())


def test_a_message_id_is_never_cut() -> None:
    """An identity that does not fit is rejected."""

    async def scenario() -> None:
        world = World()
        world.step("set_field", module="Messages", api_name="Message_ID", length=100)
        [outcome] = await Client(world).deliver([delivery("x" * 200, number(1))])
        assert outcome.reason == "zoho.INVALID_DATA"
        assert world.dump("Messages") == []

    run(scenario())


@pytest.mark.parametrize(("triggers", "ran"), [(None, 5), ((), 0), (("workflow",), 1)])
def test_automations_run_as_set(triggers: tuple[str, ...] | None, ran: int) -> None:
    """All, none, or the named ones."""

    async def scenario() -> None:
        world = World()
        await Client(world, triggers=triggers).deliver([delivery("m1", number(1))])
        entry = next(each for each in world.engine.journal.calls if each.operation == "records.upsert")
        assert len(entry.ran) == ran

    run(scenario())


def test_a_contacts_message_links_to_the_contact() -> None:
    """And not to a lead."""

    async def scenario() -> None:
        world = World()
        contact = world.insert("Contacts", Phone=number(1))
        await Client(world).deliver([delivery("m1", number(1))])
        [row] = world.dump("Messages")
        assert row["Contact"]["id"] == contact
        assert row["Lead"] is None
        [note] = world.dump("Notes")
        assert note["Parent_Id"]["id"] == contact

    run(scenario())
