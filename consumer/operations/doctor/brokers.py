"""What Kafka says of itself, step by step, so that the step that fails has a name.  Reads only."""

from __future__ import annotations

import asyncio
import socket
import ssl
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from aiokafka import AIOKafkaConsumer
from aiokafka import TopicPartition as KafkaPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.client import AIOKafkaClient
from aiokafka.conn import create_conn
from aiokafka.errors import IncompatibleBrokerVersion, KafkaError, for_code
from aiokafka.protocol.admin import DescribeGroupsResponse_v3
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.metadata import MetadataRequest
from aiokafka.protocol.types import Array, Boolean, Int16, Int32, Schema, String

from consumer.operations.topics import ends_of, patiently, quiet, stopped

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from consumer.kafka.connection import KafkaConnection

_CONNECT_S = 8.0
_UNKNOWN_RIGHTS = -(2**31)
_OPERATIONS = {3: "READ", 4: "WRITE", 8: "DESCRIBE"}

_NOT_KNOWN = (IncompatibleBrokerVersion, NotImplementedError)
"""What aiokafka raises for a request of which the broker, or this client with it, has no version: ask an older one."""


@dataclass(frozen=True, slots=True)
class Obstacle:
    """Why a broker cannot be used: `dns`, `refused`, `timeout`, `tls`, `sasl`, `files`, `other`."""

    kind: str
    server: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class TopicFacts:
    """One topic; `rights` and `config` are None when the broker does not tell."""

    name: str
    partitions: int
    replicas: int
    rights: frozenset[str] | None = None
    config: dict[str, str] | None = None


@dataclass(slots=True)
class GroupFacts:
    """The consumer group and where it stands."""

    state: str = ""
    members: int = 0
    client_ids: frozenset[str] = frozenset()
    rights: frozenset[str] | None = None
    committed: dict[int, int] = field(default_factory=dict)
    beginnings: dict[int, int] = field(default_factory=dict)
    ends: dict[int, int] = field(default_factory=dict)
    error: str | None = None

    @property
    def lag(self) -> int:
        """Records between what was committed and the ends, where something was committed."""
        return sum(max(0, self.ends[number] - offset) for number, offset in self.committed.items())


@dataclass(slots=True)
class KafkaFacts:
    """Everything that could be found out."""

    obstacles: list[Obstacle] = field(default_factory=list)
    is_connected: bool = False
    brokers: int = 0
    unreachable: list[str] = field(default_factory=list)
    """Addresses that the brokers give of themselves, and that do not answer from here."""
    topics: dict[str, TopicFacts | None] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)
    """Of topics that may not be looked at."""
    group: GroupFacts = field(default_factory=GroupFacts)


async def look(connection: KafkaConnection, topics: Sequence[str], group_id: str) -> KafkaFacts:
    """Find out as much as can be found out.  Never raises for what the brokers do."""
    facts = KafkaFacts()
    for server in filter(None, map(str.strip, connection.bootstrap_servers.split(","))):
        obstacle = await _obstacle(connection, server)
        if obstacle is None:
            facts.is_connected = True
        else:
            facts.obstacles.append(obstacle)
    if facts.is_connected:
        with quiet():
            await _look_inside(connection, topics, group_id, facts)
    return facts


# -- connection -------------------------------------------------------------------------------------------------


async def _obstacle(connection: KafkaConnection, server: str) -> Obstacle | None:
    host, _, port = server.rpartition(":")
    if not host or not port.isdecimal():
        return Obstacle("address", server)
    try:
        options = connection.options()
    except (OSError, ssl.SSLError) as error:
        return Obstacle("files", server, _short(error))
    return await _unreachable(server, host.strip("[]"), int(port)) or await _refused(
        server, host.strip("[]"), int(port), options
    )


async def _unreachable(server: str, host: str, port: int) -> Obstacle | None:
    try:
        async with asyncio.timeout(_CONNECT_S):
            _, writer = await asyncio.open_connection(host, port)
    except socket.gaierror as error:
        return Obstacle("dns", server, _short(error))
    except TimeoutError:
        return Obstacle("timeout", server)
    except OSError as error:
        return Obstacle("refused", server, _short(error))
    writer.close()
    return None


