"""The metric catalogue: every name, type, label and meaning in one place.  docs/metrics.md is generated from it.

Labels have few values, and never an id, a number or a text.  Moments are exported as timestamps, not as ages.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from enum import Enum
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info

_PREFIX = "zoho_sync_"
_LATENCY_S = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_AGE_S = (0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0, 14_400.0, 86_400.0)
_SIZES = (1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 75.0, 99.0, 100.0)


class MetricKind(Enum):
    """Prometheus types."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"
    INFO = "info"


@dataclass(frozen=True, slots=True, eq=False)
class MetricDef:
    """One row of the catalogue; `name` is without prefix and, for counters, without `_total`.  Equal only to itself."""

    name: str
    kind: MetricKind
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()

    @property
    def full_name(self) -> str:
        """As Prometheus shows it."""
        suffixes = {MetricKind.COUNTER: "_total", MetricKind.INFO: "_info"}
        return f"{_PREFIX}{self.name}{suffixes.get(self.kind, '')}"


def _counter(name: str, text: str, *labels: str) -> MetricDef:
    return MetricDef(name, MetricKind.COUNTER, text, labels)


def _gauge(name: str, text: str, *labels: str) -> MetricDef:
    return MetricDef(name, MetricKind.GAUGE, text, labels)


def _histogram(name: str, text: str, buckets: tuple[float, ...], *labels: str) -> MetricDef:
    return MetricDef(name, MetricKind.HISTOGRAM, text, labels, buckets)


RECORDS = _counter("records_received", "Records read from the topic.")
DELIVERED = _counter("messages_delivered", "Messages whose lead, record and note stand in Zoho.")
SKIPPED = _counter("records_skipped", "Records with nothing to write, by reason.", "reason")
DUPLICATES = _counter(
    "records_duplicated", "Records whose message was on its way or written; differs=true: other content.", "differs"
)
DEAD_LETTERS = _counter("dead_letters", "Records stored in the dead-letter topic.", "stage", "reason")
DEAD_LETTER_FAILURES = _counter("dead_letter_failures", "Attempts that the dead-letter topic did not take.")
DEFERRED = _counter("deliveries_deferred", "Deliveries put off for a later attempt, by code.", "code")
STAGE_FAULTS = _counter("stage_faults", "Faults of our own in a stage; its deliveries are tried again.", "stage")
BATCH_SIZE = _histogram("batch_records", "Deliveries of one batch of a stage.", _SIZES, "stage")
BATCH_SECONDS = _histogram("batch_duration_seconds", "Time of one batch in a stage.", _LATENCY_S, "stage")
MESSAGE_AGE = _histogram("message_age_seconds", "From the record's Kafka timestamp to its delivery.", _AGE_S)
IN_FLIGHT = _gauge("in_flight_records", "Records read and not settled.")
OLDEST = _gauge(
    "oldest_unsettled_timestamp_seconds", "Kafka receive time of the oldest unsettled record; 0: none.", "partition"
)
LAG = _gauge("partition_lag_records", "Records between position and end of an assigned partition.", "partition")
ASSIGNED = _gauge("assigned_partitions", "Partitions that this process owns.")
BLOCKED = _gauge("blocked_records", "Records that Zoho keeps refusing for now (three attempts and more).")
HELD = _gauge("held_dead_letters", "Rejections that are not in the dead-letter topic yet.")
COMMITS = _counter("commits", "Offset commits that Kafka confirmed.")
COMMIT_FAILURES = _counter("commit_failures", "Offset commits that failed, by reason.", "reason")
LAST_COMMIT = _gauge("last_commit_timestamp_seconds", "When Kafka last confirmed an offset of this process.")
REBALANCES = _counter("rebalances", "Times that partitions were taken away.")
KAFKA_FAILURES = _counter("kafka_failures", "Failed calls to the brokers, by what was asked.", "call")
CALLS = _counter("zoho_requests", "Calls to Zoho, every attempt, by operation and code.", "operation", "code")
CALL_SECONDS = _histogram("zoho_request_duration_seconds", "Time of a call to Zoho.", _LATENCY_S, "operation")
CREDITS = _counter("zoho_credits", "API credits used, as Zoho counts them.", "operation")
CREDITS_DAY = _gauge("zoho_credits_used_day", "API credits of this process in the last 24 hours.")
CREDITS_LEFT = _gauge("zoho_credits_remaining", "Credits left for the organisation as Zoho last said; -1: it did not.")
CREDITS_OUT = _gauge("zoho_credits_exhausted_timestamp_seconds", "When credits run out at this pace; 0: they do not.")
CALLS_IN_FLIGHT = _gauge("zoho_requests_in_flight", "Calls to Zoho that wait for an answer.")
CALLS_ALLOWED = _gauge("zoho_concurrency_limit", "Calls that this process may have in flight now.")
CALLS_WAITING = _gauge("zoho_requests_waiting", "Calls that wait for a permit.")
TOKEN_REFRESHES = _counter("token_refreshes", "Access token refreshes, by outcome.", "outcome")
TOKEN_EXPIRY = _gauge("token_expiry_timestamp_seconds", "When the current access token ends; 0: there is none.")
HALTED = _gauge("halted", "1 while work waits for a cause outside the messages, by cause.", "code")
PEOPLE = _counter("people_resolved", "People found or created, by how.", "how")
AMBIGUOUS = _counter("people_ambiguous", "People whose number stands in several records.")
WITHDRAWN = _counter("leads_withdrawn", "Leads taken back because another process had created the person.", "deleted")
LINKS = _counter("link_requests", "Answers to requests for dialog links, by state and reason.", "state", "reason")
LOOP_LAG = _gauge("event_loop_lag_seconds", "How late the event loop last was.")
BUILD = MetricDef("build", MetricKind.INFO, "Version of the service.")

