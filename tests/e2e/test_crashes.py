"""Killed at any moment, stopped under load, joined and left by others: nothing lost, nothing twice."""

from __future__ import annotations

import asyncio
import random
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from sandbox.zoho import Fault
from sandbox.zoho.faults import FailRow
from tests.e2e.stage import Stage, conversation, headers, message, soon
from tests.kafka_server.cluster import Broker

# Each is a chain: one process after the other dies at its point, with new work for each.
_CHAINS = {
    "leads": ("before:leads.create:1", "during:leads.create:1", "after:leads.create:1", "after:people.find:1"),
    "messages": ("before:messages.upsert:1", "during:messages.upsert:1", "after:messages.upsert:1"),
    "notes": ("before:notes.create:1", "during:notes.create:1", "after:notes.create:1", "after:messages.find:1"),
    "kafka": ("before:dead_letter:1", "after:dead_letter:1", "before:commit:1", "after:commit:1"),
}


@pytest_asyncio.fixture
async def stage(kafka_4: Broker, tmp_path: Path) -> AsyncIterator[Stage]:
    """On Apache Kafka, whose sessions expire as they should, with two partitions."""
    async with Stage(kafka_4, tmp_path) as running:
        yield running


@pytest.mark.parametrize("chain", _CHAINS)
async def test_a_crash_between_two_steps_costs_nothing(stage: Stage, chain: str) -> None:
    """Killed before, during or after any write, commits are never ahead, and the next process completes the work."""
    for number, point in enumerate(_CHAINS[chain]):
        known = conversation(5, people=3, seed=number, first=100 * number)
        await stage.say([*known, message(100 * number + 50, person=50 + number)])
        await stage.produce(b"poison %d" % number)
        crashing = await stage.start(module="tests.e2e.crashing", CRASH_AT=point, KAFKA_PRODUCER_IDEMPOTENCE="true")
        assert await crashing.ended() == -signal.SIGKILL, f"never came to {point}"
        await stage.check_settled()
    service = await stage.start(KAFKA_PRODUCER_IDEMPOTENCE="true")
    await stage.drained()
    stage.check_all_once()
    await service.ready()
    assert await service.terminate() == 0
    places = [(found["dlq.partition"], found["dlq.offset"]) for found in map(headers, await stage.dead_letters())]
    assert len(places) == len(set(places)) == len(_CHAINS[chain])


async def test_a_kill_at_any_moment_costs_nothing(stage: Stage) -> None:
    """Processes that are killed at random moments under load leave work that the next one completes."""
    rng = random.Random(20260107)
    for number in range(4):
        await stage.say(conversation(80, people=25, seed=number, first=1000 * number))
        before = len(stage.written())
        service = await stage.start()
        await service.until(lambda before=before: len(stage.written()) > before)  # type: ignore[misc]
        await asyncio.sleep(rng.uniform(0, 0.4))
        await service.kill()
        await stage.check_settled()
    service = await stage.start()
    await stage.drained()
    stage.check_all_once()


async def test_one_blocked_record_holds_its_offset(stage: Stage) -> None:
    """While Zoho puts one message off, others go on and are done; nothing behind it is committed, so a crash loses
    nothing."""
    blocked = FailRow(code="RECORD_LOCKED", key="Message_ID", value="m-00000")
    fault = stage.zoho.engine.faults.add(Fault(action=blocked, times=None))
    await stage.say(conversation(1, people=1))
    await stage.say(conversation(39, people=8, first=1))
    service = await stage.start(LOG_LEVEL="debug")
    await service.until(lambda: len(stage.written()) == 39 and fault.fired > 1)
    committing = len(service.logged("kafka.offsets_committed"))
    await stage.say(conversation(20, people=8, first=100))
    await service.until(lambda: len(stage.written()) == 59)
    await service.until(lambda: len(service.logged("kafka.offsets_committed")) > committing)
    await stage.check_settled()
    await service.kill()
    stage.zoho.engine.faults.clear()
    await stage.start()
    await stage.drained()
    stage.check_all_once()


async def test_a_stop_under_load_is_clean(stage: Stage) -> None:
    """SIGTERM under load ends it with 0 in its drain time; what it finished is committed, the rest is done later."""
    await stage.say(conversation(1500, people=300))
    service = await stage.start(DRAIN_TIMEOUT_S="10", MAX_IN_FLIGHT_MESSAGES="400")
    await service.until(lambda: len(stage.written()) > 100)
    async with asyncio.timeout(10 + 15):
        assert await service.terminate() == 0
    left = 1500 - len(stage.written())
    assert left > 0
    assert sum((await stage.committed()).values()) == len(stage.written())
    await stage.check_settled()
    await stage.start()
    await stage.drained()
    stage.check_all_once()


async def test_members_come_and_go_under_load(kafka_4: Broker, tmp_path: Path) -> None:
    """Three members share the partitions, leave and are killed while messages of everybody arrive everywhere."""
    async with Stage(kafka_4, tmp_path, partitions=4) as stage:
        await stage.say(conversation(400, people=60, seed=1))
        first = await stage.start()
        await soon(lambda: len(stage.written()) > 20)
        second = await stage.start()
        await stage.say(conversation(400, people=80, seed=2, first=1000))
        third = await stage.start()
        await second.until(lambda: bool(second.logged("kafka.partition_opened")))
        await third.until(lambda: bool(third.logged("kafka.partition_opened")))
        await stage.say(conversation(400, people=100, seed=3, first=2000))
        assert await first.terminate() == 0
        await stage.say(conversation(200, people=100, seed=4, first=3000))
        await second.kill()
        await stage.say([message(4000 + person, person=person) for person in range(100, 110)])
        await stage.drained()
        stage.check_all_once()
        await third.ready()
        assert await third.terminate() == 0


async def test_two_members_that_meet_one_person_make_one_lead(kafka_4: Broker, tmp_path: Path) -> None:
    """Messages of new people that arrive in two processes in the same moment become one lead and one note each."""
    async with Stage(kafka_4, tmp_path) as stage:
        members = [await stage.start(), await stage.start()]
        for member in members:
            await member.until(lambda member=member: bool(member.logged("kafka.partition_opened")))  # type: ignore[misc]
        await soon(
            lambda: all(len(member.logged("kafka.partitions_assigned")[-1]["partitions"]) == 1 for member in members)
        )
        for number in range(4):
            people = range(20 * number, 20 * number + 20)
            await stage.say([message(100 * person + turn, person=person) for turn in range(4) for person in people])
        await stage.drained()
        stage.check_all_once()
        assert [await member.terminate() for member in members] == [0, 0]
