"""The dead-letter topic: original key, value and headers, and why.  Durable before `write` returns."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from aiokafka import AIOKafkaConsumer
from aiokafka import TopicPartition as KafkaPartition
from aiokafka.errors import KafkaError, OutOfOrderSequenceNumber

from consumer.core.errors import DeadLetterError
from consumer.core.model import REPLAYS, TopicPartition
from consumer.kafka.closing import Closer
from consumer.kafka.producing import connected_producer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from aiokafka import AIOKafkaProducer

    from consumer.core.model import Headers, Record, Rejected
    from consumer.kafka.connection import KafkaConnection

_TROUBLE = (KafkaError, OSError, TimeoutError, ValueError)
"""aiokafka raises ValueError for a secret that is empty while its file is being rewritten, and for a header's name that
is no UTF-8."""
_SEND_TIMEOUT_S = 30.0
_READ_TIMEOUT_S = 60.0
_READ_POLL_MS = 500
_CLOCK_SKEW_MS = 3_600_000
"""A dead letter is younger than its record, by clocks that may differ by this much."""
_STOP_TIMEOUT_S = 10.0
_LARGEST_RECORD_BYTES = 16 * 1024 * 1024


def headers_of(record: Record, rejected: Rejected, *, attempts: int, failed_at: datetime) -> Headers:
    """Original headers, and the contract's `dlq.` ones; those of an earlier dead letter are replaced."""
    replays = next((value for name, value in reversed(record.headers) if name == REPLAYS), None)
    ours = {
        "dlq.reason": rejected.reason,
        "dlq.stage": rejected.stage.value,
        "dlq.detail": rejected.detail,
        "dlq.topic": record.tp.topic,
        "dlq.partition": str(record.tp.partition),
        "dlq.offset": str(record.offset),
        "dlq.timestamp": _iso(record.date()) if record.has_date() else str(record.timestamp_ms),
        "dlq.attempts": str(attempts),
        "dlq.failed_at": _iso(failed_at.astimezone(UTC)),
    }
    original = tuple((name, value) for name, value in record.headers if name not in ours and name != REPLAYS)
    return (*original, *((name, text.encode()) for name, text in ours.items()), (REPLAYS, replays or b"0"))


def place_of(headers: Headers) -> tuple[TopicPartition, int] | None:
    """Where the record of a dead letter came from; None when the headers do not tell."""
    named = {name: (value or b"").decode(errors="replace") for name, value in headers}
    try:
        return TopicPartition(named["dlq.topic"], int(named["dlq.partition"])), int(named["dlq.offset"])
    except (KeyError, ValueError):
        return None


def _iso(moment: datetime) -> str:
    return moment.isoformat(timespec="milliseconds")


