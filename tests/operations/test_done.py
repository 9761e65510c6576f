"""Which dead letters have been dealt with."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from consumer.operations.dlq.done import Done

OFFSETS = st.sets(st.integers(0, 60))


@given(start=st.integers(0, 10), added=st.lists(st.integers(0, 60)))
def test_knows_exactly_what_was_added(start: int, added: list[int]) -> None:
    """In whatever order offsets are dealt with, those and what lies before the prefix are known, and no others."""
    done = Done(start)
    for offset in added:
        done.add(offset)
    assert {offset for offset in range(70) if offset in done} == set(range(start)) | set(added)


@given(start=st.integers(0, 1_000_000), added=OFFSETS)
def test_survives_the_commit(start: int, added: set[int]) -> None:
    """What is stored as offset and text is read back as the same."""
    done = Done(start)
    for offset in added:
        done.add(start + offset)
    again = Done.parse(done.prefix, done.text())
    assert again.prefix == done.prefix
    assert [offset in again for offset in range(start, start + 70)] == [
        offset in done for offset in range(start, start + 70)
    ]


@given(added=OFFSETS)
def test_prefix_moves_as_far_as_it_can(added: set[int]) -> None:
    """The committed offset is the first that has not been dealt with, so the group's lag is the backlog."""
    done = Done()
    for offset in added:
        done.add(offset)
    assert done.prefix == next(offset for offset in range(70) if offset not in added)


def test_text_fits_into_a_commit() -> None:
    """However many holes there are, the broker takes the text; what finds no room counts as not dealt with."""
    done = Done()
    for offset in range(1, 40_000, 2):
        done.add(offset)
    assert len(done.text()) < 4096
    again = Done.parse(done.prefix, done.text())
    assert 1 in again
    assert 0 not in again
    assert 39_999 not in again
    assert not done.is_kept_in(done.prefix, done.text())


@given(added=OFFSETS)
def test_knows_whether_it_was_kept(added: set[int]) -> None:
    """A commit keeps everything with its text, and nothing beyond the prefix without."""
    done = Done()
    for offset in added:
        done.add(offset)
    assert done.is_kept_in(done.prefix, done.text())
    assert done.is_kept_in(done.prefix, "") is not done.has_holes


def test_somebody_elses_text_is_no_memory() -> None:
    """A commit made with another tool moves the prefix and nothing else."""
    assert 8 not in Done.parse(5, "consumer-groups tool 3-9")
    assert 8 not in Done.parse(5, "zr1 x-9 3")
    assert 4 in Done.parse(5, None)
