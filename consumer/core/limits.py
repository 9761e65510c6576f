"""May this call go, and if not, how long must it wait?

Four rules, each of Zoho's (v8 api-limits):
- calls in flight at once, for an organisation and app; we use the share of it that this process's partitions give;
- at most 10 of them heavy: COQL, and writes with more than 10 records ("sub-concurrency", all editions);
- credits per rolling 24 hours, counted from the start of each call, every attempt included;
- 429: fewer calls.  The window is halved once for all calls that were in flight together, and grows back along
  CUBIC's curve (RFC 9438): fast to the neighbourhood of where it broke, slowly past it, then faster and faster.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from consumer.core.backoff import Backoff

HEAVY_LIMIT = 10
DAY_S = 86_400.0
_BUCKET_S = 60.0
_UNKNOWN_RESET_S = 60.0
_PLATEAU_S = 20.0
"""After a 429, the time until the window is again where it broke.  Twelve seconds later it asks for one call of ten
more: at a steady limit one flight in half a minute is refused, and a minute after a short disturbance all is as before.
"""


@dataclass(frozen=True, slots=True)
class Cost:
    """What a call takes."""

    credits: int = 1
    is_heavy: bool = False


@dataclass(frozen=True, slots=True)
class Permit:
    """A call in flight; give it back with `release`."""

    cost: Cost
    started_at: float


@dataclass(frozen=True, slots=True)
class Wait:
    """Not now.  `seconds` is None when only a call that ends can make room."""

    reason: str
    seconds: float | None = None


class CreditLedger:
    """Credits used in the last 24 hours, in buckets of a minute (rounded to our disadvantage)."""

    def __init__(self) -> None:
        self._buckets: deque[tuple[float, int]] = deque()
        self._used = 0

    def spend(self, amount: int, now: float) -> None:
        """Book a call."""
        start = now - now % _BUCKET_S
        if self._buckets:
            start = max(start, self._buckets[-1][0])
        before = self._buckets.pop()[1] if self._buckets and self._buckets[-1][0] == start else 0
        self._buckets.append((start, before + amount))
        self._used += amount

    def used(self, now: float) -> int:
        """Credits of the last 24 hours."""
        while self._buckets and self._buckets[0][0] + _BUCKET_S + DAY_S <= now:
            self._used -= self._buckets.popleft()[1]
        return self._used

    def wait_s(self, amount: int, budget: float, now: float) -> float | None:
        """Seconds until `amount` fits into `budget`; 0 when it does, None when it never will."""
        excess = self.used(now) + amount - budget
        if excess <= 0:
            return 0.0
        for start, spent in self._buckets:
            excess -= spent
            if excess <= 0:
                return start + _BUCKET_S + DAY_S - now
        return None

    def ages(self, now: float) -> list[tuple[float, int]]:
        """(age in seconds, credits) of each bucket, oldest first: what outlives a restart, whose clock begins anew."""
        self.used(now)
        return [(now - start, spent) for start, spent in self._buckets]

    def restore(self, ages: Iterable[tuple[float, int]], now: float) -> None:
        """What an earlier process used; to be called before the first call is booked."""
        for age_s, spent in sorted(ages, reverse=True):
            if 0 <= age_s < DAY_S + _BUCKET_S and spent > 0:
                self._buckets.append((now - age_s, spent))
                self._used += spent

    def per_hour(self, now: float) -> float:
        """Credits used in the last hour."""
        self.used(now)
        return float(sum(spent for start, spent in self._buckets if start > now - 3600.0))


class Limiter:
    """State of the limits; it answers, the caller waits."""

    def __init__(self, *, max_concurrency: int, daily_credits: int | None = None) -> None:
        self._max_concurrency = max_concurrency
        self._daily_credits = daily_credits
        self._share = 1.0
        self._broke_at: float | None = None
        """Calls at once when the last 429 came; None while there was none."""
        self._shrunk_at = float("-inf")
        self._streak = 0
        self._paused_until = float("-inf")
        self._in_flight = 0
        self._heavy = 0
        self._reported_at = float("-inf")
        self.ledger = CreditLedger()
        self.credits_remaining: int | None = None
        """What Zoho last said is left for the organisation."""
        self.throttles = 0

    @property
    def in_flight(self) -> int:
        """Calls that hold a permit."""
        return self._in_flight

    @property
    def heavy_in_flight(self) -> int:
        """Heavy calls among them."""
        return self._heavy

    @property
    def budget(self) -> float | None:
        """This process's share of the credits of 24 hours."""
        return None if self._daily_credits is None else self._daily_credits * self._share

    def capacity(self, now: float, *, is_heavy: bool = False) -> int:
        """Calls that may be in flight at once now; at least one, or nothing would ever move."""
        limit = min(self._max_concurrency, HEAVY_LIMIT) if is_heavy else self._max_concurrency
        return max(1, int(min(limit * self._share, self._window(now)) + 1e-9))

    def _window(self, now: float) -> float:
        """The pause after a 429 is no sign that more is possible: growth begins when it ends."""
        if self._broke_at is None:
            return float(self._max_concurrency)
        phase = max(0.0, now - max(self._shrunk_at, self._paused_until)) / _PLATEAU_S - 1.0
        return max(1.0, self._broke_at * (1.0 + phase**3 / 2.0))

    def set_share(self, share: float) -> None:
        """The part of the group's limits that is ours: partitions owned / partitions of the topic."""
        self._share = min(1.0, max(0.0, share))

    def acquire(self, cost: Cost, now: float) -> Permit | Wait:
        """A permit, or why not and how long to wait."""
        wait = self._why_wait(cost, now)
        if wait is not None:
            return wait
        self._in_flight += 1
        self._heavy += cost.is_heavy
        self.ledger.spend(cost.credits, now)
        return Permit(cost, now)

    def _why_wait(self, cost: Cost, now: float) -> Wait | None:
        if now < self._paused_until:
            return Wait("throttled", self._paused_until - now)
        if self._in_flight >= self.capacity(now):
            return Wait("concurrency")
        if cost.is_heavy and self._heavy >= self.capacity(now, is_heavy=True):
            return Wait("heavy")
        return self._why_wait_for_credits(cost, now)

    def _why_wait_for_credits(self, cost: Cost, now: float) -> Wait | None:
        believed_until = self._reported_at + _UNKNOWN_RESET_S
        if self.credits_remaining is not None and cost.credits > self.credits_remaining and now < believed_until:
            return Wait("credits", believed_until - now)
        if self.budget is None:
            return None
        wait_s = self.ledger.wait_s(cost.credits, self.budget, now)
        if wait_s == 0.0:
            return None
        return Wait("budget", _UNKNOWN_RESET_S if wait_s is None else wait_s)

    def release(self, permit: Permit) -> None:
        """The call ended, whatever came of it."""
        self._in_flight -= 1
        self._heavy -= permit.cost.is_heavy

    def succeeded(self, permit: Permit) -> None:
        """The call was answered, and not by 429."""
        if permit.started_at > self._shrunk_at:
            self._streak = 0

    def throttled(
        self, permit: Permit, now: float, *, backoff: Backoff, random: float, retry_after_s: float | None = None
    ) -> None:
        """The call was answered 429: halve the window once for all calls of the same flight, and pause.

        Zoho's own Retry-After wins; without one, the pause grows with each flight that is refused in a row.
        """
        self.throttles += 1
        is_first = permit.started_at > self._shrunk_at
        if is_first:
            self._broke_at = min(self._window(now), max(1.0, self._max_concurrency * self._share))
            self._shrunk_at = now
            self._streak += 1
        if is_first or retry_after_s is not None:
            wait_s = backoff.wait_s(self._streak, random=0.5 + random / 2.0, retry_after_s=retry_after_s)
            self._paused_until = max(self._paused_until, now + wait_s)

    def credits_reported(self, remaining: int, now: float) -> None:
        """Zoho's own count came with an answer (it does from half of the day's credits on)."""
        self.credits_remaining = remaining
        self._reported_at = now

    def exhausted_in_s(self, now: float) -> float | None:
        """Forecast: seconds until credits run out at the pace of the last hour; None when they do not."""
        left = self._credits_left(now)
        pace = self.ledger.per_hour(now)
        return None if left is None or pace <= 0 else max(0.0, left) / pace * 3600.0

    def _credits_left(self, now: float) -> float | None:
        known = [] if self.credits_remaining is None else [float(self.credits_remaining)]
        if self.budget is not None:
            known.append(self.budget - self.ledger.used(now))
        return min(known, default=None)


