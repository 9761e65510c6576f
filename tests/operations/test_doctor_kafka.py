"""The doctor and Kafka: every trouble that it names, made for real."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka import TopicPartition as KafkaPartition

from consumer.app import kafka_connection
from consumer.operations.doctor.brokers import look
from consumer.operations.doctor.examine import examine
from consumer.operations.doctor.findings import Finding, Status
from consumer.settings import Settings, load_settings
from tests.kafka_server.clients import produce
from tests.kafka_server.cluster import Broker, OpenCluster
from tests.kafka_server.fixtures import CreateTopic
from tests.kafka_server.server import KafkaServer

DAY_MS = 86_400_000
LONG = {"retention.ms": str(30 * DAY_MS)}
kafka_only = pytest.mark.parametrize("broker", [pytest.param("kafka_4", marks=pytest.mark.apache_kafka)], indirect=True)


def settings_of(variables: dict[str, str], **more: Any) -> Settings:
    """Settings with nothing but Kafka."""
    named = {name.lower(): value for name, value in (variables | more).items()}
    return load_settings(_env_file=None, **named)


async def findings_of(settings: Settings) -> dict[str, Finding]:
    """What the doctor finds about Kafka, by code."""
    found = [finding async for finding in examine(settings, is_enabled=True)]
    return {finding.code: finding for finding in found if finding.check.startswith("kafka")}


def failures(found: dict[str, Finding]) -> list[str]:
    """Codes of the rows that failed."""
    return [code for code, item in found.items() if item.status is Status.FAILED]


async def commit(broker: Broker, group: str, topic: str, offset: int) -> None:
    """The group's position, as the service would have left it."""
    tp = KafkaPartition(topic, 0)
    async with AIOKafkaConsumer(**broker.client_options(), group_id=group, enable_auto_commit=False) as consumer:
        consumer.assign([tp])
        await consumer.commit({tp: offset})


@kafka_only
async def test_all_is_well(broker: Broker, create_topic: CreateTopic) -> None:
    """With both topics, their retention and every right, all rows are in order."""
    topic, dead = await create_topic(partitions=3, config=LONG), await create_topic(config=LONG)
    found = await findings_of(
        settings_of(broker.environment(), KAFKA_TOPIC=topic, KAFKA_DLQ_TOPIC=dead, KAFKA_GROUP_ID=topic)
    )
    assert [code for code, item in found.items() if item.status is not Status.OK] == []
    assert found["kafka.topic.ok"].facts["partitions"] == 3
    assert {"kafka.rights.ok", "kafka.group.fresh_end"} <= set(found)


async def test_missing_topics_are_told_and_not_made(broker: Broker) -> None:
    """A mistyped topic fails its check, twice the same."""
    settings = settings_of(broker.environment(), KAFKA_TOPIC="mistyped", KAFKA_DLQ_TOPIC="mistyped.dlq")
    for _ in range(2):
        assert failures(await findings_of(settings)) == ["kafka.topic.missing", "kafka.dlq.missing"]


async def test_a_reader_that_is_away_is_told(broker: Broker, create_topic: CreateTopic) -> None:
    """A group with a backlog and no members is a warning that counts what waits."""
    topic, dead = await create_topic(), await create_topic()
    await produce(broker.client_options(), topic, [b"a", b"b", b"c"])
    await commit(broker, topic, topic, 1)
    settings = settings_of(broker.environment(), KAFKA_TOPIC=topic, KAFKA_DLQ_TOPIC=dead, KAFKA_GROUP_ID=topic)
    assert (await findings_of(settings))["kafka.group.nobody"].facts["lag"] == 2


async def test_a_reader_at_the_end_of_a_batch_is_in_place(broker: Broker, create_topic: CreateTopic) -> None:
    """Records that came in one batch count one by one: whoever has read all of them has nothing left to read."""
    topic, dead = await create_topic(), await create_topic()
    async with AIOKafkaProducer(**broker.client_options(), linger_ms=100) as producer:
        sent = [await producer.send(topic, b"a", partition=0) for _ in range(5)]
        await asyncio.gather(*sent)
    await commit(broker, topic, topic, 5)
    found = await findings_of(
        settings_of(broker.environment(), KAFKA_TOPIC=topic, KAFKA_DLQ_TOPIC=dead, KAFKA_GROUP_ID=topic)
    )
    assert failures(found) == []
    assert found["kafka.group.nobody"].facts["lag"] == 0


