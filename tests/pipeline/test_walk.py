"""A record's walk: written, skipped, rejected, put off."""

from __future__ import annotations

import asyncio

import pytest

from consumer.core.errors import TransientError
from consumer.core.model import Deferred, Rejected, Stage
from tests.builders import partition, record
from tests.pipeline.rig import running


async def test_a_message_is_written_and_then_committed() -> None:
    """Lead, message and note stand before the offset moves."""
    async with running() as rig:
        gate = rig.sink.hold(Stage.NOTE)
        rig.publish(record(0))
        await asyncio.sleep(30)
        assert rig.sink.messages["m0-0"] == 1
        assert rig.committed() is None
        gate.set()
        await asyncio.sleep(3)
        assert (rig.sink.notes["m0-0"], rig.committed()) == (1, 1)


@pytest.mark.parametrize("value", [b'{"message_id": 1', b"\xff", b""])
async def test_poison_goes_to_the_dead_letter_topic_untouched(value: bytes) -> None:
    """What cannot be read is stored there, byte for byte, and settled."""
    async with running() as rig:
        rig.publish(record(0, value=value), record(1))
        await asyncio.sleep(10)
        assert [(letter.offset, letter.value) for letter, _, _ in rig.letters.letters] == [(0, value)]
        assert rig.committed() == 2


async def test_a_record_without_number_is_skipped() -> None:
    """It is settled, and nothing is written."""
    async with running() as rig:
        rig.publish(record(0, phone=None))
        await asyncio.sleep(3)
        assert rig.committed() == 1
        assert not rig.sink.messages
        assert not rig.letters.letters


async def test_a_blocked_record_does_not_stop_the_others() -> None:
    """Others are delivered past it; the offset waits for it."""
    async with running() as rig:
        rig.sink.answers[Stage.MESSAGE, "m0-0"] = Deferred("RECORD_LOCKED")
        rig.publish(*(record(offset) for offset in range(5)), record(0, number=1))
        await asyncio.sleep(60)
        assert rig.sink.messages == {"m0-1": 1, "m0-2": 1, "m0-3": 1, "m0-4": 1, "m1-0": 1}
        assert (rig.committed(0), rig.committed(1)) == (None, 1)
        del rig.sink.answers[Stage.MESSAGE, "m0-0"]
        await asyncio.sleep(60)
        assert rig.committed(0) == 5


async def test_a_rejected_message_is_one_dead_letter() -> None:
    """With the stage and the reason of Zoho."""
    async with running() as rig:
        rig.sink.answers[Stage.MESSAGE, "m0-0"] = Rejected(Stage.MESSAGE, "zoho.INVALID_DATA", "Body")
        rig.publish(record(0))
        await asyncio.sleep(10)
        assert [rejected.reason for _, rejected, _ in rig.letters.letters] == ["zoho.INVALID_DATA"]
        assert rig.committed() == 1


async def test_a_dead_letter_topic_that_takes_nothing_holds_the_offset() -> None:
    """And the record is stored as soon as it takes records again."""
    async with running() as rig:
        rig.letters.is_down = True
        rig.publish(record(0, value=b"{"), record(1))
        await asyncio.sleep(120)
        assert rig.committed() is None
        rig.letters.is_down = False
        await asyncio.sleep(60)
        assert len(rig.letters.letters) == 1
        assert rig.committed() == 2


async def test_a_record_that_no_dead_letter_can_be_made_of_holds_its_offset_and_ends_nothing() -> None:
    """Whatever is wrong with it: the others go on, and it is told of."""
    async with running() as rig:
        rig.letters.fault = ValueError("year 58003 is out of range")
        rig.publish(record(0, value=b"nonsense"), record(0, number=1))
        await asyncio.sleep(60)
        assert rig.events.told["dead_letter_failed"] > 1
        assert rig.source.committed() == {partition(1): 1}
        rig.letters.fault = None
        await asyncio.sleep(60)
        assert rig.committed() == 1


