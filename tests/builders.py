"""Values for tests, valid unless told otherwise."""

from __future__ import annotations

from typing import Any

import orjson

from consumer.core.model import Delivery, Headers, Record, TopicPartition
from consumer.core.offsets import Ack, OffsetTracker
from schemas.message_event import MessageEvent

TOPIC = "messages"


def partition(number: int = 0) -> TopicPartition:
    """A partition of the topic."""
    return TopicPartition(TOPIC, number)


def event_fields(message_id: str = "m1", **changes: Any) -> dict[str, Any]:
    """The fields of a message event."""
    fields = {
        "message_id": message_id,
        "occurred_at": "2026-01-02T03:04:05Z",
        "direction": "inbound",
        "origin": "chat",
        "phone": "+4915112345678",
        "text": f"text of {message_id}",
    }
    return fields | changes


def value_of(message_id: str = "m1", **changes: Any) -> bytes:
    """The value of a record."""
    return orjson.dumps(event_fields(message_id, **changes))


def record(
    offset: int = 0,
    *,
    number: int = 0,
    value: bytes | None = None,
    message_id: str | None = None,
    headers: Headers = (),
    may_repeat: bool = False,
    **changes: Any,
) -> Record:
    """A record; its message id comes from its place unless given."""
    content = value_of(message_id or f"m{number}-{offset}", **changes) if value is None else value
    return Record(partition(number), offset, 1_767_323_045_000, b"key", content, headers, may_repeat)


def delivery(offset: int = 0, *, tracker: OffsetTracker | None = None, **changes: Any) -> Delivery:
    """A message on its way."""
    given = record(offset, **changes)
    ack: Ack = (tracker or OffsetTracker()).issue(given.tp, offset)
    event = MessageEvent.model_validate_json(given.value or b"")
    return Delivery(given, ack, event, event.phone or "")
