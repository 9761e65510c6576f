"""The corridor's numbers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from consumer.core.backoff import Backoff

if TYPE_CHECKING:
    from datetime import datetime


@dataclass(frozen=True, slots=True)
class PipelineConfig:
    """The numbers of the corridor."""

    max_in_flight: int = 5000
    max_in_flight_bytes: int = 64 * 1024 * 1024
    batch_max_records: int = 100
    linger_s: float = 0.2
    drain_timeout_s: float = 25.0
    commit_interval_s: float = 1.0
    resolve_concurrency: int = 4
    message_concurrency: int = 12
    note_concurrency: int = 4
    dedup_horizon: int = 200_000
    breaker_count: int = 100
    since: datetime | None = None
    backoff: Backoff = field(default_factory=lambda: Backoff(base_s=0.5, cap_s=30.0))
