"""Notes: one for a dialog (or a message), on the right record, whatever is repeated and whoever else writes."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from random import Random
from typing import Any

import pytest

from consumer.core.limits import Limiter
from consumer.core.model import Deferred, Delivered, NotePolicy, Rejected
from sandbox.zoho import Answer, Drop, DropKind, FailRow, Garble, LateEffect, Slow, Throttle
from tests.zoho.room import Client, World, delivery, number, run

SERVER_ERROR = Answer(status=500, body={"code": "INTERNAL_ERROR", "details": {}, "message": "", "status": "error"})


def dialog(count: int, phone: str, **fields: Any) -> list[Any]:
    """Messages of one dialog."""
    return [delivery(f"{phone}-{index}", phone, **fields) for index in range(count)]


def test_a_note_holds_the_link_and_stands_after_its_message() -> None:
    """The link to the dialog comes first; the note is written when the message record stands."""

    async def scenario() -> None:
        world = World()
        await Client(world).deliver([delivery("m1", number(1), campaign={"name": "Spring"})])
        [note] = world.dump("Notes")
        [lead] = world.dump("Leads")
        lines = note["Note_Content"].splitlines()
        assert lines[0] == f"https://crm.zoho.com/crm/tab/Leads/{lead['id']}/Messages"
        assert lines[1:] == ["inbound, webhook, 2026-01-05T07:12:30+00:00", "Campaign: Spring"]
        order = [
            entry.operation
            for entry in world.engine.journal.calls
            if entry.operation.split(".")[0] in ("records", "notes")
        ]
        assert order.index("records.upsert") < order.index("notes.create")

    run(scenario())


def test_one_dialog_is_one_note_and_one_person_can_have_several() -> None:
    """A hundred messages of two dialogs of one person."""

    async def scenario() -> None:
        world = World()
        items = [
            *dialog(50, number(1), dialog_id="d1"),
            *(delivery(f"x{index}", number(1), dialog_id="d2") for index in range(50)),
        ]
        await Client(world).deliver(items)
        assert len(world.dump("Notes")) == 2

    run(scenario())


def test_messages_without_dialog_id_belong_to_the_dialog_of_their_number() -> None:
    """And not to one big dialog of everybody."""

    async def scenario() -> None:
        world = World()
        items = [*dialog(5, number(1), dialog_id=None), *dialog(5, number(2), dialog_id="")]
        await Client(world).deliver(items)
        again = Client(world)
        await again.deliver([delivery("more", number(1), dialog_id=None)])
        assert len(world.dump("Notes")) == 2

    run(scenario())


@pytest.mark.parametrize("is_new_process", [True, False])
def test_a_number_with_and_without_dialog_ids_has_a_note_for_each(is_new_process: bool) -> None:
    """Messages of a named dialog are no part of the nameless one."""

    async def scenario() -> None:
        world = World()
        client = Client(world)
        await client.deliver(dialog(3, number(1), dialog_id="d1"))
        client = Client(world) if is_new_process else client
        await client.deliver([delivery(f"bare-{index}", number(1), dialog_id=None) for index in range(3)])
        assert len(world.dump("Notes")) == 2

    run(scenario())


def test_one_note_for_every_message_by_policy() -> None:
    """With the message's text."""

    async def scenario() -> None:
        world = World()
        await Client(world, note_policy=NotePolicy.PER_MESSAGE).deliver(dialog(5, number(1)))
        assert len(world.dump("Notes")) == 5
        assert all("Hello" in note["Note_Content"] for note in world.dump("Notes"))

    run(scenario())


@pytest.mark.parametrize("policy", list(NotePolicy))
def test_many_processes_write_one_dialog_at_once(policy: NotePolicy) -> None:
    """The oldest record of the dialog decides whose task the note is."""

    async def scenario() -> None:
        world = World()
        await Client(world).parent(number(1))
        clients = [Client(world, note_policy=policy) for _ in range(5)]
        items = dialog(50, number(1))
        Random(3).shuffle(items)
        await asyncio.gather(*(client.deliver(items[index::5]) for index, client in enumerate(clients)))
        assert len(world.dump("Messages")) == 50
        assert len(world.dump("Notes")) == (1 if policy is NotePolicy.PER_DIALOG else 50)

    run(scenario())


