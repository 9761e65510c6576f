"""What became of one message."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from consumer.core.dedup import Seen
from consumer.core.errors import SyncError
from consumer.web.view import Explanation
from consumer.zoho.lookups import stored_message

if TYPE_CHECKING:
    from consumer.core.model import Delivery, Record
    from consumer.view.parts import ServiceParts
    from consumer.view.setbacks import Setback, Setbacks
    from consumer.zoho.lookups import StoredMessage

_TIMEOUT_S = 8.0


async def explain(service: ServiceParts | None, setbacks: Setbacks, message_id: str) -> Explanation:
    """From memory, then from Zoho."""
    verdict = service.pipeline.dedup.find(message_id) if service else None
    if verdict is not None and verdict.delivery is not None:
        return _in_flight(verdict.delivery)
    is_delivered = verdict is not None and verdict.seen is Seen.SETTLED
    setback = None if is_delivered else setbacks.find(lambda fields: fields.get("message_id") == message_id)
    if setback is not None and setback.rejected is not None:
        return _rejected(setback)
    try:
        stored = await _ask(service, message_id)
    except (SyncError, TimeoutError) as error:
        code = getattr(error, "code", "TIMEOUT")
        return Explanation("delivered" if is_delivered else "unavailable", (("code", code),))
    if stored is not None:
        return _delivered(stored)
    return Explanation("skipped", _facts(setback.record, reason=setback.reason)) if setback else Explanation("not_seen")


async def _ask(service: ServiceParts | None, message_id: str) -> StoredMessage | None:
    if service is None:
        return None
    async with asyncio.timeout(_TIMEOUT_S):
        return await stored_message(service.zoho.send, service.settings.zoho_messages_module, message_id)


def _facts(record: Record, **facts: object) -> tuple[tuple[str, str], ...]:
    place = f"{record.tp.partition}/{record.offset}"
    named = {"place": place} | {name: str(value) for name, value in facts.items() if value not in (None, "")}
    return tuple(named.items())


def _in_flight(delivery: Delivery) -> Explanation:
    facts = _facts(delivery.record, stage=delivery.stage.value, attempts=delivery.attempts, code=delivery.last_code)
    return Explanation("in_flight", facts)


def _rejected(setback: Setback) -> Explanation:
    rejected = setback.rejected
    stage, detail = (rejected.stage.value, rejected.detail) if rejected else ("", "")
    return Explanation("rejected", _facts(setback.record, stage=stage, reason=setback.reason, detail=detail))


def _delivered(stored: StoredMessage) -> Explanation:
    facts = {"record_id": stored.id, "lead_id": stored.lead_id, "contact_id": stored.contact_id}
    return Explanation("delivered", tuple((name, value) for name, value in facts.items() if value))
