"""What every broker of the tests does, the embedded one and Apache Kafka alike."""

from __future__ import annotations

from aiokafka import AIOKafkaConsumer, TopicPartition

from tests.kafka_server.clients import joined, produce, read
from tests.kafka_server.cluster import Broker
from tests.kafka_server.fixtures import CreateTopic


async def test_records_come_back_in_order(broker: Broker, create_topic: CreateTopic) -> None:
    """A consumer reads what a producer was told is stored, in the order of the partition."""
    topic = await create_topic(partitions=2)
    await produce(broker.client_options(), topic, [b"a", b"b", b"c"], partition=1)
    assert await read(broker.client_options(), topic, count=3, group=topic) == [b"a", b"b", b"c"]


async def test_a_group_resumes_where_it_committed(broker: Broker, create_topic: CreateTopic) -> None:
    """The next member of a group starts at the offset that the last one committed."""
    topic = await create_topic()
    partition = TopicPartition(topic, 0)
    await produce(broker.client_options(), topic, [b"a", b"b", b"c"])
    async with joined(broker.client_options(), topic, group=topic) as first:
        await first.commit({partition: 2})
    async with AIOKafkaConsumer(**broker.client_options(), group_id=topic, enable_auto_commit=False) as second:
        second.assign([partition])
        assert (await second.getone()).value == b"c"
