"""Full, or waited long enough; and who goes first: against two plain lists."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from consumer.core.batching import Batcher

Row = tuple[int, bool]


class Batches(RuleBasedStateMachine):
    """Adds, takes and purges while time passes."""

    @initialize(max_records=st.integers(1, 7), linger_s=st.sampled_from([0.0, 0.5, 2.0]))
    def begin(self, max_records: int, linger_s: float) -> None:
        self.batcher: Batcher[Row] = Batcher(max_records=max_records, linger_s=linger_s)
        self.max_records, self.linger_s = max_records, linger_s
        self.now = 100.0
        self.rows: list[tuple[Row, float]] = []
        self.count = 0

    @rule(seconds=st.floats(0, 3))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule(is_bulk=st.booleans())
    def add(self, is_bulk: bool) -> None:
        self.count += 1
        row = (self.count, is_bulk)
        self.rows.append((row, self.now))
        self.batcher.add(row, now=self.now, is_bulk=is_bulk)

    def _waiting(self, *, is_bulk: bool) -> list[Row]:
        return [row for row, _ in self.rows if row[1] == is_bulk]

    @rule()
    def take(self) -> None:
        urgent, bulk = self._waiting(is_bulk=False), self._waiting(is_bulk=True)
        taken = self.batcher.take()
        assert len(taken) == min(self.max_records, len(self.rows))
        for lane in (urgent, bulk):
            ours = [row for row in taken if row in lane]
            assert ours == lane[: len(ours)]
        self.rows = [(row, since) for row, since in self.rows if row not in taken]

    @rule(wanted=st.sampled_from([0, 1]))
    def purge(self, wanted: int) -> None:
        dropped = self.batcher.purge(lambda row: row[0] % 2 == wanted)
        assert sorted(dropped) == [row for row, _ in self.rows if row[0] % 2 != wanted]
        self.rows = [(row, since) for row, since in self.rows if row[0] % 2 == wanted]

    @invariant()
    def due_when_full_or_old(self) -> None:
        wait_s = self.batcher.wait_s(self.now)
        assert len(self.batcher) == len(self.rows)
        if not self.rows:
            assert wait_s is None
        elif len(self.rows) >= self.max_records:
            assert wait_s == 0
        else:
            assert wait_s == max(0.0, self.rows[0][1] + self.linger_s - self.now)


TestBatches = Batches.TestCase


@given(max_records=st.integers(1, 100))
def test_a_campaign_has_a_fifth_of_what_is_taken(max_records: int) -> None:
    """However small the batches, and however many chats wait."""
    batcher: Batcher[bool] = Batcher(max_records=max_records, linger_s=0.0)
    for is_bulk in (False, True):
        for _ in range(500):
            batcher.add(is_bulk, now=0.0, is_bulk=is_bulk)
    taken: list[bool] = []
    while len(taken) < 500:
        taken += batcher.take()
    assert abs(sum(taken) - len(taken) / 5) <= 1
