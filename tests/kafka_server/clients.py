"""The shortest way in and out of a topic, for tests of brokers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer


async def produce(options: Mapping[str, Any], topic: str, values: Sequence[bytes], *, partition: int = 0) -> None:
    """Returns when all values are stored, in this order; `options` are the broker's client options."""
    async with AIOKafkaProducer(**options, acks="all") as producer:
        for value in values:
            await producer.send_and_wait(topic, value, partition=partition)


@asynccontextmanager
async def joined(options: Mapping[str, Any], topic: str, *, group: str) -> AsyncIterator[AIOKafkaConsumer]:
    """A member of the group that has its partitions, starts at the beginning and commits only when told."""
    settings = {"group_id": group, "auto_offset_reset": "earliest", "enable_auto_commit": False}
    async with AIOKafkaConsumer(topic, **options, **settings) as consumer:
        yield consumer


async def read(options: Mapping[str, Any], topic: str, *, count: int, group: str) -> list[bytes]:
    """The next `count` values that the group gets; commits nothing."""
    async with joined(options, topic, group=group) as consumer:
        return [(await consumer.getone()).value for _ in range(count)]
