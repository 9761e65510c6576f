"""A memory of bounded size, against a plain list of what was put."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from consumer.core.recent import Recent

KEYS = st.integers(0, 9)


@given(st.lists(KEYS, max_size=60), st.integers(1, 12))
def test_the_latest_half_is_known_and_never_more_than_the_size(keys: list[int], size: int) -> None:
    """What was put lately is known with its last value; memory is bounded whatever is put."""
    recent: Recent[int, int] = Recent(size)
    for moment, key in enumerate(keys):
        recent.put(key, moment)
    latest = {key: moment for moment, key in enumerate(keys)}
    known = {key: recent.get(key) for key in range(10) if key in recent}
    assert known.items() <= latest.items()
    assert len(known) <= max(2, size)
    newest_first = sorted(latest, key=lambda key: -latest[key])
    assert set(newest_first[: max(1, size // 2)]) <= known.keys()


@given(st.lists(KEYS, max_size=30), st.integers(1, 12), KEYS)
def test_what_is_dropped_is_unknown(keys: list[int], size: int, dropped: int) -> None:
    """In whichever half it was, and the others stay."""
    recent: Recent[int, int] = Recent(size)
    for key in keys:
        recent.put(key, key)
    others = {key for key in range(10) if key in recent} - {dropped}
    recent.drop(dropped)
    assert recent.get(dropped) is None
    assert {key for key in range(10) if key in recent} == others
