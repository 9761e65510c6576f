"""Looks up where partitions begin: the group's stored offsets and the topic's own."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from aiokafka import TopicPartition as KafkaPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import GroupCoordinatorNotAvailableError

from consumer.kafka.start_position import CommitNote, Committed, From, Start

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from aiokafka import AIOKafkaConsumer

    from consumer.core.model import TopicPartition
    from consumer.kafka.connection import KafkaConnection

_LOOK_UP_TIMEOUT_S = 30.0


def kafka_partition(tp: TopicPartition) -> Any:
    """As aiokafka wants it."""
    return KafkaPartition(tp.topic, tp.partition)


async def committed_offsets(
    connection: KafkaConnection, group_id: str, topic: str, numbers: Iterable[int]
) -> dict[int, Committed]:
    """The group's offsets of these partitions, with the text beside each, which only the admin client gives.

    Raises KafkaError or TimeoutError.  A coordinator that is still loading the group answers with no partitions, and an
    error that aiokafka overlooks; believed, that would be a group without offsets, and its messages lost.
    """
    partitions = [KafkaPartition(topic, number) for number in sorted(numbers)]
    admin = AIOKafkaAdminClient(**connection.options())
    try:
        async with asyncio.timeout(_LOOK_UP_TIMEOUT_S):
            await admin.start()
            found = await admin.list_consumer_group_offsets(group_id, partitions=partitions)
    finally:
        await admin.close()
    if found.keys() != set(partitions):
        raise GroupCoordinatorNotAvailableError
    return {
        tp.partition: Committed(entry.offset, CommitNote.parse(entry.metadata))
        for tp, entry in found.items()
        if entry.offset >= 0
    }


async def resolved(consumer: AIOKafkaConsumer, starts: Mapping[TopicPartition, Start]) -> dict[TopicPartition, Start]:
    """Each beginning with its offset.  Raises KafkaError."""
    partitions = [kafka_partition(tp) for tp in starts]
    ends = await consumer.end_offsets(partitions)
    beginnings = await consumer.beginning_offsets(partitions)
    times = {kafka_partition(tp): start.time_ms for tp, start in starts.items() if start.kind is From.TIME}
    at_times = await consumer.offsets_for_times(times) if times else {}
    found: dict[TopicPartition, Start] = {}
    for tp, start in starts.items():
        kafka_tp = kafka_partition(tp)
        beginning, end, at_time = beginnings[kafka_tp], ends[kafka_tp], at_times.get(kafka_tp)
        offset = {
            From.OFFSET: start.offset,
            From.BEGINNING: beginning,
            From.TIME: at_time.offset if at_time else end,
            From.END: end,
        }[start.kind]
        found[tp] = replace(start, offset=offset)
    return found
