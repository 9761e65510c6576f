"""What the corridor tells of itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Collection

    from consumer.core.model import Deferred, Delivery, Record, Rejected, Stage, TopicPartition


class PipelineObserver(Protocol):
    """Told of what happens, for metrics and log."""

    def record_received(self, _record: Record) -> None:
        """A record was read."""

    def message_delivered(self, delivery: Delivery) -> None:
        """Lead, message and note stand."""

    def record_skipped(self, _record: Record, reason: str) -> None:
        """Nothing to write."""

    def record_duplicated(self, *, differs: bool) -> None:
        """The message is on its way or written already; `differs` when this event had other content."""

    def record_rejected(self, record: Record, rejected: Rejected) -> None:
        """The record stands in the dead-letter topic."""

    def delivery_deferred(self, delivery: Delivery, deferred: Deferred) -> None:
        """To be tried again."""

    def batch_done(self, stage: Stage, size: int, seconds: float) -> None:
        """A batch went through a stage."""

    def stage_failed(self, stage: Stage, error: Exception) -> None:
        """A fault of our own; its deliveries are tried again."""

    def dead_letter_failed(self, error: Exception) -> None:
        """The dead-letter topic did not take a record; it is tried again."""

    def committed(self, offsets: dict[TopicPartition, int]) -> None:
        """Kafka stored these offsets."""

    def commit_failed(self, reason: str) -> None:
        """Kafka did not, or nobody knows."""

    def partitions_assigned(self, partitions: Collection[TopicPartition]) -> None:
        """These are ours now."""

    def partitions_revoked(self, partitions: Collection[TopicPartition], *, unsettled: int) -> None:
        """These are no longer ours; `unsettled` records were left to their next owner."""