CATALOGUE = tuple(value for value in list(globals().values()) if isinstance(value, MetricDef))


class Metrics:
    """The catalogue, registered."""

    def __init__(self, *, version: str) -> None:
        self.registry = CollectorRegistry()
        self._made: dict[MetricDef, Any] = {definition: self._make(definition) for definition in CATALOGUE}
        self._made[BUILD].info({"version": version})

    def _make(self, definition: MetricDef) -> Any:
        name, labels = f"{_PREFIX}{definition.name}", definition.labels
        if definition.kind is MetricKind.HISTOGRAM:
            return Histogram(name, definition.help, labels, buckets=definition.buckets, registry=self.registry)
        kinds = {MetricKind.COUNTER: Counter, MetricKind.GAUGE: Gauge, MetricKind.INFO: Info}
        return kinds[definition.kind](name, definition.help, labels, registry=self.registry)

    def count(self, definition: MetricDef, *labels: str, by: float = 1.0) -> None:
        """Raise a counter."""
        metric = self._made[definition]
        (metric.labels(*labels) if labels else metric).inc(by)

    def observe(self, definition: MetricDef, value: float, *labels: str) -> None:
        """Add to a histogram."""
        metric = self._made[definition]
        (metric.labels(*labels) if labels else metric).observe(value)

    def put(self, definition: MetricDef, value: float, *labels: str) -> None:
        """Set a gauge."""
        metric = self._made[definition]
        (metric.labels(*labels) if labels else metric).set(value)

    def clear(self, definition: MetricDef) -> None:
        """Forget all label values of a gauge."""
        self._made[definition].clear()

    def value(self, definition: MetricDef, *labels: str) -> float:
        """Current value of one series; 0 when it was never set."""
        names = dict(zip(definition.labels, labels, strict=True))
        return self.registry.get_sample_value(definition.full_name, names) or 0.0

    def series(self, definition: MetricDef) -> dict[tuple[str, ...], float]:
        """All series of a counter or gauge, by label values."""
        found: dict[tuple[str, ...], float] = {}
        for family in self._made[definition].collect():
            for sample in family.samples:
                if sample.name == definition.full_name:
                    found[tuple(sample.labels[name] for name in definition.labels)] = sample.value
        return found


_PREAMBLE = """\
# Metrics

`GET /metrics`, Prometheus text. Generated by `python -m consumer.telemetry.metrics > docs/metrics.md` from the
catalogue in that module.

Each process tells of itself: sum counters over all of them; `zoho_sync_partition_lag_records` stands for a partition,
so take its maximum. Moments are Unix times: age is `time() - metric`, where 0 stands for "none". Labels never hold an
id, a number or a text.

"""


def document() -> str:
    """docs/metrics.md."""
    lines = ["| metric | type | labels | meaning |", "| --- | --- | --- | --- |"]
    for definition in CATALOGUE:
        labels = ", ".join(definition.labels) or "-"
        lines.append(f"| `{definition.full_name}` | {definition.kind.value} | {labels} | {definition.help} |")
    return _PREAMBLE + "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.stdout.write(document())