@pytest.mark.parametrize("policy", list(NotePolicy))
def test_after_a_crash_before_the_note_the_redelivered_message_makes_up_for_it(policy: NotePolicy) -> None:
    """The message stands, its note does not: whoever gets the message again writes the note."""

    async def scenario() -> None:
        world = World()
        first = Client(world, note_policy=policy)
        [lost] = dialog(1, number(1))
        [lost.parent] = await first.sink.resolve([lost])
        await first.sink.write_messages([lost])
        second = Client(world, note_policy=policy)
        [again] = dialog(1, number(1))
        again.may_exist = True
        await second.deliver([again, delivery("newer", number(1))])
        assert len(world.dump("Notes")) == (1 if policy is NotePolicy.PER_DIALOG else 2)

    run(scenario())


@pytest.mark.parametrize("policy", list(NotePolicy))
def test_a_redelivery_after_the_note_makes_no_second_one(policy: NotePolicy) -> None:
    """The process that wrote it is gone; the next one looks."""

    async def scenario() -> None:
        world = World()
        await Client(world, note_policy=policy).deliver(dialog(3, number(1)))
        again = dialog(3, number(1))
        for item in again:
            item.may_exist = True
        before = len(world.dump("Notes"))
        await Client(world, note_policy=policy).deliver(again)
        await Client(world, note_policy=policy).deliver(dialog(3, number(1)))
        assert len(world.dump("Notes")) == before

    run(scenario())


@pytest.mark.parametrize(
    "action",
    [
        Drop(how=DropKind.RESET, commit=True),
        Drop(how=DropKind.RESET, commit=False),
        Drop(how=DropKind.HANG, commit=True),
        Drop(how=DropKind.CUT, commit=True),
        LateEffect(effect_after_s=55),
        LateEffect(effect_after_s=55, how=DropKind.HANG),
        Answer(status=502, body="<html>", commit=True),
        Answer(
            status=500, body={"code": "INTERNAL_ERROR", "details": {}, "message": "", "status": "error"}, commit=True
        ),
        Garble(),
        Throttle(),
        FailRow(code="INTERNAL_ERROR", index=0, commit=True),
        FailRow(code="BRAND_NEW_CODE", index=0, details={}, commit=True),
        Answer(status=201, body={"data": []}, commit=True),
    ],
)
@pytest.mark.parametrize("policy", list(NotePolicy))
def test_an_unclear_answer_to_a_note_makes_no_second_one(action: Any, policy: NotePolicy) -> None:
    """Notes have no key, so an uncertain one is looked for, and waited for, before it is written again."""

    async def scenario() -> None:
        world = World()
        world.fault(action, operation="notes.create")
        client = Client(world, note_policy=policy)
        await client.deliver([delivery(f"m{index}", number(index)) for index in range(3)])
        await asyncio.sleep(100)
        assert len(world.dump("Notes")) == 3
        assert world.engine.violations() == []

    run(scenario())


def redelivered(items: list[Any]) -> list[Any]:
    """What an earlier owner of the partition may have written."""
    for item in items:
        item.may_exist = True
        item.record = replace(item.record, may_repeat=True)
    return items


def replayed(item: Any) -> Any:
    """What a person replays: nobody else is at it."""
    item.record = replace(item.record, headers=(("dlq.replays", b"1"),))
    return item


@pytest.mark.parametrize("policy", list(NotePolicy))
def test_a_note_of_a_process_that_is_gone_may_come_late(policy: NotePolicy) -> None:
    """Whoever gets the message next waits for it, however soon the process before it ended."""

    async def scenario() -> None:
        world = World()
        world.fault(LateEffect(effect_after_s=20, how=DropKind.HANG), operation="notes.create")
        first = asyncio.create_task(Client(world, note_policy=policy).deliver(dialog(1, number(1))))
        while not world.operations()["notes.create"]:
            await asyncio.sleep(0.1)
        first.cancel()
        await Client(world, note_policy=policy).deliver(redelivered(dialog(1, number(1))))
        await asyncio.sleep(100)
        assert len(world.dump("Notes")) == 1

    run(scenario())


