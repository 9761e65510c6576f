"""What happens, told to metrics, to the log, and to the console's short memory.

One object behind the narrow observer interfaces of the rooms, so that no room knows of metrics or loggers.
"""

from __future__ import annotations

import time
from collections import OrderedDict, deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import structlog

from consumer.telemetry import metrics as m
from consumer.telemetry.log import mask

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from consumer.core.model import Deferred, Delivery, Record, Rejected, Stage, TopicPartition

_REMEMBERED_FAILURES = 200
_REMEMBERED_LATENCIES = 200
_QUIET_CODES = frozenset({"ok"})


@dataclass(slots=True)
class Failure:
    """Failures of one kind."""

    kind: str
    """`rejected`, `deferred`, `halted`, `kafka`, `dead_letter`."""
    code: str
    detail: str
    count: int = 0
    first_at: float = 0.0
    last_at: float = 0.0
    example: str = ""
    """`partition/offset` of the latest one, or what else is known of its place."""


class Recorder:
    """Observer of pipeline, Kafka room and Zoho room."""

    def __init__(self, metrics: m.Metrics, *, wall_clock: Callable[[], float] = time.time) -> None:
        self.metrics = metrics
        self._now = wall_clock
        self._log = structlog.get_logger("consumer")
        self._failures: OrderedDict[tuple[str, str, str], Failure] = OrderedDict()
        self.on_assignment: Callable[[int], None] = lambda _owned: None
        """Told how many partitions are ours, the moment that this changes."""
        self.on_setback: Callable[[Record, Rejected | None, str], None] = lambda _record, _rejected, _reason: None
        """Told of each record that was dead-lettered, or (without a rejection) skipped, and of the reason."""
        self.latencies_s: deque[float] = deque(maxlen=_REMEMBERED_LATENCIES)
        """Of the latest calls to Zoho."""

    # -- pipeline -----------------------------------------------------------------------------------------------

    def record_received(self, _record: Record) -> None:
        self.metrics.count(m.RECORDS)

    def message_delivered(self, delivery: Delivery) -> None:
        self.metrics.count(m.DELIVERED)
        self.metrics.observe(m.MESSAGE_AGE, max(0.0, self._now() - delivery.record.timestamp_ms / 1000))

    def record_skipped(self, record: Record, reason: str) -> None:
        self.metrics.count(m.SKIPPED, reason)
        self.on_setback(record, None, reason)

    def record_duplicated(self, *, differs: bool) -> None:
        self.metrics.count(m.DUPLICATES, str(differs).lower())

    def record_rejected(self, record: Record, rejected: Rejected) -> None:
        self.metrics.count(m.DEAD_LETTERS, rejected.stage.value, rejected.reason)
        place = _place(record.tp, record.offset)
        self._fail("rejected", rejected.reason, f"{rejected.stage}: {rejected.detail}".strip(": "), place)
        self.on_setback(record, rejected, rejected.reason)
        self._log.warning(
            "pipeline.record_dead_lettered",
            reason=rejected.reason,
            stage=rejected.stage.value,
            detail=rejected.detail,
            partition=record.tp.partition,
            offset=record.offset,
        )

    def delivery_deferred(self, delivery: Delivery, deferred: Deferred) -> None:
        self.metrics.count(m.DEFERRED, deferred.code)
        self._fail("deferred", deferred.code, "", _place(delivery.record.tp, delivery.record.offset))
        self._log.debug(
            "pipeline.delivery_deferred",
            code=deferred.code,
            stage=delivery.stage.value,
            attempts=delivery.attempts,
            partition=delivery.record.tp.partition,
            offset=delivery.record.offset,
        )

    def batch_done(self, stage: Stage, size: int, seconds: float) -> None:
        self.metrics.observe(m.BATCH_SIZE, size, stage.value)
        self.metrics.observe(m.BATCH_SECONDS, seconds, stage.value)
        self._log.debug("pipeline.batch_done", stage=stage.value, size=size, seconds=round(seconds, 3))

    def stage_failed(self, stage: Stage, error: Exception) -> None:
        self.metrics.count(m.STAGE_FAULTS, stage.value)
        self._log.error("pipeline.stage_failed", stage=stage.value, exc_info=error)

    def dead_letter_failed(self, error: Exception) -> None:
        self.metrics.count(m.DEAD_LETTER_FAILURES)
        self._fail("dead_letter", str(getattr(error, "code", type(error).__name__)), "", "")
        self._log.error("kafka.dead_letter_failed", error=mask(str(error)))

    def committed(self, offsets: dict[TopicPartition, int]) -> None:
        self.metrics.count(m.COMMITS)
        self.metrics.put(m.LAST_COMMIT, self._now())
        self._log.debug("kafka.offsets_committed", offsets={tp.partition: at for tp, at in offsets.items()})

    def commit_failed(self, reason: str) -> None:
        self.metrics.count(m.COMMIT_FAILURES, reason)
        self._log.warning("kafka.commit_failed", reason=reason)

    def partitions_assigned(self, partitions: Collection[TopicPartition]) -> None:
        self.metrics.put(m.ASSIGNED, len(partitions))
        self.on_assignment(len(partitions))
        self._log.info("kafka.partitions_assigned", partitions=sorted(tp.partition for tp in partitions))

    def partitions_revoked(self, partitions: Collection[TopicPartition], *, unsettled: int) -> None:
        if partitions:
            self.metrics.count(m.REBALANCES)
        self.metrics.put(m.ASSIGNED, 0)
        self.on_assignment(0)
        numbers = sorted(tp.partition for tp in partitions)
        self._log.info("kafka.partitions_revoked", partitions=numbers, unsettled=unsettled)

    # -- Kafka room ---------------------------------------------------------------------------------------------

    def partition_opened(self, tp: TopicPartition, offset: int, why: str) -> None:
        self._log.info("kafka.partition_opened", partition=tp.partition, offset=offset, start=why)

    def partition_halted(self, tp: TopicPartition, code: str, advice: str) -> None:
        self._fail("halted", code, advice, str(tp.partition))
        self._log.error("kafka.partition_halted", partition=tp.partition, code=code, advice=advice)

    def kafka_failed(self, what: str, error: BaseException) -> None:
        self.metrics.count(m.KAFKA_FAILURES, what)
        self._fail("kafka", type(error).__name__, what, "")
        self._log.warning("kafka.call_failed", call=what, error=type(error).__name__)

    # -- Zoho room ----------------------------------------------------------------------------------------------

    def called(
        self, operation: str, *, credits_used: int, code: str, seconds: float, credits_remaining: int | None
    ) -> None:
        self.metrics.count(m.CALLS, operation, code)
        self.metrics.observe(m.CALL_SECONDS, seconds, operation)
        self.latencies_s.append(seconds)
        self.metrics.count(m.CREDITS, operation, by=credits_used)
        if credits_remaining is not None:
            self.metrics.put(m.CREDITS_LEFT, credits_remaining)
        if code not in _QUIET_CODES:
            self._log.warning("zoho.call_failed", operation=operation, code=code, seconds=round(seconds, 3))

    def token_refreshed(self, outcome: str) -> None:
        """A refresh ended."""
        self.metrics.count(m.TOKEN_REFRESHES, outcome)
        log = self._log.info if outcome == "ok" else self._log.error
        log("zoho.token_refreshed", outcome=outcome)

    def halted(self, operation: str, code: str, advice: str) -> None:
        """Work of this kind waits for a cause outside the messages."""
        self._fail("halted", code, advice, operation)
        self._log.error("zoho.work_halted", operation=operation, code=code, advice=advice)

    def resumed(self, operation: str) -> None:
        """The cause is gone."""
        self._log.info("zoho.work_resumed", operation=operation)

    def people_resolved(self, how: str, count: int) -> None:
        if count:
            self.metrics.count(m.PEOPLE, how, by=count)

    def person_ambiguous(self, _hits: int) -> None:
        self.metrics.count(m.AMBIGUOUS)

    def lead_withdrawn(self, lead_id: str, kept_id: str, *, is_deleted: bool) -> None:
        self.metrics.count(m.WITHDRAWN, str(is_deleted).lower())
        self._log.warning("zoho.lead_withdrawn", lead_id=lead_id, kept_id=kept_id, is_deleted=is_deleted)

    def field_missing(self, module: str, field: str) -> None:
        """The organisation's module lacks a field that we would write."""
        self._log.warning("zoho.field_missing", module=module, field=field, advice="run `zoho-sync setup`")

    # -- console ------------------------------------------------------------------------------------------------

    def failures(self) -> list[Failure]:
        """Failures by kind, latest first."""
        return sorted(self._failures.values(), key=lambda failure: -failure.last_at)

    def _fail(self, kind: str, code: str, detail: str, example: str) -> None:
        key = (kind, code, detail)
        now = self._now()
        failure = self._failures.pop(key, None) or Failure(kind, code, detail, first_at=now)
        failure.count += 1
        failure.last_at = now
        failure.example = example or failure.example
        self._failures[key] = failure
        if len(self._failures) > _REMEMBERED_FAILURES:
            self._failures.popitem(last=False)

    def log(self, event: str, **fields: Any) -> None:
        """A line of information."""
        self._log.info(event, **fields)

    def warn(self, event: str, **fields: Any) -> None:
        """A line that somebody should read."""
        self._log.warning(event, **fields)


def _place(tp: TopicPartition, offset: int) -> str:
    return f"{tp.partition}/{offset}"
