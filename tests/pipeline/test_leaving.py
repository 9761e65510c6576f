"""Stopping and rebalances: drain, commit, fence; and what happens to what is still on its way."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from consumer.core.model import Deferred, Rejected, Stage
from tests.builders import partition, record
from tests.pipeline.rig import Rig, running

if TYPE_CHECKING:
    from collections.abc import Sequence

    from consumer.core.model import Record


async def test_a_stop_finishes_what_is_in_work() -> None:
    """The partial batch goes out, and its offsets are committed as a clean departure."""
    async with running(linger_s=60.0) as rig:
        rig.publish(*(record(offset) for offset in range(3)))
        await asyncio.sleep(1)
        assert await rig.end() < 5
        assert rig.source.commits[-1] == ({partition(): 3}, True)
        assert rig.source.is_stopped


async def test_a_stop_says_goodbye_even_when_all_is_committed() -> None:
    """The next owner learns that nothing beyond the offset was touched."""
    async with running() as rig:
        rig.publish(record(0))
        await asyncio.sleep(10)
        assert rig.committed() == 1
        await rig.end()
        assert rig.source.commits[-1] == ({partition(): 1}, True)


async def test_a_stop_ends_within_its_deadline_while_zoho_hangs() -> None:
    """What could not be written is left to the next owner, and not called clean."""
    async with running(drain_timeout_s=10.0) as rig:
        rig.publish(record(0))
        await asyncio.sleep(3)
        rig.sink.hold(Stage.MESSAGE)
        rig.publish(record(1))
        await asyncio.sleep(1)
        assert 9 < await rig.end() < 12
        assert all(not is_clean for _, is_clean in rig.source.commits)
        assert rig.committed() == 1


async def test_a_stop_does_not_wait_for_what_waits_itself() -> None:
    """A delivery that sits out a backoff is not worth the wait."""
    async with running(drain_timeout_s=25.0) as rig:
        rig.sink.answers[Stage.MESSAGE, "m0-0"] = Deferred("BUSY", retry_after_s=3600.0)
        rig.publish(record(0), record(1))
        await asyncio.sleep(3)
        assert await rig.end() < 1
        assert rig.source.committed() == {}


async def test_a_stop_ends_a_start_that_kafka_never_answers() -> None:
    """SIGTERM ends the process though the brokers are away."""
    rig = Rig()
    rig.source.can_start.clear()
    rig.running = asyncio.create_task(rig.pipeline.run(rig.stop))
    await asyncio.sleep(3600)
    assert await rig.end() < 1
    assert rig.source.is_stopped


async def test_a_stop_does_not_wait_for_a_poll() -> None:
    """Kafka's client does not return from a poll before a rebalance is over."""
    async with running() as rig:
        rig.source.poll_hangs = True
        await asyncio.sleep(60)
        assert await rig.end() < 10


async def test_a_stop_does_not_wait_for_a_commit_that_hangs() -> None:
    """The offset is unknown then, and the records are read again."""
    async with running(drain_timeout_s=5.0) as rig:
        rig.source.commit_hangs = True
        rig.publish(record(0))
        await asyncio.sleep(30)
        assert await rig.end() < 20


async def test_a_revocation_drains_and_commits() -> None:
    """Whoever is next begins behind what was finished."""
    async with running() as rig:
        gate = rig.sink.hold(Stage.NOTE)
        rig.publish(record(0))
        await asyncio.sleep(1)
        revoking = asyncio.create_task(rig.revoke())
        await asyncio.sleep(5)
        assert not revoking.done()
        gate.set()
        await revoking
        assert rig.source.commits == [({partition(): 1}, True)]


async def test_what_is_settled_after_a_revocation_moves_no_offset() -> None:
    """The partition belongs to somebody else."""
    async with running(drain_timeout_s=2.0) as rig:
        gate = rig.sink.hold(Stage.NOTE)
        rig.publish(record(0))
        await asyncio.sleep(1)
        await rig.revoke()
        gate.set()
        await asyncio.sleep(30)
        assert rig.source.commits == []


@pytest.mark.parametrize("stage", [Stage.LEAD, Stage.MESSAGE])
async def test_what_was_taken_away_is_not_carried_on(stage: Stage) -> None:
    """No stage begins with a delivery that nobody waits for."""
    async with running(drain_timeout_s=2.0) as rig:
        gate = rig.sink.hold(stage)
        rig.publish(record(0))
        await asyncio.sleep(1)
        await rig.revoke()
        gate.set()
        await asyncio.sleep(30)
        assert not rig.sink.notes


