"""Where one message is, and why it landed there: asks Kafka and Zoho, stores nothing."""

from __future__ import annotations

import json
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from consumer.core.decode import Decoded, Poison, Skip, decode
from consumer.core.errors import RefusedError
from consumer.core.links import Links
from consumer.core.model import Module, NotePolicy, Parent
from consumer.core.phones import Phones
from consumer.kafka.start_position import CommitNote
from consumer.operations.dlq.desk import Desk
from consumer.operations.dlq.letters import DeadLetter, dead_letter_of, message_id_of
from consumer.operations.errors import OperationError
from consumer.operations.topics import group_offsets, reader, scan, spans_of
from consumer.zoho import coql, notes
from consumer.zoho.api import Call, Operation

if TYPE_CHECKING:
    from consumer.core.model import Record
    from consumer.kafka.connection import KafkaConnection
    from consumer.settings import Settings
    from consumer.zoho.api import Send

_CREATED_WITHIN = timedelta(minutes=10)
"""A lead that is this much older than the first message record at most was created for it."""


@dataclass(frozen=True, slots=True)
class Occurrence:
    """The message in the topic.  `ahead` counts records before it that are not settled either; None when it is."""

    partition: int
    offset: int
    at: datetime
    is_settled: bool
    ahead: int | None
    is_before_start: bool
    """It was in the topic before the group was born, so nobody was meant to read it."""
    decoded: Decoded = field(repr=False)


@dataclass(slots=True)
class InZoho:
    """The message record and what hangs on it."""

    record_id: str
    created_at: str = ""
    parent: Parent | None = None
    rule: str = "unknown"
    """How the lead or contact came to be chosen: created, phone, mobile, contact, unknown."""
    candidates: int = 0
    """Leads and contacts that hold the number."""
    has_note: bool | None = None
    link: str | None = None


@dataclass(slots=True)
class Explanation:
    """Everything that could be found out about one message."""

    message_id: str
    occurrences: list[Occurrence] = field(default_factory=list)
    dead_letters: list[DeadLetter] = field(default_factory=list)
    in_zoho: InZoho | None = None
    zoho_error: str | None = None
    topic_error: OperationError | None = None
    """Why the topic could not be read; where the message stands in it is unknown then."""
    dead_letters_error: OperationError | None = None
    since: datetime | None = None

    def outcome(self, settings: Settings) -> tuple[str, dict[str, Any]]:
        """One code for where it is, with facts for its sentence."""
        if self.in_zoho is not None:
            return ("delivered" if self.in_zoho.has_note is not False else "no_note"), {}
        return self._outcome_in_kafka(settings)

    def _outcome_in_kafka(self, settings: Settings) -> tuple[str, dict[str, Any]]:
        if waiting := next((item for item in self.occurrences if not item.is_settled), None):
            return "waiting", {"ahead": waiting.ahead}
        if self.dead_letters:
            last = max(self.dead_letters, key=lambda letter: letter.failed_at)
            return "dead", {"reason": last.reason, "stage": last.stage, "replays": last.replays}
        if self.occurrences and (reason := self._skip_reason(settings)):
            return "skipped", {"reason": reason}
        if not self.is_kafka_read:
            return ("untold", {"detail": self.zoho_error}) if self.zoho_error else ("not_in_zoho", {})
        if not self.occurrences:
            return ("not_in_kafka", {"detail": self.zoho_error}) if self.zoho_error else ("unknown", {})
        return ("unsure", {"detail": self.zoho_error}) if self.zoho_error else ("vanished", {})

    @property
    def is_kafka_read(self) -> bool:
        """Were both topics read?"""
        return self.topic_error is None and self.dead_letters_error is None

    def _skip_reason(self, settings: Settings) -> str | None:
        last = self.occurrences[-1]
        return _skip_reason(last.decoded, settings) or ("before_start" if last.is_before_start else None)


def _skip_reason(decoded: Decoded, settings: Settings) -> str | None:
    """Why the service would settle it without writing anything."""
    if isinstance(decoded, Skip):
        return decoded.reason
    if isinstance(decoded, Poison):
        return None
    if Phones(settings.sync_default_region).canonical(decoded.phone or "") is None:
        return "invalid_phone"
    since = settings.sync_messages_since
    return "before_since" if since is not None and decoded.occurred_at < since else None


# -- Kafka ------------------------------------------------------------------------------------------------------


async def ask_kafka(settings: Settings, desk: Desk, found: Explanation) -> None:
    """Look through both topics.  One that cannot be read is noted, and the other one is read all the same."""
    since_ms = int(found.since.timestamp() * 1000) if found.since else None
    try:
        if records := await _search(desk.connection, settings.kafka_topic, found.message_id, since_ms):
            found.occurrences = await _occurrences(settings, desk.connection, records)
    except OperationError as error:
        found.topic_error = error
        if error.code == "kafka.unreachable":
            found.dead_letters_error = error
            return
    try:
        letters = await _search(desk.connection, desk.topic, found.message_id, since_ms)
        found.dead_letters = [dead_letter_of(record) for record in letters]
    except OperationError as error:
        found.dead_letters_error = error