@pytest.mark.parametrize("policy", list(NotePolicy))
def test_a_message_on_two_partitions_has_one_note(policy: NotePolicy) -> None:
    """Two processes hold it at once, and Zoho makes the one that wrote it wait with its note."""

    async def scenario() -> None:
        world = World()
        world.fault(Throttle(), operation="notes.create", times=6)
        clients = [Client(world, note_policy=policy) for _ in range(2)]
        await clients[0].parent(number(1))
        await asyncio.gather(*(client.deliver(dialog(1, number(1))) for client in clients))
        assert len(world.dump("Notes")) == 1

    run(scenario())


@pytest.mark.parametrize("policy", list(NotePolicy))
def test_of_two_notes_made_in_the_same_moment_the_younger_is_taken_back(policy: NotePolicy) -> None:
    """Two processes find a message of a third one without its note, and both make up for it."""

    async def scenario() -> None:
        world = World({"effect_at": "finish"})
        gone = Client(world, note_policy=policy)
        [lost] = dialog(1, number(1))
        [lost.parent] = await gone.sink.resolve([lost])
        await gone.sink.write_messages([lost])
        clients = [Client(world, note_policy=policy) for _ in range(3)]
        world.fault(Slow(extra_s=5.0), operation="notes.create")
        await asyncio.gather(*(client.deliver(redelivered(dialog(1, number(1)))) for client in clients))
        assert world.operations()["notes.create"] > 1
        assert len(world.dump("Notes")) == 1

    run(scenario())


def test_without_the_right_to_delete_notes_a_twin_stays_and_holds_nothing_up() -> None:
    """The scope is optional."""

    async def scenario() -> None:
        world = World()
        client = Client(world)
        await client.deliver(dialog(1, number(1)))
        with_a_twin(world)
        world.fault(
            Answer(status=401, body={"code": "OAUTH_SCOPE_MISMATCH", "details": {}, "message": "", "status": "error"}),
            operation="notes.delete_one",
            times=None,
        )
        outcome = await Client(world).deliver(redelivered(dialog(1, number(1))))
        assert outcome == [Delivered()]
        assert len(world.dump("Notes")) == 2

    run(scenario())


def with_a_twin(world: World) -> str:
    """Somebody has made the only note a second time; returns the younger one's id."""
    [note] = world.dump("Notes")
    fields = ("Note_Title", "Note_Content", "Parent_Id")
    twin: str = world.step("insert", module="Notes", records=[{name: note[name] for name in fields}])[0]
    return twin


def test_a_twin_that_zoho_does_not_delete_holds_nothing_up() -> None:
    """Zoho cannot now, and still cannot a moment later."""

    async def scenario() -> None:
        world = World()
        await Client(world).deliver(dialog(1, number(1)))
        with_a_twin(world)
        world.fault(SERVER_ERROR, operation="notes.delete_one", times=None)
        assert await Client(world).deliver(redelivered(dialog(1, number(1)))) == [Delivered()]
        assert len(world.dump("Notes")) == 2

    run(scenario())


def test_a_twin_that_somebody_edited_stays() -> None:
    """What people write is never deleted."""

    async def scenario() -> None:
        world = World()
        await Client(world).deliver(dialog(1, number(1)))
        twin = with_a_twin(world)
        await asyncio.sleep(10)
        world.step("update", module="Notes", record_id=twin, changes={"Note_Content": "He calls back on Monday."})
        await Client(world).deliver(redelivered(dialog(1, number(1))))
        assert len(world.dump("Notes")) == 2

    run(scenario())


