"""Reading a topic from here to there, beside the service: joins no group, and moves nobody's offsets."""

from __future__ import annotations

import asyncio
import logging
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from aiokafka import AIOKafkaConsumer
from aiokafka import TopicPartition as KafkaPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import (
    GroupAuthorizationFailedError,
    KafkaError,
    OffsetOutOfRangeError,
    TopicAuthorizationFailedError,
)

from consumer.core.model import Record, TopicPartition
from consumer.operations.errors import OperationError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping

    from consumer.kafka.connection import KafkaConnection

_Answer = TypeVar("_Answer")
_IDLE_S = 10.0
_POLL_MS = 500
_WATERMARK_S = 3.0
_WATERMARK_POLL_S = 0.005
_PATIENCE_S = 15.0
_STOP_TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True)
class Span:
    """Offsets of one partition: from `start` to before `end`."""

    start: int
    end: int

    @property
    def size(self) -> int:
        """How many records at most."""
        return max(0, self.end - self.start)


Spans = dict[TopicPartition, Span]


@asynccontextmanager
async def reader(connection: KafkaConnection) -> AsyncIterator[AIOKafkaConsumer]:
    """A consumer without group.  Raises OperationError when the brokers cannot be reached or refuse."""
    with translated(connection):
        consumer = AIOKafkaConsumer(
            enable_auto_commit=False,
            auto_offset_reset="none",
            fetch_max_bytes=16 * 1024 * 1024,
            max_partition_fetch_bytes=4 * 1024 * 1024,
            **connection.options(),
        )
        try:
            with quiet():
                await consumer.start()
            yield consumer
        finally:
            await stopped(consumer)


@asynccontextmanager
async def bookkeeper(
    connection: KafkaConnection, group_id: str, partitions: Iterable[TopicPartition]
) -> AsyncIterator[AIOKafkaConsumer]:
    """A consumer that only stores offsets of `group_id`.

    It is assigned once and reads nothing: aiokafka's coordinator dies of a second assignment that comes early.
    """
    with translated(connection):
        consumer = AIOKafkaConsumer(
            group_id=group_id, enable_auto_commit=False, auto_offset_reset="none", **connection.options()
        )
        try:
            with quiet():
                await consumer.start()
            tps = [_kafka(tp) for tp in partitions]
            consumer.assign(tps)
            consumer.pause(*tps)
            yield consumer
        finally:
            await stopped(consumer)


async def stopped(client: Any) -> None:
    """Stop a client of aiokafka; its stop() can hang when brokers are gone."""
    task = asyncio.ensure_future(client.stop())
    await asyncio.wait({task}, timeout=_STOP_TIMEOUT_S)
    if not task.done():
        task.cancel()


@contextmanager
def quiet() -> Iterator[None]:
    """Hushes aiokafka: what went wrong is told once, in the command's own words."""
    logger = logging.getLogger("aiokafka")
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        logger.setLevel(level)


@contextmanager
def translated(connection: KafkaConnection) -> Iterator[None]:
    """Turns Kafka's errors into OperationError."""
    try:
        yield
    except (TopicAuthorizationFailedError, GroupAuthorizationFailedError) as error:
        raise OperationError("kafka.forbidden", detail=type(error).__name__) from None
    except (KafkaError, OSError, TimeoutError) as error:
        servers = connection.bootstrap_servers or "KAFKA_BOOTSTRAP_SERVERS"
        raise OperationError("kafka.unreachable", servers=servers, detail=type(error).__name__) from None


async def patiently(ask: Callable[[], Awaitable[_Answer]]) -> _Answer:
    """Ask again while the answer is "not yet": a coordinator that is being elected, a leader that moves."""
    until = asyncio.get_running_loop().time() + _PATIENCE_S
    while True:
        try:
            return await ask()
        except KafkaError as error:
            if not error.retriable or asyncio.get_running_loop().time() > until:
                raise
        await asyncio.sleep(_POLL_MS / 1000)


async def spans_of(consumer: AIOKafkaConsumer, topic: str, *, since_ms: int | None = None) -> Spans:
    """What the topic holds now, or from `since_ms` on.  Raises OperationError when there is no such topic."""
    if topic not in await consumer.topics():
        raise OperationError("kafka.no_topic", topic=topic)
    await consumer.end_offsets([KafkaPartition(topic, 0)])  # a client learns of a topic when it asks for one partition
    partitions = [KafkaPartition(topic, number) for number in consumer.partitions_for_topic(topic) or ()]
    starts = dict(await consumer.beginning_offsets(partitions))
    ends = await ends_of(consumer, partitions, starts)
    if since_ms is not None:
        found = await consumer.offsets_for_times(dict.fromkeys(partitions, since_ms))
        starts = {tp: found[tp].offset if found.get(tp) else ends[tp] for tp in partitions}
    return {TopicPartition(tp.topic, tp.partition): Span(starts[tp], ends[tp]) for tp in partitions}


