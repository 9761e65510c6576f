"""The words of the corridor: what comes in, what travels, what comes out."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from consumer.core.offsets import Ack
    from schemas.message_event import MessageEvent

Headers = tuple[tuple[str, bytes], ...]
"""A name may come twice.  For a header without value aiokafka gives None, so that readers take `value or b""`."""
REPLAYS = "dlq.replays"
"""Header that counts how often a record was sent again from the dead-letter topic."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LAST_DATE_MS = 253_402_300_799_999


class TopicPartition(NamedTuple):
    """One partition of a topic: a tuple, for it is a key of look-ups that each record makes."""

    topic: str
    partition: int


@dataclass(frozen=True, slots=True)
class Record:
    """What Kafka hands us, bytes untouched."""

    tp: TopicPartition
    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    headers: Headers = ()
    may_repeat: bool = False
    """True when an earlier owner of the partition may already have written it to the CRM."""

    def size_bytes(self) -> int:
        """What it costs to keep the record in memory, without Python's overhead."""
        return len(self.value or b"") + len(self.key or b"")

    def has_date(self) -> bool:
        """Is the timestamp a date?  Kafka takes any number: microseconds for milliseconds, -1 for none."""
        return 0 <= self.timestamp_ms <= _LAST_DATE_MS

    def date(self) -> datetime:
        """Of the timestamp; when that is no date, the nearest one there is."""
        return _EPOCH + timedelta(milliseconds=min(max(self.timestamp_ms, 0), _LAST_DATE_MS))

    def is_replay(self) -> bool:
        """It was a dead letter once."""
        return any(name == REPLAYS for name, _ in self.headers)


class Stage(StrEnum):
    """Where a record is; also the `dlq.stage` header."""

    PARSE = "parse"
    LEAD = "lead"
    MESSAGE = "message"
    NOTE = "note"


class Module(StrEnum):
    """Where a person lives in the CRM (API names)."""

    LEADS = "Leads"
    CONTACTS = "Contacts"


@dataclass(frozen=True, slots=True)
class Parent:
    """The lead or contact to which a person's messages and notes belong."""

    module: Module
    id: str


class NotePolicy(StrEnum):
    """How many notes: one for a dialog or one for every message."""

    PER_DIALOG = "per_dialog"
    PER_MESSAGE = "per_message"


@dataclass(frozen=True, slots=True)
class Delivered:
    """Lead, message and note stand in the CRM."""


@dataclass(frozen=True, slots=True)
class Skipped:
    """Nothing to write, for a stated reason."""

    reason: str


@dataclass(frozen=True, slots=True)
class Rejected:
    """No attempt can deliver it: goes to the dead-letter topic.

    `reason` is a stable code (`schema_violation`, `zoho.INVALID_DATA`), `detail` is short and holds no personal data.
    """

    stage: Stage
    reason: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Deferred:
    """Not now: to be tried again.

    `wrote_maybe` says that the effect may have happened although no clear answer came (timeout, reset, 5xx), so
    that the next attempt must look before it writes.  `halted` names a cause outside this one message.
    """

    code: str
    wrote_maybe: bool = False
    halted: bool = False
    retry_after_s: float | None = None


Outcome = Delivered | Skipped | Rejected | Deferred
"""What became of one message at one stage."""


@dataclass(slots=True, eq=False)
class Delivery:
    """One message on its way, and what is owed to Kafka for it.  State, not a value: it changes as it walks."""

    record: Record
    ack: Ack
    event: MessageEvent
    phone: str
    """E.164."""
    stage: Stage = Stage.LEAD
    parent: Parent | None = None
    may_exist: bool = False
    """The message record may already stand in the CRM: look before writing."""
    stands_since: float | None = None
    """Loop time at which we first knew that the message record stands."""
    inserted: bool = False
    """This process created the message record and got a clear answer."""
    sent_maybe: bool = False
    """This process sent the message record, and nobody knows what became of it."""
    is_foreign: bool = False
    """Somebody else made the message record, and may be at its note in this moment."""
    note_maybe: bool = False
    """A note of this message may already stand in the CRM: look before writing."""
    attempts: int = 0
    """Tries that failed for a reason of its own; what stops everybody does not count."""
    deferrals: int = 0
    """Times in a row that this stage put it off, whatever the reason: the exponent of its backoff."""
    last_code: str = ""
    stale_parent: Parent | None = None
    """The lead or contact that Zoho refused as a link last; the message was written with it, if at all."""
    stale_tries: int = 0
    """How often it was refused."""
    waiting: list[tuple[Record, Ack]] = field(default_factory=list)
    """Duplicates that arrived while this one was in flight; they wait for its outcome."""

    def is_wanted(self) -> bool:
        """False once every partition it came from has been taken away: its new owner delivers it."""
        return not self.ack.is_fenced() or any(not ack.is_fenced() for _, ack in self.waiting)

    def put_off(self, deferred: Deferred) -> None:
        """Note that its stage could not be done now; where the effect may stand, the next attempt looks first."""
        self.last_code = deferred.code
        self.deferrals += 1
        self.attempts += not deferred.halted
        self.may_exist |= deferred.wrote_maybe or self.stage is Stage.NOTE
        self.sent_maybe |= deferred.wrote_maybe and self.stage is Stage.MESSAGE
        self.note_maybe |= deferred.wrote_maybe and self.stage is Stage.NOTE

    def stands(self, *, is_ours: bool, now: float) -> None:
        """The message record stands, made by us just now or not.

        It is a stranger's unless our own unanswered call explains it, or it was replayed: before a dead letter was
        written, all calls had been answered.
        """
        self.stands_since = now if self.stands_since is None else self.stands_since
        self.inserted |= is_ours
        is_explained = self.sent_maybe or self.record.is_replay()
        self.is_foreign |= not self.inserted and (self.record.may_repeat or not is_explained)

    def settle(self) -> None:
        """Pay what is owed to Kafka for this message and its duplicates."""
        self.ack.settle()
        for _, ack in self.waiting:
            ack.settle()
