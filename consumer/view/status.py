"""The console's first page, from gauges, counters and the rooms themselves."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING, Any

from consumer.telemetry import metrics as m
from consumer.telemetry.health import waits_for
from consumer.telemetry.log import mask
from consumer.web.view import Counted, FailureRow, HaltRow, PartitionRow, Status, ZohoRow

if TYPE_CHECKING:
    from collections.abc import Iterable

    from consumer.telemetry.recorder import Recorder
    from consumer.view.parts import ServiceParts

_FAILURES = 30


def counted(pairs: Iterable[tuple[str, float]]) -> Counted:
    """Counts by name, most first."""
    totals: dict[str, int] = {}
    for name, count in pairs:
        totals[name] = totals.get(name, 0) + int(count)
    return tuple(sorted(totals.items(), key=lambda pair: (-pair[1], pair[0])))


def status_of(service: ServiceParts, *, version: str, loop_now: float, wall_now: float) -> Status:
    """Everything at one moment."""
    service.refresh_gauges()
    recorder, snapshot = service.recorder, service.snapshot()
    metrics = recorder.metrics
    partitions = tuple(_partitions(service, loop_now))
    return Status(
        version=version,
        state=service.health().state.value,
        waiting_for=snapshot.waiting_for,
        not_yet=waits_for(snapshot),
        halts=tuple(HaltRow(halt.code, halt.advice, max(0.0, loop_now - halt.since)) for halt in snapshot.halts),
        received=int(metrics.value(m.RECORDS)),
        delivered=int(metrics.value(m.DELIVERED)),
        duplicates=int(sum(metrics.series(m.DUPLICATES).values())),
        skipped=counted((labels[0], count) for labels, count in metrics.series(m.SKIPPED).items()),
        dead_letters=counted((labels[1], count) for labels, count in metrics.series(m.DEAD_LETTERS).items()),
        in_flight=snapshot.in_flight,
        blocked=snapshot.blocked,
        held=service.pipeline.held_dead_letters(),
        lag=snapshot.lag,
        oldest_s=max((row.oldest_s for row in partitions if row.oldest_s is not None), default=None),
        behind_s=_behind_s(service, wall_now),
        partitions=partitions,
        zoho=_zoho(service, wall_now, loop_now),
        failures=failure_rows(recorder, wall_now),
    )


def _partitions(service: ServiceParts, loop_now: float) -> Iterable[PartitionRow]:
    lags, tracker = service.source.lag(), service.pipeline.tracker
    for tp in sorted(service.source.assignment()):
        oldest = tracker.oldest(tp)
        oldest_s = None if oldest is None else max(0.0, loop_now - oldest.received_at)
        yield PartitionRow(tp.partition, lags.get(tp, 0), tracker.in_flight(tp), oldest_s)


def _behind_s(service: ServiceParts, wall_now: float) -> float | None:
    written_ms = [delivery.record.timestamp_ms for delivery in service.pipeline.dedup.deliveries()]
    return max(0.0, wall_now - min(written_ms) / 1000) if written_ms else None


def _zoho(service: ServiceParts, wall_now: float, loop_now: float) -> ZohoRow:
    zoho, metrics = service.zoho, service.recorder.metrics
    limiter, expires_at = zoho.limiter, zoho.tokens.expires_at
    budget = limiter.budget
    return ZohoRow(
        has_token=expires_at is not None,
        token_ends_in_s=None if expires_at is None else max(0.0, expires_at - wall_now),
        credits_used=limiter.ledger.used(loop_now),
        credits_budget=None if budget is None else int(budget),
        credits_left=limiter.credits_remaining,
        credits_out_in_s=limiter.exhausted_in_s(loop_now),
        calls=int(sum(metrics.series(m.CALLS).values())),
        calls_in_flight=limiter.in_flight,
        calls_allowed=int(metrics.value(m.CALLS_ALLOWED)),
        calls_waiting=zoho.turnstile.waiting,
        waiting_for=zoho.turnstile.reason,
        throttles=limiter.throttles,
        **_latency(service.recorder),
    )


def _latency(recorder: Recorder) -> dict[str, Any]:
    latencies = sorted(recorder.latencies_s)
    if not latencies:
        return {"latency_median_s": None, "latency_p95_s": None}
    last = len(latencies) - 1
    return {"latency_median_s": statistics.median(latencies), "latency_p95_s": latencies[round(last * 0.95)]}


def failure_rows(recorder: Recorder, wall_now: float) -> tuple[FailureRow, ...]:
    """The latest failures by kind."""
    return tuple(
        FailureRow(
            failure.kind,
            failure.code,
            mask(failure.detail),
            failure.count,
            max(0.0, wall_now - failure.last_at),
            failure.example,
        )
        for failure in recorder.failures()[:_FAILURES]
    )
