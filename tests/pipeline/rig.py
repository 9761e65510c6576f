"""A corridor between fakes, on virtual time."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from consumer.core.backoff import Backoff
from consumer.core.phones import Phones
from consumer.pipeline import Pipeline, PipelineConfig
from tests.builders import partition
from tests.fakes import Events, FakeDeadLetters, FakeSink, FakeSource

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from consumer.core.model import Record


class Rig:
    """The corridor, what it is connected to, and the levers of a test."""

    def __init__(self, **config: Any) -> None:
        self.source = FakeSource()
        self.sink = FakeSink()
        self.letters = FakeDeadLetters()
        self.events = Events()
        self.stop = asyncio.Event()
        defaults: dict[str, Any] = {"linger_s": 0.0, "backoff": Backoff(base_s=1.0, cap_s=30.0)}
        self.pipeline = Pipeline(
            self.source,
            self.sink,
            self.letters,
            Phones(None),
            config=PipelineConfig(**{**defaults, **config}),
            observer=self.events,
            random=lambda: 0.5,
        )
        self.running: asyncio.Task[None] | None = None
        self.leaving: asyncio.Task[None] | None = None

    def publish(self, *records: Record) -> None:
        """These are what the next polls bring."""
        self.source.waiting.extend(records)

    def committed(self, number: int = 0) -> int | None:
        """The offset that Kafka knows."""
        return self.source.committed().get(partition(number))

    async def revoke(self, *numbers: int) -> None:
        """The group takes partitions away."""
        await self.pipeline.on_revoked([partition(number) for number in numbers or (0,)])

    async def end(self) -> float:
        """SIGTERM; returns the seconds until the corridor had ended."""
        assert self.running is not None
        started = asyncio.get_running_loop().time()
        self.stop.set()
        await self.running
        return asyncio.get_running_loop().time() - started


@asynccontextmanager
async def running(**config: Any) -> AsyncIterator[Rig]:
    """A corridor at work; it is stopped at the end."""
    rig = Rig(**config)
    rig.running = asyncio.create_task(rig.pipeline.run(rig.stop))
    await asyncio.sleep(0.1)
    yield rig
    rig.stop.set()
    await asyncio.wait({rig.running})
