"""What the source does where only Apache Kafka has it: operators at work, crashes, access rules."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import Awaitable, Callable

import pytest
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.protocol.commit import OffsetFetchRequest, OffsetFetchResponse_v3

from consumer.core.errors import CommitLostError, DeadLetterError, SyncError
from consumer.core.model import Rejected, Stage, TopicPartition
from tests.kafka.harness import DEADLINE_S, Member, dead_letters, new_name, numbered, produce, set_offset, stored_offset
from tests.kafka_server.cluster import Broker, new_topic
from tests.kafka_server.fixtures import NewKafkaServer
from tests.kafka_server.server import KafkaServer

_REJECTED = Rejected(Stage.PARSE, "invalid_json", "line 1")


async def test_a_new_group_starts_at_the_date(kafka_4: Broker) -> None:
    """With a date, a group without offsets starts at the first record of that time."""
    topic = await new_topic(kafka_4)
    await produce(kafka_4, topic, [b"before"], timestamp_ms=1_600_000_000_000)
    await produce(kafka_4, topic, [b"then", b"after"], timestamp_ms=1_700_000_000_000)
    async with Member(kafka_4, topic, since_ms=1_700_000_000_000) as member:
        assert await member.read(2) == [b"then", b"after"]
        assert member.told("opened") == [(0, 1, "time")]


async def test_the_next_member_goes_on_behind_the_commit(kafka_4: Broker) -> None:
    """After a clean end nothing is marked as a possible repetition; after any other end, the first records are."""
    topic = await new_topic(kafka_4)
    await produce(kafka_4, topic, numbered(4))
    async with Member(kafka_4, topic) as first:
        await first.read(4)
        await first.source.commit({TopicPartition(topic, 0): 2}, is_clean=True)
    async with Member(kafka_4, topic) as second:
        assert await second.read(2) == [b"2", b"3"]
        assert not any(record.may_repeat for record in second.records)
    async with Member(kafka_4, topic, repeat_window=1) as third:
        assert await third.read(2) == [b"2", b"3"]
        assert [record.may_repeat for record in third.records] == [True, False]


async def test_after_a_lost_session_nothing_late_is_committed(kafka_4: Broker) -> None:
    """A process that slept over its session cannot commit what it had read; it joins anew and reads it again."""
    topic = await new_topic(kafka_4)
    await produce(kafka_4, topic, numbered(3))
    async with Member(kafka_4, topic, session_timeout_s=2.0) as member:
        await member.read(3)
        time.sleep(5)  # noqa: ASYNC251 - the whole process sleeps
        with pytest.raises(CommitLostError):
            await member.commit()
        await member.until(lambda: len(member.told("opened")) >= 2)
        assert (await member.read(6))[-3:] == numbered(3)


async def test_a_topic_may_come_later(kafka_4: Broker) -> None:
    """A service that was started before its topic exists reads it once it is there."""
    topic = f"late-{time.time_ns()}"
    member = Member(kafka_4, topic)
    member.begin()
    try:
        await asyncio.sleep(0.5)
        assert not member.source.is_joined
        await kafka_4.admin.create_topic(topic)
        await produce(kafka_4, topic, [b"first"])
        assert await member.read(1) == [b"first"]
    finally:
        await member.stop()


async def test_an_offset_behind_the_end_halts(kafka_4: Broker) -> None:
    """An offset that the topic does not reach halts its partition alone, also for the next owner and when the topic
    has grown past it, until an operator sets another."""
    topic = await new_topic(kafka_4, partitions=2)
    await produce(kafka_4, topic, numbered(2))
    await set_offset(kafka_4, topic, 5)
    async with Member(kafka_4, topic) as member:
        await member.until(lambda: bool(member.told("halted")))
        assert member.told("halted") == [(0, "OFFSET_OUT_OF_RANGE")]
        await produce(kafka_4, topic, [b"other"], partition=1)
        assert await member.read(1) == [b"other"]
        await produce(kafka_4, topic, numbered(8, first=2))
    async with Member(kafka_4, topic) as successor:
        await successor.opened(2)
        await produce(kafka_4, topic, [b"another"], partition=1)
        assert set(await successor.read(1)) <= {b"other", b"another"}
        assert successor.told("halted") == [(0, "OFFSET_OUT_OF_RANGE")]
        assert list(successor.source.halted) == [TopicPartition(topic, 0)]
    assert await stored_offset(kafka_4, topic) == 5
    await set_offset(kafka_4, topic, 1)
    async with Member(kafka_4, topic) as third:
        await third.until(lambda: {b"1", b"9"} <= set(third.values()))
        assert third.told("halted") == []


async def test_deleted_records_halt_their_partition(kafka_4: Broker) -> None:
    """When retention overtakes the reader, its partition halts, the others go on, and the offset stays."""
    topic = await new_topic(kafka_4, partitions=2)
    await produce(kafka_4, topic, numbered(4))
    async with Member(kafka_4, topic) as member:
        await member.read(4)
        await member.set_room(0)
        await member.source.commit({TopicPartition(topic, 0): 2}, is_clean=False)
    await kafka_4.admin.delete_records(topic, before={0: 3})
    async with Member(kafka_4, topic) as successor:
        await successor.until(lambda: bool(successor.told("halted")))
        assert successor.told("halted") == [(0, "OFFSET_OUT_OF_RANGE")]
        await produce(kafka_4, topic, [b"other"], partition=1)
        assert await successor.read(1) == [b"other"]
    assert await stored_offset(kafka_4, topic) == 2
    await set_offset(kafka_4, topic, 3)
    async with Member(kafka_4, topic) as third:
        assert b"3" in await third.read(1)
        assert third.told("halted") == []


async def test_records_deleted_while_reading_halt(kafka_4: Broker) -> None:
    """A reader that waits without room while its next records are deleted halts in place of jumping."""
    topic = await new_topic(kafka_4)
    async with Member(kafka_4, topic) as member:
        await member.opened()
        await member.set_room(0)
        await produce(kafka_4, topic, [b"x" * 600_000 for _ in range(8)])
        await kafka_4.admin.delete_records(topic, before={0: 7})
        member.room = 100
        await member.until(lambda: bool(member.told("halted") or len(member.records) == 8))
        read = len(member.records)
        assert member.told("halted") == [(0, "OFFSET_OUT_OF_RANGE")]
        await produce(kafka_4, topic, [b"later"])
        await asyncio.sleep(1)
        assert len(member.records) == read


async def test_a_partition_that_is_added_is_read_from_its_beginning(kafka_4: Broker) -> None:
    """A group that started at the end reads a partition that came later from its first record, without a restart."""
    topic = await new_topic(kafka_4)
    await produce(kafka_4, topic, [b"old"])
    async with Member(kafka_4, topic, since_ms=None) as member:
        await member.opened()
        await kafka_4.admin.add_partitions(topic, total=2)
        await produce(kafka_4, topic, [b"first"], partition=1)
        assert await member.read(1) == [b"first"]
        assert member.told("opened")[-1][2] == "beginning" or (1, 0, "beginning") in member.told("opened")
        assert member.source.partition_count == 2


async def test_a_loading_coordinator_is_no_group_without_offsets(
    kafka_4: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A coordinator that cannot tell the offsets yet is asked again: the group does not start anew at the end."""
    topic = await new_topic(kafka_4)
    await produce(kafka_4, topic, numbered(3))
    await set_offset(kafka_4, topic, 1)
    ask, refusals = AIOKafkaAdminClient._send_request, [14, 16]

    async def refusing(self: AIOKafkaAdminClient, request: object, node_id: int | None = None) -> object:
        if isinstance(request, OffsetFetchRequest) and refusals:
            return OffsetFetchResponse_v3(0, [], refusals.pop())
        return await ask(self, request, node_id)

    monkeypatch.setattr(AIOKafkaAdminClient, "_send_request", refusing)
    async with Member(kafka_4, topic, since_ms=None) as member:
        assert await member.read(2) == [b"1", b"2"]
        assert member.failures == ["poll: GroupCoordinatorNotAvailableError"] * 2


