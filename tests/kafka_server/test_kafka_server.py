"""What only Apache Kafka can show: operators at work, power cuts, and who may do what."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer
from aiokafka.errors import KafkaConnectionError, TopicAuthorizationFailedError
from aiokafka.helpers import create_ssl_context
from confluent_kafka import Consumer

from tests.kafka_server.admin import DEADLINE_S
from tests.kafka_server.certificates import Authority
from tests.kafka_server.clients import joined, produce, read
from tests.kafka_server.cluster import Broker, new_topic
from tests.kafka_server.fixtures import NewKafkaServer
from tests.kafka_server.server import KafkaServer


async def test_a_cluster_keeps_its_data(kafka_server: NewKafkaServer) -> None:
    """Records and committed offsets survive a stop and a power cut, at the same address."""
    async with kafka_server() as server:
        await server.admin.create_topic("kept")
        await produce(server.client_options(), "kept", [b"a", b"b", b"c"])
        await _read_and_commit(server, "kept", expected=b"a")
        await server.stop()
        await server.start()
        await _read_and_commit(server, "kept", expected=b"b")
        await server.kill()
        await server.start()
        await _read_and_commit(server, "kept", expected=b"c")


async def test_one_broker_stands_in_for_the_other(kafka_server: NewKafkaServer) -> None:
    """Either of two brokers can be lost, also to the one that was lost before, and no record is missing."""
    async with kafka_server(brokers=2) as server:
        await server.admin.create_topic("shared", partitions=2)
        for partition in range(2):
            await produce(server.client_options(), "shared", [b"first"], partition=partition)
        await server.kill(1)
        assert await _consumed(server, "shared", count=2) == [b"first", b"first"]
        await server.start(1)
        await produce(server.client_options(), "shared", [b"second"])
        await server.kill(2)
        assert await _consumed(server, "shared", count=1) == [b"second"]


async def test_deleted_records_are_gone(kafka_4: Broker) -> None:
    """A new reader starts at the first record that was left."""
    topic = await new_topic(kafka_4)
    await produce(kafka_4.client_options(), topic, [b"a", b"b", b"c"])
    await kafka_4.admin.delete_records(topic, before={0: 2})
    assert await read(kafka_4.client_options(), topic, count=1, group=topic) == [b"c"]


async def test_a_topic_grows(kafka_4: Broker) -> None:
    """Records can be written to a partition that was added."""
    topic = await new_topic(kafka_4, partitions=1)
    await kafka_4.admin.add_partitions(topic, total=3)
    await produce(kafka_4.client_options(), topic, [b"new"], partition=2)
    assert await read(kafka_4.client_options(), topic, count=1, group=topic) == [b"new"]


async def test_a_user_may_do_what_was_allowed(secure_kafka: KafkaServer) -> None:
    """Over TLS and with a password, a user with access rules writes and reads; without them it is refused."""
    await secure_kafka.admin.create_topic("guarded")
    user = await secure_kafka.create_user("writer")
    options = secure_kafka.client_options(user)
    await secure_kafka.admin.allow("writer", ["read", "write"], topic="guarded")
    await secure_kafka.admin.allow("writer", ["read"], group="readers")
    await produce(options, "guarded", [b"secret"])
    assert await read(options, "guarded", count=1, group="readers") == [b"secret"]
    await secure_kafka.admin.revoke("writer", topic="guarded")
    with pytest.raises(TopicAuthorizationFailedError):
        await produce(options, "guarded", [b"refused"])


async def test_another_authority_is_not_trusted(secure_kafka: KafkaServer, tmp_path: Path) -> None:
    """A client that trusts another authority does not talk to the broker."""
    user = await secure_kafka.create_user("wary")
    other = create_ssl_context(cafile=str(Authority(tmp_path).ca_file))
    consumer = AIOKafkaConsumer(**{**secure_kafka.client_options(user), "ssl_context": other})
    with pytest.raises(KafkaConnectionError):
        await consumer.start()
    await consumer.stop()


async def test_a_certificate_says_who_the_client_is(kafka_server: NewKafkaServer) -> None:
    """With TLS on both sides, the rules of the name in the certificate apply."""
    async with kafka_server(security="ssl") as server:
        await server.admin.create_topic("guarded")
        known, unknown = await server.create_user("known"), await server.create_user("unknown")
        await server.admin.allow("known", ["write"], topic="guarded")
        await produce(server.client_options(known), "guarded", [b"secret"])
        with pytest.raises(TopicAuthorizationFailedError):
            await produce(server.client_options(unknown), "guarded", [b"refused"])


async def _read_and_commit(server: KafkaServer, topic: str, *, expected: bytes) -> None:
    async with joined(server.client_options(), topic, group=topic) as consumer:
        assert (await consumer.getone()).value == expected
        await consumer.commit()


async def _consumed(server: KafkaServer, topic: str, *, count: int) -> list[bytes | None]:
    """The next values of the topic, read and committed by librdkafka, which sits out a failover."""
    return await asyncio.to_thread(_consume, server.bootstrap_servers, topic, count=count)


def _consume(bootstrap_servers: str, topic: str, *, count: int) -> list[bytes | None]:
    settings = {"bootstrap.servers": bootstrap_servers, "group.id": topic, "auto.offset.reset": "earliest"}
    consumer = Consumer({**settings, "log_level": 0})
    try:
        consumer.subscribe([topic])
        records = consumer.consume(count, timeout=DEADLINE_S)
        consumer.commit(asynchronous=False)
    finally:
        consumer.close()
    return [record.value() for record in records]
