"""A dead letter as people see it, and which of them are meant.  Decides; no input or output."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

import orjson

from consumer.core.decode import Decoded, decode
from consumer.core.model import REPLAYS
from consumer.operations.errors import OperationError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from consumer.core.model import Headers, Record

_PREFIX = "dlq."
_PLACE = re.compile(r"(\d{1,9}):(\d{1,18})")


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """Where a dead letter lies in the dead-letter topic; written `partition:offset`."""

    partition: int
    offset: int

    def __str__(self) -> str:
        return f"{self.partition}:{self.offset}"

    @staticmethod
    def parse(text: str) -> Place:
        """The place that `text` writes.  Raises OperationError."""
        match = _PLACE.fullmatch(text.strip())
        if match is None:
            raise OperationError("dlq.bad_place", text=text[:40])
        return Place(int(match[1]), int(match[2]))


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """One record of the dead-letter topic, with what its headers say.

    `topic` is None when it has no `dlq.topic` header: somebody else wrote it.
    """

    place: Place
    record: Record = field(repr=False)
    reason: str
    stage: str
    detail: str
    topic: str | None
    partition: int | None
    offset: int | None
    attempts: int
    replays: int
    failed_at: datetime

    @property
    def original_headers(self) -> Headers:
        """The producer's own headers."""
        return tuple((name, value) for name, value in self.record.headers if not name.startswith(_PREFIX))

    def message_id(self) -> str | None:
        """The message's identity, as far as the value can be read at all."""
        return message_id_of(self.record.value)

    def decoded(self) -> Decoded:
        """What today's service makes of the value."""
        return decode(self.record.value, self.original_headers)


def dead_letter_of(record: Record) -> DeadLetter:
    """Read a record of the dead-letter topic.  Never raises: a header that is no number counts as absent."""
    ours = [(name, value or b"") for name, value in record.headers if name.startswith(_PREFIX)]
    named = {name: value.decode("utf-8", "replace") for name, value in ours}
    return DeadLetter(
        place=Place(record.tp.partition, record.offset),
        record=record,
        reason=named.get("dlq.reason", "unknown"),
        stage=named.get("dlq.stage", "unknown"),
        detail=named.get("dlq.detail", ""),
        topic=named.get("dlq.topic") or None,
        partition=_number(named.get("dlq.partition")),
        offset=_number(named.get("dlq.offset")),
        attempts=_number(named.get("dlq.attempts")) or 0,
        replays=_number(named.get(REPLAYS)) or 0,
        failed_at=record.date(),
    )


def _number(text: str | None) -> int | None:
    return int(text) if text and text.isascii() and text.isdigit() and len(text) < 19 else None


def message_id_of(value: bytes | None) -> str | None:
    """`message_id` of a value that is a JSON object, plain or in a CloudEvent; None when there is none."""
    try:
        fields = orjson.loads(value or b"")
    except orjson.JSONDecodeError:
        return None
    inner = fields.get("data") if isinstance(fields, dict) else None
    for candidate in (fields, inner):
        found = candidate.get("message_id") if isinstance(candidate, dict) else None
        if isinstance(found, str):
            return found
    return None


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which dead letters are meant: all conditions that are set must hold.  `since` and `until` are of the failure."""

    reasons: tuple[str, ...] = ()
    stages: tuple[str, ...] = ()
    message_ids: tuple[str, ...] = ()
    since: datetime | None = None
    until: datetime | None = None

    def includes(self, letter: DeadLetter) -> bool:
        """Is this one meant?"""
        return (
            _is_among(letter.reason, self.reasons)
            and _is_among(letter.stage, self.stages)
            and (self.since is None or letter.failed_at >= self.since)
            and (self.until is None or letter.failed_at < self.until)
            and (not self.message_ids or letter.message_id() in self.message_ids)
        )

    @property
    def is_filtered(self) -> bool:
        """Is any condition set?"""
        return any((self.reasons, self.stages, self.message_ids, self.since, self.until))

    @property
    def since_ms(self) -> int | None:
        """`since` in Kafka's unit."""
        return int(self.since.timestamp() * 1000) if self.since else None


def _is_among(value: str, wanted: Iterable[str]) -> bool:
    names = [name.casefold() for name in wanted]
    return not names or value.casefold() in names


@dataclass(slots=True)
class Group:
    """Dead letters with one reason and stage.  Grows while the topic is read."""

    reason: str
    stage: str
    count: int = 0
    waiting: int = 0
    """Not replayed yet, and replayable."""
    replayed: int = 0
    exhausted: int = 0
    """Came back as often as the ceiling allows; a replay passes over them."""
    oldest: datetime | None = None
    newest: datetime | None = None
    example: Place | None = None

    def add(self, letter: DeadLetter, *, is_done: bool, is_exhausted: bool) -> None:
        """Count one more."""
        self.count += 1
        self.exhausted += is_exhausted
        self.replayed += is_done and not is_exhausted
        self.waiting += not is_done and not is_exhausted
        self.oldest = min(self.oldest or letter.failed_at, letter.failed_at)
        self.newest = max(self.newest or letter.failed_at, letter.failed_at)
        self.example = letter.place

    def as_json(self) -> dict[str, Any]:
        """For machines."""
        return {
            "reason": self.reason,
            "stage": self.stage,
            "count": self.count,
            "waiting": self.waiting,
            "replayed": self.replayed,
            "exhausted": self.exhausted,
            "oldest": self.oldest.isoformat() if self.oldest else None,
            "newest": self.newest.isoformat() if self.newest else None,
            "example": str(self.example) if self.example else None,
        }