@pytest.mark.parametrize("policy", list(NotePolicy))
def test_a_lead_whose_notes_cannot_be_read_holds_up_its_own_only(policy: NotePolicy) -> None:
    """The notes of the others in the batch are written."""

    async def scenario() -> None:
        world = World()
        items = [replayed(delivery(f"m{index}", number(index))) for index in range(2)]
        client = Client(world, note_policy=policy)
        for item in items:
            item.parent = await client.parent(item.phone)
        await client.sink.write_messages(items)
        world.fault(
            SERVER_ERROR, operation="notes.list_related", path=str(items[0].parent and items[0].parent.id), times=None
        )
        for item in items:
            item.note_maybe = True
        held_up, done = await client.sink.write_notes(items)
        assert (isinstance(held_up, Deferred), done) == (True, Delivered())
        [note] = world.dump("Notes")
        assert note["Note_Title"].endswith(f"[{client.sink._note_desk._marker(items[1])}]")

    run(scenario())


@pytest.mark.parametrize("policy", list(NotePolicy))
def test_a_look_that_fails_after_the_note_was_written_makes_no_second_one(policy: NotePolicy) -> None:
    """It is looked for again, and found."""

    async def scenario() -> None:
        world = World()
        gone = Client(world, note_policy=policy)
        [lost] = dialog(1, number(1))
        lost.parent = await gone.parent(number(1))
        await gone.sink.write_messages([lost])
        client = Client(world, note_policy=policy)
        [again] = map(replayed, dialog(1, number(1)))
        broken = world.fault(
            SERVER_ERROR, operation="notes.list_related", times=5, predicate=lambda _call: bool(world.dump("Notes"))
        )
        assert await client.deliver([again]) == [Delivered()]
        assert broken.fired == 5
        assert (len(world.dump("Notes")), world.operations()["notes.create"]) == (1, 1)

    run(scenario())


@pytest.mark.parametrize("policy", list(NotePolicy))
def test_a_late_note_that_cannot_be_looked_after_is_not_written_again(policy: NotePolicy) -> None:
    """Its message is ours, but Zoho made it wait so long that others may have made up for it."""

    async def scenario() -> None:
        world = World()
        world.fault(Throttle(), operation="notes.create", times=6)
        broken = world.fault(SERVER_ERROR, operation="notes.list_related", times=5)
        assert await Client(world, note_policy=policy).deliver(dialog(1, number(1))) == [Delivered()]
        assert (broken.fired, len(world.dump("Notes"))) == (5, 1)
        assert world.operations()["notes.create"] == 6 + 1

    run(scenario())


def test_notes_that_wait_long_for_their_turn_are_written_once_and_asked_for_little() -> None:
    """One call at a time, and a slow Zoho: what was known of a note a minute ago is still known."""

    async def scenario() -> None:
        world = World()
        world.fault(Slow(extra_s=20.0), operation="notes.create", times=None)
        client = Client(world, limiter=Limiter(max_concurrency=1))
        await asyncio.gather(*(client.deliver([delivery(f"m{index}", number(index))]) for index in range(20)))
        assert (len(world.dump("Notes")), world.operations()["notes.create"]) == (20, 20)
        assert world.operations()["notes.list_related"] <= 20

    run(scenario())


def test_notes_that_a_merge_brought_together_both_stay() -> None:
    """They were made long apart: nobody's race, but what people did."""

    async def scenario() -> None:
        world = World()
        await Client(world).deliver(dialog(1, number(1)))
        await asyncio.sleep(3600)
        with_a_twin(world)
        await Client(world).deliver(redelivered(dialog(1, number(1))))
        assert len(world.dump("Notes")) == 2

    run(scenario())


def test_a_replayed_message_has_its_note_at_once() -> None:
    """Its note was refused by a clear answer: none is on its way."""

    async def scenario() -> None:
        world = World()
        world.fault(
            FailRow(code="INVALID_DATA", index=0, details={"api_name": "Note_Content"}), operation="notes.create"
        )
        [outcome] = await Client(world).deliver(dialog(1, number(1)))
        assert isinstance(outcome, Rejected)
        [again] = map(replayed, dialog(1, number(1)))
        client = Client(world)
        await client.sink.resolve([again])
        again.parent = await client.parent(number(1))
        await client.sink.write_messages([again])
        assert await client.sink.write_notes([again]) == [Delivered()]
        assert len(world.dump("Notes")) == 1

    run(scenario())


