"""The corridor over the Zoho room: what only both together show."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from consumer.core.backoff import Backoff
from consumer.core.model import NotePolicy
from consumer.pipeline import Pipeline, PipelineConfig
from sandbox.zoho import Meddle
from tests.builders import record
from tests.fakes import Events, FakeDeadLetters, FakeSource
from tests.zoho.room import Client, World, number, run


class Corridor:
    """One process between Zoho and fakes of Kafka."""

    def __init__(self, client: Client, *, jitter: tuple[float, ...] = (), **config: Any) -> None:
        self.source, self.letters = FakeSource(), FakeDeadLetters()
        self.stop = asyncio.Event()
        drawn = iter(jitter)
        defaults: dict[str, Any] = {"linger_s": 0.0, "backoff": Backoff(base_s=0.5, cap_s=30.0)}
        self.pipeline = Pipeline(
            self.source,
            client.sink,
            self.letters,
            client.phones,
            config=PipelineConfig(**{**defaults, **config}),
            observer=Events(),
            random=lambda: next(drawn, 0.5),
        )
        self.running = asyncio.create_task(self.pipeline.run(self.stop))

    async def end(self) -> None:
        """SIGTERM."""
        self.stop.set()
        await self.running


@pytest.mark.parametrize("policy", list(NotePolicy))
def test_each_message_follows_its_note_to_the_new_lead(policy: NotePolicy) -> None:
    """The lead goes before the notes stand; one of the messages finds the new lead before the other does."""

    async def scenario() -> None:
        world = World({"latency_median_s": 0.1})
        client = Client(world, note_policy=policy)
        gone = await client.parent(number(1))
        delete = Meddle(do="delete", args={"module": "Leads", "record_id": gone.id})
        world.fault(delete, operation="notes.create")
        corridor = Corridor(client, jitter=(0.1, 0.99))
        corridor.source.waiting += [record(index, phone=number(1), dialog_id=f"d{index}") for index in range(2)]
        await asyncio.sleep(60)
        await corridor.end()
        [lead] = world.dump("Leads")
        assert [message["Lead"] for message in world.dump("Messages")] == [
            {"id": lead["id"], "name": lead["Full_Name"]}
        ] * 2
        assert [note["Parent_Id"]["id"] for note in world.dump("Notes")] == [lead["id"]] * 2

    run(scenario())