async def test_a_restart_keeps_a_static_members_partitions(kafka_4: Broker) -> None:
    """A member with an instance id that comes back within its session gets its partitions without a rebalance."""
    topic = await new_topic(kafka_4, partitions=2)
    async with Member(kafka_4, topic, group_instance_id="a", session_timeout_s=20.0) as first:
        second = Member(kafka_4, topic, group_instance_id="b", session_timeout_s=20.0)
        second.begin()
        await second.until(lambda: len(first.owned()) == 1 and len(second.owned()) == 1)
        await first.until(lambda: len(first.told("opened")) == 3)
        before, had = len(first.events), second.owned()
        await second.stop()
        async with Member(kafka_4, topic, group_instance_id="b", session_timeout_s=20.0) as back:
            assert back.owned() == had
            await produce(kafka_4, topic, [b"x"], partition=had.pop())
            assert await back.read(1) == [b"x"]
        assert first.events[before:] == []


async def test_it_survives_its_broker(kafka_server: NewKafkaServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A broker that crashes and comes back is noticed: reading, commits and dead letters go on by themselves."""
    monkeypatch.setattr("consumer.kafka.dead_letters._SEND_TIMEOUT_S", 3.0)
    async with kafka_server() as server, dead_letters(server, "dlq", idempotence=True) as letters:
        await server.admin.create_topic("dlq")
        await server.admin.create_topic("topic")
        await produce(server, "topic", [b"a"])
        async with Member(server, "topic") as member:
            await member.read(1)
            await letters.write(member.records[0], _REJECTED, attempts=1)
            await server.kill()
            member.source._ends_due_at = 0.0
            await member.until(lambda: not member.source.is_joined)
            await member.until(lambda: member.source.waits_for == "brokers")
            with pytest.raises(DeadLetterError):
                await letters.write(member.records[0], _REJECTED, attempts=1)
            await server.start()
            await produce(server, "topic", [b"b"])
            await member.until(lambda: b"b" in member.values() and member.source.is_joined)
            await _soon(lambda: letters.write(member.records[-1], _REJECTED, attempts=1))
            await _soon(member.commit)
        assert await stored_offset(server, "topic") == 2
        assert await letters.standing(member.records) == {(record.tp, record.offset) for record in member.records}


async def test_it_survives_its_coordinator(kafka_server: NewKafkaServer) -> None:
    """When the broker that coordinates the group is lost for good, another takes over, and no record is missing."""
    async with kafka_server(brokers=2) as server:
        topic = new_name()
        await server.admin.create_topic(topic, partitions=2)
        await produce(server, topic, [b"a"])
        async with Member(server, topic) as member:
            await member.read(1)
            await member.commit()
            await server.kill(member.coordinator().coordinator_id)
            await produce(server, topic, [b"b"], partition=0)
            await produce(server, topic, [b"c"], partition=1)
            await member.until(lambda: {b"b", b"c"} <= set(member.values()))
            await _soon(member.commit)
            assert await stored_offset(server, topic) == 2


async def _soon(attempt: Callable[[], Awaitable[None]]) -> None:
    """A broker that is just back may not know the group or the producer yet."""
    async with asyncio.timeout(DEADLINE_S):
        while True:
            try:
                return await attempt()
            except SyncError:
                await asyncio.sleep(0.2)


async def test_it_reads_what_it_may(secure_kafka: KafkaServer) -> None:
    """Over TLS and with a password it waits until it is allowed to read, says that it cannot, and then goes on."""
    topic, name = new_name(), new_name()
    await secure_kafka.admin.create_topic(topic)
    user = await secure_kafka.create_user(name)
    options = secure_kafka.client_options(user)
    environment = secure_kafka.environment(user)
    await secure_kafka.admin.allow(name, ["read", "write"], topic=topic)
    await produce(secure_kafka, topic, [b"a"], options=options)
    member = Member(secure_kafka, topic, environment=environment)
    member.begin()
    try:
        await member.until(lambda: "connect: GroupAuthorizationFailedError" in member.failures)
        assert (member.source.is_joined, member.source.waits_for) == (False, "answers")
        await secure_kafka.admin.allow(name, ["read"], group=topic)
        assert await member.read(1) == [b"a"]
        await secure_kafka.admin.revoke(name, topic=topic)
        await member.until(lambda: not member.source.is_joined)
        await secure_kafka.admin.allow(name, ["read", "write"], topic=topic)
        await produce(secure_kafka, topic, [b"b"], options=options)
        await member.until(lambda: b"b" in member.values() and member.source.is_joined)
    finally:
        await member.stop()


async def test_a_bearer_token_opens_the_door(kafka_server: NewKafkaServer) -> None:
    """With OAUTHBEARER the password setting holds the token."""
    package, listener = "org.apache.kafka.common.security.oauthbearer", "listener.name.client.oauthbearer.sasl"
    config = {
        "sasl.enabled.mechanisms": "OAUTHBEARER",
        f"{listener}.jaas.config": f'{package}.OAuthBearerLoginModule required unsecuredLoginStringClaim_sub="kafka";',
        f"{listener}.server.callback.handler.class": (
            f"{package}.internals.unsecured.OAuthBearerUnsecuredValidatorCallbackHandler"
        ),
        "super.users": "User:ANONYMOUS;User:reader",
    }
    async with kafka_server(security="sasl_plaintext", config=config) as server:
        topic = new_name()
        await server.admin.create_topic(topic)
        environment = {
            **server.environment(),
            "KAFKA_SASL_MECHANISM": "OAUTHBEARER",
            "KAFKA_SASL_PASSWORD": _unsigned_token("reader"),
        }
        async with Member(server, topic, environment=environment) as member:
            await member.opened()
            assert member.owned() == {0}


def _unsigned_token(subject: str) -> str:
    now = int(time.time())
    parts = ({"alg": "none"}, {"sub": subject, "iat": now, "exp": now + 3600})
    encoded = [base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode() for part in parts]
    return ".".join([*encoded, ""])
