"""What a measurement runs on: the Zoho stand-in, the embedded broker, and a consumer, each as its own process."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp
import orjson
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Sequence

TOPIC = "messaging.messages.v1"
DLQ_TOPIC = f"{TOPIC}.dlq"
PARTITIONS = 6
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Load:
    """The work of one measurement: `messages` of `people`, in an order that mixes them."""

    messages: int
    people: int
    prefix: str = "m"
    text_length: int = 80
    origin: str = "chat"

    def events(self) -> Iterable[tuple[bytes, bytes]]:
        """(key, value) of each record."""
        text = "x" * self.text_length
        step = next(step for step in (7919, 7907, 7901) if self.people % step)
        for index in range(self.messages):
            person = (index * step) % self.people
            phone = phone_of(person)
            event = {
                "message_id": f"wamid.{self.prefix}.{index}",
                "occurred_at": "2026-01-05T10:00:00Z",
                "direction": "outbound" if self.origin == "campaign" else "inbound",
                "origin": self.origin,
                "phone": phone,
                "contact_name": f"Person {person}",
                "text": f"{index} {text}",
                "dialog_id": f"dialog-{person}",
            }
            yield phone.encode(), orjson.dumps(event)


def phone_of(person: int) -> str:
    """A number from a range made for fiction, as far as it reaches."""
    return f"+1415{5550000 + person}" if person < 10_000 else f"+1{4160000000 + person}"


class Zoho:
    """The stand-in's control API."""

    def __init__(self, about: dict[str, str], session: aiohttp.ClientSession) -> None:
        self.about = about
        self._session = session

    async def get(self, path: str) -> Any:
        """Read."""
        async with self._session.get(f"{self.about['url']}/_sandbox{path}") as response:
            return orjson.loads(await response.read())

    async def post(self, path: str, body: dict[str, Any]) -> Any:
        """Do."""
        async with self._session.post(f"{self.about['url']}/_sandbox{path}", json=body) as response:
            return orjson.loads(await response.read())

    async def state(self) -> dict[str, Any]:
        """Counts of records, calls and credits."""
        state: dict[str, Any] = await self.get("/state")
        return state

    async def calls(self, since: int) -> list[dict[str, Any]]:
        """The call log from a call number on."""
        calls: list[dict[str, Any]] = await self.get(f"/calls?since={since}")
        return calls

    async def know(self, people: int) -> None:
        """The people stand in the CRM already."""
        for start in range(0, people, 1000):
            rows = [
                {"Last_Name": f"Person {person}", "Phone": phone_of(person)}
                for person in range(start, min(people, start + 1000))
            ]
            await self.post("/steps/insert", {"module": "Leads", "records": rows})


