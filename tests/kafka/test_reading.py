"""Reading beside rebalances, on a client whose answers the test holds in its hand."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from consumer.kafka.reading import OutdatedError, Reader


class Slow:
    """A client that gives its records when the test lets it."""

    def __init__(self) -> None:
        self.may_answer = asyncio.Event()

    def assignment(self) -> set[Any]:
        """One partition."""
        return {("messages", 0)}

    def paused(self) -> set[Any]:
        """None of them."""
        return set()

    async def getmany(self, *_partitions: Any, **_room: Any) -> dict[Any, Any]:
        """As in a rebalance: heeds no timeout."""
        await self.may_answer.wait()
        return {("messages", 0): ["a record"]}


async def read(reader: Reader, client: Any, epoch: int) -> Any:
    return await reader.read(client, epoch=epoch, max_records=10, timeout_s=0.5)


async def test_a_read_that_outlasts_a_poll_is_waited_for_by_the_next() -> None:
    """Two calls at once would take records from each other."""
    reader, client = Reader(), Slow()
    assert await read(reader, client, epoch=1) is None
    client.may_answer.set()
    assert await read(reader, client, epoch=1) == {("messages", 0): ["a record"]}


async def test_what_was_read_before_a_rebalance_is_not_taken_after_it() -> None:
    """The partition may begin elsewhere by now: its records would come out of order, and their offsets pass others."""
    reader, client = Reader(), Slow()
    assert await read(reader, client, epoch=1) is None
    client.may_answer.set()
    with pytest.raises(OutdatedError):
        await read(reader, client, epoch=2)
    assert await read(reader, client, epoch=2) == {("messages", 0): ["a record"]}
