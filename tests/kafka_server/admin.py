"""What an operator does to a cluster, through librdkafka: another client than the one under test."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from confluent_kafka import KafkaException, TopicPartition
from confluent_kafka.admin import (
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ClusterMetadata,
    NewPartitions,
    NewTopic,
    ResourcePatternType,
    ResourceType,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialUpsertion,
)

DEADLINE_S: Final = 60.0
POLL_S: Final = 0.05
_SCRAM_ITERATIONS: Final = 4096  # the least that Kafka accepts


class Admin:
    """Topics, records, users and access rules of the cluster at `bootstrap_servers`.

    Each call returns when the change can be seen by every client, or raises KafkaException.
    """

    def __init__(self, bootstrap_servers: str) -> None:
        self.bootstrap_servers = bootstrap_servers

    async def create_topic(
        self,
        name: str,
        *,
        partitions: int = 1,
        config: Mapping[str, str] | None = None,
    ) -> None:
        topic = NewTopic(name, partitions, config=dict(config or {}))
        client = self._client()
        await asyncio.wrap_future(client.create_topics([topic])[name])
        await self._until(lambda metadata: _led_partitions(metadata, name) == partitions)

    async def delete_topic(self, name: str) -> None:
        client = self._client()
        await asyncio.wrap_future(client.delete_topics([name])[name])
        await self._until(lambda metadata: name not in metadata.topics)

    async def add_partitions(self, topic: str, *, total: int) -> None:
        """Raise the topic's number of partitions to `total`."""
        client = self._client()
        await asyncio.wrap_future(client.create_partitions([NewPartitions(topic, total)])[topic])
        await self._until(lambda metadata: _led_partitions(metadata, topic) == total)

    async def delete_records(self, topic: str, *, before: Mapping[int, int]) -> None:
        """Remove each partition's records with offsets under `before[partition]`, as retention does."""
        client = self._client()
        offsets = [TopicPartition(topic, partition, offset) for partition, offset in before.items()]
        deleted = client.delete_records(offsets)
        await asyncio.gather(*map(asyncio.wrap_future, deleted.values()))

    async def create_scram_user(self, name: str, *, password: str) -> None:
        client = self._client()
        how = ScramCredentialInfo(ScramMechanism.SCRAM_SHA_512, _SCRAM_ITERATIONS)
        user = UserScramCredentialUpsertion(name, how, password.encode())
        await asyncio.wrap_future(client.alter_user_scram_credentials([user])[name])

    async def allow(self, user: str, operations: Sequence[str], *, topic: str = "", group: str = "") -> None:
        """Let `user` do `operations` ("read", "write", …) on the topic, or on the group; "*" names all."""
        client = self._client()
        rules = [AclBinding(**_rule(user, name, topic=topic, group=group)) for name in operations]
        await asyncio.gather(*map(asyncio.wrap_future, client.create_acls(rules).values()))

    async def revoke(self, user: str, *, topic: str = "", group: str = "") -> None:
        """Take back all that `user` was allowed on the topic, or on the group."""
        client = self._client()
        rules = AclBindingFilter(**_rule(user, "any", topic=topic, group=group))
        await asyncio.wrap_future(client.delete_acls([rules])[rules])

    async def is_ready(self, *, brokers: int) -> bool:
        """Whether `brokers` brokers are members and hold all that they should: any one could be lost."""
        return await self._sees(lambda metadata: len(metadata.brokers) == brokers and _is_in_sync(metadata, brokers))

    def _client(self) -> AdminClient:
        return AdminClient(
            {"bootstrap.servers": self.bootstrap_servers, "reconnect.backoff.max.ms": 100, "log_level": 0}
        )

    async def _until(self, is_so: Callable[[ClusterMetadata], bool]) -> None:
        async with asyncio.timeout(DEADLINE_S):
            while not await self._sees(is_so):
                await asyncio.sleep(POLL_S)

    async def _sees(self, is_so: Callable[[ClusterMetadata], bool]) -> bool:
        try:
            return is_so(await asyncio.to_thread(self._client().list_topics, timeout=2))
        except KafkaException:
            return False


def _led_partitions(metadata: ClusterMetadata, topic: str) -> int:
    found = metadata.topics.get(topic)
    return sum(partition.leader >= 0 for partition in found.partitions.values()) if found else 0


def _is_in_sync(metadata: ClusterMetadata, brokers: int) -> bool:
    partitions = (partition for topic in metadata.topics.values() for partition in topic.partitions.values())
    return all(len(partition.isrs) >= min(len(partition.replicas), brokers) for partition in partitions)


def _rule(user: str, operation: str, *, topic: str, group: str) -> dict[str, Any]:
    return {
        "restype": ResourceType.TOPIC if topic else ResourceType.GROUP,
        "name": topic or group,
        "resource_pattern_type": ResourcePatternType.LITERAL,
        "principal": f"User:{user}",
        "host": "*",
        "operation": AclOperation[operation.upper()],
        "permission_type": AclPermissionType.ALLOW,
    }
