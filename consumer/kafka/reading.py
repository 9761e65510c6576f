"""Reading with aiokafka's client: all partitions side by side, and whose fault it is when that fails."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from aiokafka.errors import CorruptRecordException, KafkaError, RecordTooLargeError, UnsupportedCodecError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from aiokafka import AIOKafkaConsumer

_Batches = dict[Any, "Sequence[Any]"]
_GRACE_S = 1.0
_OF_A_RECORD = (CorruptRecordException, RecordTooLargeError, UnsupportedCodecError)


class UnreadableError(Exception):
    """The client cannot make records of what a partition holds; `kafka_tp` is None when it may be any of them."""

    def __init__(self, cause: Exception, kafka_tp: Any | None) -> None:
        super().__init__(type(cause).__name__)
        self.cause = cause
        self.kafka_tp = kafka_tp


class OutdatedError(Exception):
    """Partitions changed hands while the call was under way: what it brought is of no assignment that still counts."""


class Reader:
    """Reads with one client; another client gets another reader."""

    def __init__(self) -> None:
        self._task: asyncio.Task[_Batches] | None = None
        self._trouble: Exception | None = None
        self._epoch = 0
        """In which the call under way was begun."""
        self._turn = 0
        self.careful_until = 0.0
        """Until then, each partition is asked for one record at a time and only one is waited for: so that a failure
        tells its partition, and every record before the one at fault has been handed out."""

    @property
    def is_careful(self) -> bool:
        """See `careful_until`."""
        return asyncio.get_running_loop().time() < self.careful_until

    async def read(
        self, consumer: AIOKafkaConsumer, *, epoch: int, max_records: int, timeout_s: float
    ) -> Mapping[Any, Sequence[Any]] | None:
        """None: not yet.  `getmany` heeds no timeout in a rebalance, as long as an outage maybe: later calls wait on.

        Raises UnreadableError, and whatever else aiokafka does; but what was read before the failure comes first.
        Raises OutdatedError when the epoch is another one than that in which the call was begun.
        """
        trouble, self._trouble = self._trouble, None
        if trouble is not None:
            raise trouble
        if self._task is None:
            self._epoch = epoch
        task = self._task or self._begin(consumer, max_records, timeout_s)
        await asyncio.wait({task}, timeout=timeout_s + _GRACE_S)
        if not task.done():
            return None
        self._task = None
        if self._epoch != epoch:
            raise OutdatedError
        if task.cancelled():
            raise KafkaError("a task of aiokafka's own was cancelled")
        return task.result()

    def _begin(self, consumer: AIOKafkaConsumer, max_records: int, timeout_s: float) -> asyncio.Task[_Batches]:
        self._task = asyncio.create_task(self._read_evenly(consumer, max_records, timeout_s))
        self._task.add_done_callback(_heard)
        return self._task

    async def _read_evenly(self, consumer: AIOKafkaConsumer, max_records: int, timeout_s: float) -> _Batches:
        """`getmany` empties one partition after the other, so that a backlog of the first would hold up all others.

        Each is asked for its share of the room; what one leaves is there at the next poll, which follows at once.
        """
        partitions = self._rotated(consumer.assignment() - consumer.paused())
        is_careful = self.is_careful
        share = 1 if is_careful else max(1, max_records // max(1, len(partitions)))
        batches: _Batches = {}
        try:
            for kafka_tp in partitions if max_records else ():
                left = max_records - sum(map(len, batches.values()))
                if left > 0:
                    batches |= await _getmany(consumer, kafka_tp, max_records=min(share, left))
        except Exception as error:
            if not any(batches.values()):
                raise
            self._trouble = error
        if any(batches.values()):
            return batches
        awaited = partitions[:1] if is_careful else []
        return await _getmany(
            consumer, *awaited, timeout_ms=int(timeout_s * 1000), max_records=share if max_records else None
        )

    def _rotated(self, partitions: set[Any]) -> list[Any]:
        """Another one first each time, for the room may be too small for all."""
        ordered = sorted(partitions)
        self._turn += 1
        start = self._turn % max(1, len(ordered))
        return ordered[start:] + ordered[:start]


async def _getmany(
    consumer: AIOKafkaConsumer, *partitions: Any, max_records: int | None, timeout_ms: int = 0
) -> _Batches:
    """Raises UnreadableError for what is no trouble of Kafka's own: here aiokafka decodes the records."""
    try:
        found: _Batches = await consumer.getmany(*partitions, timeout_ms=timeout_ms, max_records=max_records)
    except Exception as error:
        if isinstance(error, (KafkaError, OSError)) and not isinstance(error, _OF_A_RECORD):
            raise
        raise UnreadableError(error, partitions[0] if partitions else None) from error
    return found


def _heard(task: asyncio.Task[Any]) -> None:
    """A call that nobody waits for any more may fail unheard."""
    _ = task.cancelled() or task.exception()
