"""The message record: one row for one message id, whatever is repeated."""

from __future__ import annotations

from datetime import UTC
from typing import TYPE_CHECKING, Any, NamedTuple

from consumer.core.model import Module
from consumer.core.texts import clean, fit, fit_lines, one_line
from consumer.zoho import coql
from consumer.zoho.answers import RowAnswer, row_answers
from consumer.zoho.api import Operation, Send, write_call

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from consumer.core.model import Delivery
    from consumer.zoho.metadata import Schema
    from schemas.message_event import MessageEvent

UNIQUE_FIELD = "Message_ID"
_TEXT_LENGTH = 255
_LENGTHS = {"Name": 120, "Body": 32_000, "Media_URLs": 2_000}
_PICKLISTS = ("Direction", "Origin", "Channel")


def zoho_datetime(moment: datetime) -> str:
    """Zoho takes `±HH:MM`, and neither milliseconds nor `Z`."""
    return moment.astimezone(UTC).isoformat(timespec="seconds")


def row_of(delivery: Delivery, module: str, schema: Schema) -> dict[str, Any]:
    """The record as this organisation's module can take it: missing fields left out, texts cut with a mark."""
    row: dict[str, Any] = {UNIQUE_FIELD: delivery.event.message_id}
    for name, value in _values(delivery).items():
        if value is not None and (fitted := _fitted(module, name, value, schema)) is not None:
            row[name] = fitted
    return row


def default_length(name: str) -> int:
    """Length of a text field as `setup` makes it, for an organisation whose fields cannot be read."""
    return _LENGTHS.get(name, _TEXT_LENGTH)


def _fitted(module: str, name: str, value: Any, schema: Schema) -> Any:
    column = schema.column(module, name, default_length(name))
    if column is None:
        return None
    if isinstance(value, dict):
        return value
    if isinstance(value, list):
        return fit_lines(value, column.length)
    option = column.spelled(value) if name in _PICKLISTS else value
    if option is None:
        schema.option_missing(module, name)
        return None
    return fit(option, column.length)


def _values(delivery: Delivery) -> dict[str, Any]:
    event, parent = delivery.event, delivery.parent
    sent_at = zoho_datetime(event.occurred_at)
    return {
        "Name": _title(event, delivery.phone, sent_at),
        "Lead": {"id": parent.id} if parent and parent.module is Module.LEADS else None,
        "Contact": {"id": parent.id} if parent and parent.module is Module.CONTACTS else None,
        "Phone": delivery.phone,
        "Direction": event.direction,
        "Channel": one_line(event.channel),
        "Origin": event.origin,
        "Campaign": _campaign(event),
        "Body": clean(event.text) if event.text else None,
        "Sent_At": sent_at,
        "Media_URLs": [one_line(item.url) for item in event.attachments] or None,
        "Dialog_ID": event.dialog_id or None,
        "Agent": _agent(event),
    }


def _title(event: MessageEvent, phone: str, sent_at: str) -> str:
    """What a person sees in a list: who and when."""
    who = one_line(event.contact_name or "") or phone
    return f"{fit(who, 90)}, {sent_at[:10]} {sent_at[11:19]}"


def _campaign(event: MessageEvent) -> str | None:
    return one_line(event.campaign.name or event.campaign.id or "") or None if event.campaign else None


def _agent(event: MessageEvent) -> str | None:
    agent = event.agent
    return one_line(agent.name or agent.email or agent.id or "") or None if agent else None


async def read_existing(send: Send, module: str, ids: Sequence[str]) -> set[str]:
    """Which of these message ids already have their record."""
    plain = [message_id for message_id in ids if coql.is_plain(message_id)]
    existing: set[str] = set()
    for part in coql.chunks(plain):
        where = f"({coql.is_in(UNIQUE_FIELD, part)})"
        rows = await coql.select(
            send, Operation.FIND_MESSAGES, fields=f"id, {UNIQUE_FIELD}", module=module, where=where
        )
        existing.update(str(row.get(UNIQUE_FIELD)) for row in rows)
    return existing


class Sent(NamedTuple):
    """What Zoho said to each row, and the loop time at which they were sent."""

    answers: list[RowAnswer]
    at: float


async def upsert(send: Send, module: str, rows: list[dict[str, Any]], *, triggers: tuple[str, ...] | None) -> Sent:
    """Write up to 100 records by their unique Message_ID; repeating it changes nothing.  Raises SyncError."""
    options: dict[str, Any] = {"duplicate_check_fields": [UNIQUE_FIELD]}
    if triggers is not None:
        options["trigger"] = list(triggers)
    call = write_call(Operation.UPSERT_MESSAGES, f"/{module}/upsert", rows, **options)
    reply = await send(call)
    return Sent(row_answers(reply.rows(), expected=len(rows)), reply.sent_at)
