"""A token bucket: so many at once, and so many a second."""

from __future__ import annotations


class TokenBucket:
    """Moments are in seconds, of one clock; one that goes back adds nothing."""

    def __init__(self, *, burst: int, per_s: float) -> None:
        self._burst = burst
        self._per_s = per_s
        self._level = float(burst)
        self._at: float | None = None

    def empty_s(self, now: float) -> float:
        """How long until there is one; 0 while there is."""
        elapsed_s = 0.0 if self._at is None else max(0.0, now - self._at)
        self._level = min(float(self._burst), self._level + elapsed_s * self._per_s)
        self._at = now
        return 0.0 if self._level >= 1 else (1 - self._level) / self._per_s

    def wait_s(self, now: float) -> float:
        """Take one and return 0, or say how long until there is one."""
        wait_s = self.empty_s(now)
        if not wait_s:
            self._level -= 1
        return wait_s