def test_a_replayed_message_has_its_dialogs_note_though_an_older_one_owed_it() -> None:
    """The older one was delivered while the note was refused; once what was wrong is mended, it is made up for."""

    async def scenario() -> None:
        world = World()
        before = Client(world)
        items = dialog(2, number(1))
        for item, parent in zip(items, await before.sink.resolve(items), strict=True):
            item.parent = parent
        await before.sink.write_messages(items)
        [again] = map(replayed, dialog(2, number(1))[1:])
        assert await Client(world).deliver([again]) == [Delivered()]
        assert len(world.dump("Notes")) == 1

    run(scenario())


@pytest.mark.parametrize("step", ["delete", "convert", "merge"])
@pytest.mark.parametrize("policy", list(NotePolicy))
def test_a_parent_that_goes_between_message_and_note_is_looked_up_again(step: str, policy: NotePolicy) -> None:
    """The note goes to whoever the person is now, and so does the link of the message."""

    async def scenario() -> None:
        world = World()
        client = Client(world, note_policy=policy)
        [item] = dialog(1, number(1))
        [item.parent] = await client.sink.resolve([item])
        assert item.parent is not None
        await client.sink.write_messages([item])
        if step == "merge":
            master = world.insert("Leads", Phone=number(1))
            world.step("merge", lead_id=item.parent.id, into=master)
        else:
            args = {"module": "Leads", "record_id": item.parent.id} if step == "delete" else {"lead_id": item.parent.id}
            world.step(step, **args)
        await client.sink.write_notes([item])
        assert item.parent is None
        item.may_exist = True
        assert await client.deliver([item]) == [Delivered()]
        [note], [message] = world.dump("Notes"), world.dump("Messages")
        linked = message["Contact" if step == "convert" else "Lead"]
        assert linked["id"] == note["Parent_Id"]["id"]

    run(scenario())


def test_the_note_of_a_dialog_waits_for_its_oldest_message() -> None:
    """It may be at another stage, in the middle of being written: it is left alone, and others do not wait for it."""

    async def scenario() -> None:
        world = World()
        client = Client(world)
        oldest, other = items = dialog(2, number(1))
        for item, parent in zip(items, await client.sink.resolve(items), strict=True):
            item.parent = parent
        await client.sink.write_messages(items)
        before = oldest.parent
        assert before is not None
        world.step("delete", module="Leads", record_id=before.id)
        assert await client.sink.write_notes([other]) == [Delivered()]
        assert (oldest.parent, world.dump("Notes")) == (before, [])
        assert await client.deliver([oldest]) == [Delivered()]
        [note] = world.dump("Notes")
        [lead] = world.dump("Leads")
        assert note["Parent_Id"]["id"] == lead["id"] != before.id

    run(scenario())


@pytest.mark.parametrize("policy", list(NotePolicy))
@pytest.mark.parametrize(("message_s", "note_s"), [(45.0, 0.0), (18.0, 15.0)])
def test_a_message_whose_answer_came_late_is_not_certain_to_have_no_note(
    policy: NotePolicy, message_s: float, note_s: float
) -> None:
    """Others saw its record long before its maker knew of it, and have stopped waiting for the note."""

    async def scenario() -> None:
        world = World()
        slow, other = Client(world, note_policy=policy), Client(world, note_policy=policy)
        for client in (slow, other):
            await client.parent(number(1))
        world.fault(Slow(extra_s=message_s), operation="records.upsert", module="Messages")
        world.fault(Slow(extra_s=note_s), operation="notes.create")
        delivering = asyncio.create_task(slow.deliver(dialog(1, number(1))))
        await asyncio.sleep(2)
        await asyncio.gather(delivering, other.deliver(redelivered(dialog(1, number(1)))))
        await asyncio.sleep(100)
        assert len(world.dump("Notes")) == 1

    run(scenario())


