"""A member of a group, as the service runs one, that keeps what it reads and can be asked what it sees."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, Self

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka import TopicPartition as KafkaPartition
from aiokafka.structs import OffsetAndMetadata

from consumer.app import kafka_connection
from consumer.core.model import Record, TopicPartition
from consumer.kafka.connection import KafkaConnection
from consumer.kafka.dead_letters import KafkaDeadLetters
from consumer.kafka.source import KafkaSource, SourceConfig
from consumer.settings import Settings
from tests.kafka_server.cluster import Broker

DEADLINE_S = 60.0
POLL_S = 0.05


def connection(environment: Mapping[str, str]) -> KafkaConnection:
    """As the service makes it from these variables."""
    values: dict[str, Any] = {name.lower(): value for name, value in environment.items()}
    return kafka_connection(Settings(_env_file=None, **values))


class Member:
    """Runs a source's poll loop.  `async with Member(broker, topic) as member:` joins; leaving the block stops it."""

    def __init__(
        self, broker: Broker, topic: str, *, environment: Mapping[str, str] | None = None, **config: Any
    ) -> None:
        defaults = SourceConfig(topic, group_id=topic, since_ms=0, session_timeout_s=3.0, metadata_max_age_s=1.0)
        self.topic = topic
        self.source = KafkaSource(
            connection(environment or broker.environment()),
            replace(defaults, **config),
            observer=self,
            wall_clock=time.time,
        )
        self.records: list[Record] = []
        self.events: list[tuple[str, Any]] = []
        self.failures: list[str] = []
        self.room = 1000
        self.polls = 0
        self.commits_on_revoke = True
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self.begin()
        await self.until(lambda: self.source.is_joined and not self.source.is_rebalancing)
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.stop()

    def begin(self) -> None:
        """Join in the background."""
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Leave, as a service does that has committed what it finished."""
        assert self._task
        if not self._task.done():
            self._task.cancel()
        await asyncio.wait({self._task})
        if not self._task.cancelled():
            self._task.result()
        await self.source.stop()

    async def _run(self) -> None:
        await self.source.start(self)
        while True:
            self.records += await self.source.poll(max_records=self.room, timeout_s=0.1)
            self.polls += 1

    # -- as the source's listener and observer

    async def on_revoked(self, partitions: Collection[TopicPartition]) -> None:
        if partitions and self.commits_on_revoke:
            await self.commit(is_clean=True)
        self.events.append(("revoked", {tp.partition for tp in partitions}))

    async def on_assigned(self, partitions: Collection[TopicPartition]) -> None:
        self.events.append(("assigned", {tp.partition for tp in partitions}))

    def partition_opened(self, tp: TopicPartition, offset: int, why: str) -> None:
        self.events.append(("opened", (tp.partition, offset, why)))

    def partition_halted(self, tp: TopicPartition, code: str, advice: str) -> None:
        self.events.append(("halted", (tp.partition, code)))

    def kafka_failed(self, what: str, error: BaseException) -> None:
        self.failures.append(f"{what}: {type(error).__name__}")

    # -- as a test

    async def commit(self, *, is_clean: bool = False) -> None:
        """Commit behind all that was read."""
        owned = self.source.assignment()
        ends = {record.tp: record.offset + 1 for record in self.records if record.tp in owned}
        if ends:
            await self.source.commit(ends, is_clean=is_clean)

    async def until(self, is_so: Callable[[], bool]) -> None:
        """Wait for it; a member whose loop has ended says why at once."""
        async with asyncio.timeout(DEADLINE_S):
            while not is_so():
                if self._task is not None and self._task.done():
                    self._task.result()
                await asyncio.sleep(POLL_S)

    async def read(self, count: int) -> list[bytes | None]:
        """The values of all records so far, once there are so many."""
        await self.until(lambda: len(self.records) >= count)
        return self.values()

    async def set_room(self, room: int) -> None:
        """Returns once no poll is under way that began with more."""
        self.room, polls = room, self.polls
        await self.until(lambda: self.polls > polls)

    async def opened(self, count: int = 1) -> None:
        """Wait until so many partitions were opened."""
        await self.until(lambda: len(self.told("opened")) >= count)

    def values(self) -> list[bytes | None]:
        """Of all records so far."""
        return [record.value for record in self.records]

    def told(self, kind: str) -> list[Any]:
        """Events of a kind."""
        return [what for name, what in self.events if name == kind]

    def coordinator(self) -> Any:
        """The client's side of the group."""
        assert self.source._consumer
        return self.source._consumer._coordinator

    def owned(self) -> set[int]:
        """Numbers of its partitions."""
        return {tp.partition for tp in self.source.assignment()}


@asynccontextmanager
async def dead_letters(broker: Broker, topic: str, *, idempotence: bool = False) -> AsyncIterator[KafkaDeadLetters]:
    """A writer of dead letters, for whom it is always 2023-11-14T22:13:20Z."""
    letters = KafkaDeadLetters(
        connection(broker.environment()), topic, idempotence=idempotence, wall_clock=lambda: 1_700_000_000.0
    )
    try:
        yield letters
    finally:
        await letters.stop()


async def produce(
    broker: Broker,
    topic: str,
    values: Sequence[bytes],
    *,
    partition: int = 0,
    timestamp_ms: int | None = None,
    options: Mapping[str, Any] | None = None,
) -> None:
    """Returns when all are stored, in this order."""
    async with AIOKafkaProducer(
        **(options or broker.client_options()), acks="all", max_request_size=8 * 1024 * 1024
    ) as producer:
        for value in values:
            await producer.send_and_wait(topic, value, partition=partition, timestamp_ms=timestamp_ms)


async def stored_offset(broker: Broker, topic: str, *, partition: int = 0, group: str | None = None) -> int | None:
    """What the group has committed."""
    consumer = AIOKafkaConsumer(**broker.client_options(), group_id=group or topic, enable_auto_commit=False)
    await consumer.start()
    try:
        offset: int | None = await consumer.committed(KafkaPartition(topic, partition))
        return offset
    finally:
        await consumer.stop()


async def set_offset(broker: Broker, topic: str, offset: int, *, partition: int = 0) -> None:
    """As kafka-consumer-groups --reset-offsets does while the group has no members."""
    kafka_tp = KafkaPartition(topic, partition)
    consumer = AIOKafkaConsumer(**broker.client_options(), group_id=topic, enable_auto_commit=False)
    await consumer.start()
    try:
        consumer.assign([kafka_tp])
        await consumer.commit({kafka_tp: OffsetAndMetadata(offset, "")})
    finally:
        await consumer.stop()


def numbered(count: int, *, first: int = 0) -> list[bytes]:
    """Values that tell their order."""
    return [b"%d" % number for number in range(first, first + count)]


def new_name() -> str:
    """A name that nobody else has."""
    return f"test-{uuid.uuid4().hex}"
