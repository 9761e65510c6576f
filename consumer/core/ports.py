"""What the corridor needs from the rooms beside it, in its own words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Collection, Hashable, Mapping, Sequence

    from consumer.core.model import Deferred, Delivered, Delivery, Parent, Record, Rejected, TopicPartition


class RebalanceListener(Protocol):
    """Told by the source when partitions come and go; runs inside the rebalance, so it is bounded in time."""

    async def on_revoked(self, partitions: Collection[TopicPartition]) -> None:
        """Drain, commit, then fence these partitions.  Returns when they may be given to somebody else."""

    async def on_assigned(self, partitions: Collection[TopicPartition]) -> None:
        """These partitions, and no others, are ours now."""


class RecordSource(Protocol):
    """Kafka, as the corridor sees it."""

    async def start(self, listener: RebalanceListener) -> None:
        """Join the group."""

    async def poll(self, *, max_records: int, timeout_s: float) -> Sequence[Record]:
        """At most `max_records` records, each partition in order.

        With no room (0) fetching pauses, but polling goes on, so that the group keeps this member.
        """

    async def commit(self, offsets: Mapping[TopicPartition, int], *, is_clean: bool) -> None:
        """Store the next offsets to read.  `is_clean`: nothing beyond them was handed out and left unsettled.

        Raises CommitLostError when the partitions are no longer ours, TransientError when the outcome is unknown.
        """

    async def stop(self) -> None:
        """Leave the group; bounded in time, never raises."""

    def lag(self) -> Mapping[TopicPartition, int]:
        """Records between the position and the end, for each assigned partition, as far as known."""


class CrmSink(Protocol):
    """Zoho CRM, as the corridor sees it: three stages, one outcome for each delivery, in order."""

    def parent_of(self, phone: str) -> Parent | None:
        """The remembered lead or contact of a number, at no cost."""

    async def resolve(self, deliveries: Sequence[Delivery]) -> Sequence[Parent | Rejected | Deferred]:
        """Find or create the lead of each delivery."""

    async def write_messages(self, deliveries: Sequence[Delivery]) -> Sequence[Delivered | Rejected | Deferred]:
        """Write the message record of each delivery (each has its parent)."""

    def person_key(self, delivery: Delivery) -> Hashable:
        """The same for all deliveries of one person: one look-up answers them all."""

    def note_key(self, delivery: Delivery) -> Hashable:
        """The same for all deliveries that one note stands for."""

    def needs_note(self, delivery: Delivery) -> bool:
        """False when the note of this delivery is known to be somebody else's task or done; at no cost."""

    async def write_notes(self, deliveries: Sequence[Delivery]) -> Sequence[Delivered | Rejected | Deferred]:
        """Write the notes that are owed for these deliveries."""

    def gave_up(self, delivery: Delivery) -> None:
        """The delivery will not come back (rejected, or its partition went to another member)."""


class DeadLetters(Protocol):
    """The dead-letter topic."""

    async def write(self, record: Record, rejected: Rejected, *, attempts: int) -> None:
        """Return once the broker has stored it durably.  Raises DeadLetterError when it has not."""

    async def standing(self, records: Sequence[Record]) -> Collection[tuple[TopicPartition, int]]:
        """Partition and offset of those records that stand in the topic already, written by an earlier owner.

        Raises DeadLetterError when the topic cannot be read.
        """