async def test_a_stranger_in_the_group_is_told(broker: Broker, create_topic: CreateTopic) -> None:
    """Another program that takes messages away is a warning with its name."""
    topic, dead = await create_topic(), await create_topic()
    options = broker.client_options() | {"client_id": "somebody-else"}
    async with AIOKafkaConsumer(topic, **options, group_id=topic):
        settings = settings_of(broker.environment(), KAFKA_TOPIC=topic, KAFKA_DLQ_TOPIC=dead, KAFKA_GROUP_ID=topic)
        found = await findings_of(settings)
    if found["kafka.group.joined"].facts["members"] and "kafka.rights.unknown" not in found:
        assert found["kafka.group.strangers"].facts["clients"] == "somebody-else"


@kafka_only
async def test_short_retention_is_told(broker: Broker, create_topic: CreateTopic) -> None:
    """A topic that keeps a day, is limited in size, or is compacted, would lose messages in an outage."""
    topic = await create_topic(config={"retention.ms": str(DAY_MS), "retention.bytes": "1000000"})
    dead = await create_topic(config={"cleanup.policy": "compact", "max.message.bytes": "1000"})
    found = await findings_of(
        settings_of(
            broker.environment(), KAFKA_TOPIC=topic, KAFKA_DLQ_TOPIC=dead, SYNC_MESSAGES_SINCE="2026-01-01T00:00:00Z"
        )
    )
    assert found["kafka.topic.retention_short"].facts["hours"] == 24
    assert {"kafka.topic.retention_bytes", "kafka.topic.since_gone", "kafka.dlq.too_small"} <= set(found)
    assert failures(found) == ["kafka.dlq.compacted"]


@kafka_only
async def test_positions_out_of_range_are_told(broker: Broker, create_topic: CreateTopic) -> None:
    """A position behind what retention left, and one beyond the end, fail: the service would stop there."""
    topic, dead = await create_topic(config=LONG), await create_topic(config=LONG)
    await produce(broker.client_options(), topic, [b"a", b"b", b"c"])
    settings = settings_of(broker.environment(), KAFKA_TOPIC=topic, KAFKA_DLQ_TOPIC=dead, KAFKA_GROUP_ID=topic)
    await commit(broker, topic, topic, 1)
    await broker.admin.delete_records(topic, before={0: 2})
    assert failures(await findings_of(settings)) == ["kafka.group.gone"]
    await commit(broker, topic, topic, 17)
    assert failures(await findings_of(settings)) == ["kafka.group.beyond"]


async def test_rights_are_told(secure_kafka: KafkaServer) -> None:
    """A user who may not write dead letters, or not read as this group, is told which right is missing on what."""
    await secure_kafka.admin.create_topic("rights", config=LONG)
    await secure_kafka.admin.create_topic("rights.dlq", config=LONG)
    user = await secure_kafka.create_user("rights-user")
    settings = settings_of(
        secure_kafka.environment(user),
        KAFKA_TOPIC="rights",
        KAFKA_DLQ_TOPIC="rights.dlq",
        KAFKA_GROUP_ID="rights-group",
    )
    assert failures(await findings_of(settings))[:2] == ["kafka.topic.forbidden", "kafka.dlq.forbidden"]
    await secure_kafka.admin.allow(user.name, ["read", "describe_configs"], topic="rights")
    await secure_kafka.admin.allow(user.name, ["describe", "describe_configs"], topic="rights.dlq")
    await secure_kafka.admin.allow(user.name, ["describe"], group="rights-group")
    await commit(OpenCluster(secure_kafka.admin.bootstrap_servers), "rights-group", "rights", 0)
    found = await findings_of(settings)
    assert found["kafka.rights.missing"].facts["missing"] == "WRITE on topic rights.dlq; READ on group rights-group"
    await secure_kafka.admin.allow(user.name, ["write"], topic="rights.dlq")
    await secure_kafka.admin.allow(user.name, ["read"], group="rights-group")
    assert "kafka.rights.ok" in await findings_of(settings)