async def test_a_dead_letter_is_not_repeated_when_only_its_answer_was_lost() -> None:
    """The corridor looks before it writes again."""
    async with running() as rig:
        rig.letters.loses_answers = True
        rig.publish(record(0, value=b"{"))
        await asyncio.sleep(120)
        assert len(rig.letters.letters) == 1
        assert rig.committed() == 1


async def test_a_dead_letter_of_an_earlier_owner_is_not_repeated() -> None:
    """It had been written before the crash that left its offset uncommitted."""
    async with running() as rig:
        poison = record(0, value=b"{", may_repeat=True)
        rig.letters.standing_before = {(poison.tp, 0)}
        rig.publish(poison)
        await asyncio.sleep(10)
        assert rig.letters.letters == []
        assert rig.committed() == 1


async def test_a_duplicate_in_flight_waits_for_the_first() -> None:
    """It is settled with it, never before."""
    async with running() as rig:
        gate = rig.sink.hold(Stage.MESSAGE)
        rig.publish(record(0, message_id="same"), record(0, number=1, message_id="same"))
        await asyncio.sleep(30)
        assert rig.source.committed() == {}
        gate.set()
        await asyncio.sleep(3)
        assert rig.sink.messages == {"same": 1}
        assert (rig.committed(0), rig.committed(1)) == (1, 1)


async def test_a_duplicate_of_a_rejected_message_gets_its_own_chance() -> None:
    """Each of the two records is stored as itself when Zoho refuses both."""
    async with running() as rig:
        rig.sink.answers[Stage.MESSAGE, "same"] = Rejected(Stage.MESSAGE, "zoho.INVALID_DATA")
        gate = rig.sink.hold(Stage.MESSAGE)
        rig.publish(record(0, message_id="same"), record(0, number=1, message_id="same", text="other"))
        await asyncio.sleep(1)
        gate.set()
        await asyncio.sleep(20)
        assert [letter.tp.partition for letter, _, _ in rig.letters.letters] == [0, 1]


async def test_a_fault_of_our_own_loses_nothing() -> None:
    """The batch is tried again, and looks before it writes."""
    async with running() as rig:
        rig.sink.errors[Stage.MESSAGE] = KeyError("a fault")
        rig.publish(record(0))
        await asyncio.sleep(30)
        assert rig.sink.seen[-1].may_exist
        assert rig.events.told["stage_failed"] == 1
        assert rig.committed() == 1


async def test_a_cause_outside_the_message_does_not_count_as_its_failure() -> None:
    """Its attempts stay, but the pauses grow."""
    async with running() as rig:
        rig.sink.answers[Stage.LEAD, "m0-0"] = Deferred("NO_PERMISSION", halted=True)
        rig.publish(record(0))
        await asyncio.sleep(120)
        assert len(rig.sink.batches[Stage.LEAD]) < 20
        assert rig.sink.seen[-1].attempts == 0


async def test_who_asks_for_the_same_person_follows_the_first() -> None:
    """One look-up answers them all; when it fails, the others do not hammer one by one."""
    async with running() as rig:
        rig.sink.answers[Stage.LEAD, "m0-0"] = Deferred("SERVICE_UNAVAILABLE")
        rig.publish(*(record(offset) for offset in range(20)))
        await asyncio.sleep(10)
        assert {tuple(batch) for batch in rig.sink.batches[Stage.LEAD]} == {("m0-0",)}
        rig.sink.answers.clear()
        await asyncio.sleep(60)
        assert rig.committed() == 20


async def test_an_uncertain_commit_is_sent_again() -> None:
    """Nobody knows what came of it; the next one says it all."""
    async with running() as rig:
        rig.source.commit_error = TransientError("COORDINATOR_NOT_AVAILABLE")
        rig.publish(record(0))
        await asyncio.sleep(10)
        rig.source.commit_error = None
        await asyncio.sleep(3)
        assert rig.committed() == 1
