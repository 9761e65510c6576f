"""The service on virtual time: its own corridor, watch and gate, with fakes for Kafka and Zoho."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import aiohttp

from consumer.app import Service
from consumer.pipeline import Pipeline, PipelineConfig
from consumer.settings import load_settings
from consumer.telemetry import metrics as m
from consumer.telemetry.recorder import Recorder
from tests.builders import partition
from tests.fakes import FakeDeadLetters, FakeSink, FakeSource

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from consumer.core.model import Record, TopicPartition
    from consumer.core.ports import RebalanceListener
    from consumer.telemetry.health import State

SETTINGS = {
    "zoho_crm_enabled": True,
    "zoho_client_id": "c",
    "zoho_client_secret": "s",
    "zoho_refresh_token": "r",
    "kafka_bootstrap_servers": "127.0.0.1:1",
}


class Kafka(FakeSource):
    """A member that owns one partition; it can fall silent with records left to read."""

    def __init__(self) -> None:
        super().__init__()
        self.partition_count = 1
        self.is_joined = True
        self.is_rebalancing = False
        self.waits_for = ""
        self.halted: dict[TopicPartition, Any] = {}
        self.unread = 0
        self.recreated_at: list[float] = []

    async def start(self, listener: RebalanceListener) -> None:
        """See `RecordSource`."""
        await super().start(listener)
        await listener.on_assigned([partition()])

    def assignment(self) -> set[TopicPartition]:
        """See `KafkaSource`."""
        return {partition()}

    def lag(self) -> dict[TopicPartition, int]:
        """See `RecordSource`."""
        return {partition(): self.unread}

    async def recreate(self) -> None:
        """See `KafkaSource`."""
        self.recreated_at.append(asyncio.get_running_loop().time())


class Sink(FakeSink):
    """Ready at once."""

    async def prepare(self) -> None:
        """See `ZohoSink`."""


class Letters(FakeDeadLetters):
    """Can be stopped."""

    async def stop(self) -> None:
        """See `KafkaDeadLetters`."""


class Rig:
    """The service at work, and the levers of a test."""

    def __init__(self, service: Service, **config: Any) -> None:
        self.service = service
        self.kafka, self.sink, self.letters = Kafka(), Sink(), Letters()
        self.stop = asyncio.Event()
        self.states: set[State] = set()
        """What a probe that asks each second has been told."""
        pipeline = Pipeline(
            self.kafka,
            self.sink,
            self.letters,
            service.phones,
            config=PipelineConfig(linger_s=0.2, **config),
            observer=service.recorder,
            random=lambda: 0.5,
        )
        parts = {"source": self.kafka, "sink": self.sink, "dead_letters": self.letters, "pipeline": pipeline}
        for name, part in parts.items():
            setattr(service, name, part)

    def publish(self, *records: Record) -> None:
        """These are what the next polls bring."""
        self.kafka.waiting.extend(records)

    async def watch(self, seconds: int) -> None:
        """Time goes by."""
        for _ in range(seconds):
            await asyncio.sleep(1.0)
            self.states.add(self.service.health().state)

    def recreations(self) -> Sequence[float]:
        """When the Kafka client was made anew."""
        return self.kafka.recreated_at


@asynccontextmanager
async def running(**config: Any) -> AsyncIterator[Rig]:
    """A service at work; it is stopped at the end."""
    async with aiohttp.ClientSession() as session:
        service = Service(load_settings(_env_file=None, **SETTINGS), session, Recorder(m.Metrics(version="1")))
        rig = Rig(service, **config)
        work = asyncio.create_task(service.run(rig.stop))
        yield rig
        rig.stop.set()
        await work