async def test_a_wrong_password_is_told(secure_kafka: KafkaServer) -> None:
    """Wrong credentials are told apart from an unreachable broker."""
    user = await secure_kafka.create_user("password-user")
    settings = settings_of(secure_kafka.environment(user) | {"KAFKA_SASL_PASSWORD": "wrong"})
    assert failures(await findings_of(settings)) == ["kafka.connection.sasl"]


async def test_a_wrong_authority_is_told(secure_kafka: KafkaServer, tmp_path: Path) -> None:
    """A certificate of another authority is told as a matter of TLS."""
    trustme.CA().cert_pem.write_to_path(str(tmp_path / "other.pem"))
    user = await secure_kafka.create_user("tls-user")
    settings = settings_of(secure_kafka.environment(user) | {"KAFKA_SSL_CAFILE": str(tmp_path / "other.pem")})
    assert failures(await findings_of(settings)) == ["kafka.connection.tls"]


async def test_a_port_that_wants_tls_is_told(secure_kafka: KafkaServer) -> None:
    """Plain words to a TLS port are no Kafka, and the row says which setting to compare."""
    settings = settings_of({"KAFKA_BOOTSTRAP_SERVERS": secure_kafka.bootstrap_servers})
    [code] = failures(await findings_of(settings))
    assert code in ("kafka.connection.protocol", "kafka.connection.other")


@pytest.fixture
def closed_port() -> Iterator[int]:
    """A port on which nobody listens."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()[1]


@pytest.mark.parametrize(
    ("server", "kind"), [("127.0.0.1:{port}", "refused"), ("no-such-host.invalid:9092", "dns"), ("kafka", "address")]
)
async def test_each_step_to_the_broker_has_its_name(closed_port: int, server: str, kind: str) -> None:
    """A wrong port, an unknown name and a malformed address are told apart."""
    settings = settings_of({"KAFKA_BOOTSTRAP_SERVERS": server.format(port=closed_port)}, KAFKA_ALLOW_PLAINTEXT=True)
    assert failures(await findings_of(settings)) == [f"kafka.connection.{kind}"]


async def test_brokers_elsewhere_are_not_asked_in_the_clear() -> None:
    """Without TLS and without leave, the one row that fails says what to set; nothing is asked, not even for a name."""
    found = await findings_of(settings_of({"KAFKA_BOOTSTRAP_SERVERS": "no-such-host.invalid:9092"}))
    assert failures(found) == ["kafka.connection.plaintext_refused"]
    assert "unchecked.kafka.connection" in found


async def test_each_check_behind_a_closed_door_has_a_row(closed_port: int) -> None:
    """What could not be looked at says so, and nobody takes its silence for a good sign."""
    settings = settings_of({"KAFKA_BOOTSTRAP_SERVERS": f"127.0.0.1:{closed_port}"})
    rows = [item async for item in examine(settings, is_enabled=True)]
    untold = [item.check for item in rows if item.code == "unchecked.kafka.connection"]
    assert untold == ["kafka.topic", "kafka.dlq", "kafka.rights", "kafka.group"]


async def test_one_dead_broker_of_two_is_a_warning(broker: Broker, closed_port: int) -> None:
    """As long as one address answers, the others are worth a warning."""
    servers = f"127.0.0.1:{closed_port},{broker.bootstrap_servers}"
    found = await findings_of(settings_of({"KAFKA_BOOTSTRAP_SERVERS": servers}))
    assert found["kafka.connection.refused"].status is Status.WARNING


async def test_looking_changes_nothing(broker: Broker, create_topic: CreateTopic) -> None:
    """The group that is looked at has no members and no positions afterwards."""
    topic = await create_topic()
    settings = settings_of(broker.environment(), KAFKA_TOPIC=topic, KAFKA_GROUP_ID=topic)
    for _ in range(2):
        facts = await look(kafka_connection(settings), [topic], topic)
        assert (facts.group.members, facts.group.committed) == (0, {})
