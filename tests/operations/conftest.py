"""A dead-letter topic of one's own, and a Zoho stand-in."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any

import pytest_asyncio
from aiokafka import AIOKafkaProducer, ConsumerRecord

from consumer.kafka.connection import KafkaConnection
from consumer.operations.dlq.desk import Desk
from consumer.operations.topics import reader, scan, spans_of
from sandbox.zoho.config import SandboxConfig
from sandbox.zoho.server import SandboxServer
from tests.kafka_server.cluster import Broker
from tests.kafka_server.fixtures import CreateTopic


def event(message_id: str, **changes: Any) -> bytes:
    """A message event as a producer writes it."""
    fields = {
        "message_id": message_id,
        "occurred_at": "2026-11-24T10:00:00+00:00",
        "direction": "inbound",
        "origin": "chat",
        "phone": "+79161234567",
        "text": "about my order",
    }
    return json.dumps(fields | changes).encode()


@dataclass(frozen=True, slots=True)
class Letters:
    """Writes dead letters, and reads what came back."""

    desk: Desk
    topic: str

    async def write(
        self, values: Sequence[bytes], *, key: bytes | None = b"k", is_batch: bool = False, **headers: str
    ) -> None:
        """Dead letters in this order; `headers` are `dlq.` ones, with the usual ones as default."""
        usual = {"reason": "zoho.INVALID_DATA", "stage": "lead", "topic": self.topic, "partition": "0", "replays": "0"}
        named = {name: value for name, value in (usual | headers).items() if value}
        pairs = [("trace", b"1"), *((f"dlq.{name}", value.encode()) for name, value in named.items())]
        linger_ms = 100 if is_batch else 0
        async with AIOKafkaProducer(**self.desk.connection.options(), acks="all", linger_ms=linger_ms) as producer:
            for value in values:
                sent = await producer.send(self.desk.topic, value, key=key, headers=pairs)
                if not is_batch:
                    await sent
            await producer.flush()

    async def came_back(self) -> list[Any]:
        """Records of the original topic."""
        async with reader(self.desk.connection) as consumer:
            spans = await spans_of(consumer, self.topic)
            return [record async for records in scan(consumer, spans) for record in records]


@pytest_asyncio.fixture
async def letters(broker: Broker, create_topic: CreateTopic) -> Letters:
    """Two topics that no other test has, on each kind of broker."""
    topic = await create_topic(partitions=3)
    desk = Desk(KafkaConnection(broker.bootstrap_servers), await create_topic(), f"{topic}-dlq-replay")
    return Letters(Desk(desk.connection, desk.topic, desk.group_id, idempotence=False), topic)


@pytest_asyncio.fixture
async def zoho() -> AsyncIterator[SandboxServer]:
    """A Zoho stand-in that answers at once."""
    async with SandboxServer(SandboxConfig(latency_median_s=0.0, search_lag_s=(0.0, 0.0))) as server:
        yield server


def environment(zoho: SandboxServer, **more: str) -> dict[str, str]:
    """The service's variables for this stand-in."""
    credentials = zoho.credentials
    return {
        "ZOHO_CRM_ENABLED": "true",
        "ZOHO_API_DOMAIN": credentials["url"],
        "ZOHO_CLIENT_ID": credentials["client_id"],
        "ZOHO_CLIENT_SECRET": credentials["client_secret"],
        "ZOHO_REFRESH_TOKEN": credentials["refresh_token"],
        **more,
    }


def values_of(records: Sequence[ConsumerRecord]) -> list[bytes]:
    """Their values."""
    return [record.value for record in records]
