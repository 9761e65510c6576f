"""Acks and committable offsets, against a model made of plain sets."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from consumer.core.offsets import Ack, OffsetTracker
from tests.builders import partition

TP = partition()


@given(st.permutations(range(8)))
def test_only_the_settled_prefix_is_committable(order: list[int]) -> None:
    """In whatever order records are settled, nothing behind an unsettled one is committed."""
    tracker = OffsetTracker()
    acks = [tracker.issue(TP, offset) for offset in range(8)]
    settled: set[int] = set()
    for offset in order:
        acks[offset].settle()
        settled.add(offset)
        prefix = next(at for at in range(9) if at not in settled)
        assert tracker.committable().get(TP, 0) == prefix


@given(st.sets(st.integers(0, 100), min_size=1))
def test_offsets_may_have_gaps(offsets: set[int]) -> None:
    """Compacted topics and transactions leave numbers out."""
    tracker = OffsetTracker()
    for ack in [tracker.issue(TP, offset) for offset in sorted(offsets)]:
        ack.settle()
    assert tracker.committable() == {TP: max(offsets) + 1}


def test_records_out_of_order_are_refused() -> None:
    """A tracker that were lenient would overlook a gap; nor is anything of that partition committed any more."""
    tracker = OffsetTracker()
    tracker.issue(TP, 5).settle()
    waiting = tracker.issue(TP, 6)
    with pytest.raises(ValueError, match="order received"):
        tracker.issue(TP, 5)
    assert tracker.committable() == {}
    assert waiting.is_fenced()


def test_a_departure_is_clean_when_all_is_settled() -> None:
    """Nothing beyond the offset was handed out."""
    tracker = OffsetTracker()
    ack = tracker.issue(TP, 0)
    assert not tracker.is_clean(TP)
    ack.settle()
    assert tracker.is_clean(TP)


def test_a_departure_among_suspect_records_is_not_clean() -> None:
    """An earlier owner may have handled those behind."""
    tracker = OffsetTracker()
    tracker.issue(TP, 0, may_repeat=True).settle()
    assert not tracker.is_clean(TP)
    tracker.issue(TP, 1, may_repeat=False).settle()
    assert tracker.is_clean(TP)


class Offsets(RuleBasedStateMachine):
    """Takes, settles, commits and fences in any order."""

    @initialize()
    def begin(self) -> None:
        self.tracker = OffsetTracker()
        self.next_offset = 0
        self.open: dict[int, Ack] = {}
        self.stale: list[Ack] = []
        self.settled: set[int] = set()
        self.received: list[int] = []
        self.sent: list[int] = []
        self.confirmed = 0

    @rule(gap=st.integers(0, 2), size=st.integers(0, 50))
    def take(self, gap: int, size: int) -> None:
        self.next_offset += gap
        self.open[self.next_offset] = self.tracker.issue(TP, self.next_offset, size_bytes=size)
        self.received.append(self.next_offset)
        self.next_offset += 1

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def settle(self, data: st.DataObject) -> None:
        offset = data.draw(st.sampled_from(sorted(self.open)))
        self.open.pop(offset).settle()
        self.settled.add(offset)

    @precondition(lambda self: self.stale)
    @rule(data=st.data())
    def settle_late(self, data: st.DataObject) -> None:
        """Of an earlier assignment: counts for nothing."""
        data.draw(st.sampled_from(self.stale)).settle()

    @rule()
    def send_commit(self) -> None:
        self.sent += self.tracker.committable().values()

    @precondition(lambda self: self.sent)
    @rule(data=st.data())
    def confirm(self, data: st.DataObject) -> None:
        """Answers come in any order, late ones too."""
        offset = self.sent.pop(data.draw(st.integers(0, len(self.sent) - 1)))
        self.tracker.committed({TP: offset})
        self.confirmed = max(self.confirmed, offset)

    @rule()
    def fence(self) -> None:
        self.tracker.fence([TP])
        assert all(ack.is_fenced() for ack in self.open.values())
        self.stale += self.open.values()
        self.open, self.settled, self.received, self.sent = {}, set(), [], []
        self.next_offset = self.confirmed

    @invariant()
    def nothing_unsettled_is_committable(self) -> None:
        offset = self.tracker.committable().get(TP)
        if offset is not None:
            assert all(at in self.settled for at in self.received if at < offset)
            assert offset - 1 in self.settled

    @invariant()
    def all_of_the_prefix_is_committable(self) -> None:
        first_open = min(self.open, default=self.next_offset)
        prefix = [at for at in self.received if at < first_open]
        if prefix:
            assert self.tracker.committable(again=True) == {TP: prefix[-1] + 1}

    @invariant()
    def counts_agree(self) -> None:
        assert self.tracker.in_flight() == len(self.open)
        assert self.tracker.in_flight_bytes() == sum(ack.size_bytes for ack in self.open.values())
        assert self.tracker.uncommitted() >= len(self.open)


TestOffsets = Offsets.TestCase
