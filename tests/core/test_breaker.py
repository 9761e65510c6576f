"""Rejections are let through while deliveries outweigh them, and held when they do not."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from consumer.core.breaker import Breaker, Release
from tests.builders import partition

TP = partition()


def _after(outcomes: list[bool], *, count: int) -> Breaker:
    breaker = Breaker(count=count, hold_s=2.0)
    for is_rejected in outcomes:
        breaker.note(TP, is_rejected=is_rejected)
    return breaker


@given(st.lists(st.booleans(), max_size=60), st.integers(1, 8), st.floats(0, 5))
def test_it_judges_the_last_outcomes(outcomes: list[bool], count: int, held_s: float) -> None:
    """Halted when enough of the last ones were rejected, and most; let go at once when most were not."""
    last = outcomes[-2 * count :]
    rejected, others = sum(last), len(last) - sum(last)
    release = _after(outcomes, count=count).release(TP, held_s=held_s)
    is_halted = rejected >= count and rejected > others
    assert (release is Release.HALT) == is_halted
    if not is_halted:
        assert (release is Release.NOW) == (others >= rejected or held_s >= 2.0)


def test_a_flood_is_halted_before_its_first_may_go() -> None:
    """No dead letter is written while nobody knows whether more are coming."""
    breaker = Breaker(count=5, hold_s=2.0)
    for _ in range(5):
        breaker.note(TP, is_rejected=True)
        assert breaker.release(TP, held_s=0.0) is not Release.NOW
    assert breaker.tripped() == [TP]


def test_deliveries_close_it_again() -> None:
    """The partition goes on when most of it is delivered."""
    assert _after([True] * 10 + [False] * 10, count=5).tripped() == []


def test_each_partition_is_judged_alone() -> None:
    """A bad producer of one partition does not stop another."""
    breaker = _after([True] * 10, count=5)
    assert breaker.release(partition(1), held_s=3.0) is Release.NOW


def test_it_can_be_switched_off() -> None:
    """With a count of 0 every rejection goes at once."""
    assert _after([True] * 100, count=0).release(TP, held_s=0.0) is Release.NOW


def test_a_partition_that_was_taken_away_is_forgotten() -> None:
    """Its next assignment begins without a past."""
    breaker = _after([True] * 10, count=5)
    breaker.forget(TP)
    assert breaker.tripped() == []
