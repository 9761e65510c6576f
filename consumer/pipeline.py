"""The corridor: intake, three stages, dead letters, commit.  The only place with tasks and queues.

A record walks one way: poll → ack → decode → dedup → lead → message → note → settle → commit.  Each stage collects
deliveries into batches and runs a bounded number of them at once; a delivery that cannot be done now comes back after
its backoff, alone, so that one blocked record never stops the others.  The only brake is the number of records that
are read and not committed; without room the partitions pause, but polling goes on.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from consumer.core.backoff import Backoff
from consumer.core.batching import Batcher
from consumer.core.breaker import Breaker, Release
from consumer.core.decode import Poison, Skip, decode
from consumer.core.dedup import Dedup, Seen
from consumer.core.errors import CommitLostError, DeadLetterError, SyncError
from consumer.core.model import Deferred, Delivered, Delivery, Parent, Rejected, Stage
from consumer.core.offsets import OffsetTracker

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Coroutine, Iterable, Sequence
    from datetime import datetime

    from consumer.core.model import Record, TopicPartition
    from consumer.core.offsets import Ack
    from consumer.core.phones import Phones
    from consumer.core.ports import CrmSink, DeadLetters, RecordSource
    from schemas.message_event import MessageEvent

_POLL_S = 0.5
_POLL_WITHOUT_ROOM_S = 0.05
_COMMIT_TIMEOUT_S = 10.0
_HELD_CHECK_S = 0.5
_BREAKER_RETRY_S = 30.0


class PipelineObserver(Protocol):
    """Told of what happens, for metrics and log."""

    def record_received(self, _record: Record) -> None:
        """A record was read."""

    def message_delivered(self, delivery: Delivery) -> None:
        """Lead, message and note stand."""

    def record_skipped(self, reason: str) -> None:
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


@dataclass(frozen=True, slots=True)
class Blocked:
    """A delivery that Zoho keeps refusing for now."""

    tp: TopicPartition
    offset: int
    attempts: int
    code: str


class _StageQueue:
    """Batches of one stage, a bounded number of them at once."""

    def __init__(
        self,
        stage: Stage,
        run: Callable[[list[Delivery]], Coroutine[None, None, None]],
        *,
        max_records: int,
        linger_s: float,
        concurrency: int,
    ) -> None:
        self.stage = stage
        self._run = run
        self._batcher: Batcher[Delivery] = Batcher(max_records=max_records, linger_s=linger_s)
        self._concurrency = concurrency
        self._tasks: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self.is_hurried = False

    def add(self, delivery: Delivery) -> None:
        delivery.stage = self.stage
        self._batcher.add(delivery, now=asyncio.get_running_loop().time())
        self.pump()

    def pump(self) -> None:
        """Start what is due; set a timer for the rest."""
        loop = asyncio.get_running_loop()
        while len(self._tasks) < self._concurrency:
            wait_s = self._batcher.wait_s(loop.time())
            if wait_s is None:
                return
            if wait_s > 0 and not self.is_hurried:
                self._wake_at(loop.time() + wait_s)
                return
            self._start(self._batcher.take())

    def _wake_at(self, when: float) -> None:
        if self._timer is None or self._timer.cancelled() or self._timer.when() > when or self._is_past():
            if self._timer is not None:
                self._timer.cancel()
            self._timer = asyncio.get_running_loop().call_at(when, self.pump)

    def _is_past(self) -> bool:
        return self._timer is not None and self._timer.when() <= asyncio.get_running_loop().time()

    def _start(self, batch: list[Delivery]) -> None:
        task = asyncio.create_task(self._run(batch), name=f"stage-{self.stage}")
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()):
            raise error
        self.pump()

    def purge(self, is_wanted: Callable[[Delivery], bool]) -> list[Delivery]:
        """Remove and return queued deliveries that nobody wants."""
        return self._batcher.purge(is_wanted)

    def queued(self) -> int:
        return len(self._batcher)

    async def cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@dataclass(slots=True, eq=False)
class _Held:
    """A rejection on its way to the dead-letter topic."""

    record: Record
    ack: Ack
    rejected: Rejected
    since: float
    attempts: int
    delivery: Delivery | None = None


class Pipeline:
    """Connects a record source, a CRM sink and a dead-letter topic.  Also the source's rebalance listener."""

    def __init__(
        self,
        source: RecordSource,
        sink: CrmSink,
        dead_letters: DeadLetters,
        phones: Phones,
        *,
        config: PipelineConfig,
        observer: PipelineObserver,
        random: Callable[[], float],
    ) -> None:
        self._source = source
        self._sink = sink
        self._dead_letters = dead_letters
        self._phones = phones
        self._config = config
        self._observer = observer
        self._random = random
        self._tracker = OffsetTracker()
        self._dedup = Dedup(horizon=config.dedup_horizon)
        self._breaker = Breaker(count=config.breaker_count)
        self._commit_lock = asyncio.Lock()
        self._commit_wanted = asyncio.Event()
        self._moved = asyncio.Event()
        self._deferred: dict[Delivery, asyncio.TimerHandle] = {}
        self._held: deque[_Held] = deque()
        self._held_wanted = asyncio.Event()
        self._is_stopping = False
        self._breaker_retry_at = 0.0
        self.last_poll_at: float | None = None
        """Loop time at which the poll loop last came round."""
        self.last_progress_at: float | None = None
        """Loop time at which a record was last settled."""
        self._stages = {
            Stage.LEAD: self._stage(Stage.LEAD, self._run_lead, config.resolve_concurrency),
            Stage.MESSAGE: self._stage(Stage.MESSAGE, self._run_message, config.message_concurrency),
            Stage.NOTE: self._stage(Stage.NOTE, self._run_note, config.note_concurrency),
        }

    def _stage(
        self, stage: Stage, run: Callable[[list[Delivery]], Coroutine[None, None, None]], concurrency: int
    ) -> _StageQueue:
        config = self._config
        linger_s = 0.0 if stage is Stage.NOTE else config.linger_s
        return _StageQueue(stage, run, max_records=config.batch_max_records, linger_s=linger_s, concurrency=concurrency)

    # -- life ---------------------------------------------------------------------------------------------------

    async def run(self, stop: asyncio.Event) -> None:
        """Work until `stop` is set, then drain within the deadline, commit, and leave the group."""
        await self._source.start(self)
        helpers = [asyncio.create_task(self._commit_loop()), asyncio.create_task(self._dead_letter_loop())]
        try:
            await self._poll_loop(stop, helpers)
            await self._drain(None, self._config.drain_timeout_s)
        finally:
            self._is_stopping = True
            await self._wind_up(helpers)

    async def _wind_up(self, helpers: list[asyncio.Task[None]]) -> None:
        for helper in helpers:
            helper.cancel()
        await asyncio.gather(*helpers, return_exceptions=True)
        for stage in self._stages.values():
            await stage.cancel()
        for timer in self._deferred.values():
            timer.cancel()
        await self._commit(is_final=True)
        await self._source.stop()

    async def _poll_loop(self, stop: asyncio.Event, helpers: list[asyncio.Task[None]]) -> None:
        loop = asyncio.get_running_loop()
        while not stop.is_set():
            self.last_poll_at = loop.time()
            room = self.room()
            records = await self._source.poll(max_records=room, timeout_s=_POLL_S if room else _POLL_WITHOUT_ROOM_S)
            self._take(records)
            for helper in helpers:
                if helper.done():
                    helper.result()
            await asyncio.sleep(0)

    def room(self) -> int:
        """Records that may still be read."""
        if self._tracker.in_flight_bytes() >= self._config.max_in_flight_bytes:
            return 0
        return max(0, self._config.max_in_flight - self._tracker.uncommitted())

    # -- intake -------------------------------------------------------------------------------------------------

    def _take(self, records: Sequence[Record]) -> None:
        """An ack for each record of the poll comes before anything else, so that no gap is ever overlooked."""
        now = asyncio.get_running_loop().time()
        acks = [
            self._tracker.issue(record.tp, record.offset, now=now, size_bytes=record.size_bytes()) for record in records
        ]
        for record, ack in zip(records, acks, strict=True):
            self._observer.record_received(record)
            self._intake(record, ack)

    def _intake(self, record: Record, ack: Ack) -> None:
        decoded = decode(record.value, record.headers)
        if isinstance(decoded, Skip):
            self._skip(record, ack, decoded.reason)
        elif isinstance(decoded, Poison):
            self._hold(record, ack, Rejected(Stage.PARSE, decoded.reason, decoded.detail), attempts=1)
        else:
            self._intake_event(record, ack, decoded)

    def _intake_event(self, record: Record, ack: Ack, event: MessageEvent) -> None:
        since = self._config.since
        phone = self._phones.canonical(event.phone or "")
        if since is not None and event.occurred_at < since:
            self._skip(record, ack, "before_since")
        elif phone is None:
            self._skip(record, ack, "unusable_phone")
        else:
            self._intake_message(record, ack, event, phone)

    def _intake_message(self, record: Record, ack: Ack, event: MessageEvent, phone: str) -> None:
        verdict = self._dedup.look_up(event.message_id, record.value)
        if verdict.seen is Seen.FRESH:
            delivery = Delivery(record, ack, event, phone, may_exist=record.may_repeat)
            self._dedup.start(delivery)
            self._route(delivery)
            return
        self._observer.record_duplicated(differs=verdict.differs)
        if verdict.delivery is not None:
            verdict.delivery.waiting.append((record, ack))
        else:
            self._settle(ack)

    def _skip(self, record: Record, ack: Ack, reason: str) -> None:
        self._breaker.note(record.tp, is_rejected=False)
        self._observer.record_skipped(reason)
        self._settle(ack)

    def _route(self, delivery: Delivery) -> None:
        """To the first stage that is not done."""
        delivery.parent = delivery.parent or self._sink.parent_of(delivery.phone)
        if delivery.parent is None:
            self._stages[Stage.LEAD].add(delivery)
        else:
            self._stages[Stage.NOTE if delivery.stage is Stage.NOTE else Stage.MESSAGE].add(delivery)

    # -- stages -------------------------------------------------------------------------------------------------

    async def _run_lead(self, batch: list[Delivery]) -> None:
        await self._run(Stage.LEAD, batch, self._sink.resolve, self._lead_done)

    async def _run_message(self, batch: list[Delivery]) -> None:
        await self._run(Stage.MESSAGE, batch, self._sink.write_messages, self._message_done)

    async def _run_note(self, batch: list[Delivery]) -> None:
        await self._run(Stage.NOTE, batch, self._sink.write_notes, self._note_done)

    def _note_done(self, delivery: Delivery, _outcome: Parent | Delivered) -> None:
        self._finish(delivery)

    async def _run(
        self,
        stage: Stage,
        batch: list[Delivery],
        work: Callable[[Sequence[Delivery]], Awaitable[Sequence[Parent | Delivered | Rejected | Deferred]]],
        done: Callable[[Delivery, Parent | Delivered], None],
    ) -> None:
        started = asyncio.get_running_loop().time()
        try:
            outcomes = await work(batch)
        except Exception as error:  # noqa: BLE001 - the corridor's edge: whatever it is, nothing may be lost
            self._observer.stage_failed(stage, error)
            outcomes = [Deferred("INTERNAL_FAULT", wrote_maybe=True)] * len(batch)
        self._observer.batch_done(stage, len(batch), asyncio.get_running_loop().time() - started)
        for delivery, outcome in zip(batch, outcomes, strict=True):
            if isinstance(outcome, Rejected):
                self._reject(delivery, outcome)
            elif isinstance(outcome, Deferred):
                self._defer(delivery, outcome)
            else:
                done(delivery, outcome)

    def _lead_done(self, delivery: Delivery, outcome: Parent | Delivered) -> None:
        delivery.parent = outcome if isinstance(outcome, Parent) else None
        self._stages[Stage.MESSAGE].add(delivery)

    def _message_done(self, delivery: Delivery, _outcome: Parent | Delivered) -> None:
        if self._sink.needs_note(delivery):
            self._stages[Stage.NOTE].add(delivery)
        else:
            self._finish(delivery)

    def _finish(self, delivery: Delivery) -> None:
        self._dedup.settle(delivery)
        self._sink.gave_up(delivery)
        self._breaker.note(delivery.record.tp, is_rejected=False)
        self._observer.message_delivered(delivery)
        delivery.settle()
        self._progressed()

    def _defer(self, delivery: Delivery, deferred: Deferred) -> None:
        """Back to the stage that failed, after its backoff; a lost answer makes the next attempt look first."""
        if not delivery.is_wanted():
            self._drop(delivery)
            return
        delivery.last_code = deferred.code
        delivery.attempts += not deferred.halted
        delivery.may_exist |= deferred.wrote_maybe or delivery.stage is Stage.NOTE
        self._observer.delivery_deferred(delivery, deferred)
        wait_s = self._config.backoff.wait_s(
            max(1, delivery.attempts), random=self._random(), retry_after_s=deferred.retry_after_s
        )
        loop = asyncio.get_running_loop()
        self._deferred[delivery] = loop.call_later(wait_s, self._resume, delivery)

    def _resume(self, delivery: Delivery) -> None:
        self._deferred.pop(delivery, None)
        if delivery.is_wanted():
            self._route(delivery)
        else:
            self._drop(delivery)

    def _drop(self, delivery: Delivery) -> None:
        """Every partition it came from was taken away; the new owner reads it again."""
        self._dedup.forget(delivery)
        self._sink.gave_up(delivery)

    # -- dead letters -------------------------------------------------------------------------------------------

    def _reject(self, delivery: Delivery, rejected: Rejected) -> None:
        attempts = delivery.attempts + 1
        self._hold(delivery.record, delivery.ack, rejected, attempts=attempts, delivery=delivery)

    def _hold(
        self, record: Record, ack: Ack, rejected: Rejected, *, attempts: int, delivery: Delivery | None = None
    ) -> None:
        self._breaker.note(record.tp, is_rejected=True)
        now = asyncio.get_running_loop().time()
        self._held.append(_Held(record, ack, rejected, now, attempts, delivery))
        self._held_wanted.set()

    async def _dead_letter_loop(self) -> None:
        """Writes rejections once the breaker lets them go; a topic that takes none holds their offsets."""
        failures = 0
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(_HELD_CHECK_S if self._held else None):
                    await self._held_wanted.wait()
            self._held_wanted.clear()
            self._retry_tripped()
            ready = self._released()
            written = await asyncio.gather(*(self._write_dead_letter(held) for held in ready))
            failed = [held for held, is_written in zip(ready, written, strict=True) if not is_written]
            self._held.extendleft(reversed(failed))
            failures = failures + 1 if failed else 0
            if failures:
                await asyncio.sleep(self._config.backoff.wait_s(failures, random=self._random()))

    def _released(self) -> list[_Held]:
        now = asyncio.get_running_loop().time()
        ready: list[_Held] = []
        kept: deque[_Held] = deque()
        for held in self._held:
            release = self._breaker.release(held.record.tp, held_s=now - held.since)
            (ready if release is Release.NOW else kept).append(held)
        self._held = kept
        return ready

    def _retry_tripped(self) -> None:
        """While the breaker is tripped, what Zoho refused is offered again now and then: the cause may be gone."""
        now = asyncio.get_running_loop().time()
        tripped = set(self._breaker.tripped())
        if not tripped or now < self._breaker_retry_at:
            return
        self._breaker_retry_at = now + _BREAKER_RETRY_S
        again = [held for held in self._held if held.delivery is not None and held.record.tp in tripped]
        again = again[: self._config.batch_max_records] if len(again) < len(self._held) else again
        for held in again:
            if held.since + _BREAKER_RETRY_S <= now and held.delivery is not None:
                self._held.remove(held)
                self._route(held.delivery)

    async def _write_dead_letter(self, held: _Held) -> bool:
        if not self._is_wanted(held):
            self._forget_held(held)
            return True
        try:
            await self._dead_letters.write(held.record, held.rejected, attempts=held.attempts)
        except DeadLetterError as error:
            self._observer.dead_letter_failed(error)
            return False
        self._observer.record_rejected(held.record, held.rejected)
        self._dead_lettered(held)
        return True

    @staticmethod
    def _is_wanted(held: _Held) -> bool:
        return held.delivery.is_wanted() if held.delivery else not held.ack.is_fenced()

    def _forget_held(self, held: _Held) -> None:
        if held.delivery is not None:
            self._drop(held.delivery)

    def _dead_lettered(self, held: _Held) -> None:
        """Settle the record.  Its duplicates were other records: each gets its own chance."""
        self._settle(held.ack)
        delivery = held.delivery
        if delivery is None:
            return
        self._drop(delivery)
        waiting, delivery.waiting = delivery.waiting, []
        for record, ack in waiting:
            if (record.tp, record.offset) == (held.record.tp, held.record.offset):
                self._settle(ack)
            else:
                self._intake(record, ack)

    # -- commit and rebalance -----------------------------------------------------------------------------------

    def _settle(self, ack: Ack) -> None:
        ack.settle()
        self._progressed()

    def _progressed(self) -> None:
        self.last_progress_at = asyncio.get_running_loop().time()
        self._moved.set()
        if self._tracker.settled_uncommitted() * 5 > self._config.max_in_flight:
            self._commit_wanted.set()

    async def _commit_loop(self) -> None:
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._config.commit_interval_s):
                    await self._commit_wanted.wait()
            self._commit_wanted.clear()
            await self._commit()

    async def _commit(
        self,
        *,
        only: Collection[TopicPartition] | None = None,
        timeout_s: float = _COMMIT_TIMEOUT_S,
        is_final: bool = False,
    ) -> None:
        """Offsets are computed inside the lock that revocation takes, so none is sent for what is no longer ours."""
        async with self._commit_lock:
            offsets = self._tracker.committable()
            if only is not None:
                offsets = {tp: offset for tp, offset in offsets.items() if tp in only}
            clean = {tp: offset for tp, offset in offsets.items() if is_final and not self._tracker.oldest(tp)}
            rest = {tp: offset for tp, offset in offsets.items() if tp not in clean}
            await self._send_commit(clean, is_clean=True, timeout_s=timeout_s)
            await self._send_commit(rest, is_clean=False, timeout_s=timeout_s)

    async def _send_commit(self, offsets: dict[TopicPartition, int], *, is_clean: bool, timeout_s: float) -> None:
        if not offsets:
            return
        try:
            async with asyncio.timeout(timeout_s):
                await self._source.commit(offsets, is_clean=is_clean)
        except CommitLostError:
            self._observer.commit_failed("lost")
        except (SyncError, TimeoutError):
            self._observer.commit_failed("unknown")
        else:
            self._tracker.committed(offsets)
            self._observer.committed(offsets)

    async def on_revoked(self, partitions: Collection[TopicPartition]) -> None:
        """Drain first, fence second, all within one deadline."""
        await self._drain(partitions, self._config.drain_timeout_s)
        await self._commit(only=partitions, timeout_s=5.0, is_final=True)
        async with self._commit_lock:
            unsettled = sum(self._tracker.in_flight(tp) for tp in partitions)
            self._tracker.fence(partitions)
        for tp in partitions:
            self._breaker.forget(tp)
        self._purge()
        self._observer.partitions_revoked(partitions, unsettled=unsettled)

    async def on_assigned(self, partitions: Collection[TopicPartition]) -> None:
        """Nothing to prepare: trackers begin with the first record."""
        self._observer.partitions_assigned(partitions)

    def _purge(self) -> None:
        """Nobody waits any more for what is queued and fenced; a redelivery must find its id free."""
        dropped = [d for stage in self._stages.values() for d in stage.purge(Delivery.is_wanted)]
        for delivery, timer in list(self._deferred.items()):
            if not delivery.is_wanted():
                timer.cancel()
                del self._deferred[delivery]
                dropped.append(delivery)
        for held in [held for held in self._held if not self._is_wanted(held)]:
            self._held.remove(held)
            self._forget_held(held)
        for delivery in dropped:
            self._drop(delivery)

    async def _drain(self, partitions: Collection[TopicPartition] | None, timeout_s: float) -> None:
        """Finish what is in flight, take nothing new; give up at the deadline, for a redelivery is safe."""
        for stage in self._stages.values():
            stage.is_hurried = True
            stage.pump()
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while self._unsettled(partitions):
                    self._moved.clear()
                    await self._moved.wait()
        for stage in self._stages.values():
            stage.is_hurried = False

    def _unsettled(self, partitions: Iterable[TopicPartition] | None) -> int:
        if partitions is None:
            return self._tracker.in_flight()
        return sum(self._tracker.in_flight(tp) for tp in partitions)

    # -- for health and console ---------------------------------------------------------------------------------

    @property
    def tracker(self) -> OffsetTracker:
        """What is in flight and committable."""
        return self._tracker

    @property
    def dedup(self) -> Dedup:
        """What is known of message ids."""
        return self._dedup

    def queued(self) -> dict[Stage, int]:
        """Deliveries that wait in each stage."""
        return {stage: queue.queued() for stage, queue in self._stages.items()}

    def held_dead_letters(self) -> int:
        """Rejections that are not in the dead-letter topic yet."""
        return len(self._held)

    def tripped(self) -> list[TopicPartition]:
        """Partitions halted because most of what they bring is rejected."""
        return self._breaker.tripped()

    def blocked(self, *, at_least: int = 3) -> list[Blocked]:
        """Deliveries that keep coming back, worst first."""
        found = [
            Blocked(delivery.record.tp, delivery.record.offset, delivery.attempts, delivery.last_code)
            for delivery in self._deferred
            if delivery.attempts >= at_least
        ]
        return sorted(found, key=lambda blocked: -blocked.attempts)

    def deferred_codes(self) -> Counter[str]:
        """Why deliveries wait."""
        return Counter(delivery.last_code for delivery in self._deferred)
