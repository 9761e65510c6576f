"""Is it well?  Decided from a snapshot, without I/O.

Liveness looks only at our own progress, so that a broker's or Zoho's outage never becomes a crash loop.  Readiness says
whether work can be done now, and why not.  A member without partitions is a healthy standby.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from consumer.core.errors import Halt

if TYPE_CHECKING:
    from collections.abc import Iterable


class State(StrEnum):
    """One word for the whole service."""

    DISABLED = "disabled"
    STARTING = "starting"
    IDLE = "idle"
    SYNCING = "syncing"
    STANDBY = "standby"
    REBALANCING = "rebalancing"
    THROTTLED = "throttled"
    HALTED = "halted"
    STUCK = "stuck"
    DRAINING = "draining"


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What is known at one moment; times are of the event loop, in seconds."""

    now: float
    is_enabled: bool = True
    is_draining: bool = False
    is_joined: bool = False
    kafka_waits_for: str = ""
    """While not joined: brokers, answers, group."""
    is_rebalancing: bool = False
    has_token: bool = False
    assigned: int = 0
    in_flight: int = 0
    lag: int = 0
    has_room: bool = True
    """More may be read: less is in flight, or settled behind what is, than the window holds."""
    last_poll_at: float | None = None
    last_progress_at: float | None = None
    assigned_at: float | None = None
    excused_at: float | None = None
    """When somebody last saw that nothing had to move, see `is_excused`."""
    waiting_for: str | None = None
    """Why calls to Zoho wait: concurrency, heavy, throttled, credits, budget."""
    halts: tuple[Halt, ...] = ()
    """One for each code."""
    blocked: int = 0
    """Of those in flight, the ones that Zoho keeps refusing for now."""
    behind: int = 0
    """Of those in flight, the ones that wait for others: queued, or a duplicate."""


@dataclass(frozen=True, slots=True)
class Limits:
    """When silence is too long, in seconds."""

    poll_s: float = 180.0
    progress_s: float = 300.0


@dataclass(frozen=True, slots=True)
class Check:
    """One row of /readyz."""

    name: str
    is_ok: bool
    reason: str


@dataclass(frozen=True, slots=True)
class Health:
    """The answer of all three probes."""

    state: State
    sentence: str
    is_live: bool
    is_ready: bool
    checks: tuple[Check, ...]


class Standing:
    """Halts whose cause does not say since when it stands: they stand since the first look that found them."""

    def __init__(self) -> None:
        self._halts: dict[tuple[str, tuple[str, ...]], Halt] = {}

    def look(self, halts: Iterable[Halt]) -> list[Halt]:
        """All that stand now, as they were when they were first seen; what is gone is forgotten."""
        self._halts = {cause: self._halts.get(cause, halt) for halt in halts for cause in [(halt.code, halt.holds_up)]}
        return list(self._halts.values())


def assess(snapshot: Snapshot, limits: Limits) -> Health:
    """Judge a snapshot."""
    state = state_of(snapshot, limits)
    checks = tuple(_checks(snapshot, limits))
    return Health(
        state=state,
        sentence=_sentence(state, snapshot),
        is_live=_is_polling(snapshot, limits) or not snapshot.is_enabled,
        is_ready=not snapshot.is_enabled or all(check.is_ok for check in checks),
        checks=checks,
    )


def merged(halts: Iterable[Halt]) -> tuple[Halt, ...]:
    """Each cause once, with all that it holds up."""
    by_code: dict[str, list[Halt]] = {}
    for halt in halts:
        by_code.setdefault(halt.code, []).append(halt)
    return tuple(_as_one(alike) for alike in by_code.values())


def _as_one(alike: list[Halt]) -> Halt:
    advice = " ".join(dict.fromkeys(halt.advice for halt in alike if halt.advice))
    holds_up = dict.fromkeys(name for halt in alike for name in halt.holds_up)
    is_all = not all(halt.holds_up for halt in alike)
    since = min(halt.since for halt in alike)
    return Halt(alike[0].code, advice, since, () if is_all else tuple(holds_up))


def state_of(snapshot: Snapshot, limits: Limits) -> State:
    """The first word that fits, worst first."""
    fits = (
        (State.DISABLED, not snapshot.is_enabled),
        (State.DRAINING, snapshot.is_draining),
        (State.HALTED, bool(snapshot.halts)),
        (State.STUCK, not _is_polling(snapshot, limits) or is_stuck(snapshot, limits)),
        (State.REBALANCING, snapshot.is_rebalancing),
        (State.STARTING, not snapshot.is_joined),
        (State.STANDBY, snapshot.assigned == 0),
        (State.THROTTLED, snapshot.waiting_for in ("throttled", "credits", "budget")),
        (State.SYNCING, snapshot.in_flight > 0 or snapshot.lag > 0),
    )
    return next((state for state, is_so in fits if is_so), State.IDLE)


def waits_for(snapshot: Snapshot) -> tuple[str, ...]:
    """What is not there yet, although nothing is wrong here: brokers, answers or group; token."""
    kafka = () if snapshot.is_joined else (snapshot.kafka_waits_for or "group",)
    return (*kafka, *(() if snapshot.has_token else ("token",)))


