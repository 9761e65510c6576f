"""What the source does on every broker, the embedded one and Apache Kafka alike."""

from __future__ import annotations

import asyncio
from typing import Any

import aiokafka.consumer.fetcher as aiokafka_fetcher
import pytest
from aiokafka.errors import CorruptRecordException, KafkaError, UnsupportedCodecError

from consumer.core.errors import CommitLostError
from consumer.core.model import TopicPartition
from tests.kafka.harness import DEADLINE_S, Member, numbered, produce, stored_offset
from tests.kafka_server.cluster import Broker
from tests.kafka_server.fixtures import CreateTopic


async def test_a_new_group_starts_at_the_end_and_says_so(broker: Broker, create_topic: CreateTopic) -> None:
    """Without a date, a group without offsets skips what is there, and commits that position before it reads."""
    topic = await create_topic()
    await produce(broker, topic, [b"old", b"older"])
    async with Member(broker, topic, since_ms=None) as member:
        await member.opened()
        assert await stored_offset(broker, topic) == 2
        await produce(broker, topic, [b"new"])
        assert await member.read(1) == [b"new"]


async def test_members_share_and_take_over(broker: Broker, create_topic: CreateTopic) -> None:
    """A second member gets half of the partitions after the first has given them up; leaving gives them back."""
    topic = await create_topic(partitions=2)
    async with Member(broker, topic) as first:
        await first.opened(2)
        async with Member(broker, topic) as second:
            await first.until(lambda: len(first.owned()) == 1 and len(second.owned()) == 1)
            assert ("revoked", {0, 1}) in first.events
            await produce(broker, topic, [b"a"], partition=0)
            await produce(broker, topic, [b"b"], partition=1)
            await first.read(1)
            await second.read(1)
            assert {*first.values(), *second.values()} == {b"a", b"b"}
            await second.commit(is_clean=True)
        await first.until(lambda: first.owned() == {0, 1} and not first.source.is_rebalancing)
        await produce(broker, topic, [b"c"], partition=0)
        await produce(broker, topic, [b"d"], partition=1)
        await first.read(3)
        assert sorted(filter(None, first.values()))[-2:] == [b"c", b"d"]


async def test_a_standby_stays_a_member(broker: Broker, create_topic: CreateTopic) -> None:
    """A member without partitions is joined, keeps its place for longer than the poll limit, and takes over."""
    topic = await create_topic()
    async with Member(broker, topic) as first, Member(broker, topic, max_poll_interval_s=1.0) as standby:
        await first.until(lambda: not first.source.is_rebalancing)
        owner, other = (first, standby) if first.owned() else (standby, first)
        before = len(other.events)
        await asyncio.sleep(3)
        assert other.source.is_joined
        assert len(other.events) == before
        await owner.stop()
        await other.until(lambda: other.owned() == {0})
        await produce(broker, topic, [b"x"])
        assert b"x" in await other.read(1)
        owner.begin()