class Rig:
    """Broker and stand-in, ready; consumers are started on it."""

    def __init__(self, zoho: Zoho, bootstrap_servers: str, latency_s: float) -> None:
        self.zoho = zoho
        self.bootstrap_servers = bootstrap_servers
        self.latency_s = latency_s

    async def produce(self, events: Iterable[tuple[bytes, bytes]]) -> None:
        """Send all, and wait until the broker has them."""
        producer = AIOKafkaProducer(
            bootstrap_servers=self.bootstrap_servers, enable_idempotence=False, linger_ms=20, max_batch_size=256 * 1024
        )
        await producer.start()
        try:
            for key, value in events:
                await producer.send(TOPIC, value, key=key)
        finally:
            await producer.stop()

    def environment(self, **extra: str) -> dict[str, str]:
        """What a consumer gets."""
        about = self.zoho.about
        return {
            **{name: value for name, value in os.environ.items() if not name.startswith(("ZOHO_", "KAFKA_", "SYNC_"))},
            "ZOHO_CRM_ENABLED": "true",
            "ZOHO_CLIENT_ID": about["client_id"],
            "ZOHO_CLIENT_SECRET": about["client_secret"],
            "ZOHO_REFRESH_TOKEN": about["refresh_token"],
            "ZOHO_API_DOMAIN": about["url"],
            "KAFKA_BOOTSTRAP_SERVERS": self.bootstrap_servers,
            "KAFKA_PRODUCER_IDEMPOTENCE": "false",
            "KAFKA_SESSION_TIMEOUT_S": "6",
            "SYNC_MESSAGES_SINCE": "2020-01-01T00:00:00+00:00",
            "HTTP_HOST": "127.0.0.1",
            "HTTP_PORT": str(_free_port()),
            "LOG_LEVEL": "warning",
            **extra,
        }

    @contextlib.asynccontextmanager
    async def consumer(self, *command: str, **extra: str) -> AsyncIterator[Consumer]:
        """Run a consumer; the service unless told otherwise."""
        command = command or ("consumer", "run")
        folder = Path(tempfile.mkdtemp(prefix="bench-"))
        environment = self.environment(**extra) | {
            "PYTHONPATH": os.pathsep.join(filter(None, [*sys.path, str(Path.cwd())]))
        }
        with (folder / "log").open("wb") as log:
            started = time.monotonic()
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", *command, env=environment, cwd=folder, stdout=log, stderr=log
            )
        try:
            yield Consumer(process, environment, started, folder / "log")
        finally:
            await _end(process)


class Consumer:
    """A consumer process under measurement."""

    def __init__(
        self, process: asyncio.subprocess.Process, environment: dict[str, str], started: float, log: Path
    ) -> None:
        self._process = process
        self.environment = environment
        self.started = started
        self._log = log

    def cpu_s(self) -> float:
        """Processor time so far, user and system."""
        fields = Path(f"/proc/{self._process.pid}/stat").read_text("utf-8").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS_PER_S

    def rss_mib(self) -> float:
        """Resident memory now."""
        pages = int(Path(f"/proc/{self._process.pid}/statm").read_text("utf-8").split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 2**20

    def check_alive(self) -> None:
        """Raises RuntimeError with the end of the log when the process is gone."""
        if self._process.returncode is not None:
            raise RuntimeError(f"the consumer ended: {self._log.read_text('utf-8', 'replace')[-2000:]}")

    async def metric(self, name: str) -> float:
        """Sum of a metric's series; 0 while the port is not there."""
        url = f"http://127.0.0.1:{self.environment['HTTP_PORT']}/metrics"
        try:
            async with aiohttp.ClientSession() as session, session.get(url) as response:
                lines = (await response.text()).splitlines()
        except aiohttp.ClientError:
            return 0.0
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith((f"{name} ", f"{name}{{")))


@contextlib.asynccontextmanager
async def rig(*, latency_s: float, zoho_args: Sequence[str] = ()) -> AsyncIterator[Rig]:
    """A fresh stand-in and broker with topics."""
    async with contextlib.AsyncExitStack() as stack:
        about = await stack.enter_async_context(
            _child("zoho", "--latency-median-s", str(latency_s), "--edition", "ultimate", *zoho_args)
        )
        broker = await stack.enter_async_context(_child("broker"))
        session = await stack.enter_async_context(aiohttp.ClientSession())
        admin = AIOKafkaAdminClient(bootstrap_servers=broker["bootstrap_servers"])
        await admin.start()
        await admin.create_topics([NewTopic(TOPIC, PARTITIONS, 1), NewTopic(DLQ_TOPIC, 1, 1)])
        await admin.close()
        yield Rig(Zoho(about, session), broker["bootstrap_servers"], latency_s)


@contextlib.asynccontextmanager
async def _child(*command: str) -> AsyncIterator[dict[str, str]]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "sandbox", *command, stdout=asyncio.subprocess.PIPE
    )
    try:
        line = await process.stdout.readline() if process.stdout else b""
        yield orjson.loads(line)
    finally:
        await _end(process)


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.send_signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(process.wait(), 40)
        except TimeoutError:
            process.kill()
            await process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
