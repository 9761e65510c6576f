"""How long until the next attempt?  Exponential with full jitter.

Full jitter spreads retries best (AWS Architecture Blog, "Exponential Backoff And Jitter").
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Backoff:
    """Attempt n waits a random time up to base * 2**n seconds, never above `cap_s`."""

    base_s: float = 0.5
    cap_s: float = 30.0

    def ceiling_s(self, attempt: int) -> float:
        """The longest wait after the given attempt, which counts from 1."""
        return min(self.cap_s, self.base_s * 2.0 ** min(attempt, 32))

    def wait_s(self, attempt: int, *, random: float, retry_after_s: float | None = None) -> float:
        """Seconds to wait; `random` is in [0, 1).  What the server asks for wins, and is never shortened."""
        wait_s = self.ceiling_s(attempt) * random
        return wait_s if retry_after_s is None else retry_after_s + min(wait_s, 1.0)
