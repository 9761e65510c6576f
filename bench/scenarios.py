"""The measurements.  Each takes the sizes it needs and gives one `Figure` for each row of the table."""

from __future__ import annotations

import asyncio
import statistics
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bench import limiter as limits
from bench.rig import Load, Rig, rig

if TYPE_CHECKING:
    from collections.abc import Callable

    from bench.figures import Figure
    from bench.rig import Consumer

HEAVY_SLOTS = 10
RECORDS_PER_CALL = 100


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much work."""

    messages: int = 20_000
    people: int = 2_000
    latency_s: float = 0.4
    baseline_messages: int = 15
    baseline_many: int = 250
    baseline_at_once: int = 400
    """Messages of the baseline whose processor time is taken: Zoho answers at once."""
    backlog: int = 200_000
    backlog_watch_s: float = 20.0
    waiting: int = 50_000
    live_s: float = 12.0
    burst: int = 50_000


async def settled(
    running: Rig, consumer: Consumer, *, messages: int, notes: int | None, limit_s: float = 300
) -> dict[str, Any]:
    """Wait until so many message records (and notes) stand in Zoho; returns the state."""
    async with asyncio.timeout(limit_s):
        while True:
            consumer.check_alive()
            state = await running.zoho.state()
            records = state["records"]
            if records["Messages"] >= messages and (notes is None or records["Notes"] >= notes):
                return state
            await asyncio.sleep(0.1)


def span_of(calls: list[dict[str, Any]]) -> float:
    """Seconds from the first call's start to the last one's end."""
    return float(max(call["finished_at_s"] for call in calls) - min(call["started_at_s"] for call in calls))


def bound_of(calls: list[dict[str, Any]]) -> float:
    """Messages a second that ten slots allow at the latency which these calls had."""
    latencies = [call["finished_at_s"] - call["started_at_s"] for call in calls]
    return HEAVY_SLOTS * RECORDS_PER_CALL / float(statistics.mean(latencies))


async def _finished(running: Rig, since: int, operation: str) -> list[dict[str, Any]]:
    calls = await running.zoho.calls(since)
    return [call for call in calls if call["operation"] == operation and call["finished_at_s"]]


async def known_people(sizes: Sizes, figures: dict[str, Figure]) -> None:
    """A backlog of people whom the process has met; on the way, what it costs to meet them."""
    async with rig(latency_s=sizes.latency_s) as running:
        await running.zoho.know(sizes.people)
        async with running.consumer() as consumer:
            await _first_met(running, consumer, sizes, figures)
            before = await running.zoho.state()
            done = before["records"]["Messages"]
            await running.produce(Load(sizes.messages, sizes.people, prefix="known").events())
            after = await settled(running, consumer, messages=done + sizes.messages, notes=None)
            upserts = await _finished(running, before["calls"], "records.upsert")
            speed = sizes.messages / span_of(upserts)
            figures["share_known"].add(speed / bound_of(upserts) * 100)
            figures["speed_known"].add(speed)
            _costs(figures, "known", before, after, sizes.messages)


async def _first_met(running: Rig, consumer: Consumer, sizes: Sizes, figures: dict[str, Figure]) -> None:
    """Ten messages of each person, whom Zoho knows and the process does not."""
    before = await running.zoho.state()
    count = sizes.people * 10
    await running.produce(Load(count, sizes.people, prefix="met").events())
    after = await settled(running, consumer, messages=count, notes=sizes.people)
    _costs(figures, "met", before, after, count)


def _costs(figures: dict[str, Figure], kind: str, before: dict[str, Any], after: dict[str, Any], messages: int) -> None:
    figures[f"calls_{kind}"].add((after["calls"] - before["calls"]) / messages * 1000)
    figures[f"credits_{kind}"].add((after["credits_used"] - before["credits_used"]) / messages * 1000)


async def new_people(sizes: Sizes, figures: dict[str, Figure]) -> None:
    """A backlog of people found by nothing: each is looked up, searched, created."""
    async with rig(latency_s=sizes.latency_s) as running:
        await running.produce(Load(sizes.messages, sizes.people, prefix="new").events())
        before = await running.zoho.state()
        async with running.consumer() as consumer:
            after = await settled(running, consumer, messages=sizes.messages, notes=sizes.people)
        upserts = await _finished(running, 0, "records.upsert")
        calls = [call for call in await running.zoho.calls(0) if call["finished_at_s"]]
        work = [call for call in calls if call["operation"] not in ("oauth.token", "metadata.fields")]
        figures["share_new"].add(sizes.messages / span_of(work) / bound_of(upserts) * 100)
        _costs(figures, "new", before, after, sizes.messages)


async def processor_time(sizes: Sizes, figures: dict[str, Figure]) -> None:
    """Processor time of a message, with a Zoho that answers at once; the one-at-a-time consumer beside it."""
    async with rig(latency_s=0.0) as running:
        await running.zoho.know(sizes.people)
        async with running.consumer() as consumer:
            await running.produce(Load(sizes.people, sizes.people, prefix="warm").events())
            await settled(running, consumer, messages=sizes.people, notes=sizes.people)
            before = consumer.cpu_s()
            await running.produce(Load(sizes.messages, sizes.people, prefix="cpu").events())
            await settled(running, consumer, messages=sizes.people + sizes.messages, notes=None)
            ours_us = (consumer.cpu_s() - before) / sizes.messages * 1e6
    baseline_us = await _baseline_cpu_us(sizes)
    figures["cpu"].add(ours_us)
    figures["cpu_ratio"].add(baseline_us / ours_us)


async def _baseline_cpu_us(sizes: Sizes) -> float:
    count = sizes.baseline_at_once
    async with rig(latency_s=0.0) as running:
        await running.zoho.know(count)
        await running.produce(Load(count, count, prefix="base").events())
        async with running.consumer("bench.baseline", "1") as consumer:
            await settled(running, consumer, messages=1, notes=None)
            before: float = consumer.cpu_s()
            already = (await running.zoho.state())["records"]["Messages"]
            await settled(running, consumer, messages=count, notes=None)
            return (consumer.cpu_s() - before) / (count - int(already)) * 1e6


async def against_baselines(sizes: Sizes, figures: dict[str, Figure]) -> None:
    """The same work with one at a time, and with fifty at a time; speed of the service from `known_people`.

    Both at once, each with a Zoho and a broker of its own: they do little but wait.
    """
    ours = figures["speed_known"].values[-1]
    one, fifty = await asyncio.gather(
        _baseline_speed(sizes, 1, sizes.baseline_messages), _baseline_speed(sizes, 50, sizes.baseline_many)
    )
    figures["times_one"].add(ours / one)
    figures["times_fifty"].add(ours / fifty)


async def _baseline_speed(sizes: Sizes, at_once: int, count: int) -> float:
    """Messages a second."""
    async with rig(latency_s=sizes.latency_s) as running:
        await running.zoho.know(count)
        await running.produce(Load(count, count, prefix="base").events())
        async with running.consumer("bench.baseline", str(at_once)) as consumer:
            await settled(running, consumer, messages=count, notes=count)
        calls = [call for call in await running.zoho.calls(0) if call["finished_at_s"]]
        return count / span_of([call for call in calls if call["operation"] != "oauth.token"])


async def live_latency(sizes: Sizes, figures: dict[str, Figure]) -> None:
    """Twenty messages a second: from produce to visible in Zoho, above the linger, in units of a call's latency."""
    async with rig(latency_s=sizes.latency_s) as running:
        people = 200
        await running.zoho.know(people)
        async with running.consumer() as consumer:
            await running.produce(Load(people, people, prefix="warm").events())
            await settled(running, consumer, messages=people, notes=people)
            sent = await _send_slowly(running, Load(int(sizes.live_s * 20), people, prefix="live"))
            await settled(running, consumer, messages=people + len(sent), notes=None)
        seen = {
            effect["values"]["Message_ID"]: effect["at_s"]
            for effect in await running.zoho.get("/effects")
            if effect["values"].get("Message_ID")
        }
        calls = await _finished(running, 0, "records.upsert")
    latency_s = statistics.median(call["finished_at_s"] - call["started_at_s"] for call in calls)
    waits = sorted((seen[name] - at_s - 0.2) / latency_s for name, at_s in sent.items())
    figures["live_median"].add(statistics.median(waits))
    figures["live_p99"].add(waits[int(len(waits) * 0.99)])


