"""Credits per rolling day, and calls in flight."""

from __future__ import annotations

from collections import deque

from sandbox.zoho.config import SandboxConfig
from sandbox.zoho.errors import row_error
from sandbox.zoho.model import Json

DAY_S = 86_400.0


class CreditLedger:
    """Credits spent in the last 24 hours; each counts from the start of its call."""

    def __init__(self) -> None:
        self._spent: deque[tuple[float, int]] = deque()
        self._used = 0

    def used(self, now_s: float) -> int:
        """Credits spent within the last 24 hours."""
        while self._spent and self._spent[0][0] <= now_s - DAY_S:
            self._used -= self._spent.popleft()[1]
        return self._used

    def spend(self, credits: int, *, now_s: float) -> None:
        """Books credits at the start of a call."""
        self._spent.append((now_s, credits))
        self._used += credits


class Concurrency:
    """Calls in flight, all of them and the heavy ones."""

    def __init__(self) -> None:
        self.in_flight = 0
        self.heavy_in_flight = 0

    def enter(self, *, is_heavy: bool) -> None:
        """A call takes its slot."""
        self.in_flight += 1
        self.heavy_in_flight += is_heavy

    def leave(self, *, is_heavy: bool) -> None:
        """A call gives its slot back."""
        self.in_flight -= 1
        self.heavy_in_flight -= is_heavy

    def has_room(self, config: SandboxConfig, *, is_heavy: bool) -> bool:
        """May one more call come in?"""
        if self.in_flight >= config.call_limit:
            return False
        return not is_heavy or self.heavy_in_flight < config.heavy_concurrency


def throttle_body(config: SandboxConfig, *, form: str | None = None) -> Json:
    """The body of a 429 in the form that the organisation is set to; no form is confirmed by a live capture."""
    match form or config.throttle_form:
        case "rate_limit_exceeded":
            return row_error("RATE_LIMIT_EXCEEDED", "Too many requests. Please try again later.")
        case "trace":
            details = {"trace_id": "5a1b2c3d4e5f", "retry_after": config.retry_after_s or 60}
            return row_error("TOO_MANY_REQUESTS", "Too many requests.", details)
        case _:
            message = "many requests fired in concurrent than the allowed limit."
            return row_error("TOO_MANY_REQUESTS", message)