@pytest.mark.parametrize("policy", list(NotePolicy))
def test_a_late_message_looks_before_it_writes(policy: NotePolicy) -> None:
    """So that there is no twin to be taken back, for which the right may be missing."""

    async def scenario() -> None:
        world = World()
        world.step("revoke_scope", scope="ZohoCRM.modules.notes.DELETE")
        slow, other = Client(world, note_policy=policy), Client(world, note_policy=policy)
        for client in (slow, other):
            await client.parent(number(1))
        world.fault(Slow(extra_s=45.0), operation="records.upsert", module="Messages")
        delivering = asyncio.create_task(slow.deliver(dialog(1, number(1))))
        await asyncio.sleep(2)
        await asyncio.gather(delivering, other.deliver(redelivered(dialog(1, number(1)))))
        assert (len(world.dump("Notes")), world.operations()["notes.create"]) == (1, 1)

    run(scenario())


def test_a_dialog_of_two_numbers_has_one_note_after_a_crash() -> None:
    """On the record of whoever wrote first, whichever message came to its note first."""

    async def scenario() -> None:
        world = World()
        items = [delivery(f"m{index}", number(index), dialog_id="d") for index in range(2)]
        before = Client(world)
        for item in items:
            item.parent = await before.parent(item.phone)
            await before.sink.write_messages([item])
        await before.sink.write_notes(items[1:])
        await before.sink.write_notes(items[:1])
        again = [delivery(f"m{index}", number(index), dialog_id="d") for index in range(2)]
        await Client(world).deliver(redelivered(again))
        assert len(world.dump("Notes")) == 1

    run(scenario())


def test_a_newer_message_does_not_write_what_a_stranger_is_at() -> None:
    """The oldest one is still being looked for, and with it who made it."""

    async def scenario() -> None:
        world = World({"effect_at": "finish"})
        first, second = Client(world), Client(world)
        await second.parent(number(1))
        world.fault(Slow(extra_s=10.0), operation="notes.create")
        at_first = asyncio.create_task(first.deliver(dialog(1, number(1))))
        while not world.operations()["notes.create"]:
            await asyncio.sleep(0.1)
        world.fault(Slow(extra_s=5.0), operation="coql", predicate=lambda call: "Message_ID in" in str(call.payload))
        at_second = asyncio.create_task(second.deliver(redelivered(dialog(1, number(1)))))
        await asyncio.sleep(0.1)
        await asyncio.gather(at_first, at_second, second.deliver([delivery("newer", number(1))]))
        assert len(world.dump("Notes")) == 1

    run(scenario())


@pytest.mark.parametrize("status", [400, 422])
@pytest.mark.parametrize("policy", list(NotePolicy))
def test_a_look_that_is_refused_for_an_unknown_reason_has_not_found_nothing(policy: NotePolicy, status: int) -> None:
    """It is asked again, a few times."""

    async def scenario() -> None:
        world = World()
        await Client(world, note_policy=policy).deliver(dialog(1, number(1)))
        refused = world.fault(Answer(status=status, body="<html>"), operation="notes.list_related", times=3)
        client = Client(world, note_policy=policy)
        assert await client.deliver([replayed(item) for item in dialog(1, number(1))]) == [Delivered()]
        assert (refused.fired, len(world.dump("Notes"))) == (3, 1)

    run(scenario())


@pytest.mark.parametrize(("operation", "field"), [("notes.create", "Parent_Id"), ("records.upsert", "Lead")])
def test_a_lost_lead_that_zoho_tells_of_the_whole_call_is_looked_up_again(operation: str, field: str) -> None:
    """Where it stands in the answer makes no difference to the message."""

    async def scenario() -> None:
        world = World()
        client = Client(world)
        await client.parent(number(1))
        body = {"code": "INVALID_DATA", "details": {"api_name": field}, "message": "", "status": "error"}
        world.fault(Answer(status=400, body=body), operation=operation)
        assert await client.deliver(dialog(1, number(1))) == [Delivered()]

    run(scenario())


