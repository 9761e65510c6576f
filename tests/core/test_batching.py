"""Full, or waited long enough: against a plain list."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from consumer.core.batching import Batcher


class Batches(RuleBasedStateMachine):
    """Adds, takes and purges while time passes."""

    @initialize(max_records=st.integers(1, 4), linger_s=st.sampled_from([0.0, 0.5, 2.0]))
    def begin(self, max_records: int, linger_s: float) -> None:
        self.batcher: Batcher[int] = Batcher(max_records=max_records, linger_s=linger_s)
        self.max_records, self.linger_s = max_records, linger_s
        self.now = 100.0
        self.rows: list[tuple[int, float]] = []
        self.count = 0

    @rule(seconds=st.floats(0, 3))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def add(self) -> None:
        self.count += 1
        self.rows.append((self.count, self.now))
        self.batcher.add(self.count, now=self.now)

    @rule()
    def take(self) -> None:
        taken, self.rows = self.rows[: self.max_records], self.rows[self.max_records :]
        assert self.batcher.take() == [row for row, _ in taken]

    @rule(wanted=st.sampled_from([0, 1]))
    def purge(self, wanted: int) -> None:
        dropped = self.batcher.purge(lambda row: row % 2 == wanted)
        assert dropped == [row for row, _ in self.rows if row % 2 != wanted]
        self.rows = [(row, since) for row, since in self.rows if row % 2 == wanted]

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
