"""The service as its operator runs it: child processes, the Zoho stand-in and a broker on real sockets."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import socket
import sys
import time
import uuid
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

import aiohttp
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRecord
from aiokafka import TopicPartition as KafkaPartition
from prometheus_client.parser import text_string_to_metric_families

from sandbox.zoho import SandboxConfig
from sandbox.zoho.server import SandboxServer
from tests.kafka_server.cluster import Broker

DEADLINE_S = 60.0
POLL_S = 0.05
SINCE = "2026-01-01T00:00:00+00:00"
CANARY = "canary-text-9f2"
_ROOT = Path(__file__).parents[2]
_OURS = ("ZOHO_", "KAFKA_", "SYNC_", "BATCH_", "HTTP_", "LOG_", "LINK_", "DLQ_", "MAX_IN_FLIGHT", "DRAIN_", "ADMIN_")

Json = dict[str, Any]


def free_port() -> int:
    """Where nothing listens now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Service:
    """One process of the service, and its log."""

    def __init__(self, process: asyncio.subprocess.Process, log: Path) -> None:
        self.process = process
        self._log = log

    def log_text(self) -> str:
        return self._log.read_text(errors="replace")

    def log_lines(self) -> list[Json]:
        return [json.loads(line) for line in self.log_text().splitlines() if line.startswith("{")]

    def logged(self, event: str) -> list[Json]:
        """Its log lines of this event."""
        return [line for line in self.log_lines() if line["event"] == event]

    async def url(self) -> str:
        """Where its HTTP port is."""
        await self.until(lambda: bool(self.logged("app.service_started")))
        return str(self.logged("app.service_started")[0]["http"])

    async def get(self, path: str) -> tuple[int, str]:
        """Status and body of a page."""
        async with aiohttp.ClientSession() as session, session.get(f"{await self.url()}{path}") as response:
            return response.status, await response.text()

    async def readiness(self) -> tuple[int, Json]:
        """Status and body of the readiness probe."""
        status, body = await self.get("/readyz")
        return status, json.loads(body)

    async def ready(self) -> None:
        """Wait until it can do its work."""
        async with asyncio.timeout(DEADLINE_S):
            while (await self.readiness())[0] != 200:
                await asyncio.sleep(POLL_S)

    async def until_state(self, state: str) -> Json:
        """Wait until the readiness probe names this state; returns its body."""
        async with asyncio.timeout(DEADLINE_S):
            while (body := (await self.readiness())[1])["state"] != state:
                await asyncio.sleep(POLL_S)
        return body

    async def metrics(self) -> dict[str, float]:
        """Sums of all samples of a name."""
        _, text = await self.get("/metrics")
        totals: Counter[str] = Counter()
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                totals[sample.name] += sample.value  # type: ignore[assignment]  # counts of anything that adds up
        return dict(totals)

    async def until(self, is_so: Callable[[], bool]) -> None:
        """Wait for it; fails with the log when the process ends first."""
        async with asyncio.timeout(DEADLINE_S):
            while not is_so():
                assert self.process.returncode is None, self.log_text()
                await asyncio.sleep(POLL_S)

    def signal(self, number: signal.Signals) -> None:
        if self.process.returncode is None:
            self.process.send_signal(number)

    async def ended(self) -> int:
        """Its exit code, once it has ended."""
        async with asyncio.timeout(DEADLINE_S):
            return await self.process.wait()

    async def terminate(self) -> int:
        """SIGTERM; returns the exit code."""
        self.signal(signal.SIGTERM)
        return await self.ended()

    async def kill(self) -> None:
        """SIGKILL."""
        self.signal(signal.SIGKILL)
        assert await self.ended() == -signal.SIGKILL


@dataclass(slots=True)
class Sent:
    """What was produced, as far as it is a message."""

    messages: dict[str, Json] = field(default_factory=dict)

    def people(self) -> set[str]:
        return {str(event["phone"]) for event in self.messages.values()}

    def dialogs(self) -> set[str]:
        return {str(event["dialog_id"]) for event in self.messages.values()}