async def test_without_room_it_stays_and_loses_nothing(
    broker: Broker, create_topic: CreateTopic, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A member without room for longer than the poll limit keeps its partitions, and later reads each record once."""
    monkeypatch.setattr("consumer.kafka.source._PAUSE_AFTER_S", 0.3)
    topic = await create_topic()
    async with Member(broker, topic, max_poll_interval_s=2.0) as member:
        await produce(broker, topic, numbered(3))
        await member.read(3)
        await member.set_room(0)
        await produce(broker, topic, numbered(50, first=3))
        await asyncio.sleep(3)
        assert len(member.records) == 3
        member.room = 7
        assert await member.read(53) == numbered(53)
        assert member.told("assigned") == [{0}]


async def test_a_commit_for_a_partition_of_others_is_refused(broker: Broker, create_topic: CreateTopic) -> None:
    """What is not ours cannot be committed; what is ours can be in the same breath."""
    topic = await create_topic()
    await produce(broker, topic, [b"a"])
    async with Member(broker, topic) as member:
        await member.read(1)
        with pytest.raises(CommitLostError):
            await member.source.commit({TopicPartition(topic, 7): 3}, is_clean=False)
        assert await stored_offset(broker, topic) == 0
        with pytest.raises(CommitLostError):
            await member.source.commit({TopicPartition(topic, 7): 3, TopicPartition(topic, 0): 1}, is_clean=False)
        assert await stored_offset(broker, topic) == 1


async def test_lag_counts_what_is_not_read(broker: Broker, create_topic: CreateTopic) -> None:
    """Lag is known of each own partition, also while there is no room and nothing is fetched."""
    topic = await create_topic(partitions=2)
    async with Member(broker, topic) as member:
        await member.opened(2)
        await member.set_room(0)
        await produce(broker, topic, numbered(5), partition=1)
        member.source._ends_due_at = 0.0
        await member.until(lambda: member.source.lag() == {TopicPartition(topic, 0): 0, TopicPartition(topic, 1): 5})
        member.room = 10
        await member.read(5)
        assert member.source.lag() == {TopicPartition(topic, 0): 0, TopicPartition(topic, 1): 0}


async def test_a_backlog_of_one_partition_holds_up_no_other(broker: Broker, create_topic: CreateTopic) -> None:
    """All partitions are read side by side: none is read to its end before the others have begun."""
    topic = await create_topic(partitions=3)
    for partition in range(3):
        await produce(broker, topic, numbered(300, first=300 * partition), partition=partition)
    member = Member(broker, topic)
    member.room = 30
    async with member:
        await member.read(900)
    first_of = [
        next(at for at, record in enumerate(member.records) if record.tp.partition == each) for each in range(3)
    ]
    last_of = [max(at for at, record in enumerate(member.records) if record.tp.partition == each) for each in range(3)]
    assert max(first_of) < min(last_of)


async def test_large_records_come_whole(broker: Broker, create_topic: CreateTopic) -> None:
    """Records of a mebibyte, Kafka's usual limit, arrive like others."""
    topic = await create_topic()
    values = [bytes([letter]) * (1024 * 1024 - 200) for letter in b"abc"]
    await produce(broker, topic, values)
    async with Member(broker, topic) as member:
        assert await member.read(3) == values


@pytest.fixture
def damaged(monkeypatch: pytest.MonkeyPatch) -> dict[tuple[int, int], Exception]:
    """What the client raises in place of a record, by partition and offset."""
    errors: dict[tuple[int, int], Exception] = {}
    unpack = aiokafka_fetcher.PartitionRecords._unpack_records

    def failing(self: Any) -> Any:
        for record in unpack(self):
            if (record.partition, record.offset) in errors:
                raise errors[record.partition, record.offset]
            yield record

    monkeypatch.setattr(aiokafka_fetcher.PartitionRecords, "_unpack_records", failing)
    return errors


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (CorruptRecordException("Invalid CRC"), "RECORD_CORRUPT"),
        (UnicodeDecodeError("utf-8", b"KEY\xff", 3, 4, "invalid start byte"), "RECORD_UNREADABLE"),
        (UnsupportedCodecError("no zstd"), "RECORD_UNREADABLE"),
    ],
)
async def test_a_record_that_cannot_be_read_hides_nothing(
    broker: Broker,
    create_topic: CreateTopic,
    monkeypatch: pytest.MonkeyPatch,
    damaged: dict[tuple[int, int], Exception],
    error: Exception,
    code: str,
) -> None:
    """Records before it and those of other partitions arrive; its partition halts, names it, and goes on by itself."""
    monkeypatch.setattr("consumer.kafka.source._HALT_S", 1.0)
    topic = await create_topic(partitions=2)
    await produce(broker, topic, numbered(5))
    await produce(broker, topic, [b"x", b"y"], partition=1)
    damaged[0, 2] = error
    async with Member(broker, topic) as member:
        await member.until(lambda: bool(member.told("halted")))
        assert member.told("halted") == [(0, code)]
        assert "offset 2 of partition 0" in member.source.halted[TopicPartition(topic, 0)].advice
        await produce(broker, topic, [b"z"], partition=1)
        assert sorted(filter(None, await member.read(5))) == [b"0", b"1", b"x", b"y", b"z"]
        damaged.clear()
        await member.read(8)
        assert [record.value for record in member.records if record.tp.partition == 0] == numbered(5)
        assert not member.source.halted


async def test_a_halt_lasts_until_a_record_is_read(
    broker: Broker,
    create_topic: CreateTopic,
    monkeypatch: pytest.MonkeyPatch,
    damaged: dict[tuple[int, int], Exception],
) -> None:
    """While it is tried again in vain, a halt is told once, stands, and keeps the time since when it does."""
    monkeypatch.setattr("consumer.kafka.source._HALT_S", 0.3)
    topic = await create_topic()
    await produce(broker, topic, [b"a"])
    damaged[0, 0] = ValueError("odd")
    async with Member(broker, topic) as member:
        await member.until(lambda: bool(member.told("halted")))
        (halted,) = member.source.halted.values()
        tries = len(member.failures)
        await member.until(lambda: len(member.failures) > tries + 2)
        assert [each.since for each in member.source.halted.values()] == [halted.since]
        assert member.told("halted") == [(0, "RECORD_UNREADABLE")]


