"""Acks, and how far each partition is settled without a gap.

An ack is issued for each record of a poll, in the order received, before the first await.  The committable offset
of a partition is the one after its longest settled prefix; nothing beyond an unsettled record is ever committed.
A partition that is taken away is fenced: acks issued before that move no offsets any more.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from consumer.core.model import TopicPartition


class Ack:
    """What is owed to Kafka for one record.  Settling twice is harmless."""

    __slots__ = ("_partition", "is_settled", "offset", "received_at", "size_bytes")

    def __init__(self, partition: _Partition, offset: int, size_bytes: int, received_at: float) -> None:
        self._partition = partition
        self.offset = offset
        self.size_bytes = size_bytes
        self.received_at = received_at
        self.is_settled = False

    def settle(self) -> None:
        """The record is written, dead-lettered, skipped, or a duplicate of something settled."""
        if not self.is_settled:
            self.is_settled = True
            self._partition.settled(self)

    def is_fenced(self) -> bool:
        """True once the partition was taken away; settling then moves no offset."""
        return self._partition.is_fenced


class _Partition:
    """The acks of one assignment of one partition, oldest first."""

    __slots__ = (
        "acks",
        "committable",
        "committed",
        "in_flight",
        "in_flight_bytes",
        "is_fenced",
        "is_last_suspect",
        "last_offset",
        "uncommitted",
    )

    def __init__(self) -> None:
        self.acks: deque[Ack] = deque()
        self.uncommitted: deque[int] = deque()
        self.committable: int | None = None
        self.committed: int | None = None
        self.last_offset = -1
        self.in_flight = 0
        self.in_flight_bytes = 0
        self.is_fenced = False
        self.is_last_suspect = False

    def issue(self, offset: int, size_bytes: int, now: float) -> Ack:
        if offset <= self.last_offset:
            message = f"offset {offset} after {self.last_offset}: records must be tracked in the order received"
            raise ValueError(message)
        self.last_offset = offset
        ack = Ack(self, offset, size_bytes, now)
        self.acks.append(ack)
        self.in_flight += 1
        self.in_flight_bytes += size_bytes
        return ack

    def settled(self, ack: Ack) -> None:
        self.in_flight -= 1
        self.in_flight_bytes -= ack.size_bytes
        while self.acks and self.acks[0].is_settled:
            offset = self.acks.popleft().offset
            self.uncommitted.append(offset)
            self.committable = offset + 1

    def confirmed(self, offset: int) -> None:
        self.committed = max(offset, self.committed or 0)
        while self.uncommitted and self.uncommitted[0] < self.committed:
            self.uncommitted.popleft()


class OffsetTracker:
    """Acks of all assigned partitions, and what may be committed."""

    def __init__(self) -> None:
        self._partitions: dict[TopicPartition, _Partition] = {}

    def issue(
        self, tp: TopicPartition, offset: int, *, now: float = 0.0, size_bytes: int = 0, may_repeat: bool = False
    ) -> Ack:
        """Promise to settle this record; `may_repeat` when an earlier owner may have handled it already.

        Raises ValueError when a record of the same assignment arrives out of order; what is known of the partition
        then cannot be trusted, and nothing of it is committed any more.
        """
        partition = self._partitions.get(tp)
        if partition is None:
            partition = self._partitions[tp] = _Partition()
        partition.is_last_suspect = may_repeat
        try:
            return partition.issue(offset, size_bytes, now)
        except ValueError:
            self.fence([tp])
            raise

    def committable(self, *, again: bool = False) -> dict[TopicPartition, int]:
        """Next offset to read, for each partition where it moved since the last `committed`, or `again` for all."""
        return {
            tp: partition.committable
            for tp, partition in self._partitions.items()
            if partition.committable is not None and (again or partition.committable != partition.committed)
        }

    def is_clean(self, tp: TopicPartition) -> bool:
        """Nothing beyond the committable offset was handled, by us or by an earlier owner.

        Where the last record that we received was still suspect, those after it are, too.
        """
        partition = self._partitions.get(tp)
        return partition is None or (not partition.acks and not partition.is_last_suspect)

    def committed(self, offsets: Mapping[TopicPartition, int]) -> None:
        """Remember what Kafka confirmed.  An offset never goes back within one assignment."""
        for tp, offset in offsets.items():
            partition = self._partitions.get(tp)
            if partition is not None:
                partition.confirmed(offset)

    def fence(self, partitions: Iterable[TopicPartition]) -> None:
        """Forget these partitions: what was issued for them counts for nothing from now on."""
        for tp in partitions:
            partition = self._partitions.pop(tp, None)
            if partition is not None:
                partition.is_fenced = True

    def in_flight(self, tp: TopicPartition | None = None) -> int:
        """Records read and not settled: of one partition, or of all."""
        if tp is not None:
            partition = self._partitions.get(tp)
            return partition.in_flight if partition else 0
        return sum(partition.in_flight for partition in self._partitions.values())

    def in_flight_bytes(self) -> int:
        """Size of all records read and not settled."""
        return sum(partition.in_flight_bytes for partition in self._partitions.values())

    def uncommitted(self) -> int:
        """Records read and not yet committed, settled or not: the window that bounds memory."""
        return sum(len(partition.acks) + len(partition.uncommitted) for partition in self._partitions.values())

    def settled_uncommitted(self) -> int:
        """Records that a commit would confirm now."""
        return sum(len(partition.uncommitted) for partition in self._partitions.values())

    def oldest(self, tp: TopicPartition) -> Ack | None:
        """The ack that holds the partition's offset, if any."""
        partition = self._partitions.get(tp)
        return partition.acks[0] if partition and partition.acks else None

    def partitions(self) -> list[TopicPartition]:
        """Partitions with at least one ack issued since they were assigned."""
        return list(self._partitions)