class Stage:
    """`async with Stage(broker, tmp_path) as stage:` has a topic of its own and an empty CRM."""

    def __init__(self, broker: Broker, folder: Path, *, partitions: int = 2, **zoho: Any) -> None:
        self.broker = broker
        self.topic = f"test-{uuid.uuid4().hex}"
        self.dlq_topic = f"{self.topic}-dlq"
        self.sent = Sent()
        self.produced = dict.fromkeys(range(partitions), 0)
        self._folder = folder
        self._partitions = partitions
        self._processes: list[Service] = []
        self._stack = AsyncExitStack()
        self._producer = AIOKafkaProducer(**broker.client_options(), acks="all", linger_ms=5)
        quiet: Json = {"latency_median_s": 0.02, "search_lag_s": (0.0, 0.5), "access_tokens_per_window": 1000}
        self.zoho = SandboxServer(SandboxConfig(**(quiet | zoho)), port=free_port())

    async def __aenter__(self) -> Self:
        for topic, partitions in ((self.topic, self._partitions), (self.dlq_topic, 1)):
            await self.broker.admin.create_topic(topic, partitions=partitions)
        await self._stack.enter_async_context(self._producer)
        self._stack.push_async_callback(self.zoho.stop)
        await self.zoho.start()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        for service in self._processes:
            service.signal(signal.SIGKILL)
            await service.process.wait()
        await self._stack.aclose()

    # -- the service

    def environment(self, **changes: str | None) -> dict[str, str]:
        """What an administrator would set."""
        credentials = self.zoho.credentials
        variables: dict[str, str | None] = {
            "ZOHO_CRM_ENABLED": "true",
            "ZOHO_CLIENT_ID": credentials["client_id"],
            "ZOHO_CLIENT_SECRET": credentials["client_secret"],
            "ZOHO_REFRESH_TOKEN": credentials["refresh_token"],
            "ZOHO_API_DOMAIN": self.zoho.url,
            "ZOHO_CRM_URL": "https://crm.zoho.com",
            **self.broker.environment(),
            "KAFKA_TOPIC": self.topic,
            "KAFKA_DLQ_TOPIC": self.dlq_topic,
            "KAFKA_GROUP_ID": self.topic,
            "KAFKA_PRODUCER_IDEMPOTENCE": "false",
            "KAFKA_SESSION_TIMEOUT_S": "3",
            "SYNC_MESSAGES_SINCE": SINCE,
            "BATCH_LINGER_MS": "20",
            "HTTP_HOST": "127.0.0.1",
            "HTTP_PORT": "0",
            **changes,
        }
        return {name: value for name, value in variables.items() if value is not None}

    async def start(self, *, module: str = "consumer", **changes: str | None) -> Service:
        """A process of the service; it is killed with the stage."""
        outside = {name: value for name, value in os.environ.items() if not name.startswith(_OURS)}
        path = self._folder / f"service-{len(self._processes)}.log"
        with path.open("wb") as log:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                module,
                "run",
                env=outside | self.environment(**changes) | {"PYTHONPATH": str(_ROOT)},
                cwd=self._folder,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        service = Service(process, path)
        self._processes.append(service)
        return service

    def logs(self) -> str:
        """What all processes wrote."""
        return "".join(service.log_text() for service in self._processes)

    # -- Kafka

    async def produce(self, value: bytes, *, key: bytes | None = None, headers: Sequence[Any] = ()) -> None:
        """Stored when it returns."""
        stored = await self._producer.send_and_wait(self.topic, value, key=key, headers=list(headers))
        self.produced[stored.partition] += 1

    async def say(self, messages: Sequence[Json]) -> None:
        """Produce these events with keys that scatter a person's messages over the partitions."""
        values = [(event, json.dumps(event).encode()) for event in messages]
        sends = [await self._producer.send(self.topic, value, key=os.urandom(4)) for _, value in values]
        for stored in await asyncio.gather(*sends):
            self.produced[stored.partition] += 1
        self.sent.messages |= {event["message_id"]: event for event in messages}

    async def committed(self) -> dict[int, int]:
        """The group's offsets."""
        async with self._reader(group_id=self.topic) as consumer:
            found = {number: await consumer.committed(KafkaPartition(self.topic, number)) for number in self._numbers()}
        return {number: offset for number, offset in found.items() if offset is not None}

    async def records(self, topic: str, numbers: Sequence[int]) -> list[ConsumerRecord]:
        """All that stands in these partitions."""
        partitions = [KafkaPartition(topic, number) for number in numbers]
        found: list[ConsumerRecord] = []
        async with self._reader() as consumer:
            consumer.assign(partitions)
            for tp in partitions:
                consumer.seek(tp, 0)
            while batches := await consumer.getmany(timeout_ms=1000):
                found += [record for batch in batches.values() for record in batch]
        return found

    async def dead_letters(self) -> list[ConsumerRecord]:
        """All of them."""
        return await self.records(self.dlq_topic, [0])

    def _reader(self, **options: Any) -> AIOKafkaConsumer:
        return AIOKafkaConsumer(**self.broker.client_options(), enable_auto_commit=False, **options)

    def _numbers(self) -> range:
        return range(self._partitions)

    async def drained(self) -> None:
        """Wait until every record is committed."""
        async with asyncio.timeout(DEADLINE_S):
            while await self.committed() != self.produced:
                await asyncio.sleep(4 * POLL_S)

    # -- Zoho

    def dump(self, module: str) -> list[Json]:
        """All records of a module."""
        rows: list[Json] = self.zoho.engine.steps.run("dump", {"module": module})
        return rows

    def step(self, name: str, **args: Any) -> Any:
        """Something that happens in the organisation."""
        return self.zoho.engine.steps.run(name, args)

    def written(self) -> set[str]:
        """Ids of the messages that stand."""
        return {str(row["Message_ID"]) for row in self.dump("Messages")}

    # -- the promises

    def check_all_once(self) -> None:
        """Every message stands once, every person has one lead, every dialog one note, and Zoho saw no twins."""
        assert [each.as_json() for each in self.zoho.engine.violations()] == []
        assert Counter(row["Message_ID"] for row in self.dump("Messages")) == Counter(self.sent.messages.keys())
        assert Counter(row["Phone"] for row in self.dump("Leads")) == Counter(self.sent.people())
        assert len(self.dump("Notes")) == len(self.sent.dialogs())

    async def check_settled(self) -> None:
        """No committed offset is past a record that stands neither in Zoho nor among the dead letters."""
        committed = await self.committed()
        places = {(int(h["dlq.partition"]), int(h["dlq.offset"])) for h in map(headers, await self.dead_letters())}
        written = self.written()
        for record in await self.records(self.topic, list(committed)):
            if record.offset < committed[record.partition]:
                is_dead = (record.partition, record.offset) in places
                assert is_dead or json.loads(record.value)["message_id"] in written


