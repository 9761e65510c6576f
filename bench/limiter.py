"""How well the window finds Zoho's limit: share of the quota used, calls refused, time to recover.

Virtual time, the real turnstile and limiter, and a Zoho that is nothing but a limit on calls at once.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING

from bench.figures import Figure
from consumer.core.backoff import Backoff
from consumer.core.errors import ThrottledError
from consumer.core.limits import Limiter
from consumer.zoho.api import Call, Operation, Reply
from consumer.zoho.layers import Turnstile, limited, retried
from tests import virtual_time

if TYPE_CHECKING:
    from collections.abc import Callable

CALLS_AT_ONCE = 20
_CALL = Call(Operation.READ_NOTES, "GET", "/Leads/1/Notes")
_BACKOFF = Backoff(base_s=0.5, cap_s=30.0)
_WARM_S = 20
_RECOVERED = 0.95
_RECOVERY_WINDOW_S = 10


@dataclass
class Quota:
    """Refuses what is beyond `limit(now)` calls at once."""

    limit: Callable[[float], float]
    latency_s: Callable[[Random], float]
    random: Random = field(default_factory=lambda: Random(1))
    inside: int = 0
    done: Counter[int] = field(default_factory=Counter)
    used_s: Counter[int] = field(default_factory=Counter)
    """Milliseconds that calls took, by the second in which they ended."""
    refused: Counter[int] = field(default_factory=Counter)

    async def __call__(self, _call: Call) -> Reply:
        loop = asyncio.get_running_loop()
        if self.inside >= self.limit(loop.time()):
            self.refused[int(loop.time())] += 1
            await asyncio.sleep(0.1)
            raise ThrottledError("TOO_MANY_REQUESTS")
        self.inside += 1
        latency_s = self.latency_s(self.random)
        try:
            await asyncio.sleep(latency_s)
        finally:
            self.inside -= 1
        self.done[int(loop.time())] += 1
        self.used_s[int(loop.time())] += round(latency_s * 1000)
        return Reply(200, {})

    def rate(self, start: int, end: int) -> float:
        """Calls per second that came through."""
        return sum(self.done[second] for second in range(start, end)) / (end - start)

    def used_share(self, start: int, end: int) -> float:
        """Part of the limit that calls of ours filled."""
        used_s = sum(self.used_s[second] for second in range(start, end)) / 1000
        return used_s / sum(self.limit(second) for second in range(start, end))

    def refused_share(self, start: int, end: int) -> float:
        """Part of all calls that were refused."""
        refused = sum(self.refused[second] for second in range(start, end))
        return refused / max(1, refused + sum(self.done[second] for second in range(start, end)))

    def recovery_s(self, start: int, disturbed_at: int, end: int) -> int:
        """Seconds from `start`, when all is allowed again, until as many calls come through as before the trouble."""
        wanted = _RECOVERED * self.rate(_WARM_S, disturbed_at)
        ready = (at for at in range(start, end) if self.rate(at, at + _RECOVERY_WINDOW_S) >= wanted)
        return next(ready, end) - start


def constant(_random: Random) -> float:
    """Every call takes as long."""
    return 0.5


def jittery(random: Random) -> float:
    """0.4 to 0.9 s, and a long tail."""
    return random.uniform(0.4, 0.9) if random.random() < 0.98 else random.uniform(1, 5)


async def busy(quota: Quota, *, until_s: float, max_concurrency: int = CALLS_AT_ONCE) -> Limiter:
    """Always more work than may go."""
    limiter = Limiter(max_concurrency=max_concurrency)
    calm = limited(quota, Turnstile(limiter), backoff=_BACKOFF, random=quota.random.random)
    call = retried(calm, backoff=_BACKOFF, random=quota.random.random)

    async def worker() -> None:
        while asyncio.get_running_loop().time() < until_s:
            await call(_CALL)

    await asyncio.gather(*(worker() for _ in range(3 * max_concurrency)))
    return limiter


def ours(_now: float) -> float:
    """Zoho's limit is what we were told."""
    return CALLS_AT_ONCE


def shoulder(now: float) -> float:
    """The limit sinks and rises over ten minutes."""
    return max(6.0, 20 - now / 20) if now < 400 else min(20.0, 6 + (now - 400) / 20)


def between(start: float, end: float, calls: float) -> Callable[[float], float]:
    """So many calls for a while, all of ours before and after."""
    return lambda now: calls if start <= now < end else CALLS_AT_ONCE


@dataclass(frozen=True, slots=True)
class Course:
    """What Zoho does over time, and which part of it is looked at."""

    name: str
    limit: Callable[[float], float]
    latency_s: Callable[[Random], float]
    watched: tuple[int, int]
    wished: tuple[str, str, str]
    """Share used, share refused, recovery."""
    until_s: int
    disturbed: tuple[int, int] | None = None


def courses() -> dict[str, Course]:
    """In the order in which they are shown."""
    return {
        "constant": Course("constant", ours, constant, (10, 290), ("≥ 97", "0", ""), 300),
        "jittery": Course("jittery", ours, jittery, (10, 290), ("≥ 97", "0", ""), 300),
        "shoulder": Course("slow shoulder", shoulder, jittery, (60, 790), ("≥ 75", "≤ 2", ""), 800),
        "sudden": Course(
            "sudden limit", between(100, 130, 4), jittery, (110, 130), ("≥ 60", "≤ 10", "≤ 60"), 300, (100, 130)
        ),
        "half": Course(
            "half of it eaten", between(100, 700, 10), jittery, (160, 700), ("≥ 80", "≤ 1", "≤ 60"), 900, (100, 700)
        ),
    }


def figures() -> dict[str, Figure]:
    """Rows of the table."""
    found: dict[str, Figure] = {}
    for key, course in courses().items():
        used, refused, recovery = course.wished
        name = f"limiter, {course.name}"
        found[f"limiter_{key}_used"] = Figure(f"{name}: share of the quota used", "%", used)
        found[f"limiter_{key}_refused"] = Figure(f"{name}: calls refused", "%", refused)
        if course.disturbed:
            found[f"limiter_{key}_recovery"] = Figure(f"{name}: time to recover", "s", recovery)
    return found


def measure(course: Course, *, seed: int) -> dict[str, float]:
    """Share used and share refused in percent; seconds to recover where something was disturbed."""
    quota = Quota(course.limit, course.latency_s, random=Random(seed))
    virtual_time.run(busy(quota, until_s=course.until_s))
    found = {"used": quota.used_share(*course.watched) * 100, "refused": quota.refused_share(*course.watched) * 100}
    if course.disturbed:
        began, ended = course.disturbed
        found["recovery"] = quota.recovery_s(ended, began, course.until_s - _RECOVERY_WINDOW_S)
    return found