def is_stuck(snapshot: Snapshot, limits: Limits) -> bool:
    """Something has to move, and for too long nothing has: not since the last progress, nor since an excuse ended.

    The time before the work came, or while it was not allowed to go on, is no time in which it stood still.
    """
    moments = (snapshot.last_progress_at, snapshot.assigned_at, snapshot.excused_at)
    known = [moment for moment in moments if moment is not None]
    return not is_excused(snapshot) and bool(known) and snapshot.now - max(known) > limits.progress_s


def is_excused(snapshot: Snapshot) -> bool:
    """Nothing has to move now: there is no work, something outside forbids it, or all of it waits for blocked records.

    Ask once a second and put the last moment into `excused_at`.
    """
    is_forbidden = bool(snapshot.halts) or snapshot.waiting_for in ("throttled", "credits", "budget")
    is_apart = not snapshot.is_joined or snapshot.is_rebalancing or not snapshot.assigned
    return is_forbidden or is_apart or not (_must_read(snapshot) or _must_deliver(snapshot))


def _must_read(snapshot: Snapshot) -> bool:
    """One blocked record fills the window with what is settled behind it, and then nothing is to be read."""
    return snapshot.lag > 0 and (snapshot.has_room or not snapshot.blocked)


def _must_deliver(snapshot: Snapshot) -> bool:
    held_up = snapshot.blocked + snapshot.behind if snapshot.blocked else 0
    return snapshot.in_flight > held_up


def _is_polling(snapshot: Snapshot, limits: Limits) -> bool:
    return snapshot.last_poll_at is None or snapshot.now - snapshot.last_poll_at <= limits.poll_s


def _checks(snapshot: Snapshot, limits: Limits) -> list[Check]:
    if not snapshot.is_enabled:
        return [Check("enabled", is_ok=True, reason="ZOHO_CRM_ENABLED is false: idle on purpose")]
    polling = _is_polling(snapshot, limits)
    checks = [
        Check("poll_loop", polling, "running" if polling else "no poll for too long"),
        Check("kafka", snapshot.is_joined, _kafka_reason(snapshot)),
        Check("token", snapshot.has_token, "an access token is at hand" if snapshot.has_token else _WAITS["token"]),
        Check("draining", not snapshot.is_draining, "stopping" if snapshot.is_draining else "no"),
        Check("limits", not snapshot.in_flight or snapshot.waiting_for not in _SPENT, _limits_reason(snapshot)),
        Check("progress", not is_stuck(snapshot, limits), "stuck" if is_stuck(snapshot, limits) else "as it should be"),
    ]
    checks += [Check(f"halted.{halt.code}", is_ok=False, reason=_halt_reason(halt)) for halt in snapshot.halts]
    return checks


def _halt_reason(halt: Halt) -> str:
    held = f" (holds up: {', '.join(halt.holds_up)})" if halt.holds_up else ""
    return f"{halt.advice or halt.code}{held}"


_NOT_BUSY = frozenset({State.STARTING, State.STANDBY, State.SYNCING, State.IDLE})
_SPENT = ("credits", "budget")
_WAITS = {
    "brokers": "waiting for the brokers: no connection with any of KAFKA_BOOTSTRAP_SERVERS",
    "answers": "waiting for the brokers: they answer with errors, see the log",
    "group": "waiting for the group: the brokers answer, but have not taken this process in yet; is KAFKA_TOPIC there?",
    "token": "waiting for an access token from Zoho Accounts",
}


def _limits_reason(snapshot: Snapshot) -> str:
    return {
        "credits": "Zoho's credits of this day are used up",
        "budget": "the credits that this service may use in a day are used up",
        "throttled": "Zoho asked for fewer calls a moment ago",
    }.get(snapshot.waiting_for or "", "within Zoho's limits")


def _kafka_reason(snapshot: Snapshot) -> str:
    if not snapshot.is_joined:
        return _WAITS[snapshot.kafka_waits_for or "group"]
    return f"member with {snapshot.assigned} partitions" if snapshot.assigned else "standby, without partitions"


def _sentence(state: State, snapshot: Snapshot) -> str:
    if state is State.HALTED:
        return f"Waiting: {snapshot.halts[0].advice or snapshot.halts[0].code}"
    if state is State.THROTTLED:
        why = {"throttled": "Zoho asks for fewer calls", "credits": "Zoho's credits are used up"}
        return f"Waiting: {why.get(snapshot.waiting_for or '', 'the daily credit budget is used up')}; nothing is lost."
    if state in _NOT_BUSY and (waits := waits_for(snapshot)):
        return f"W{'; '.join(_WAITS[name] for name in waits)[1:]}. Nothing is lost; it goes on by itself."
    return {
        State.DISABLED: "Switched off (ZOHO_CRM_ENABLED is false).",
        State.DRAINING: "Stopping: finishing what is in flight.",
        State.STUCK: "Stuck: there is work, but nothing has moved for minutes.",
        State.REBALANCING: "Partitions are being shared out anew.",
        State.STANDBY: "Standing by: other members own all partitions.",
        State.SYNCING: "Bringing messages into Zoho.",
        State.IDLE: "Everything is in Zoho; waiting for new messages.",
    }[state]