def headers(record: ConsumerRecord) -> dict[str, str]:
    """By name; the last of a name wins."""
    return {name: value.decode() for name, value in record.headers}


def conversation(count: int, *, people: int, seed: int = 1, first: int = 0) -> list[Json]:
    """Messages of several people, each with one dialog."""
    rng = random.Random(seed)
    return [message(first + number, person=rng.randrange(people)) for number in range(count)]


def message(number: int, *, person: int = 0, **changes: Any) -> Json:
    """One event."""
    return {
        "message_id": f"m-{number:05d}",
        "occurred_at": datetime.fromtimestamp(1_772_000_000 + number, UTC).isoformat(),
        "direction": "inbound",
        "origin": "chat",
        "phone": f"+1415555{1000 + person}",
        "contact_name": f"Person {person}",
        "text": f"{CANARY} {number}",
        "dialog_id": f"dialog-{person}",
        **changes,
    }


async def soon(is_so: Callable[[], bool]) -> None:
    """Wait for it."""
    until = time.monotonic() + DEADLINE_S
    while not is_so():
        assert time.monotonic() < until
        await asyncio.sleep(POLL_S)


def check_silent(text: str, *, secrets: Mapping[str, str]) -> None:
    """Neither a secret nor anything of a customer is in it."""
    forbidden = [CANARY, "+1415555", "1415555", "Person ", *secrets.values()]
    assert [word for word in forbidden if word in text] == []
