"""The embedded broker does what the service needs of Kafka."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, OffsetAndMetadata, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaConnectionError, UnknownError

from sandbox.broker import Broker, BrokerError

TOPIC = "messages"


@pytest.fixture
async def broker() -> AsyncIterator[Broker]:
    async with Broker() as broker:
        await broker.create_topic(TOPIC, partitions=4)
        yield broker


def consumer(broker: Broker, *topics: str) -> AIOKafkaConsumer:
    return AIOKafkaConsumer(
        *topics,
        bootstrap_servers=broker.bootstrap_servers,
        group_id="g",
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        session_timeout_ms=1_000,  # the broker keeps the seat of a member that left for so long
        heartbeat_interval_ms=200,
    )


async def produce(broker: Broker, *values: bytes, partition: int = 0) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=broker.bootstrap_servers, enable_idempotence=False)
    try:
        await producer.start()
        for value in values:
            await producer.send_and_wait(TOPIC, value, key=b"k", partition=partition, headers=[("h", b"1")])
    finally:
        await producer.stop()


async def test_records_come_back_as_they_were_sent(broker: Broker) -> None:
    """Key, value, headers and order survive."""
    await produce(broker, b"a", b"b")
    reader = consumer(broker, TOPIC)
    await reader.start()
    try:
        got = [await reader.getone(), await reader.getone()]
    finally:
        await reader.stop()
    assert [(each.key, each.value, each.headers, each.offset) for each in got] == [
        (b"k", b"a", (("h", b"1"),), 0),
        (b"k", b"b", (("h", b"1"),), 1),
    ]


async def test_commits_keep_their_offset(broker: Broker) -> None:
    """A committed offset, metadata or not, is there for the next member of the group."""
    await produce(broker, b"a", b"b")
    partition = TopicPartition(TOPIC, 0)
    first = consumer(broker, TOPIC)
    await first.start()
    try:
        await first.getone()
        await first.commit({partition: OffsetAndMetadata(1, "note")})
    finally:
        await first.stop()
    second = consumer(broker, TOPIC)
    await second.start()
    try:
        assert await second.committed(partition) == 1
        assert (await second.getone()).value == b"b"
    finally:
        await second.stop()


async def test_two_members_share_the_partitions(broker: Broker) -> None:
    """Two members of a group divide the partitions; when one leaves, the other has them all."""
    first, second = consumer(broker, TOPIC), consumer(broker, TOPIC)
    await first.start()
    try:
        await second.start()
        try:
            while not (first.assignment() and second.assignment() and not first.assignment() & second.assignment()):
                await asyncio.sleep(0.05)
            assert len(first.assignment() | second.assignment()) == 4
        finally:
            await second.stop()
        while len(first.assignment()) < 4:
            await asyncio.sleep(0.05)
    finally:
        await first.stop()


async def test_what_this_broker_cannot_do(broker: Broker) -> None:
    """As documented: it refuses idempotent producers, loses a commit's metadata, and cannot search by time."""
    producer = AIOKafkaProducer(bootstrap_servers=broker.bootstrap_servers, enable_idempotence=True)
    with pytest.raises(UnknownError):
        await producer.start()
    await producer.stop()
    await produce(broker, b"a")
    partition = TopicPartition(TOPIC, 0)
    reader = consumer(broker, TOPIC)
    admin = AIOKafkaAdminClient(bootstrap_servers=broker.bootstrap_servers)
    await reader.start()
    await admin.start()
    try:
        await reader.commit({partition: OffsetAndMetadata(1, "note")})
        committed = await admin.list_consumer_group_offsets("g", partitions=[partition])
        assert committed[partition] == OffsetAndMetadata(1, "")
        found = await reader.offsets_for_times({partition: 2**41})
        assert found[partition].offset == 0
    finally:
        await admin.close()
        await reader.stop()


async def test_topics_come_by_themselves(broker: Broker) -> None:
    """As documented: a topic that is written to is there, with four partitions."""
    producer = AIOKafkaProducer(bootstrap_servers=broker.bootstrap_servers, enable_idempotence=False)
    await producer.start()
    try:
        await producer.send_and_wait("never-created", b"a")
        assert await producer.partitions_for("never-created") == {0, 1, 2, 3}
    finally:
        await producer.stop()


async def test_only_a_fetch_tells_the_end_of_a_batch(broker: Broker) -> None:
    """As documented: asked for the end, it counts the first record of the last batch only."""
    partition = TopicPartition(TOPIC, 0)
    producer = AIOKafkaProducer(bootstrap_servers=broker.bootstrap_servers, enable_idempotence=False, linger_ms=100)
    await producer.start()
    try:
        await asyncio.gather(*[await producer.send(TOPIC, b"a", partition=0) for _ in range(5)])
    finally:
        await producer.stop()
    reader = consumer(broker)
    await reader.start()
    try:
        reader.assign([partition])
        reader.seek(partition, 0)
        assert (await reader.getone()).offset == 0
        assert (await reader.end_offsets([partition]), reader.highwater(partition)) == ({partition: 1}, 5)
    finally:
        await reader.stop()


async def test_a_killed_broker_is_gone() -> None:
    """A crash can be played, and is noticed."""
    broker = Broker()
    await broker.start()
    await broker.kill()
    await broker.ended()
    with pytest.raises(KafkaConnectionError):
        await produce(broker, b"a")


async def test_a_broker_says_what_it_printed() -> None:
    """What the broker printed can be read for a report."""
    async with Broker() as broker:
        assert broker.bootstrap_servers in broker.log_text()


async def test_a_taken_port_is_named() -> None:
    """A broker cannot start where another one is."""
    async with Broker() as broker:
        port = int(broker.bootstrap_servers.rpartition(":")[2])
        with pytest.raises(BrokerError, match=str(port)):
            await Broker(port=port).start()


def test_a_broker_that_was_not_started_has_no_process() -> None:
    """Before its start there is no process."""
    with pytest.raises(BrokerError):
        _ = Broker().pid
