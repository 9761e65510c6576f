"""A flood of rejections stops the partition before the first of them is written."""

from __future__ import annotations

import asyncio

from consumer.core.model import Rejected, Stage
from tests.builders import partition, record
from tests.pipeline.rig import running


async def test_a_flood_of_poison_trips_the_breaker_before_the_first_dead_letter() -> None:
    """The topic is not emptied into the dead-letter topic; the offset stays, and the corridor says so."""
    async with running(breaker_count=10) as rig:
        rig.publish(*(record(offset, value=b"{") for offset in range(30)))
        await asyncio.sleep(600)
        assert rig.letters.letters == []
        assert rig.pipeline.tripped() == [partition()]
        assert rig.pipeline.held_dead_letters() == 30
        assert rig.committed() is None


async def test_a_tripped_partition_lets_the_others_alone() -> None:
    """Only what comes from it is held."""
    async with running(breaker_count=10) as rig:
        rig.publish(*(record(offset, value=b"{") for offset in range(30)), record(0, number=1))
        await asyncio.sleep(60)
        assert rig.committed(1) == 1


async def test_when_the_cause_is_gone_what_zoho_refused_is_written() -> None:
    """A new mandatory field that is made optional again costs no message a detour."""
    async with running(breaker_count=10) as rig:
        for offset in range(40):
            rig.sink.answers[Stage.MESSAGE, f"m0-{offset}"] = Rejected(Stage.MESSAGE, "zoho.MANDATORY_NOT_FOUND")
        rig.publish(*(record(offset) for offset in range(40)))
        await asyncio.sleep(300)
        assert rig.letters.letters == []
        rig.sink.answers.clear()
        await asyncio.sleep(120)
        assert sum(rig.sink.messages.values()) == 40
        assert rig.letters.letters == []
        assert rig.committed() == 40


async def test_poison_among_good_records_passes_when_the_good_ones_prevail() -> None:
    """What is wrong with one message alone is a dead letter."""
    async with running(breaker_count=10) as rig:
        rig.publish(*(record(offset, value=b"{" if offset % 4 == 0 else None) for offset in range(100)))
        await asyncio.sleep(60)
        assert len(rig.letters.letters) == 25
        assert rig.committed() == 100


async def test_a_stop_does_not_wait_for_the_breaker() -> None:
    """It may stay tripped for days."""
    async with running(breaker_count=10, drain_timeout_s=25.0) as rig:
        rig.publish(*(record(offset, value=b"{") for offset in range(30)))
        await asyncio.sleep(60)
        assert await rig.end() < 2


async def test_a_revocation_forgets_what_is_held() -> None:
    """The next owner judges the records anew."""
    async with running(breaker_count=10) as rig:
        rig.publish(*(record(offset, value=b"{") for offset in range(30)))
        await asyncio.sleep(60)
        await rig.revoke()
        assert rig.pipeline.held_dead_letters() == 0
        assert rig.pipeline.tripped() == []