async def _refused(server: str, host: str, port: int, options: dict[str, Any]) -> Obstacle | None:
    """Speaks Kafka: TLS, then the password, then which requests the broker knows."""
    del options["bootstrap_servers"]
    kind = "sasl" if str(options["security_protocol"]).startswith("SASL") else "other"
    try:
        with quiet():
            async with asyncio.timeout(_CONNECT_S):
                conn = await create_conn(host, port, request_timeout_ms=int(_CONNECT_S * 1000), **options)
    except ssl.SSLError as error:
        return Obstacle("tls", server, error.reason or "")
    except KafkaError as error:
        cause = error.__cause__
        if isinstance(cause, ssl.SSLError):
            return Obstacle("tls", server, cause.reason or "")
        return Obstacle(kind, server, type(error).__name__)
    except (OSError, TimeoutError) as error:
        return Obstacle("protocol", server, type(error).__name__)
    conn.close()
    return None


def _short(error: OSError) -> str:
    return (error.strerror or type(error).__name__)[:80]


# -- topics and group -------------------------------------------------------------------------------------------


class _MetadataResponse(Response):  # type: ignore[misc]  # aiokafka has no types
    API_KEY = 3
    API_VERSION = 8
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        ("brokers", Array(("node_id", Int32), ("host", String()), ("port", Int32), ("rack", String()))),
        ("cluster_id", String()),
        ("controller_id", Int32),
        (
            "topics",
            Array(
                ("error_code", Int16),
                ("topic", String()),
                ("is_internal", Boolean),
                (
                    "partitions",
                    Array(
                        ("error_code", Int16),
                        ("partition", Int32),
                        ("leader", Int32),
                        ("leader_epoch", Int32),
                        ("replicas", Array(Int32)),
                        ("isr", Array(Int32)),
                        ("offline_replicas", Array(Int32)),
                    ),
                ),
                ("authorized_operations", Int32),
            ),
        ),
        ("authorized_operations", Int32),
    )


class _MetadataWithRights(RequestStruct):  # type: ignore[misc]  # the same
    """Version 8 tells what the asker may do (KIP-430); aiokafka's own request ends at version 5."""

    API_KEY = 3
    API_VERSION = 8
    RESPONSE_TYPE = _MetadataResponse
    SCHEMA = Schema(
        ("topics", Array(String())),
        ("allow_auto_topic_creation", Boolean),
        ("include_cluster_authorized_operations", Boolean),
        ("include_topic_authorized_operations", Boolean),
    )


class _TopicsRequest(Request[_MetadataWithRights]):  # type: ignore[misc]  # the same
    API_KEY = 3

    def __init__(self, topics: list[str]) -> None:
        self._topics = topics

    def build(self, request_struct_class: type[_MetadataWithRights]) -> _MetadataWithRights:
        return request_struct_class(self._topics, False, False, True)


class _GroupWithRights(RequestStruct):  # type: ignore[misc]  # the same
    """The same for groups; aiokafka reads the answer to its own version 3 as one of version 2, without the rights."""

    API_KEY = 15
    API_VERSION = 3
    RESPONSE_TYPE = DescribeGroupsResponse_v3
    SCHEMA = Schema(("groups", Array(String())), ("include_authorized_operations", Boolean))


class _GroupRequest(Request[_GroupWithRights]):  # type: ignore[misc]  # the same
    API_KEY = 15

    def __init__(self, group_id: str) -> None:
        self._group_id = group_id

    def build(self, request_struct_class: type[_GroupWithRights]) -> _GroupWithRights:
        return request_struct_class([self._group_id], True)


async def _look_inside(connection: KafkaConnection, topics: Sequence[str], group_id: str, facts: KafkaFacts) -> None:
    try:
        async with _client(connection) as client:
            answer = await _ask_topics(client, list(topics))
        facts.brokers = len(answer.brokers)
        servers = [f"{host}:{port}" for _, host, port, *_ in answer.brokers]
        facts.unreachable = [server for server in servers if await _is_out_of_reach(server)]
        if len(facts.unreachable) == len(servers):
            return
        for row in answer.topics:
            _note_topic(facts, row)
        async with _admin(connection) as admin:
            await _note_configs(admin, facts)
            await _note_group(connection, admin, topics[0], group_id, facts)
    except (KafkaError, OSError, TimeoutError) as error:
        facts.errors["*"] = type(error).__name__


async def _is_out_of_reach(server: str) -> bool:
    host, _, port = server.rpartition(":")
    return await _unreachable(server, host, int(port)) is not None


