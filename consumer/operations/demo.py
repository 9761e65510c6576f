"""`consumer demo`: the service itself, unchanged, on an embedded broker and a Zoho stand-in, with sample traffic.

Everything runs as its own process on 127.0.0.1.  In the end the CRM and the dead-letter topic are compared with what
was sent; any difference is shown and makes the exit code 1.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import socket
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp
import orjson
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from prometheus_client.parser import text_string_to_metric_families
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from consumer.operations.demo_sample import Customer, Traffic, customers, make_traffic

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

TOPIC = "messaging.messages.v1"
DLQ_TOPIC = "messaging.messages.v1.dlq"
_TIMEOUT_S = 180.0
_PARTITIONS = 4
_SETTLED = (
    "zoho_sync_messages_delivered_total",
    "zoho_sync_records_skipped_total",
    "zoho_sync_records_duplicated_total",
    "zoho_sync_dead_letters_total",
)


class DemoError(Exception):
    """The demo could not be carried out; the text says why and what to do."""


@dataclass(slots=True)
class Stage:
    """What runs for the demo."""

    zoho: dict[str, str]
    bootstrap_servers: str
    http_url: str
    log_path: Path
    token: str = "demo"  # noqa: S105 - a word for a server on 127.0.0.1 that lives for a minute


@dataclass(slots=True)
class Result:
    """What was found in the end."""

    leads_before: int
    leads: list[dict[str, Any]] = field(default_factory=list)
    contacts: list[dict[str, Any]] = field(default_factory=list)
    messages: list[dict[str, Any]] = field(default_factory=list)
    notes: list[dict[str, Any]] = field(default_factory=list)
    dead_letters: Counter[str] = field(default_factory=Counter)
    state: dict[str, Any] = field(default_factory=dict)
    violations: list[Any] = field(default_factory=list)
    skipped: dict[str, int] = field(default_factory=dict)
    exit_code: int | None = None


async def run_demo(*, messages: int, people: int, seed: int, keep: bool, console: Console) -> int:
    """Carry out the demo; 0 when every sample arrived as expected, else 1."""
    cast = customers(people, random.Random(seed))  # noqa: S311 - made-up people
    traffic = make_traffic(cast, messages=messages, seed=seed)
    async with contextlib.AsyncExitStack() as stack:
        stage, service = await _set_up(stack, cast, console)
        before = len(await _dump(stage, "Leads"))
        await _produce(stage, traffic)
        console.print(f"sent {traffic.expected.events} events to {TOPIC}; the service is bringing them into Zoho")
        await _follow(stage, service, traffic.expected.events, console)
        result = await _collect(stage, before)
        if keep:
            await _keep(stage, console)
        await _stop(service)
        result.exit_code = service.returncode
        differences = compare(traffic, cast, result)
        _show(traffic, result, differences, stage, console)
    return 1 if differences else 0


# -- set-up -----------------------------------------------------------------------------------------------------------


async def _set_up(
    stack: contextlib.AsyncExitStack, cast: list[Customer], console: Console
) -> tuple[Stage, asyncio.subprocess.Process]:
    console.print("starting the Zoho stand-in, the embedded broker and the service on 127.0.0.1")
    zoho = await stack.enter_async_context(_child("zoho", "--latency-median-s", "0.05"))
    broker = await stack.enter_async_context(_child("broker"))
    log_path = Path(tempfile.mkdtemp(prefix="zoho-sync-demo-")) / "service.log"
    stage = Stage(zoho, broker["bootstrap_servers"], f"http://127.0.0.1:{_free_port()}", log_path)
    await _create_topics(stage)
    await _seed(stage, cast)
    service = await _start_service(stage)
    stack.push_async_callback(_stop, service)
    return stage, service


@contextlib.asynccontextmanager
async def _child(name: str, *args: str) -> AsyncIterator[dict[str, str]]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "sandbox", name, *args, stdout=asyncio.subprocess.PIPE
    )
    try:
        line = await asyncio.wait_for(process.stdout.readline(), 30) if process.stdout else b""
        if not line:
            raise DemoError(f"`python -m sandbox {name}` did not start; run it by hand to see why")
        yield orjson.loads(line)
    finally:
        await _stop(process)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def _create_topics(stage: Stage) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=stage.bootstrap_servers)
    await admin.start()
    try:
        await admin.create_topics([NewTopic(TOPIC, _PARTITIONS, 1), NewTopic(DLQ_TOPIC, 1, 1)])
    finally:
        await admin.close()


async def _seed(stage: Stage, cast: list[Customer]) -> None:
    """People whom the CRM knows already."""
    for module in ("Leads", "Contacts"):
        records = [{"Last_Name": p.name, "Phone": p.stored} for p in cast if p.known_as == module]
        await _control(stage, "POST", "/steps/insert", {"module": module, "records": records})


def service_environment(stage: Stage) -> dict[str, str]:
    """What an administrator would set, for this stage."""
    return {
        "ZOHO_CRM_ENABLED": "true",
        "ZOHO_CLIENT_ID": stage.zoho["client_id"],
        "ZOHO_CLIENT_SECRET": stage.zoho["client_secret"],
        "ZOHO_REFRESH_TOKEN": stage.zoho["refresh_token"],
        "ZOHO_API_DOMAIN": stage.zoho["url"],
        "ZOHO_CRM_URL": "https://crm.zoho.com",
        "KAFKA_BOOTSTRAP_SERVERS": stage.bootstrap_servers,
        "KAFKA_PRODUCER_IDEMPOTENCE": "false",
        "KAFKA_SESSION_TIMEOUT_S": "6",
        "SYNC_MESSAGES_SINCE": "2026-01-01T00:00:00+00:00",
        "HTTP_HOST": "127.0.0.1",
        "HTTP_PORT": stage.http_url.rpartition(":")[2],
        "HTTP_API_TOKEN": stage.token,
    }


async def _start_service(stage: Stage) -> asyncio.subprocess.Process:
    ours = ("ZOHO_", "KAFKA_", "SYNC_", "BATCH_", "HTTP_", "LOG_", "LINK_", "DLQ_", "MAX_IN_FLIGHT", "DRAIN_")
    clean = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    with stage.log_path.open("wb") as log:
        return await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "consumer",
            "run",
            env=clean | service_environment(stage) | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            cwd=stage.log_path.parent,
            stdout=log,
            stderr=log,
        )


async def _stop(process: asyncio.subprocess.Process) -> None:
    if process.returncode is not None:
        return
    process.terminate()
    try:
        await asyncio.wait_for(process.wait(), 40)
    except TimeoutError:
        process.kill()
        await process.wait()


# -- the run ----------------------------------------------------------------------------------------------------------


async def _produce(stage: Stage, traffic: Traffic) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=stage.bootstrap_servers, enable_idempotence=False, linger_ms=5)
    await producer.start()
    try:
        sends = [await producer.send(TOPIC, s.value, key=s.key, headers=list(s.headers)) for s in traffic.sent]
        await asyncio.gather(*sends)
    finally:
        await producer.stop()


async def _follow(stage: Stage, service: asyncio.subprocess.Process, total: int, console: Console) -> None:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task("joining the consumer group", total=total)
        async with asyncio.timeout(_TIMEOUT_S):
            while (settled := await _settled(stage)) < total:
                if service.returncode is not None:
                    raise DemoError(f"the service ended by itself; its log is {stage.log_path}")
                if settled:
                    progress.update(task, completed=settled, description="settled")
                await asyncio.sleep(0.2)
        progress.update(task, completed=total, description="settled")


async def _metrics(stage: Stage) -> list[Any]:
    try:
        async with aiohttp.ClientSession() as session, session.get(f"{stage.http_url}/metrics") as response:
            return list(text_string_to_metric_families(await response.text()))
    except aiohttp.ClientError:
        return []


async def _settled(stage: Stage) -> int:
    samples = [sample for family in await _metrics(stage) for sample in family.samples]
    return int(sum(sample.value for sample in samples if sample.name in _SETTLED))


async def _collect(stage: Stage, leads_before: int) -> Result:
    samples = [sample for family in await _metrics(stage) for sample in family.samples]
    skipped = {s.labels["reason"]: int(s.value) for s in samples if s.name == "zoho_sync_records_skipped_total"}
    leads, contacts, messages, notes = [
        await _dump(stage, module) for module in ("Leads", "Contacts", "Messages", "Notes")
    ]
    return Result(
        leads_before=leads_before,
        leads=leads,
        contacts=contacts,
        messages=messages,
        notes=notes,
        dead_letters=await _dead_letters(stage),
        state=await _control(stage, "GET", "/state"),
        violations=await _control(stage, "GET", "/violations"),
        skipped=skipped,
    )


async def _dump(stage: Stage, module: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = await _control(stage, "GET", f"/dump/{module}")
    return rows


async def _control(stage: Stage, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
    url = f"{stage.zoho['url']}/_sandbox{path}"
    async with aiohttp.ClientSession() as session, session.request(method, url, json=body) as response:
        answer = orjson.loads(await response.read())
    if response.status != 200:
        raise DemoError(f"the Zoho stand-in refused {method} {path}: {answer}")
    return answer


async def _dead_letters(stage: Stage) -> Counter[str]:
    consumer = AIOKafkaConsumer(
        DLQ_TOPIC, bootstrap_servers=stage.bootstrap_servers, auto_offset_reset="earliest", enable_auto_commit=False
    )
    await consumer.start()
    try:
        batches = await consumer.getmany(timeout_ms=2000)
    finally:
        await consumer.stop()
    records = [record for batch in batches.values() for record in batch]
    return Counter(dict(record.headers)["dlq.reason"].decode() for record in records)


async def _keep(stage: Stage, console: Console) -> None:
    console.print(
        f"\nkept running until Ctrl-C:\n"
        f"  console          {stage.http_url}/ (token: {stage.token})\n"
        f"  metrics          {stage.http_url}/metrics\n"
        f"  Zoho stand-in    {stage.zoho['url']}/_sandbox/state, /_sandbox/dump/Leads, …\n"
        f"  broker           {stage.bootstrap_servers} (topics {TOPIC}, {DLQ_TOPIC})\n"
        f"  service log      {stage.log_path}\n",
        soft_wrap=True,
        highlight=False,
    )
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.Event().wait()


# -- the verdict ------------------------------------------------------------------------------------------------------


def compare(traffic: Traffic, cast: list[Customer], result: Result) -> list[str]:
    """Every difference between what was sent and what stands in the end, in words."""
    expected = traffic.expected
    found_messages = Counter(str(row["Message_ID"]) for row in result.messages)
    new_phones = Counter(str(row["Phone"]) for row in result.leads[result.leads_before :])
    rows: list[tuple[str, Any, Any]] = [
        ("message records", expected.messages, set(found_messages)),
        ("message records written twice", set(), {name for name, count in found_messages.items() if count > 1}),
        ("leads created", dict.fromkeys(expected.new_leads, 1), dict(new_phones)),
        ("contacts", sum(person.known_as == "Contacts" for person in cast), len(result.contacts)),
        ("notes", len(expected.dialogs), len(result.notes)),
        ("skipped", expected.skipped, result.skipped),
        ("dead letters", expected.dead_letters, dict(result.dead_letters)),
        ("duplicates found by the Zoho stand-in", [], result.violations),
        ("exit code of the service", 0, result.exit_code),
    ]
    return [f"{name}: expected {_short(want)}, found {_short(found)}" for name, want, found in rows if want != found]


def _short(value: Any) -> str:
    text = f"{len(value)} of them" if isinstance(value, (set, dict)) and len(value) > 8 else str(value)
    return text if len(text) <= 200 else f"{text[:200]}…"


def _show(traffic: Traffic, result: Result, differences: list[str], stage: Stage, console: Console) -> None:
    expected = traffic.expected
    operations = result.state["operations"]
    parents = {row["id"] for row in result.leads} | {row["id"] for row in result.contacts}
    found = len(parents) - len(expected.new_leads)
    rows: list[tuple[str, object]] = [
        ("events in", expected.events),
        ("leads and contacts found / leads created", f"{found} / {len(result.leads) - result.leads_before}"),
        ("message records", len(result.messages)),
        ("notes", len(result.notes)),
        ("duplicates dropped", expected.duplicates),
        ("skipped", _counts(result.skipped)),
        ("dead letters", _counts(result.dead_letters)),
        ("API calls", sum(entry["calls"] for entry in operations.values())),
        ("API credits", result.state["credits_used"]),
    ]
    _show_rows(rows, console)
    for link in _links(result):
        console.print(f"  {link}", soft_wrap=True, highlight=False)
    for difference in differences:
        console.print(f"[red]not as sent[/red]: {difference}", soft_wrap=True)
    if differences:
        console.print(f"the service's log is {stage.log_path}")
    else:
        console.print("every sample arrived as expected")


def _show_rows(rows: list[tuple[str, object]], console: Console) -> None:
    """A table in a terminal, plain lines in a pipe."""
    if not console.is_terminal:
        for name, value in rows:
            console.print(f"{name}: {value}", soft_wrap=True, highlight=False)
        return
    table = Table(title="What became of it", show_header=False)
    for name, value in rows:
        table.add_row(name, str(value))
    console.print(table)


def _counts(counts: dict[str, int] | Counter[str]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(counts.items())) or "none"


def _links(result: Result, *, count: int = 3) -> list[str]:
    contents = [str(row["Note_Content"]).splitlines()[0] for row in result.notes]
    return ["dialog links, as the notes have them:", *contents[:count]] if contents else []
