"""What the dead-letter topic gets, and what becomes of a producer in trouble."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, ConsumerRecord
from aiokafka.errors import OutOfOrderSequenceNumber

from consumer.core.errors import DeadLetterError
from consumer.core.model import Record, Rejected, Stage, TopicPartition
from consumer.kafka.dead_letters import KafkaDeadLetters, headers_of
from tests.kafka.harness import DEADLINE_S, connection, dead_letters
from tests.kafka_server.cluster import Broker, new_topic
from tests.kafka_server.fixtures import CreateTopic

_REJECTED = Rejected(Stage.PARSE, "invalid_json", "line 1")


def _record(value: bytes | None, *, offset: int = 5, headers: Sequence[tuple[str, bytes]] = ()) -> Record:
    at_ms = int(time.time() * 1000)
    return Record(TopicPartition("source", 3), offset, at_ms, b"key", value, tuple(headers))


async def _read(broker: Broker, topic: str, count: int) -> list[ConsumerRecord]:
    consumer = AIOKafkaConsumer(topic, **broker.client_options(), auto_offset_reset="earliest")
    await consumer.start()
    try:
        async with asyncio.timeout(DEADLINE_S):
            return [await consumer.getone() for _ in range(count)]
    finally:
        await consumer.stop()


async def test_it_keeps_every_byte_and_says_why(broker: Broker, create_topic: CreateTopic) -> None:
    """Key, value and headers are the original's, and the `dlq.` headers tell where it came from and what was wrong."""
    topic = await create_topic()
    record = _record(b"\x00\xff{", headers=[("a", b"1"), ("a", b"2"), ("dlq.reason", b"old"), ("dlq.replays", b"2")])
    async with dead_letters(broker, topic) as letters:
        await letters.write(record, _REJECTED, attempts=4)
    (found,) = await _read(broker, topic, 1)
    assert (found.key, found.value) == (b"key", b"\x00\xff{")
    assert [header for header in found.headers if header[0] == "a"] == [("a", b"1"), ("a", b"2")]
    ours = {name: value.decode() for name, value in found.headers if name.startswith("dlq.")}
    assert ours.pop("dlq.timestamp")
    assert ours == {
        "dlq.reason": "invalid_json",
        "dlq.stage": "parse",
        "dlq.detail": "line 1",
        "dlq.topic": "source",
        "dlq.partition": "3",
        "dlq.offset": "5",
        "dlq.attempts": "4",
        "dlq.failed_at": "2023-11-14T22:13:20.000+00:00",
        "dlq.replays": "2",
    }


async def test_it_finds_what_an_earlier_owner_wrote(broker: Broker, create_topic: CreateTopic) -> None:
    """A record that stands in the topic already is found, by partition and offset, and others are not."""
    topic = await create_topic(partitions=2)
    async with dead_letters(broker, topic) as earlier:
        await asyncio.gather(*(earlier.write(_record(b"x", offset=at), _REJECTED, attempts=1) for at in range(20)))
    async with dead_letters(broker, topic) as letters:
        standing = await letters.standing([_record(b"x", offset=7), _record(b"x", offset=30)])
    assert standing == {(TopicPartition("source", 3), 7)}


async def test_headers_without_value_hinder_nothing(broker: Broker, create_topic: CreateTopic) -> None:
    """A header may have no value: it is in the dead letter as it was, and the dead letter is found."""
    topic = await create_topic()
    record = _record(b"x", headers=[("trace", None), ("empty", b""), ("dlq.replays", None)])  # type: ignore[list-item]
    async with dead_letters(broker, topic) as letters:
        await letters.write(record, _REJECTED, attempts=1)
        assert await letters.standing([record]) == {(record.tp, record.offset)}
    (found,) = await _read(broker, topic, 1)
    assert found.headers[:2] == (("trace", None), ("empty", b""))
    assert found.headers[-1] == ("dlq.replays", b"0")


@pytest.mark.parametrize(
    ("timestamp_ms", "text"),
    [
        (1_767_323_045_678, "2026-01-02T03:04:05.678+00:00"),
        (253_402_300_799_999, "9999-12-31T23:59:59.999+00:00"),
        (253_402_300_800_000, "253402300800000"),
        (1_767_323_045_678_000, "1767323045678000"),
        (-1, "-1"),
        (2**63 - 1, "9223372036854775807"),
    ],
)
def test_a_timestamp_that_is_no_date_is_told_as_its_number(timestamp_ms: int, text: str) -> None:
    """Producers write microseconds for milliseconds, or nothing: the dead letter is written all the same."""
    record = replace(_record(b"x"), timestamp_ms=timestamp_ms)
    headers = headers_of(record, _REJECTED, attempts=1, failed_at=datetime.now(UTC))
    assert dict(headers)["dlq.timestamp"] == text.encode()