async def _search(connection: KafkaConnection, topic: str, message_id: str, since_ms: int | None) -> list[Record]:
    """Records whose value holds this id; the plain search for its bytes comes first, for topics are long."""
    needles = {message_id.encode(), json.dumps(message_id)[1:-1].encode()}
    found: list[Record] = []
    async with reader(connection) as consumer:
        spans = await spans_of(consumer, topic, since_ms=since_ms)
        async with aclosing(scan(consumer, spans)) as polls:
            async for records in polls:
                likely = (item for item in records if item.value and any(needle in item.value for needle in needles))
                found += [item for item in likely if message_id_of(item.value) == message_id]
    return found


async def _occurrences(settings: Settings, connection: KafkaConnection, records: list[Record]) -> list[Occurrence]:
    async with reader(connection) as consumer:
        spans = await spans_of(consumer, settings.kafka_topic)
    stored = await group_offsets(connection, settings.kafka_group_id, spans)
    found = []
    for record in records:
        committed = stored[record.tp].offset if record.tp in stored else spans[record.tp].start
        is_settled = record.tp in stored and record.offset < committed
        found.append(
            Occurrence(
                partition=record.tp.partition,
                offset=record.offset,
                at=record.date(),
                is_settled=is_settled,
                ahead=None if is_settled else max(0, record.offset - committed),
                is_before_start=_is_before_start(record, stored.get(record.tp)),
                decoded=decode(record.value, record.headers),
            )
        )
    return found


def _is_before_start(record: Record, committed: Any) -> bool:
    note = CommitNote.parse(committed.metadata) if committed else None
    return note is not None and record.timestamp_ms < note.born_ms


# -- Zoho -------------------------------------------------------------------------------------------------------


async def ask_zoho(send: Send, settings: Settings, found: Explanation) -> None:
    """The message record, its lead or contact, the note.  Raises SyncError."""
    if not coql.is_plain(found.message_id):
        found.zoho_error = "NOT_ASKABLE"
        return
    row = await _message_row(send, settings.zoho_messages_module, found.message_id)
    if row is None:
        return
    in_zoho = InZoho(str(row.get("id")), str(row.get("Created_Time") or ""), _parent_of(row))
    found.in_zoho = in_zoho
    phone = str(row.get("Phone") or "")
    if in_zoho.parent is not None:
        await _ask_parent(send, settings, in_zoho, in_zoho.parent, phone)
        marker = _marker(settings, found.message_id, row, phone)
        in_zoho.has_note = marker in await notes.standing(send, in_zoho.parent, {marker})
    in_zoho.link = Links(settings.crm_url, settings.zoho_org_id).dialog(phone, in_zoho.parent) if phone else None


async def _message_row(send: Send, module: str, message_id: str) -> dict[str, Any] | None:
    where = f"({coql.is_in('Message_ID', [message_id])})"
    for fields in ("id, Lead, Contact, Phone, Dialog_ID, Created_Time", "id, Lead, Contact", "id"):
        try:
            rows = await coql.select(send, Operation.FIND_MESSAGES, fields=fields, module=module, where=where)
        except RefusedError:
            continue
        return rows[0] if rows else None
    return None


def _parent_of(row: dict[str, Any]) -> Parent | None:
    for name, module in (("Contact", Module.CONTACTS), ("Lead", Module.LEADS)):
        value = row.get(name)
        parent_id = value.get("id") if isinstance(value, dict) else value
        if parent_id:
            return Parent(module, str(parent_id))
    return None


def _marker(settings: Settings, message_id: str, row: dict[str, Any], phone: str) -> str:
    if settings.sync_note_policy is NotePolicy.PER_MESSAGE:
        return notes.marker_of(f"message\0{message_id}")
    dialog_id = row.get("Dialog_ID")
    return (notes.Dialog(str(dialog_id)) if dialog_id else notes.Dialog(None, phone)).marker()


async def _ask_parent(send: Send, settings: Settings, in_zoho: InZoho, parent: Parent, phone: str) -> None:
    reply = await send(Call(Operation.READ_RECORD, "GET", f"/{parent.module}/{parent.id}"))
    rows = reply.rows()
    phones = Phones(settings.sync_default_region)
    in_zoho.rule = _rule(rows[0], parent, phone, phones, in_zoho.created_at) if rows else "gone"
    in_zoho.candidates = await _candidates(send, phones, phone) if phone else 0


def _rule(row: dict[str, Any], parent: Parent, phone: str, phones: Phones, message_created_at: str) -> str:
    """Why this record: what can be told afterwards from how it looks now."""
    matching = [name for name in ("Phone", "Mobile") if phones.matches(row.get(name), phone)]
    if not matching:
        return "changed"
    if parent.module is Module.CONTACTS:
        return "contact"
    if row.get("Phone") == phone and _is_young(str(row.get("Created_Time") or ""), message_created_at):
        return "created"
    return matching[0].lower()


def _is_young(lead_created_at: str, message_created_at: str) -> bool:
    try:
        age = datetime.fromisoformat(message_created_at) - datetime.fromisoformat(lead_created_at)
    except (ValueError, TypeError):
        return False
    return timedelta(0) <= age <= _CREATED_WITHIN


async def _candidates(send: Send, phones: Phones, phone: str) -> int:
    """Leads and contacts with the number, however it is written (as far as queries find it)."""
    forms = phones.written_forms(phone)
    total = 0
    for module in Module:
        criteria = [coql.is_in(name, part) for part in coql.chunks(forms) for name in ("Phone", "Mobile")]
        try:
            rows = await coql.select(
                send, Operation.FIND_PEOPLE, fields="id", module=module, where=coql.any_of(criteria)
            )
        except RefusedError:
            continue
        total += len({str(row.get("id")) for row in rows})
    return total