@dataclass(slots=True)
class _Closed:
    reason: str
    advice: str
    since: float
    next_probe_at: float
    wait_s: float
    is_probing: bool = False


class Gate:
    """Causes outside any one message: while one stands, one call at a time asks whether it is gone.

    A cause is known by the operation that met it (a missing scope for COQL says nothing about notes); `*` stops all.
    """

    def __init__(self, *, first_wait_s: float = 2.0, cap_s: float = 60.0) -> None:
        self._first_wait_s = first_wait_s
        self._cap_s = cap_s
        self._closed: dict[str, _Closed] = {}

    def wait_s(self, operation: str, now: float) -> float:
        """Seconds to wait before asking again; 0 means go (and, if a cause stands, you are the probe)."""
        waits = [self._wait_s(closed, now) for key, closed in self._closed.items() if key in (operation, "*")]
        if any(waits):
            return max(waits)
        for key, closed in self._closed.items():
            if key in (operation, "*"):
                closed.is_probing = True
                closed.next_probe_at = now + closed.wait_s
        return 0.0

    @staticmethod
    def _wait_s(closed: _Closed, now: float) -> float:
        return max(0.0, closed.next_probe_at - now)

    def close(self, operation: str, reason: str, advice: str, now: float, *, wait_s: float | None = None) -> None:
        """A call met a cause that stands outside its messages."""
        before = self._closed.get(operation)
        grown = self._first_wait_s if before is None else min(self._cap_s, before.wait_s * 2)
        wait = wait_s if wait_s is not None else grown if before is None or before.is_probing else before.wait_s
        since = now if before is None else before.since
        self._closed[operation] = _Closed(reason, advice, since, now + wait, wait)

    def open(self, operation: str) -> None:
        """A call of this operation went through."""
        self._closed.pop(operation, None)
        self._closed.pop("*", None)

    def probe_now(self) -> None:
        """Something changed (a new secret file, say): ask at once."""
        for closed in self._closed.values():
            closed.next_probe_at = float("-inf")

    def halts(self) -> list[tuple[str, str, str, float]]:
        """(operation, reason, advice, since) of each cause that stands."""
        return [(key, closed.reason, closed.advice, closed.since) for key, closed in self._closed.items()]