async def test_a_record_from_the_future_is_found(broker: Broker, create_topic: CreateTopic) -> None:
    """Its dead letter is older than its timestamp, and is found all the same."""
    topic = await create_topic()
    record = replace(_record(b"x"), timestamp_ms=1_767_323_045_678_000)
    async with dead_letters(broker, topic) as letters:
        await letters.write(record, _REJECTED, attempts=1)
        assert await letters.standing([record]) == {(record.tp, record.offset)}


async def test_a_dead_producer_is_replaced(broker: Broker, create_topic: CreateTopic) -> None:
    """After a fault that ends the producer for good, the next write stands all the same."""
    topic = await create_topic()
    async with dead_letters(broker, topic) as letters:
        await letters.write(_record(b"first"), _REJECTED, attempts=1)
        producer = letters._producer
        assert producer is not None
        producer._message_accumulator.fail_all(OutOfOrderSequenceNumber())
        await letters.write(_record(b"second"), _REJECTED, attempts=1)
    assert [found.value for found in await _read(broker, topic, 2)] == [b"first", b"second"]


async def test_a_record_that_just_fits_its_topic_fits_this_one(kafka_4: Broker) -> None:
    """A text of a mebibyte, the usual limit, is stored with all the headers; what cannot be compressed is refused, and
    holds up nothing else."""
    topic = await new_topic(kafka_4)
    async with dead_letters(kafka_4, topic, idempotence=True) as letters:
        await letters.write(_record(b"letters " * (128 * 1024)), _REJECTED, attempts=1)
        await _refused(letters, _record(random.Random(1).randbytes(1_048_500)))
        await asyncio.gather(
            _refused(letters, _record(random.Random(2).randbytes(1_048_500))),
            *(letters.write(_record(b"small"), _REJECTED, attempts=1) for _ in range(3)),
        )
    assert [len(found.value) for found in await _read(kafka_4, topic, 4)] == [1024 * 1024, 5, 5, 5]


async def _refused(letters: KafkaDeadLetters, record: Record) -> None:
    with pytest.raises(DeadLetterError, match="MessageSizeTooLargeError"):
        await letters.write(record, _REJECTED, attempts=1)


async def test_a_broker_without_idempotent_producers_gets_dead_letters_too(embedded_broker: Broker) -> None:
    """What the broker refuses for good is done without, and told once."""
    topic = await new_topic(embedded_broker)
    told: list[str] = []
    letters = KafkaDeadLetters(
        connection(embedded_broker.environment()),
        topic,
        idempotence=True,
        wall_clock=time.time,
        on_plain=lambda: told.append("plain"),
    )
    try:
        for offset in (1, 2):
            await letters.write(_record(b"x", offset=offset), _REJECTED, attempts=1)
    finally:
        await letters.stop()
    assert len(await _read(embedded_broker, topic, 2)) == 2
    assert told == ["plain"]


async def test_a_client_that_cannot_be_made_is_tried_again(
    broker: Broker, create_topic: CreateTopic, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While a file of secrets is empty, writing and reading fail with the corridor's own error; then they do not."""

    def refuse(**_options: Any) -> None:
        raise ValueError("password required")

    topic = await create_topic()
    async with dead_letters(broker, topic) as letters:
        with monkeypatch.context() as patch:
            patch.setattr("consumer.kafka.dead_letters.AIOKafkaConsumer", refuse)
            patch.setattr("consumer.kafka.producing.AIOKafkaProducer", refuse)
            with pytest.raises(DeadLetterError, match="ValueError"):
                await letters.write(_record(b"x"), _REJECTED, attempts=1)
            with pytest.raises(DeadLetterError, match="ValueError"):
                await letters.standing([_record(b"x")])
        await letters.write(_record(b"x"), _REJECTED, attempts=1)
        assert await letters.standing([_record(b"x")])


async def test_without_a_broker_it_fails_and_stops() -> None:
    """Writing and reading fail with the corridor's own error, and stopping returns."""
    letters = KafkaDeadLetters(
        connection({"KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:9"}), "t", idempotence=True, wall_clock=time.time
    )
    with pytest.raises(DeadLetterError):
        await letters.write(_record(b"x"), _REJECTED, attempts=1)
    with pytest.raises(DeadLetterError):
        await letters.standing([_record(b"x")])
    await letters.stop()