async def test_a_redelivered_record_is_written_by_a_delivery_of_its_own() -> None:
    """It is not a duplicate of the one that was taken away, which is never written."""
    async with running(drain_timeout_s=2.0) as rig:
        gate = rig.sink.hold(Stage.LEAD)
        rig.publish(record(0))
        await asyncio.sleep(1)
        await rig.revoke()
        rig.publish(record(0, may_repeat=True))
        await asyncio.sleep(1)
        gate.set()
        await asyncio.sleep(30)
        assert rig.sink.messages == {"m0-0": 1}
        assert rig.sink.seen[-1].may_exist
        assert rig.committed() == 1


async def test_only_what_is_revoked_is_fenced() -> None:
    """Other partitions go on."""
    async with running(drain_timeout_s=2.0) as rig:
        gate = rig.sink.hold(Stage.MESSAGE)
        rig.publish(record(0), record(0, number=1, phone="+14155552671"))
        await asyncio.sleep(1)
        await rig.revoke(0)
        gate.set()
        await asyncio.sleep(10)
        assert rig.source.committed() == {partition(1): 1}


async def test_a_duplicate_elsewhere_keeps_a_revoked_message_alive() -> None:
    """One of its records is still ours."""
    async with running(drain_timeout_s=2.0) as rig:
        gate = rig.sink.hold(Stage.MESSAGE)
        rig.publish(record(0, message_id="same"), record(0, number=1, message_id="same"))
        await asyncio.sleep(1)
        await rig.revoke(0)
        gate.set()
        await asyncio.sleep(10)
        assert rig.sink.notes == {"same": 1}
        assert rig.source.committed() == {partition(1): 1}


async def test_commits_that_come_too_late_are_dropped() -> None:
    """The corridor goes on; the new owner reads the records again."""
    async with running() as rig:
        rig.source.lose_partitions()
        rig.publish(record(0))
        await asyncio.sleep(10)
        assert rig.events.told["commit_failed"] > 0
        assert await rig.end() < 5


async def test_an_owner_of_suspect_records_does_not_leave_cleanly() -> None:
    """There may be more of them behind those that it has read."""
    async with running() as rig:
        rig.publish(record(0, may_repeat=True))
        await asyncio.sleep(3)
        await rig.end()
        assert all(not is_clean for _, is_clean in rig.source.commits)


async def as_a_poll_ends(rig: Rig, *records: Record) -> None:
    """The poll brings these, and in the very next turn of the loop their partition is taken away."""
    gone = asyncio.Event()
    polled = rig.source.poll

    async def revocation() -> None:
        await rig.revoke()
        gone.set()

    async def poll(**_room: Any) -> Sequence[Record]:
        rig.source.poll = polled  # type: ignore[method-assign]
        rig.leaving = asyncio.create_task(revocation())
        return records

    rig.source.poll = poll  # type: ignore[method-assign]
    await gone.wait()


async def test_a_poll_that_ends_as_its_partition_goes_leaves_nothing_behind() -> None:
    """What it brought is its next owner's, and commits of other partitions go on."""
    async with running(linger_s=60.0) as rig:
        await as_a_poll_ends(rig, record(0))
        assert rig.pipeline.tracker.partitions() == []
        rig.publish(record(0, number=1))
        await asyncio.sleep(1)
        await rig.end()
        assert rig.committed(1) == 1


async def test_a_partition_that_goes_and_comes_back_loses_nothing() -> None:
    """Its first record could not be written so far; those behind it are read again, and after it."""
    async with running() as rig:
        rig.sink.answers[Stage.MESSAGE, "m0-0"] = Deferred("BUSY", retry_after_s=3600.0)
        rig.publish(record(0))
        await asyncio.sleep(3)
        await as_a_poll_ends(rig, record(1), record(2))
        rig.sink.answers.clear()
        rig.publish(record(0), record(1), record(2))
        await asyncio.sleep(10)
        assert rig.sink.messages["m0-0"] == 1
        assert rig.committed() == 3


async def test_what_is_refused_after_its_partition_went_trips_nothing() -> None:
    """Its next owner asks Zoho for itself; here nobody asks again and again, and nothing is halted."""
    async with running(drain_timeout_s=5.0, breaker_count=100, linger_s=0.2) as rig:
        gate = rig.sink.hold(Stage.MESSAGE)
        for offset in range(200):
            rig.sink.answers[Stage.MESSAGE, f"m0-{offset}"] = Rejected(Stage.MESSAGE, "zoho.MANDATORY_NOT_FOUND")
        rig.publish(*map(record, range(200)))
        await asyncio.sleep(3)
        await rig.revoke()
        gate.set()
        await asyncio.sleep(60)
        assert (rig.pipeline.tripped(), rig.pipeline.held_dead_letters()) == ([], 0)
