"""How well the window finds Zoho's limit: share of the quota used, calls refused, time to recover.

Virtual time, the real turnstile and limiter, and a Zoho that is nothing but a limit on calls at once.  The bands are
what an operator would call good; they are wide enough to let the constants breathe.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING

import pytest

from consumer.core.errors import ThrottledError
from consumer.core.limits import Limiter
from consumer.zoho.api import Call, Operation, Reply
from consumer.zoho.layers import Turnstile, limited, retried
from tests.zoho.room import BACKOFF, run

if TYPE_CHECKING:
    from collections.abc import Callable

CALL = Call(Operation.READ_NOTES, "GET", "/Leads/1/Notes")


@dataclass
class Quota:
    """Refuses what is beyond `limit(now)` calls at once."""

    limit: Callable[[float], float]
    latency_s: Callable[[Random], float]
    random: Random = field(default_factory=lambda: Random(1))
    inside: int = 0
    done: Counter[int] = field(default_factory=Counter)
    refused: Counter[int] = field(default_factory=Counter)

    async def __call__(self, _call: Call) -> Reply:
        loop = asyncio.get_running_loop()
        if self.inside >= self.limit(loop.time()):
            self.refused[int(loop.time())] += 1
            await asyncio.sleep(0.1)
            raise ThrottledError("TOO_MANY_REQUESTS")
        self.inside += 1
        try:
            await asyncio.sleep(self.latency_s(self.random))
        finally:
            self.inside -= 1
        self.done[int(loop.time())] += 1
        return Reply(200, {})

    def rate(self, start: int, end: int) -> float:
        """Calls per second that came through."""
        return sum(self.done[second] for second in range(start, end)) / (end - start)

    def refused_share(self, start: int, end: int) -> float:
        """Part of all calls that were refused."""
        refused = sum(self.refused[second] for second in range(start, end))
        return refused / max(1, refused + sum(self.done[second] for second in range(start, end)))


def constant(_random: Random) -> float:
    return 0.5


def jittery(random: Random) -> float:
    """0.4 to 0.9 s, and a long tail."""
    return random.uniform(0.4, 0.9) if random.random() < 0.98 else random.uniform(1, 5)


async def busy(quota: Quota, *, until_s: float, max_concurrency: int = 20) -> Limiter:
    """Always more work than may go."""
    limiter = Limiter(max_concurrency=max_concurrency)
    calm = limited(quota, Turnstile(limiter), backoff=BACKOFF, random=quota.random.random)
    call = retried(calm, backoff=BACKOFF, random=quota.random.random)

    async def worker() -> None:
        while asyncio.get_running_loop().time() < until_s:
            await call(CALL)

    await asyncio.gather(*(worker() for _ in range(60)))
    return limiter


@pytest.mark.parametrize("latency", [constant, jittery])
def test_a_limit_that_is_ours_is_used_in_full(latency: Callable[[Random], float]) -> None:
    """Where Zoho's limit is what we were told, all of it is used and nothing is refused."""

    async def scenario() -> None:
        quota = Quota(lambda _: 20, latency)
        await busy(quota, until_s=300)
        mean = 0.5 if latency is constant else 0.65 * 0.98 + 3 * 0.02
        assert quota.rate(10, 290) >= 0.97 * 20 / mean
        assert not quota.refused

    run(scenario())


@pytest.mark.parametrize("latency", [constant, jittery])
def test_another_client_that_eats_half_leaves_us_most_of_the_other_half(latency: Callable[[Random], float]) -> None:
    """At a steady limit below ours: over four fifths of it used, under one call in a hundred refused."""

    async def scenario() -> None:
        quota = Quota(lambda _: 10, latency)
        await busy(quota, until_s=900)
        mean = 0.5 if latency is constant else 0.65 * 0.98 + 3 * 0.02
        assert quota.rate(60, 890) >= 0.8 * 10 / mean
        assert quota.refused_share(60, 890) <= 0.01

    run(scenario())


def test_a_sudden_limit_is_obeyed_within_seconds_and_left_within_a_minute() -> None:
    """Zoho lets in four in place of twenty for half a minute: few calls are refused, and soon all is as before."""

    async def scenario() -> None:
        quota = Quota(lambda now: 4 if 100 <= now < 130 else 20, jittery)
        await busy(quota, until_s=400)
        assert quota.refused_share(110, 130) <= 0.1
        assert quota.rate(105, 130) >= 0.6 * 4 / 0.7
        assert quota.rate(195, 390) >= 0.95 * quota.rate(20, 100)

    run(scenario())


def test_a_slow_shoulder_costs_little() -> None:
    """The limit sinks and rises over ten minutes: over three quarters of it is used all along."""

    async def scenario() -> None:
        def limit(now: float) -> float:
            return max(6.0, 20 - now / 20) if now < 400 else min(20.0, 6 + (now - 400) / 20)

        quota = Quota(limit, jittery)
        await busy(quota, until_s=800)
        wanted = sum(limit(second) for second in range(60, 790)) / 730 / 0.7
        assert quota.rate(60, 790) >= 0.75 * wanted
        assert quota.refused_share(60, 790) <= 0.02

    run(scenario())


def test_the_end_of_the_days_credits_is_waited_for_gently() -> None:
    """While all is refused, one call in half a minute asks; when it is over, work is back in a minute and a half."""

    async def scenario() -> None:
        quota = Quota(lambda now: 0 if 100 <= now < 3700 else 20, constant)
        await busy(quota, until_s=4000)
        asked = sum(quota.refused[second] for second in range(200, 3700))
        assert 3500 / 60 <= asked <= 3500 / 15
        assert quota.rate(3790, 3990) >= 0.95 * 40

    run(scenario())