async def _send_slowly(running: Rig, load: Load) -> dict[str, float]:
    from aiokafka import AIOKafkaProducer  # noqa: PLC0415

    from bench.rig import TOPIC  # noqa: PLC0415

    sent: dict[str, float] = {}
    producer = AIOKafkaProducer(bootstrap_servers=running.bootstrap_servers, enable_idempotence=False)
    await producer.start()
    try:
        for index, (key, value) in enumerate(load.events()):
            sent[f"wamid.{load.prefix}.{index}"] = time.time()
            await producer.send_and_wait(TOPIC, value, key=key)
            await asyncio.sleep(0.05)
    finally:
        await producer.stop()
    return sent


async def memory(sizes: Sizes, figures: dict[str, Figure]) -> None:
    """Resident memory while a long backlog is worked off, and whether it grows."""
    async with rig(latency_s=sizes.latency_s) as running:
        await running.zoho.know(sizes.people)
        await running.produce(Load(sizes.backlog, sizes.people, prefix="backlog").events())
        async with running.consumer() as consumer:
            await settled(running, consumer, messages=1000, notes=None)
            samples = await _watch(consumer.rss_mib, sizes.backlog_watch_s)
    figures["memory"].add(max(samples))
    third = max(1, len(samples) // 3)
    figures["memory_growth"].add(statistics.mean(samples[-third:]) / statistics.mean(samples[third : 2 * third]))


async def _watch(read: Callable[[], float], seconds: float) -> list[float]:
    samples = []
    for _ in range(int(seconds * 2)):
        samples.append(read())
        await asyncio.sleep(0.5)
    return samples


async def first_commit(sizes: Sizes, figures: dict[str, Figure]) -> None:
    """From process start to the first committed offset with a backlog waiting, the group join taken out."""
    async with rig(latency_s=sizes.latency_s) as running:
        await running.zoho.know(sizes.people)
        await running.produce(Load(sizes.waiting, sizes.people, prefix="wait").events())
        async with running.consumer() as consumer:
            joined = None
            async with asyncio.timeout(120):
                while not await consumer.metric("zoho_sync_commits_total"):
                    if joined is None and await consumer.metric("zoho_sync_assigned_partitions"):
                        joined = time.monotonic()
                    consumer.check_alive()
                    await asyncio.sleep(0.05)
            first = time.monotonic() - (joined or consumer.started)
    figures["first_commit"].add(first)


async def behind_a_burst(sizes: Sizes, figures: dict[str, Figure]) -> None:
    """An inbound message behind a campaign burst on the same topic: how long until it is in Zoho."""
    async with rig(latency_s=sizes.latency_s) as running:
        await running.zoho.know(sizes.people)
        async with running.consumer() as consumer:
            await running.produce(Load(sizes.people, sizes.people, prefix="warm").events())
            await settled(running, consumer, messages=sizes.people, notes=sizes.people)
            await running.produce(Load(sizes.burst, sizes.people, prefix="burst", origin="campaign").events())
            await running.produce(Load(1, sizes.people, prefix="inbound").events())
            sent_at_s = time.time()
            await settled(running, consumer, messages=sizes.people + sizes.burst + 1, notes=None)
        effects = [effect for effect in await running.zoho.get("/effects") if effect["values"].get("Message_ID")]
        seen = next(e["at_s"] for e in effects if e["values"]["Message_ID"] == "wamid.inbound.0")
        last = max(effect["at_s"] for effect in effects)
    figures["burst_wait"].add((seen - sent_at_s) / (last - sent_at_s) * 100)


async def limiter(_sizes: Sizes, figures: dict[str, Figure]) -> None:
    """How well Zoho's limit is found, in virtual time; each round has a seed of its own."""
    for key, course in limits.courses().items():
        seed = len(figures[f"limiter_{key}_used"].values) + 1
        for part, value in (await asyncio.to_thread(limits.measure, course, seed=seed)).items():
            figures[f"limiter_{key}_{part}"].add(value)
