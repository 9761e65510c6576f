"""Full, or waited long enough; and who goes first: against two plain lists."""

from __future__ import annotations

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
        self.rows_for_both = self.rows_for_bulk = 0

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
        if len(urgent) >= self.max_records and bulk:
            self._both_move([row[1] for row in taken])
        self.rows = [(row, since) for row, since in self.rows if row not in taken]

    def _both_move(self, taken_from_bulk: list[bool]) -> None:
        """Where more wait than a batch holds, bulk gets a row in five, however small the batches; the rest is urgent."""
        self.rows_for_both += len(taken_from_bulk)
        self.rows_for_bulk += sum(taken_from_bulk)
        assert self.rows_for_bulk >= self.rows_for_both // 5 - 1
        assert sum(taken_from_bulk) <= max(1, len(taken_from_bulk) // 5 + 1)

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