def test_a_note_is_found_among_thousands_by_page_token() -> None:
    """Page numbers end at 2,000 notes; the one that is looked for may lie deeper."""

    async def scenario() -> None:
        world = World()
        client = Client(world)
        await client.deliver(dialog(1, number(1)))
        [lead] = world.dump("Leads")
        parent = {"module": {"api_name": "Leads"}, "id": lead["id"]}
        others = [{"Note_Title": f"by hand {index}", "Note_Content": "x", "Parent_Id": parent} for index in range(2600)]
        world.step("insert", module="Notes", records=others)
        again = dialog(1, number(1))
        again[0].may_exist = True
        await Client(world).deliver(again)
        assert len(world.dump("Notes")) == 2601

    run(scenario())


def test_a_dialog_with_thousands_of_messages_has_one_note() -> None:
    """The referee asks for the oldest record first, and for the other dialogs of a batch after that."""

    async def scenario() -> None:
        world = World()
        await Client(world).deliver([item for index in range(4) for item in dialog(300, number(index))])
        client = Client(world)
        await client.deliver([delivery(f"more-{index}", number(index)) for index in range(8)])
        assert len(world.dump("Notes")) == 8

    run(scenario())


@pytest.mark.parametrize("dialog_id", ["it's", "back\\slash", "d" * 300, "😀", " "])
def test_dialog_ids_that_cannot_be_asked_for(dialog_id: str) -> None:
    """They cost a look at the parent's notes, and make one note like any other."""

    async def scenario() -> None:
        world = World()
        await Client(world).deliver(dialog(3, number(1), dialog_id=dialog_id))
        again = dialog(4, number(1), dialog_id=dialog_id)
        for item in again:
            item.may_exist = True
        await Client(world).deliver(again)
        assert len(world.dump("Notes")) == 1

    run(scenario())


def test_a_missing_dialog_field_makes_no_second_note() -> None:
    """Without the field the referee cannot be asked; the parent's notes can."""

    async def scenario() -> None:
        world = World()
        world.step("remove_field", module="Messages", api_name="Dialog_ID")
        await Client(world).deliver(dialog(3, number(1)))
        await Client(world).deliver([delivery("later", number(1))])
        assert len(world.dump("Notes")) == 1

    run(scenario())


def test_long_titles_and_texts_are_cut_and_keep_their_marker() -> None:
    """The marker ends the title, whatever the channel is called."""

    async def scenario() -> None:
        world = World()
        client = Client(world, note_policy=NotePolicy.PER_MESSAGE)
        items = [delivery("m1", number(1), channel="c" * 300, text="😀" * 70_000)]
        assert await client.deliver(items) == [Delivered()]
        [note] = world.dump("Notes")
        assert len(note["Note_Title"]) <= 120
        assert note["Note_Title"].endswith("]")
        assert note["Note_Content"].endswith("😀…")

    run(scenario())


def test_a_refused_note_rejects_its_message_only() -> None:
    """The other notes of the call are written."""

    async def scenario() -> None:
        world = World()
        details = {"api_name": "Note_Content"}
        world.fault(FailRow(code="INVALID_DATA", index=1, details=details), operation="notes.create")
        outcomes = await Client(world).deliver([delivery(f"m{index}", number(index)) for index in range(3)])
        assert outcomes == [Delivered(), Rejected("note", "zoho.INVALID_DATA", "Note_Content"), Delivered()]  # type: ignore[arg-type]
        assert len(world.dump("Notes")) == 2

    run(scenario())


def test_a_delivery_that_is_given_up_is_forgotten() -> None:
    """A long-lived process does not keep what it has delivered."""

    async def scenario() -> None:
        client = Client(World())
        items = dialog(20, number(1))
        await client.deliver(items)
        for item in items:
            client.sink.gave_up(item)
        assert not len(client.sink._note_desk)

    run(scenario())
