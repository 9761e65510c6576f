"""When most records of a partition would be dead-lettered, something is wrong that no dead letter cures.

A bad deploy of the producer, a new mandatory field in the CRM: then the service must stop and say so, not empty the
topic into the dead-letter topic.  So a rejection is written at once only while deliveries outweigh rejections; else
it is held for a moment, and a flood of them trips the breaker before its first one is written.
"""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from enum import Enum, auto
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from consumer.core.model import TopicPartition


class Release(Enum):
    """What may be done with a rejection."""

    NOW = auto()
    LATER = auto()
    HALT = auto()


class Breaker:
    """The last outcomes of each partition.  `count` rejections that are most of twice as many outcomes trip it."""

    def __init__(self, *, count: int, hold_s: float = 2.0) -> None:
        self._count = count
        self._hold_s = hold_s
        self._outcomes: defaultdict[TopicPartition, deque[bool]] = defaultdict(deque)
        self._rejected: Counter[TopicPartition] = Counter()

    def note(self, tp: TopicPartition, *, is_rejected: bool) -> None:
        """One more message was delivered (or skipped), or rejected."""
        if self._count == 0:
            return
        outcomes = self._outcomes[tp]
        outcomes.append(is_rejected)
        self._rejected[tp] += is_rejected
        if len(outcomes) > self._count * 2:
            self._rejected[tp] -= outcomes.popleft()

    def release(self, tp: TopicPartition, *, held_s: float) -> Release:
        """What may be done with a rejection of this partition that has waited for `held_s`."""
        rejected = self._rejected[tp]
        others = len(self._outcomes.get(tp, ())) - rejected
        if self._count and rejected >= self._count and rejected > others:
            return Release.HALT
        return Release.NOW if others >= rejected or held_s >= self._hold_s or not self._count else Release.LATER

    def is_tripped(self, tp: TopicPartition) -> bool:
        """Most of what this partition brings is rejected."""
        return self.release(tp, held_s=0.0) is Release.HALT

    def tripped(self) -> list[TopicPartition]:
        """Partitions that are halted."""
        return [tp for tp in self._outcomes if self.is_tripped(tp)]

    def forget(self, tp: TopicPartition) -> None:
        """The partition was taken away."""
        self._outcomes.pop(tp, None)
        self._rejected.pop(tp, None)
