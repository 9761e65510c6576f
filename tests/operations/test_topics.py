"""Reading a topic from here to there, whatever the brokers do."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

import pytest

from consumer.core.model import TopicPartition
from consumer.operations.errors import OperationError
from consumer.operations.topics import Span, scan

SPANS = {TopicPartition("letters", 0): Span(0, 3)}


class Client:
    """What a scan uses of aiokafka's client: there are no records, and the end is not reached."""

    def __init__(self, answers: Any) -> None:
        self.last_poll_timestamp = lambda _partition: next(answers)

    def assign(self, partitions: list[Any]) -> None:
        """As the client does."""

    def seek(self, partition: Any, offset: int) -> None:
        """As the client does."""

    async def position(self, _partition: Any) -> int:
        """One before the end."""
        return 2

    async def getmany(self, **_how: Any) -> dict[Any, Any]:
        """Nothing, but others get their turn."""
        await asyncio.sleep(0)
        return {}


async def _scanned(answers: Any) -> list[Any]:
    client: Any = Client(answers)
    return [records async for records in scan(client, SPANS)]


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("consumer.operations.topics._IDLE_S", 0.01)


@pytest.mark.parametrize("stamp", [None, 1_700_000_000_000])
async def test_brokers_that_fall_silent_are_no_end(stamp: int | None) -> None:
    """When no fetch is answered any more, a part is not taken for the whole."""
    with pytest.raises(OperationError, match=r"kafka\.no_answer topic=letters"):
        await _scanned(itertools.repeat(stamp))


async def test_brokers_that_have_nothing_more_are_an_end() -> None:
    """Marks of transactions at the end of a partition are no records: the answers are empty."""
    assert await _scanned(itertools.count()) == []
