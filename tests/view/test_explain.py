"""A message looked up on the page: what the command says, and what this process has in its hands."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest_asyncio
from aiokafka import AIOKafkaProducer

from consumer.core.dedup import Dedup
from consumer.kafka.connection import KafkaConnection
from consumer.operations.dlq.desk import Desk
from consumer.settings import load_settings
from consumer.view.explain import Explainer
from consumer.zoho.api import Call, Operation
from tests.operations.conftest import Letters, environment, event, letters, zoho
from tests.zoho.room import delivery

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from consumer.web.view import Explanation
    from sandbox.zoho.server import SandboxServer

__all__ = ["letters", "zoho"]


@dataclass
class Console:
    """An explainer over brokers and a Zoho stand-in."""

    explainer: Explainer
    dedup: Dedup
    letters: Letters
    send: Any

    async def explain(self, message_id: str, lang: Any = "en") -> Explanation:
        return await self.explainer.explain(message_id, lang)

    async def produce(self, value: bytes) -> None:
        async with AIOKafkaProducer(**self.letters.desk.connection.options()) as producer:
            await producer.send_and_wait(self.letters.topic, value)


@pytest_asyncio.fixture
async def console(letters: Letters, zoho: SandboxServer) -> AsyncIterator[Console]:
    from consumer.app import ZohoRoom
    from consumer.telemetry import metrics as m
    from consumer.telemetry.recorder import Recorder

    overrides = {name.lower(): value for name, value in environment(zoho).items()}
    servers = letters.desk.connection.bootstrap_servers
    settings = load_settings(
        _env_file=None, **overrides, kafka_bootstrap_servers=servers, kafka_topic=letters.topic, kafka_group_id="g"
    )
    async with aiohttp.ClientSession() as session:
        room = ZohoRoom(settings, session, Recorder(m.Metrics(version="1")))
        dedup = Dedup(horizon=10)
        service: Any = SimpleNamespace(settings=settings, zoho=room, pipeline=SimpleNamespace(dedup=dedup))
        yield Console(Explainer(service, letters.desk), dedup, letters, room.send)


async def test_message_that_nobody_sent(console: Console) -> None:
    """Nothing in Kafka, nothing in Zoho: said in the reader's language."""
    english, russian = await console.explain("m-none"), await console.explain("m-none", "ru")
    assert (english.state, english.rows) == ("unknown", ())
    assert english.sentence
    assert english.sentence != russian.sentence


async def test_message_in_our_hands(console: Console) -> None:
    """While it is on its way, its stage, attempts and last reason are shown beside its place in the topic."""
    await console.produce(event("m-fly"))
    flying = delivery("m-fly", "+79161234567")
    flying.attempts, flying.last_code = 3, "HTTP_503"
    console.dedup.start(flying)
    found = await console.explain("m-fly")
    assert found.state == "waiting"
    assert found.facts == (("stage", "lead"), ("attempts", "3"), ("code", "HTTP_503"))
    assert any(title.startswith("Kafka") for title, _ in found.rows)


async def test_dead_message(console: Console) -> None:
    """A dead letter is found by its message id; its detail shows no number."""
    await console.letters.write([event("m-bad")], detail="bad +79161234567")
    found = await console.explain("m-bad")
    assert found.state == "dead"
    assert "zoho.INVALID_DATA" in found.sentence
    assert "+7916" not in repr(found)


async def test_message_in_zoho(console: Console) -> None:
    """The record is named by its id, and the number is nowhere."""
    row = {"Name": "x", "Message_ID": "m-done", "Phone": "+79161234567"}
    call = Call(Operation.UPSERT_MESSAGES, "POST", "/Messages", body={"data": [row]}, is_write=True)
    [answer] = (await console.send(call)).rows()
    found = await console.explain("m-done")
    assert found.state in ("delivered", "no_note")
    assert answer["details"]["id"] in repr(found.rows)
    assert "+7916" not in repr(found)


async def test_brokers_out_of_reach(console: Console) -> None:
    """When Kafka cannot be asked and Zoho has nothing, that is the answer, not "unknown"."""
    settings = console.explainer._service.settings.model_copy(update={"kafka_bootstrap_servers": "127.0.0.1:1"})
    service: Any = SimpleNamespace(
        settings=settings, zoho=console.explainer._service.zoho, pipeline=console.explainer._service.pipeline
    )
    elsewhere = Desk(KafkaConnection("127.0.0.1:1"), "t", "g")
    found = await Explainer(service, elsewhere).explain("m-none", "en")
    assert found.state == "not_in_zoho"
    assert "Kafka" in found.sentence
    assert [title for title, _ in found.rows] == ["Kafka"]