class KafkaDeadLetters:
    """Writes dead letters with acks=all.  The producer is connected at the first of them."""

    def __init__(
        self,
        connection: KafkaConnection,
        topic: str,
        *,
        idempotence: bool,
        wall_clock: Callable[[], float],
        on_plain: Callable[[], None] = lambda: None,
    ) -> None:
        self._connection = connection
        self._on_plain = on_plain
        self._topic = topic
        self._idempotence = idempotence
        self._wall_clock = wall_clock
        self._producer: AIOKafkaProducer | None = None
        self._starting = asyncio.Lock()
        self._closer = Closer(timeout_s=_STOP_TIMEOUT_S)

    async def write(self, record: Record, rejected: Rejected, *, attempts: int) -> None:
        """See `DeadLetters.write`."""
        failed_at = datetime.fromtimestamp(self._wall_clock(), UTC)
        headers = headers_of(record, rejected, attempts=attempts, failed_at=failed_at)
        try:
            await self._send(record, headers)
        except _TROUBLE as error:
            raise DeadLetterError(type(error).__name__) from None

    async def _send(self, record: Record, headers: Headers) -> None:
        """One record that the broker refuses breaks the row of sequence numbers for all who follow: they try anew."""
        try:
            await self._send_once(record, headers)
        except OutOfOrderSequenceNumber:
            await self._send_once(record, headers)

    async def _send_once(self, record: Record, headers: Headers) -> None:
        """A producer that has failed may be dead for good, so it is replaced."""
        producer = await self._connected()
        try:
            async with asyncio.timeout(_SEND_TIMEOUT_S):
                await producer.send_and_wait(self._topic, key=record.key, value=record.value, headers=list(headers))
        except (KafkaError, OSError, TimeoutError):
            if self._producer is producer:
                self._producer = None
                self._closer.begin(producer)
            raise

    async def _connected(self) -> AIOKafkaProducer:
        async with self._starting:
            if self._producer is None:
                self._producer = await self._connect()
            return self._producer

    async def _connect(self) -> AIOKafkaProducer:
        """Compressed, for with its headers a record that just fits its own topic would be too large for this one."""
        options = {"compression_type": "gzip", "max_request_size": _LARGEST_RECORD_BYTES, **self._connection.options()}
        producer, is_idempotent = await connected_producer(
            options, idempotence=self._idempotence, close=self._closer.begin
        )
        if self._idempotence and not is_idempotent:
            self._idempotence = False
            self._on_plain()
        return producer

    async def standing(self, records: Sequence[Record]) -> set[tuple[TopicPartition, int]]:
        """See `DeadLetters.standing`.  Reads what was written since the oldest of these records."""
        try:
            async with asyncio.timeout(_READ_TIMEOUT_S), self._reader() as consumer:
                places = await self._places(consumer, self._since_ms(records))
        except _TROUBLE as error:
            raise DeadLetterError(type(error).__name__) from None
        return places & {(record.tp, record.offset) for record in records}

    @asynccontextmanager
    async def _reader(self) -> AsyncIterator[AIOKafkaConsumer]:
        consumer = AIOKafkaConsumer(enable_auto_commit=False, **self._connection.options())
        try:
            await consumer.start()
            yield consumer
        finally:
            await self._closer.close(consumer)

    def _since_ms(self, records: Sequence[Record]) -> int:
        """A record from the future (microseconds for milliseconds) does not tell since when its letter may stand."""
        stamps = [record.timestamp_ms for record in records]
        is_odd = max(stamps) > self._wall_clock() * 1000 + _CLOCK_SKEW_MS
        return 0 if is_odd else max(0, min(stamps) - _CLOCK_SKEW_MS)

    async def _places(self, consumer: AIOKafkaConsumer, since_ms: int) -> set[tuple[TopicPartition, int]]:
        if self._topic not in await consumer.topics():
            return set()
        # A consumer that subscribes to nothing knows no topic until somebody asks for one of its partitions.
        await consumer.end_offsets([KafkaPartition(self._topic, 0)])
        numbers = consumer.partitions_for_topic(self._topic)
        partitions = [KafkaPartition(self._topic, number) for number in numbers]
        ends = await consumer.end_offsets(partitions)
        starts = await consumer.offsets_for_times(dict.fromkeys(partitions, since_ms))
        unread = {tp: starts[tp].offset for tp in partitions if starts.get(tp) and starts[tp].offset < ends[tp]}
        consumer.assign(list(unread))
        for tp, offset in unread.items():
            consumer.seek(tp, offset)
        places: set[tuple[TopicPartition, int]] = set()
        while unread:
            for batch in (await consumer.getmany(timeout_ms=_READ_POLL_MS)).values():
                places.update(place for raw in batch if (place := place_of(raw.headers)))
            unread = {tp: offset for tp in unread if (offset := await consumer.position(tp)) < ends[tp]}
        return places

    async def stop(self) -> None:
        """Close; bounded, never raises."""
        producer, self._producer = self._producer, None
        if producer is not None:
            await self._closer.close(producer)
