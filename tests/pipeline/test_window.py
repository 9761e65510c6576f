"""The one brake: records that are read and not committed."""

from __future__ import annotations

import asyncio

from consumer.core.model import Stage
from tests.builders import record
from tests.pipeline.rig import running


async def test_no_more_is_read_than_the_window_holds() -> None:
    """With Zoho away, polling goes on, without asking for records."""
    async with running(max_in_flight=50) as rig:
        rig.sink.hold(Stage.LEAD)
        rig.publish(*(record(offset) for offset in range(200)))
        await asyncio.sleep(60)
        assert rig.pipeline.tracker.in_flight() == 50
        assert rig.source.asked_for[-1] == 0


async def test_bytes_count_as_well() -> None:
    """A few large records fill the window, too."""
    async with running(max_in_flight_bytes=10_000) as rig:
        rig.sink.hold(Stage.LEAD)
        rig.publish(*(record(offset, text="x" * 4000) for offset in range(100)))
        rig.publish()
        await asyncio.sleep(10)
        assert rig.source.asked_for[-1] == 0


async def test_records_are_asked_for_in_batches() -> None:
    """A crumb of room is not worth a poll."""
    async with running(max_in_flight=100, batch_max_records=20) as rig:
        rig.publish(*(record(offset) for offset in range(2000)))
        await asyncio.sleep(60)
        assert rig.committed() == 2000
        assert min(filter(None, rig.source.asked_for)) >= 11


async def test_a_chat_passes_a_campaign() -> None:
    """An operator's message does not wait for a mailing that was read before it."""
    async with running(batch_max_records=10) as rig:
        rig.sink.wants_notes = False
        gate = rig.sink.hold(Stage.MESSAGE)
        numbers = [f"+4915112{number:06}" for number in range(1000)]
        rig.publish(*(record(offset, phone=phone, origin="campaign") for offset, phone in enumerate(numbers)))
        await asyncio.sleep(5)
        rig.publish(record(0, number=1, message_id="chat"))
        await asyncio.sleep(5)
        gate.set()
        await asyncio.sleep(5)
        order = [message_id for batch in rig.sink.batches[Stage.MESSAGE] for message_id in batch]
        assert order.index("chat") < 300


async def test_batches_hold_no_more_than_allowed() -> None:
    """Each call to Zoho takes at most so many messages."""
    async with running(batch_max_records=7) as rig:
        rig.publish(*(record(offset) for offset in range(100)))
        await asyncio.sleep(10)
        assert max(map(len, rig.sink.batches[Stage.MESSAGE])) == 7
        assert sum(rig.sink.messages.values()) == 100
