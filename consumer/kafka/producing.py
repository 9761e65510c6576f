"""Producers that wait for all replicas, idempotent where the broker grants it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from aiokafka import AIOKafkaProducer
from aiokafka.errors import NoError, for_code
from aiokafka.protocol.transaction import InitProducerIdRequest

if TYPE_CHECKING:
    from collections.abc import Callable

_CONNECT_TIMEOUT_S = 60.0


async def connected_producer(
    options: dict[str, Any], *, idempotence: bool, close: Callable[[AIOKafkaProducer], None]
) -> tuple[AIOKafkaProducer, bool]:
    """A started producer, and whether it is idempotent; without, a lost answer may store a record twice, no more.

    `close` gets producers that are of no use.  Raises KafkaError, OSError, TimeoutError.
    """
    plain = await _started(options, idempotence=False, close=close)
    if not idempotence or not await _is_granted(plain):
        return plain, False
    close(plain)
    return await _started(options, idempotence=True, close=close), True


async def _started(
    options: dict[str, Any], *, idempotence: bool, close: Callable[[AIOKafkaProducer], None]
) -> AIOKafkaProducer:
    producer = AIOKafkaProducer(acks="all", enable_idempotence=idempotence, **options)
    try:
        async with asyncio.timeout(_CONNECT_TIMEOUT_S):
            await producer.start()
    except BaseException:
        close(producer)
        raise
    return producer


async def _is_granted(producer: AIOKafkaProducer) -> bool:
    """Ask for a producer id, as an idempotent producer would: a broker that has none to give, or not to this user,
    refuses for good, and aiokafka's producer does not get over it."""
    request = InitProducerIdRequest(transactional_id=None, transaction_timeout_ms=60_000)
    answer = await producer.client.send(producer.client.get_random_node(), request)
    error = for_code(answer.error_code)
    return error is NoError or bool(error.retriable)
