"""Pauses between attempts."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from consumer.core.backoff import Backoff

_RANDOM = st.floats(0, 1, exclude_max=True)


@given(st.integers(1, 10_000), _RANDOM)
def test_a_pause_stays_between_zero_and_its_ceiling(attempt: int, random: float) -> None:
    """However many attempts there were."""
    backoff = Backoff(base_s=0.5, cap_s=30.0)
    assert 0 <= backoff.wait_s(attempt, random=random) <= backoff.ceiling_s(attempt) <= 30.0


@given(st.integers(1, 100))
def test_the_ceiling_never_falls(attempt: int) -> None:
    """Each attempt may wait at least as long as the one before."""
    backoff = Backoff()
    assert backoff.ceiling_s(attempt) <= backoff.ceiling_s(attempt + 1)


@given(st.integers(1, 100), _RANDOM, st.floats(0, 86_400))
def test_what_the_server_asks_for_is_never_shortened(attempt: int, random: float, asked_s: float) -> None:
    """And prolonged by at most a second, so that not all come at once."""
    wait_s = Backoff().wait_s(attempt, random=random, retry_after_s=asked_s)
    assert asked_s <= wait_s <= asked_s + 1.0
