"""When is a batch due, and what goes into it.

A batch is due when it is full, or when its oldest row has waited its linger.  Urgent rows (somebody waits for them)
pass bulk ones (a campaign), but bulk keeps a share of each batch, so that it always moves.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

_BULK_SHARE = 5
"""One row in five of a batch is bulk's while both kinds wait."""


class Batcher(Generic[T]):
    """Collects rows, each kind in order; `now` goes in, a decision comes out."""

    def __init__(self, *, max_records: int, linger_s: float) -> None:
        self._max_records = max_records
        self._linger_s = linger_s
        self._urgent: deque[tuple[T, float]] = deque()
        self._bulk: deque[tuple[T, float]] = deque()
        self._bulk_claim = 0
        """Of a row, in parts of `_BULK_SHARE`: small batches owe bulk a row only now and then."""

    def __len__(self) -> int:
        return len(self._urgent) + len(self._bulk)

    def add(self, row: T, *, now: float, is_bulk: bool = False) -> None:
        """Queue one row."""
        (self._bulk if is_bulk else self._urgent).append((row, now))

    def wait_s(self, now: float) -> float | None:
        """Seconds until a batch is due: 0 when it is, None when there is nothing to wait for."""
        if len(self) >= self._max_records:
            return 0.0
        oldest = min((lane[0][1] for lane in (self._urgent, self._bulk) if lane), default=None)
        return None if oldest is None else max(0.0, oldest + self._linger_s - now)

    def take(self) -> list[T]:
        """The next batch, at most `max_records` rows; empty when nothing is queued."""
        self._bulk_claim += self._max_records
        claimed, self._bulk_claim = divmod(self._bulk_claim, _BULK_SHARE)
        urgent = min(len(self._urgent), self._max_records - min(claimed, len(self._bulk)))
        bulk = min(len(self._bulk), self._max_records - urgent)
        return [lane.popleft()[0] for lane, count in ((self._urgent, urgent), (self._bulk, bulk)) for _ in range(count)]

    def purge(self, is_wanted: Callable[[T], bool]) -> list[T]:
        """Remove and return the rows that are not wanted."""
        dropped = [row for lane in (self._urgent, self._bulk) for row, _ in lane if not is_wanted(row)]
        if dropped:
            self._urgent = deque(pair for pair in self._urgent if is_wanted(pair[0]))
            self._bulk = deque(pair for pair in self._bulk if is_wanted(pair[0]))
        return dropped
