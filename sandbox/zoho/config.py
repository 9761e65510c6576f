"""Everything about the stand-in that a test can choose: the organisation, its limits, and Zoho's open points.

Where Zoho's sources contradict each other, or say nothing, there is a switch, and the client has to cope with each of
its positions. The defaults follow the newest documentation, or the stricter reading.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

Edition = Literal["free", "standard", "professional", "enterprise", "ultimate"]
Span = tuple[float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Chaos:
    """Probabilities (0 to 1, per call) of random trouble, drawn from the engine's seed."""

    commit_then_drop: float = 0.0
    drop_before_commit: float = 0.0
    late_effect: float = 0.0
    server_error: float = 0.0
    throttled: float = 0.0
    garbled: float = 0.0
    row_fault: float = 0.0
    token_fault: float = 0.0
    late_effect_s: Span = (1.0, 60.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class SandboxConfig:
    """The organisation and its behaviour; replaced as a whole when a test changes it at run time."""

    # The organisation
    edition: Edition = "enterprise"
    users: int = 10
    data_center: str = "us"
    org_type: Literal["production", "developer", "sandbox"] = "production"
    api_domain: str | None = None
    utc_offset_min: int = -420
    time_zone: str = "America/Phoenix"

    # Latency of a call; the median, with half of the calls between 0.9 and 1 times of it, nearly all of the rest
    # up to 2.25 times, and 2 % beyond. 0 turns latency off.
    latency_median_s: float = 0.4
    effect_at: Literal["begin", "finish"] = "begin"

    # OAuth
    access_token_life_s: float = 3600.0
    auth_code_life_s: float = 180.0
    access_tokens_per_window: int = 10
    token_window_s: float = 600.0
    active_access_tokens: int = 15
    refresh_tokens_per_user: int = 20
    codes_per_window: int = 10
    token_throttle_status: Literal[200, 400] = 400
    token_throttle_prolongs: bool = True
    expires_in_form: Literal["seconds", "omitted", "milliseconds"] = "seconds"
    scope_in_token_answer: bool = True
    invalid_token_code: Literal["INVALID_TOKEN", "AUTHENTICATION_FAILURE"] = "INVALID_TOKEN"
    scope_mismatch_status: Literal[401, 403] = 401
    inactive_user: Literal["authentication_failure", "no_permission"] = "authentication_failure"

    # Limits; None takes the edition's value
    daily_credits: int | None = None
    concurrency: int | None = None
    heavy_concurrency: int = 10
    search_is_heavy: bool = False
    throttle_form: Literal["too_many_requests", "rate_limit_exceeded", "trace"] = "too_many_requests"
    retry_after_s: int | None = None
    throttled_call_costs_credit: bool = False
    note_credits: Literal["per_10", "flat"] = "per_10"

    # Answers
    all_failed_status: Literal[400, 202] = 400
    mixed_status: Literal[207, 200] = 207
    auth_error_envelope: Literal["top", "data"] = "top"
    duplicate_form: Literal["v8", "id_only", "api_name_and_id", "no_id"] = "v8"
    lookup_fault_form: Literal["field", "id"] = "field"
    stale_lead_code: Literal["INVALID_DATA", "CONVERTED_RECORD"] = "INVALID_DATA"
    unique_as: Literal["case_sensitive", "casesensitive"] = "case_sensitive"

    # Records
    same_key_in_one_batch: Literal["update", "duplicate"] = "update"
    unknown_keys: Literal["ignore", "reject"] = "ignore"
    unknown_params: Literal["reject", "ignore"] = "reject"
    naive_datetimes: bool = False
    note_needs: Literal["content_or_title", "content"] = "content_or_title"
    max_body_bytes: int = 10_000_000

    # Search and queries
    search_lag_s: Span = (20.0, 120.0)
    coql_lag_s: Span = (0.0, 0.0)
    phone_search: Literal["either_suffix", "stored_suffix"] = "either_suffix"
    search_criteria_limit: Literal[10, 15] = 10
    coql_notes: bool = False
    coql_finds_converted: bool = True

    # Random trouble
    chaos: Chaos = field(default_factory=Chaos)

    @property
    def credit_limit(self) -> int:
        """Credits per rolling 24 hours [v8 api-limits]."""
        return self.daily_credits if self.daily_credits is not None else edition_credits(self.edition, self.users)

    @property
    def call_limit(self) -> int:
        """Calls in flight at once, per organisation and app [v8 api-limits]."""
        return self.concurrency if self.concurrency is not None else _CONCURRENCY[self.edition]


_CONCURRENCY: dict[Edition, int] = {
    "free": 5,
    "standard": 10,
    "professional": 15,
    "enterprise": 20,
    "ultimate": 25,
}
_CREDITS_PER_USER: dict[Edition, int] = {
    "free": 0,
    "standard": 250,
    "professional": 500,
    "enterprise": 1000,
    "ultimate": 2000,
}
_CREDIT_CAP: dict[Edition, int] = {
    "free": 5_000,
    "standard": 100_000,
    "professional": 3_000_000,
    "enterprise": 5_000_000,
}


def edition_credits(edition: Edition, users: int) -> int:
    """Credits per rolling 24 hours: a base, a share per user, and a cap [v8 api-limits]."""
    base = 5_000 if edition == "free" else 50_000
    credits = base + _CREDITS_PER_USER[edition] * users
    return min(credits, _CREDIT_CAP.get(edition, credits))