@asynccontextmanager
async def _client(connection: KafkaConnection) -> AsyncIterator[AIOKafkaClient]:
    client = AIOKafkaClient(**connection.options())
    try:
        await client.bootstrap()
        yield client
    finally:
        await client.close()


@asynccontextmanager
async def _admin(connection: KafkaConnection) -> AsyncIterator[AIOKafkaAdminClient]:
    admin = AIOKafkaAdminClient(**connection.options())
    try:
        await admin.start()
        yield admin
    finally:
        await admin.close()


async def _ask_topics(client: AIOKafkaClient, topics: list[str]) -> Any:
    """With rights, where the broker knows how to tell them; a topic that is missing is not created by asking."""
    node = client.get_random_node()
    try:
        return await client.send(node, _TopicsRequest(topics))
    except _NOT_KNOWN:
        return await client.send(node, MetadataRequest(topics, allow_auto_topic_creation=False))


def _note_topic(facts: KafkaFacts, row: Sequence[Any]) -> None:
    error_code, name, _, partitions, *rest = row
    if error_code:
        facts.topics[name] = None
        facts.errors[name] = for_code(error_code).__name__
        return
    replicas = min((len(partition[4] if rest else partition[3]) for partition in partitions), default=0)
    facts.topics[name] = TopicFacts(name, len(partitions), replicas, _rights(rest[0]) if rest else None)


def _rights(bits: int) -> frozenset[str] | None:
    """Names of the operations in Kafka's bit field."""
    if bits == _UNKNOWN_RIGHTS:
        return None
    return frozenset(name for bit, name in _OPERATIONS.items() if bits >> bit & 1)


async def _note_configs(admin: AIOKafkaAdminClient, facts: KafkaFacts) -> None:
    known = [topic for topic in facts.topics.values() if topic]
    with suppress(KafkaError, OSError, TimeoutError):
        resources = [ConfigResource(ConfigResourceType.TOPIC, topic.name) for topic in known]
        for answer in await admin.describe_configs(resources):
            for error_code, _, _, name, entries in answer.resources:
                topic = facts.topics.get(name)
                if topic is not None and not error_code and entries:
                    config = {entry[0]: entry[1] for entry in entries}
                    facts.topics[name] = TopicFacts(name, topic.partitions, topic.replicas, topic.rights, config)


async def _note_group(
    connection: KafkaConnection, admin: AIOKafkaAdminClient, topic: str, group_id: str, facts: KafkaFacts
) -> None:
    group = facts.group
    try:
        await patiently(lambda: _describe(connection, admin, group_id, group))
        found = facts.topics.get(topic)
        if found is not None:
            await _note_offsets(connection, admin, found, group_id, group)
    except (KafkaError, OSError, TimeoutError) as error:
        group.error = type(error).__name__


async def _describe(connection: KafkaConnection, admin: AIOKafkaAdminClient, group_id: str, group: GroupFacts) -> None:
    try:
        node = await admin.find_coordinator(group_id)
        async with _client(connection) as client:
            answer = await client.send(node, _GroupRequest(group_id))
    except _NOT_KNOWN:
        [answer] = await admin.describe_consumer_groups([group_id])
    for error_code, _, state, _, _, members, *rest in answer.groups:
        if error_code:
            raise for_code(error_code)
        group.state = state
        group.members = len(members)
        group.client_ids = frozenset(member[1] for member in members)
        group.rights = _rights(rest[0]) if rest else None


async def _note_offsets(
    connection: KafkaConnection, admin: AIOKafkaAdminClient, topic: TopicFacts, group_id: str, group: GroupFacts
) -> None:
    partitions = [KafkaPartition(topic.name, number) for number in range(topic.partitions)]
    committed = await patiently(lambda: admin.list_consumer_group_offsets(group_id, partitions=partitions))
    group.committed = {tp.partition: entry.offset for tp, entry in committed.items() if entry.offset >= 0}
    consumer = AIOKafkaConsumer(enable_auto_commit=False, **connection.options())
    try:
        await consumer.start()
        beginnings = await consumer.beginning_offsets(partitions)
        group.beginnings = _by_number(beginnings)
        group.ends = _by_number(await ends_of(consumer, partitions, beginnings))
    finally:
        await stopped(consumer)


def _by_number(offsets: dict[Any, int]) -> dict[int, int]:
    return {tp.partition: offset for tp, offset in offsets.items()}
