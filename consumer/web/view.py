"""What the pages and probes need to know, in their own words.  Ages and waits are in seconds."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Mapping

Counted = tuple[tuple[str, int], ...]
"""What, and how many; most first."""


# -- links ------------------------------------------------------------------------------------------------------


class SubjectKind(StrEnum):
    """How a link says whom it is about; also the name of the query parameter."""

    PHONE = "phone"
    DIALOG = "dialog"


@dataclass(frozen=True, slots=True)
class Subject:
    """Whom a link is about: an E.164 number, or a dialog id."""

    kind: SubjectKind
    value: str


class LinkState(StrEnum):
    """The `state` of the contract."""

    LINKED = "linked"
    PENDING = "pending"
    FAILED = "failed"
    UNKNOWN = "unknown"


class LinkReason(StrEnum):
    """Why the state is what it is."""

    FOUND = "found"
    COMPUTED = "computed"
    """Made of the number alone; nobody was asked."""
    QUEUED = "queued"
    WAITING = "waiting"
    """Queued behind a cause outside the messages."""
    REJECTED = "rejected"
    SKIPPED = "skipped"
    NOT_SEEN = "not_seen"
    DISABLED = "disabled"
    UNAVAILABLE = "unavailable"
    HALTED = "halted"
    """Zoho cannot be asked until somebody mends a setting, of Zoho or of the service."""
    BUSY = "busy"


@dataclass(frozen=True, slots=True)
class Place:
    """Where a record stands in a topic."""

    partition: int
    offset: int


@dataclass(frozen=True, slots=True)
class DialogLink:
    """The answer to "where is this person's dialog in Zoho?"."""

    state: LinkState
    reason: LinkReason
    url: str | None = None
    lead_id: str | None = None
    contact_id: str | None = None
    code: str = ""
    """Stable code behind the reason: of a rejection, a skip, a halt."""
    source: Place | None = None
    """Of a rejected message: where it stood in the original topic."""
    retry_after_s: int | None = None


class LinkView(Protocol):
    """Where links come from."""

    def canonical_phone(self, raw: str) -> str | None:
        """E.164, or None when it is no number."""

    def computed_link(self, phone: str) -> str | None:
        """The link that needs nothing but the number; None when it needs a record."""

    def known_link(self, subject: Subject) -> DialogLink | None:
        """What can be said without asking Zoho."""

    async def find_link(self, subject: Subject) -> DialogLink:
        """Ask Zoho: costs credits, and may wait."""

    def link_answered(self, state: LinkState, reason: LinkReason) -> None:
        """Count an answer."""


# -- console ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class HaltRow:
    """A cause for which work waits."""

    code: str
    advice: str
    for_s: float


@dataclass(frozen=True, slots=True)
class PartitionRow:
    """One partition of ours."""

    number: int
    lag: int
    in_flight: int
    oldest_s: float | None


@dataclass(frozen=True, slots=True)
class ZohoRow:
    """Token, credits and calls."""

    has_token: bool
    token_ends_in_s: float | None
    credits_used: int
    credits_budget: int | None
    credits_left: int | None
    credits_out_in_s: float | None
    calls: int
    calls_in_flight: int
    calls_allowed: int
    calls_waiting: int
    waiting_for: str | None
    throttles: int
    latency_median_s: float | None
    latency_p95_s: float | None


@dataclass(frozen=True, slots=True)
class FailureRow:
    """Failures of one kind."""

    kind: str
    code: str
    detail: str
    count: int
    last_s: float
    example: str


@dataclass(frozen=True, slots=True)
class Status:
    """Everything on the first page, at one moment."""

    version: str
    state: str
    """disabled, starting, idle, syncing, standby, rebalancing, throttled, halted, stuck, draining."""
    waiting_for: str | None
    not_yet: tuple[str, ...] = ()
    """What it waits for before it can work: brokers, answers or group; token."""
    halts: tuple[HaltRow, ...] = ()
    received: int = 0
    delivered: int = 0
    duplicates: int = 0
    skipped: Counted = ()
    dead_letters: Counted = ()
    in_flight: int = 0
    blocked: int = 0
    held: int = 0
    lag: int = 0
    oldest_s: float | None = None
    """Since the oldest unsettled message was read."""
    behind_s: float | None = None
    """Since the oldest unsettled message was written to the topic: the lag as time."""
    partitions: tuple[PartitionRow, ...] = ()
    zoho: ZohoRow | None = None
    failures: tuple[FailureRow, ...] = ()


@dataclass(frozen=True, slots=True)
class Explanation:
    """What became of one message: a sentence and traces in the reader's language, none of them personal."""

    state: str
    """delivered, waiting, dead, skipped, unknown, unavailable …; for style, not for reading."""
    sentence: str = ""
    """Empty when not enough could be asked."""
    rows: tuple[tuple[str, str], ...] = ()
    """What, and where or how."""
    facts: tuple[tuple[str, str], ...] = ()
    """What this process knows while it has the message in its hands: stage, attempts, code."""


# -- dead letters -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Selection:
    """Which dead letters; empty means all."""

    reason: str = ""
    stage: str = ""
    place: Place | None = None
    """In the dead-letter topic."""
    source: Place | None = None
    """In the original topic."""


@dataclass(frozen=True, slots=True)
class DeadLetterRow:
    """One dead letter, without its content."""

    place: Place
    source: Place | None
    reason: str
    stage: str
    detail: str
    failed_at: str
    attempts: int
    replays: int


@dataclass(frozen=True, slots=True)
class DeadLetterPage:
    """Latest first; `total` may be more than the rows."""

    rows: tuple[DeadLetterRow, ...]
    total: int
    reasons: Counted = ()
    """Of the whole selection."""


@dataclass(frozen=True, slots=True)
class ReplayStep:
    """How far a replay is."""

    done: int
    total: int
    failed: int = 0


@dataclass(frozen=True, slots=True)
class ReplayPlan:
    """What a replay would do."""

    total: int
    reasons: Counted = ()
    fails_again: int = 0
    """Of the total, those whose value is still at fault."""
    may_repeat: bool = False
    """Some may have been replayed by a filter before: the broker has kept no record of it."""
    left_alone: int = 0
    """Replayed before, or too often, or no letters of ours."""


class UnavailableError(Exception):
    """The dead letters cannot be read or replayed now; why is said in plain words, by language."""

    def __init__(self, texts: Mapping[str, str]) -> None:
        super().__init__(texts["en"])
        self.texts = texts


class ServiceView(LinkView, Protocol):
    """The service as the HTTP port sees it."""

    def is_live(self) -> bool:
        """Do our own loops make progress?"""

    def readiness(self) -> tuple[bool, dict[str, Any]]:
        """Can work be done now, and every check with its reason."""

    def metrics_text(self) -> bytes:
        """Prometheus text."""

    def status(self) -> Status:
        """For the console."""

    async def explain(self, message_id: str, language: str) -> Explanation:
        """What became of a message."""

    async def dead_letters(self, selection: Selection, *, limit: int) -> DeadLetterPage:
        """Browse.  Raises UnavailableError."""

    async def plan_replay(self, selection: Selection) -> ReplayPlan:
        """A dry run; changes nothing.  Raises UnavailableError."""

    async def replay(
        self, selection: Selection, *, on_step: Callable[[ReplayStep], None], cancel: asyncio.Event
    ) -> None:
        """Publish the selected dead letters to their original topic, until done or cancelled.

        Raises UnavailableError.
        """
