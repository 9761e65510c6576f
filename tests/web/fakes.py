"""A service that the HTTP port can look at, told by the test what to show."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from consumer.core.links import Links
from consumer.core.phones import Phones
from consumer.web.view import (
    DeadLetterPage,
    DeadLetterRow,
    DialogLink,
    Explanation,
    LinkReason,
    LinkState,
    Place,
    ReplayPlan,
    ReplayStep,
    Status,
    UnavailableError,
    ZohoRow,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from consumer.web.view import Selection, Subject

CRM = "http://crm.zoho.example"


def letter(
    offset: int, *, reason: str = "zoho.INVALID_DATA", stage: str = "message", detail: str = ""
) -> DeadLetterRow:
    """A dead letter as the console shows it."""
    moment = f"2026-01-31T12:00:{offset % 60:02d}+00:00"
    return DeadLetterRow(Place(0, offset), Place(2, 100 + offset), reason, stage, detail, moment, 1, 0)


def busy_status(**changes: Any) -> Status:
    """A service in the middle of its work."""
    zoho = ZohoRow(
        has_token=True,
        token_ends_in_s=3000.0,
        credits_used=120,
        credits_budget=4000,
        credits_left=None,
        credits_out_in_s=7200.0,
        calls=80,
        calls_in_flight=2,
        calls_allowed=10,
        calls_waiting=0,
        waiting_for=None,
        throttles=0,
        latency_median_s=0.2,
        latency_p95_s=0.9,
    )
    values: dict[str, Any] = {"version": "1", "state": "syncing", "waiting_for": None, "received": 1500, "zoho": zoho}
    return Status(**(values | changes))


@dataclass
class FakeView:
    """See `consumer.web.view.ServiceView`."""

    org_id: str | None = None
    known: dict[Subject, DialogLink] = field(default_factory=dict)
    found: dict[Subject, DialogLink] = field(default_factory=dict)
    answered: list[tuple[LinkState, LinkReason]] = field(default_factory=list)
    asked: list[Subject] = field(default_factory=list)
    may_find: asyncio.Event = field(default_factory=asyncio.Event)
    shown: Status = field(default_factory=lambda: Status("1", "idle", None))
    explanations: dict[str, Explanation] = field(default_factory=dict)
    letters: list[DeadLetterRow] = field(default_factory=list)
    replayed: list[Place] = field(default_factory=list)
    may_replay: asyncio.Semaphore | None = None
    problem: UnavailableError | None = None
    is_forgetful: bool = False
    is_ready: bool = True
    live: bool = True

    def __post_init__(self) -> None:
        self.may_find.set()
        self._phones = Phones()
        self._links = Links(CRM, self.org_id)

    def is_live(self) -> bool:
        return self.live

    def readiness(self) -> tuple[bool, dict[str, Any]]:
        return self.is_ready, {
            "ready": self.is_ready,
            "checks": [{"name": "token", "ok": self.is_ready, "reason": "?"}],
        }

    def metrics_text(self) -> bytes:
        return b"zoho_sync_build_info 1\n"

    def canonical_phone(self, raw: str) -> str | None:
        return self._phones.canonical(raw)

    def computed_link(self, phone: str) -> str | None:
        return self._links.dialog(phone, None)

    def known_link(self, subject: Subject) -> DialogLink | None:
        return self.known.get(subject)

    async def find_link(self, subject: Subject) -> DialogLink:
        self.asked.append(subject)
        await self.may_find.wait()
        return self.found.get(subject, DialogLink(LinkState.UNKNOWN, LinkReason.NOT_SEEN))

    def link_answered(self, state: LinkState, reason: LinkReason) -> None:
        self.answered.append((state, reason))

    def status(self) -> Status:
        return self.shown

    async def explain(self, message_id: str, language: str) -> Explanation:
        return self.explanations.get(message_id, Explanation("unknown", f"Unknown ({language})."))

    def _selected(self, selection: Selection) -> list[DeadLetterRow]:
        if self.problem:
            raise self.problem
        return [
            row
            for row in self.letters
            if (not selection.reason or row.reason == selection.reason)
            and (not selection.stage or row.stage == selection.stage)
            and (selection.place is None or row.place == selection.place)
            and (selection.source is None or row.source == selection.source)
        ]

    async def dead_letters(self, selection: Selection, *, limit: int) -> DeadLetterPage:
        rows = self._selected(selection)
        return DeadLetterPage(tuple(rows[:limit]), len(rows), self._reasons(rows))

    @staticmethod
    def _reasons(rows: list[DeadLetterRow]) -> tuple[tuple[str, int], ...]:
        names = [row.reason for row in rows]
        return tuple((name, names.count(name)) for name in dict.fromkeys(names))

    async def plan_replay(self, selection: Selection) -> ReplayPlan:
        rows = self._selected(selection)
        return ReplayPlan(len(rows), self._reasons(rows), may_repeat=self.is_forgetful)

    async def replay(
        self, selection: Selection, *, on_step: Callable[[ReplayStep], None], cancel: asyncio.Event
    ) -> None:
        rows = self._selected(selection)
        on_step(ReplayStep(0, len(rows)))
        for done, row in enumerate(rows, 1):
            if self.may_replay is not None:
                await self.may_replay.acquire()
            if cancel.is_set():
                return
            self.letters.remove(row)
            self.replayed.append(row.place)
            on_step(ReplayStep(done, len(rows)))
