"""Is this message new, on its way, or settled?

A plain set of seen ids loses data: a record in flight, its partition revoked and regained, the record redelivered,
called a duplicate, committed, and never written.  So an id that is in flight points at its delivery, and a duplicate
waits for that delivery's outcome.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto
from hashlib import blake2b
from typing import TYPE_CHECKING

from consumer.core.recent import Recent

if TYPE_CHECKING:
    from collections.abc import Collection

    from consumer.core.model import Delivery


class Seen(Enum):
    """Where a message id stands."""

    FRESH = auto()
    IN_FLIGHT = auto()
    SETTLED = auto()


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is known about an id; `differs` when the earlier event had other content (the first one wins)."""

    seen: Seen
    delivery: Delivery | None = None
    differs: bool = False


_FRESH = Verdict(Seen.FRESH)


class Dedup:
    """Ids in flight (all of them) and the last settled ones: `horizon` of them at most, half of that at least."""

    def __init__(self, *, horizon: int) -> None:
        self._in_flight: dict[str, Delivery] = {}
        self._settled: Recent[int, int] = Recent(horizon)
        """Key of the id, and hash of the record's value: 64 bits that mean something in this process only."""

    def look_up(self, message_id: str, value: bytes | None) -> Verdict:
        """Say where the id stands; changes nothing."""
        delivery = self._in_flight.get(message_id)
        if delivery is not None:
            return Verdict(Seen.IN_FLIGHT, delivery, differs=delivery.record.value != value)
        settled = self._settled.get(_key(message_id))
        if settled is None:
            return _FRESH
        return Verdict(Seen.SETTLED, differs=settled != hash(value))

    def start(self, delivery: Delivery) -> None:
        """The id is in flight from now on."""
        self._in_flight[delivery.event.message_id] = delivery

    def settle(self, delivery: Delivery) -> None:
        """The message stands in the CRM: later events with its id are duplicates."""
        self.forget(delivery)
        self._settled.put(_key(delivery.event.message_id), hash(delivery.record.value))

    def forget(self, delivery: Delivery) -> None:
        """The message was not written (rejected, or given up with its partition): a later event may be."""
        if self._in_flight.get(delivery.event.message_id) is delivery:
            del self._in_flight[delivery.event.message_id]

    def in_flight(self) -> int:
        """Messages on their way."""
        return len(self._in_flight)

    def deliveries(self) -> Collection[Delivery]:
        """The messages on their way, first come first."""
        return self._in_flight.values()

    def find(self, message_id: str) -> Verdict:
        """Where the id stands, when the content is not at hand."""
        delivery = self._in_flight.get(message_id)
        if delivery is not None:
            return Verdict(Seen.IN_FLIGHT, delivery)
        return Verdict(Seen.SETTLED) if _key(message_id) in self._settled else _FRESH


def _key(message_id: str) -> int:
    """128 bits in place of up to 255 characters: two hundred thousand ids stay in some 25 MB."""
    return int.from_bytes(blake2b(message_id.encode("utf-8", "surrogatepass"), digest_size=16).digest())
