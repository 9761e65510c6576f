"""What is on its way to the dead-letter topic: held until the breaker lets it go, and until it stands there."""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from consumer.core.breaker import Breaker, Release
from consumer.core.errors import DeadLetterError
from consumer.core.model import TopicPartition

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from consumer.core.backoff import Backoff
    from consumer.core.model import Delivery, Record, Rejected
    from consumer.core.offsets import Ack
    from consumer.core.ports import DeadLetters
    from consumer.pipeline.observer import PipelineObserver

_T = TypeVar("_T")
_Place = tuple[TopicPartition, int]
"""Partition and offset: what a record is, however often it is read."""
_CHECK_S = 0.5
_OFFER_AGAIN_S = 30.0
_REMEMBERED_BURIED = 10_000


@dataclass(slots=True, eq=False)
class Held:
    """A rejection on its way to the dead-letter topic."""

    record: Record
    ack: Ack
    rejected: Rejected
    since: float
    attempts: int
    delivery: Delivery | None = None
    was_halted: bool = False
    """The breaker was tripped meanwhile: the cause may be gone by now, so Zoho is asked again first."""
    has_failed: bool = False
    """The dead-letter topic did not take it, or did and could not say so; it is tried again."""

    @property
    def is_suspect(self) -> bool:
        """Its dead letter may stand already."""
        return self.has_failed or self.record.may_repeat


class DeadLetterDesk:
    """Writes rejections once the breaker lets them go; a topic that takes none holds their offsets."""

    def __init__(
        self,
        dead_letters: DeadLetters,
        breaker: Breaker,
        *,
        observer: PipelineObserver,
        backoff: Backoff,
        batch_size: int,
        random: Callable[[], float],
        route: Callable[[Delivery], None],
        drop: Callable[[Delivery], None],
        settle: Callable[[Ack], None],
        intake: Callable[[Record, Ack], None],
        on_change: Callable[[], None],
    ) -> None:
        self._dead_letters = dead_letters
        self._breaker = breaker
        self._observer = observer
        self._backoff = backoff
        self._batch_size = batch_size
        self._random = random
        self._route = route
        self._drop = drop
        self._settle = settle
        self._intake = intake
        self._on_change = on_change
        self._held: deque[Held] = deque()
        self._wanted = asyncio.Event()
        self._buried: OrderedDict[_Place, None] = OrderedDict()
        self._offered_again_at = 0.0

    def __len__(self) -> int:
        return len(self._held)

    def failing(self) -> int:
        """Rejections that the dead-letter topic did not take."""
        return sum(held.has_failed for held in self._held)

    def idle(self) -> list[Held]:
        """Those at which nobody works now: the topic takes nothing, or the breaker is tripped."""
        return [held for held in self._held if held.has_failed or self._release_of(held) is Release.HALT]

    def reject(
        self, record: Record, ack: Ack, rejected: Rejected, *, attempts: int, delivery: Delivery | None = None
    ) -> None:
        """Hold a record's rejection, and settle the record when its dead letter stands."""
        self._hold(Held(record, ack, rejected, _now(), attempts, delivery))

    def _hold(self, held: Held) -> None:
        if not held.ack.is_fenced():
            self._breaker.note(held.record.tp, is_rejected=True)
        self._held.append(held)
        self._wanted.set()

    def let_fenced_go(self) -> None:
        """Records that are no longer ours are their next owner's to judge."""
        fenced = [held for held in self._held if held.ack.is_fenced()]
        self._held = deque(held for held in self._held if not held.ack.is_fenced())
        for held in fenced:
            self._let_go(held)

    async def run(self) -> None:
        """Work for as long as the task lives."""
        failures = 0
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(_CHECK_S if self._held else None):
                    await self._wanted.wait()
            self._wanted.clear()
            self._offer_again()
            failures = 0 if await self._bury(self._released()) else failures + 1
            if failures:
                await asyncio.sleep(self._backoff.wait_s(failures, random=self._random()))

    def _released(self) -> list[Held]:
        """What may be written now."""
        ready: list[Held] = []
        kept: deque[Held] = deque()
        for held in self._held:
            release = self._release_of(held)
            held.was_halted |= release is Release.HALT
            if release is not Release.NOW:
                kept.append(held)
            elif held.was_halted and held.delivery is not None and not held.ack.is_fenced():
                self._route(held.delivery)
            else:
                ready.append(held)
        self._held = kept
        self._on_change()
        return ready

    def _release_of(self, held: Held) -> Release:
        """What was fenced is let go, whatever its partition's next assignment brings."""
        if held.ack.is_fenced():
            return Release.NOW
        return self._breaker.release(held.record.tp, held_s=_now() - held.since)

    def _offer_again(self) -> None:
        """While the breaker is tripped, Zoho is asked now and then whether it still refuses: one batch of them."""
        now = _now()
        if now < self._offered_again_at + _OFFER_AGAIN_S:
            return
        halted = [held for held in self._held if held.was_halted and held.delivery is not None]
        if halted:
            self._offered_again_at = now
        for held in halted[: self._batch_size]:
            self._held.remove(held)
            if held.delivery is not None:
                self._route(held.delivery)

    async def _bury(self, ready: list[Held]) -> bool:
        """Write these dead letters; False when some of them could not be written, which are kept."""
        try:
            await self._find_buried(ready)
        except DeadLetterError as error:
            self._observer.dead_letter_failed(error)
            written = [False] * len(ready)
        else:
            written = await asyncio.gather(*(self._write_dead_letter(held) for held in ready))
        failed = [held for held, is_written in zip(ready, written, strict=True) if not is_written]
        for held in failed:
            held.has_failed = True
        self._held.extendleft(reversed(failed))
        self._on_change()
        return not failed

    async def _find_buried(self, ready: list[Held]) -> None:
        """What an earlier owner wrote before it ended, or we without an answer, is not written again."""
        suspects = [held.record for held in ready if held.is_suspect and _place(held.record) not in self._buried]
        if suspects:
            for place in await _told(self._dead_letters.standing(suspects)):
                self._remember_buried(place)

    def _remember_buried(self, place: _Place) -> None:
        self._buried[place] = None
        if len(self._buried) > _REMEMBERED_BURIED:
            self._buried.popitem(last=False)

    async def _write_dead_letter(self, held: Held) -> bool:
        """A record that is no longer ours is left to its next owner, who judges it anew."""
        if not held.ack.is_fenced() and _place(held.record) not in self._buried:
            try:
                await _told(self._dead_letters.write(held.record, held.rejected, attempts=held.attempts))
            except DeadLetterError as error:
                self._observer.dead_letter_failed(error)
                return False
            self._remember_buried(_place(held.record))
            self._observer.record_rejected(held.record, held.rejected)
        self._let_go(held)
        return True

    def _let_go(self, held: Held) -> None:
        """Settle the record.  Its duplicates were other records: each gets its own chance."""
        self._settle(held.ack)
        if held.delivery is None:
            return
        self._drop(held.delivery)
        waiting, held.delivery.waiting = held.delivery.waiting, []
        for record, ack in waiting:
            if _place(record) in self._buried:
                self._settle(ack)
            elif not ack.is_fenced():
                self._intake(record, ack)


async def _told(work: Awaitable[_T]) -> _T:
    """A record that nobody foresaw holds its offset, and is told of; it does not end the process again and again."""
    try:
        return await work
    except DeadLetterError:
        raise
    except Exception as error:
        raise DeadLetterError("FAULT", type(error).__name__) from error


def _now() -> float:
    return asyncio.get_running_loop().time()


def _place(record: Record) -> _Place:
    return record.tp, record.offset
