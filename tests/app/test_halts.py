"""Since when work waits, as the operator is told."""

from __future__ import annotations

import asyncio

from consumer.core.model import Rejected, Stage
from tests.app.stage import Rig, running
from tests.builders import record


def _reject(rig: Rig, *offsets: int) -> None:
    for offset in offsets:
        rig.sink.answers[Stage.MESSAGE, f"m0-{offset}"] = Rejected(Stage.MESSAGE, "zoho.INVALID_DATA")
    rig.publish(*(record(offset) for offset in offsets))


def _ages(rig: Rig) -> dict[str, int]:
    now = asyncio.get_running_loop().time()
    return {halt.code: round(now - halt.since) for halt in rig.service.halts()}


async def test_a_topic_that_takes_no_dead_letters_is_told_with_its_age() -> None:
    """The halt grows older while it stands, and one that comes later begins anew."""
    async with running() as rig:
        rig.letters.is_down = True
        _reject(rig, 0)
        await rig.watch(600)
        assert _ages(rig)["DEAD_LETTER_TOPIC_FAILS"] >= 590
        rig.letters.is_down = False
        await rig.watch(60)
        assert _ages(rig) == {}
        rig.letters.is_down = True
        _reject(rig, 1)
        await rig.watch(60)
        assert 50 <= _ages(rig)["DEAD_LETTER_TOPIC_FAILS"] <= 60


async def test_a_flood_of_rejections_is_told_with_its_age() -> None:
    """The halt of a partition whose messages are mostly refused grows older while it stands."""
    async with running(breaker_count=5) as rig:
        _reject(rig, *range(10))
        await rig.watch(600)
        assert _ages(rig)["DEAD_LETTER_BREAKER"] >= 590
