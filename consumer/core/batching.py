"""When is a batch due: it is full, or its oldest row has waited its linger."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


class Batcher(Generic[T]):
    """Collects rows in order; `now` goes in, a decision comes out."""

    def __init__(self, *, max_records: int, linger_s: float) -> None:
        self._max_records = max_records
        self._linger_s = linger_s
        self._rows: deque[tuple[T, float]] = deque()

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, row: T, *, now: float) -> None:
        """Queue one row."""
        self._rows.append((row, now))

    def wait_s(self, now: float) -> float | None:
        """Seconds until a batch is due: 0 when it is, None when there is nothing to wait for."""
        if not self._rows:
            return None
        if len(self._rows) >= self._max_records:
            return 0.0
        return max(0.0, self._rows[0][1] + self._linger_s - now)

    def take(self) -> list[T]:
        """The next batch, oldest first, at most `max_records` rows; empty when nothing is queued."""
        count = min(self._max_records, len(self._rows))
        return [self._rows.popleft()[0] for _ in range(count)]

    def purge(self, is_wanted: Callable[[T], bool]) -> list[T]:
        """Remove and return the rows that are not wanted."""
        dropped = [row for row, _ in self._rows if not is_wanted(row)]
        if dropped:
            self._rows = deque((row, since) for row, since in self._rows if is_wanted(row))
        return dropped