async def ends_of(consumer: AIOKafkaConsumer, partitions: list[Any], starts: Mapping[Any, int]) -> dict[Any, int]:
    """Where each partition ends; `starts` are where they begin.

    Not every broker's list of offsets counts the whole of the last batch (Tansu 0.6 counts its first record only); the
    high watermark of a fetch does, so what is not empty is fetched from once.  Nothing is taken out of the fetch: the
    client would begin a long one behind it, which the next reader would have to sit out.
    """
    ends = dict(await consumer.end_offsets(partitions))
    open_partitions = [tp for tp in partitions if ends[tp] > starts[tp]]
    consumer.assign(open_partitions)
    for tp in open_partitions:
        consumer.seek(tp, ends[tp] - 1)
    with suppress(TimeoutError):
        async with asyncio.timeout(_WATERMARK_S):
            while any(consumer.highwater(tp) is None for tp in open_partitions):  # noqa: ASYNC110 - no event tells
                await asyncio.sleep(_WATERMARK_POLL_S)
    return {tp: max(end, (tp in open_partitions and consumer.highwater(tp)) or 0) for tp, end in ends.items()}


async def group_offsets(connection: KafkaConnection, group_id: str, spans: Spans) -> dict[TopicPartition, Any]:
    """What the group has committed in these partitions: `offset` and `metadata` each.  Raises OperationError."""
    with translated(connection), quiet():
        admin = AIOKafkaAdminClient(**connection.options())
        try:
            await admin.start()
            partitions = [_kafka(tp) for tp in spans]
            found = await patiently(lambda: admin.list_consumer_group_offsets(group_id, partitions=partitions))
        finally:
            await admin.close()
    return {TopicPartition(tp.topic, tp.partition): entry for tp, entry in found.items() if entry.offset >= 0}


async def scan(consumer: AIOKafkaConsumer, spans: Mapping[TopicPartition, Span]) -> AsyncGenerator[list[Record], None]:
    """All records of the spans, partitions side by side, each in order.

    Ends where the spans end, and also when the brokers have nothing more for ten seconds: at the end of a partition
    there may be marks of transactions, which are no records.  Raises OperationError when they do not answer so long.
    """
    open_spans = {tp: span for tp, span in spans.items() if span.size}
    if not open_spans:
        return
    consumer.assign([_kafka(tp) for tp in open_spans])
    for tp, span in open_spans.items():
        consumer.seek(_kafka(tp), span.start)
    loop = asyncio.get_running_loop()
    idle_until, answered = loop.time() + _IDLE_S, _answered(consumer, open_spans)
    while open_spans and loop.time() < idle_until:
        records = await _poll(consumer, open_spans)
        if records:
            yield records
            idle_until, answered = loop.time() + _IDLE_S, _answered(consumer, open_spans)
        await _close_finished(consumer, open_spans)
    silent = _answered(consumer, open_spans).items() & answered.items()
    if silent:
        raise OperationError("kafka.no_answer", topic=min(silent)[0].topic)


def _answered(consumer: AIOKafkaConsumer, open_spans: Spans) -> dict[TopicPartition, int | None]:
    """When a fetch was last answered, with records or without."""
    return {tp: consumer.last_poll_timestamp(_kafka(tp)) for tp in open_spans}


async def _poll(consumer: AIOKafkaConsumer, open_spans: Spans) -> list[Record]:
    try:
        batches = await consumer.getmany(timeout_ms=_POLL_MS, max_records=500)
    except OffsetOutOfRangeError as error:
        await _step_over_deleted(consumer, error)
        return []
    records = [record_of(raw) for batch in batches.values() for raw in batch]
    wanted = [item for item in records if item.tp in open_spans and item.offset < open_spans[item.tp].end]
    return sorted(wanted, key=lambda item: (item.timestamp_ms, item.tp, item.offset))


async def _step_over_deleted(consumer: AIOKafkaConsumer, error: OffsetOutOfRangeError) -> None:
    """Retention took records while we read: go on where the partition begins now."""
    partitions = list(error.args[0]) if error.args and isinstance(error.args[0], dict) else []
    for tp, offset in (await consumer.beginning_offsets(partitions)).items():
        consumer.seek(tp, offset)


async def _close_finished(consumer: AIOKafkaConsumer, open_spans: Spans) -> None:
    for tp in list(open_spans):
        if await consumer.position(_kafka(tp)) >= open_spans[tp].end:
            del open_spans[tp]
            consumer.pause(_kafka(tp))


def record_of(raw: Any) -> Record:
    """Kafka's record in the words of the core."""
    tp = TopicPartition(raw.topic, raw.partition)
    return Record(tp, raw.offset, raw.timestamp, raw.key, raw.value, tuple(raw.headers))


def _kafka(tp: TopicPartition) -> Any:
    return KafkaPartition(tp.topic, tp.partition)
