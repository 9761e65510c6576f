"""How well the window finds Zoho's limit: share of the quota used, calls refused, time to recover.

Virtual time, the real turnstile and limiter, and a Zoho that is nothing but a limit on calls at once.  The bands are
what an operator would call good; they are wide enough to let the constants breathe.  `bench.limiter` is what measures.
"""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

import pytest

from bench.limiter import Course, Quota, busy, constant, courses, jittery
from tests.zoho.room import run

if TYPE_CHECKING:
    from collections.abc import Callable


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


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("course", [course for course in courses().values() if course.disturbed], ids=lambda c: c.name)
def test_when_the_others_are_gone_all_is_as_before_within_a_minute(course: Course, seed: int) -> None:
    """Whether they took the quota for half a minute or for ten."""

    async def scenario() -> None:
        quota = Quota(course.limit, course.latency_s, random=Random(seed))
        await busy(quota, until_s=course.until_s)
        assert course.disturbed is not None
        began, ended = course.disturbed
        assert quota.recovery_s(ended, began, course.until_s - 10) <= 60

    run(scenario())