async def test_says_what_it_waits_for(broker: Broker, create_topic: CreateTopic) -> None:
    """Without a connection it waits for the brokers; once the group counts it in, for nothing."""
    topic = await create_topic()
    nowhere = Member(broker, topic, environment={"KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1"})
    nowhere.begin()
    try:
        await nowhere.until(lambda: bool(nowhere.failures))
        assert nowhere.source.waits_for == "brokers"
    finally:
        await nowhere.stop()
    async with Member(broker, topic) as member:
        assert member.source.waits_for == ""


async def test_a_client_that_keeps_failing_is_replaced(broker: Broker, create_topic: CreateTopic) -> None:
    """When a task of the client's own is dead, a new client takes its place, and nothing is lost."""
    topic = await create_topic()
    await produce(broker, topic, [b"a"])
    async with Member(broker, topic, patience_s=0.5) as member:
        await member.read(1)
        await _kill_coordination(member)
        await member.until(lambda: len(member.told("assigned")) == 2 and member.source.is_joined)
        await produce(broker, topic, [b"b"])
        await member.until(lambda: b"b" in member.values())


async def _kill_coordination(member: Member) -> None:
    coordinator = member.coordinator()

    async def fail() -> None:
        raise KafkaError("Unexpected error during coordination")

    coordinator._coordination_task.cancel()
    coordinator._coordination_task = asyncio.ensure_future(fail())
    await asyncio.wait({coordinator._coordination_task})


async def test_a_client_can_be_replaced_while_it_reads(broker: Broker, create_topic: CreateTopic) -> None:
    """The watchdog's remedy: the partitions are given up, committed, and taken again by a new client."""
    topic = await create_topic()
    async with Member(broker, topic) as member:
        await produce(broker, topic, numbered(3))
        await member.read(3)
        await member.source.recreate()
        await member.until(lambda: len(member.told("opened")) == 2)
        assert member.told("opened")[1] == (0, 3, "offset")
        await produce(broker, topic, [b"after"])
        assert (await member.read(4)) == [*numbered(3), b"after"]


async def test_a_poll_of_the_old_client_leaves_nothing_to_the_new_one(
    broker: Broker, create_topic: CreateTopic
) -> None:
    """A poll that waits for the client while it is replaced reads nothing more with it."""
    topic = await create_topic()
    async with Member(broker, topic) as member:
        await member.opened()
        old, asked, answer = member.source._consumer, asyncio.Event(), asyncio.Event()

        async def end_offsets(partitions: Any) -> dict[Any, int]:
            asked.set()
            await answer.wait()
            return {}

        async def getmany(*_partitions: Any, **_how: Any) -> Any:
            await asyncio.Event().wait()

        assert old is not None
        old.end_offsets, old.getmany = end_offsets, getmany
        member.source._ends_due_at = 0.0
        await asked.wait()
        await member.source.recreate()
        await member.until(lambda: len(member.told("assigned")) == 2)
        answer.set()
        await produce(broker, topic, [b"a"])
        assert await member.read(1) == [b"a"]


async def test_a_client_that_cannot_be_made_anew_is_tried_again(
    broker: Broker, create_topic: CreateTopic, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file of secrets that is empty for a moment ends nothing: it is told, and reading goes on afterwards."""
    topic = await create_topic()
    async with Member(broker, topic) as member:
        await member.opened()
        with monkeypatch.context() as patch:
            patch.setattr("consumer.kafka.source.AIOKafkaConsumer", _refuse)
            await member.source.recreate()
            await member.until(lambda: "connect: ValueError" in member.failures)
            assert not member.source.is_joined
        await produce(broker, topic, [b"a"])
        assert await member.read(1) == [b"a"]


async def test_a_client_that_cannot_be_made_at_all_ends_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """A setting that is wrong from the first is an error, and no reason to wait."""
    monkeypatch.setattr("consumer.kafka.source.AIOKafkaConsumer", _refuse)
    member = Member(_Nowhere(), "t")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="password required"):
        await member.source.start(member)


def _refuse(**_options: Any) -> None:
    raise ValueError("password required")


async def test_it_can_be_stopped_while_no_broker_answers() -> None:
    """Without any broker, joining goes on trying, and a stop ends it at once."""
    member = Member(_Nowhere(), "t")  # type: ignore[arg-type]
    member.begin()
    await member.until(lambda: len(member.failures) >= 2)
    assert set(member.failures) == {"connect: KafkaConnectionError"}
    async with asyncio.timeout(DEADLINE_S):
        await member.stop()


class _Nowhere:
    def environment(self) -> dict[str, str]:
        return {"KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:9"}
