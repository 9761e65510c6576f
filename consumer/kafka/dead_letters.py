"""The dead-letter topic: original key, value and headers, and why.  Durable before `write` returns."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from consumer.core.errors import DeadLetterError

if TYPE_CHECKING:
    from collections.abc import Callable

    from consumer.core.model import Headers, Record, Rejected
    from consumer.kafka.connection import KafkaConnection

REPLAYS = "dlq.replays"
_SEND_TIMEOUT_S = 60.0
_STOP_TIMEOUT_S = 10.0


def headers_of(record: Record, rejected: Rejected, *, attempts: int, failed_at: datetime) -> Headers:
    """Original headers, and the contract's `dlq.` ones; those of an earlier dead letter are replaced."""
    replays = next((value for name, value in reversed(record.headers) if name == REPLAYS), b"0")
    ours = {
        "dlq.reason": rejected.reason,
        "dlq.stage": rejected.stage.value,
        "dlq.detail": rejected.detail,
        "dlq.topic": record.tp.topic,
        "dlq.partition": str(record.tp.partition),
        "dlq.offset": str(record.offset),
        "dlq.timestamp": _iso(record.timestamp_ms),
        "dlq.attempts": str(attempts),
        "dlq.failed_at": failed_at.astimezone(UTC).isoformat(timespec="milliseconds"),
    }
    original = tuple((name, value) for name, value in record.headers if name not in ours and name != REPLAYS)
    return (*original, *((name, text.encode()) for name, text in ours.items()), (REPLAYS, replays))


def _iso(timestamp_ms: int) -> str:
    return datetime.fromtimestamp(timestamp_ms / 1000, UTC).isoformat(timespec="milliseconds")


class KafkaDeadLetters:
    """Writes dead letters with acks=all.  The producer is connected at the first of them."""

    def __init__(
        self,
        connection: KafkaConnection,
        topic: str,
        *,
        idempotence: bool,
        wall_clock: Callable[[], float],
    ) -> None:
        self._connection = connection
        self._topic = topic
        self._idempotence = idempotence
        self._wall_clock = wall_clock
        self._producer: AIOKafkaProducer | None = None
        self._starting = asyncio.Lock()

    async def write(self, record: Record, rejected: Rejected, *, attempts: int) -> None:
        """See `DeadLetters.write`."""
        failed_at = datetime.fromtimestamp(self._wall_clock(), UTC)
        headers = headers_of(record, rejected, attempts=attempts, failed_at=failed_at)
        try:
            producer = await self._connected()
            async with asyncio.timeout(_SEND_TIMEOUT_S):
                await producer.send_and_wait(self._topic, key=record.key, value=record.value, headers=list(headers))
        except (KafkaError, OSError, TimeoutError) as error:
            raise DeadLetterError(type(error).__name__) from None

    async def _connected(self) -> AIOKafkaProducer:
        async with self._starting:
            if self._producer is None:
                producer = AIOKafkaProducer(
                    acks="all",
                    enable_idempotence=self._idempotence,
                    max_request_size=4 * 1024 * 1024,
                    **self._connection.options(),
                )
                try:
                    await producer.start()
                except BaseException:
                    await producer.stop()
                    raise
                self._producer = producer
        return self._producer

    async def stop(self) -> None:
        """Close; bounded, never raises."""
        producer, self._producer = self._producer, None
        if producer is not None:
            with suppress(KafkaError, OSError, TimeoutError):
                async with asyncio.timeout(_STOP_TIMEOUT_S):
                    await producer.stop()
