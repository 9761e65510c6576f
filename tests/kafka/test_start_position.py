"""Where a partition begins, decided from what the group has committed."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from consumer.kafka.start_position import CommitNote, Committed, From, Start, group_note, start_of

_NOTES = st.builds(
    CommitNote,
    born_ms=st.integers(0, 2**42),
    partitions=st.integers(0, 10_000),
    is_clean=st.booleans(),
    is_halted=st.booleans(),
)


@given(_NOTES)
def test_a_note_survives_its_text(note: CommitNote) -> None:
    """What a commit says is read back, and is short."""
    assert CommitNote.parse(note.text()) == note
    assert len(note.text()) <= 70


@given(st.text(max_size=40) | st.none())
def test_a_foreign_text_is_no_note(text: str | None) -> None:
    """Texts of other programs beside an offset are ignored."""
    assert CommitNote.parse(text) is None


def test_a_group_without_offsets_begins_at_the_end_or_the_date() -> None:
    """At the end of the topic, or where the operator's date is."""
    note = group_note({}, partitions=3, now_ms=5)
    assert note == CommitNote(5, 3)
    assert start_of(0, {}, note, since_ms=None) == Start(From.END)
    assert start_of(0, {}, note, since_ms=7) == Start(From.TIME, time_ms=7)


def test_a_committed_partition_goes_on_there() -> None:
    """After a clean end nothing can repeat; after any other end, or another program's commit, it may."""
    for note, may_repeat in ((CommitNote(1, 2, is_clean=True), False), (CommitNote(1, 2), True), (None, True)):
        committed = {0: Committed(9, note)}
        start = start_of(0, committed, group_note(committed, partitions=2, now_ms=5), since_ms=7)
        assert start == Start(From.OFFSET, offset=9, may_repeat=may_repeat)


def test_a_halted_partition_stays_halted() -> None:
    """The next owner is told that the records at the offset are gone."""
    committed = {0: Committed(9, CommitNote(1, 2, is_halted=True))}
    assert start_of(0, committed, CommitNote(1, 2), since_ms=None).is_halted


def test_a_partition_that_was_added_begins_at_its_beginning() -> None:
    """Its messages are new, whatever the date: it did not exist when the group was born."""
    committed = {0: Committed(9, CommitNote(1, 1)), 1: Committed(4, CommitNote(3, 1))}
    note = group_note(committed, partitions=3, now_ms=5)
    assert note == CommitNote(1, 1)
    assert start_of(2, committed, note, since_ms=7) == Start(From.BEGINNING)


def test_a_partition_that_was_never_opened_begins_where_the_group_was_born() -> None:
    """A crash between the first commits loses nothing that came meanwhile."""
    committed = {0: Committed(9, CommitNote(100, 2))}
    note = group_note(committed, partitions=2, now_ms=500)
    assert start_of(1, committed, note, since_ms=None) == Start(From.TIME, time_ms=100)
    assert start_of(1, committed, note, since_ms=7) == Start(From.TIME, time_ms=7)
