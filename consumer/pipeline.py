"""The corridor: intake, three stages, dead letters, commit.  The only place with tasks and queues.

A record walks one way: poll → ack → decode → dedup → lead → message → note → settle → commit.  Each stage collects
deliveries into batches and runs a bounded number of them at once; a delivery that cannot be done now comes back after
its backoff, alone, so that one blocked record never stops the others.  The only brake is the number of records that
are read and not committed; without room the partitions pause, but polling goes on.
"""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict, deque
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, TypeVar

from consumer.core.backoff import Backoff
from consumer.core.batching import Batcher
from consumer.core.breaker import Breaker, Release
from consumer.core.decode import Poison, Skip, decode
from consumer.core.dedup import Dedup, Seen
from consumer.core.errors import CommitLostError, DeadLetterError, SyncError
from consumer.core.model import Deferred, Delivered, Delivery, Parent, Rejected, Stage, TopicPartition
from consumer.core.offsets import OffsetTracker

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Coroutine, Hashable, Iterable, Sequence
    from datetime import datetime

    from consumer.core.model import Record
    from consumer.core.offsets import Ack
    from consumer.core.phones import Phones
    from consumer.core.ports import CrmSink, DeadLetters, RecordSource
    from schemas.message_event import MessageEvent

    _StageOutcome: TypeAlias = Parent | Delivered | Rejected | Deferred
    _Work: TypeAlias = Callable[[Sequence[Delivery]], Awaitable[Sequence[_StageOutcome]]]

_T = TypeVar("_T")
_Place = tuple[TopicPartition, int]
"""Partition and offset: what a record is, however often it is read."""
_DELIVERED = Delivered()
_POLL_S = 0.5
_POLL_WITHOUT_ROOM_S = 0.05
_COMMIT_TIMEOUT_S = 10.0
_LAST_COMMIT_TIMEOUT_S = 5.0
_WIND_UP_S = 5.0
_NOTE_GRACE_S = 5.0
_HELD_CHECK_S = 0.5
_OFFER_AGAIN_S = 30.0
_REMEMBERED_BURIED = 10_000


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
    """Batches of one stage, a bounded number of them at once.

    Of the deliveries with one key, the first asks for all of them: the others follow it, and fill no batch.
    """

    def __init__(
        self,
        stage: Stage,
        run: Callable[[list[Delivery]], Coroutine[None, None, None]],
        *,
        max_records: int,
        linger_s: float,
        concurrency: int,
        key: Callable[[Delivery], Hashable],
        is_hurried: Callable[[], bool],
        on_fault: Callable[[BaseException], None],
    ) -> None:
        self.stage = stage
        self._run = run
        self._batcher: Batcher[Delivery] = Batcher(max_records=max_records, linger_s=linger_s)
        self._concurrency = concurrency
        self._key = key
        self._followers: dict[Hashable, tuple[Delivery, list[Delivery]]] = {}
        self._is_hurried = is_hurried
        self._on_fault = on_fault
        self._tasks: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._is_closed = False

    def add(self, delivery: Delivery) -> None:
        delivery.stage = self.stage
        leader, followers = self._followers.setdefault(self._key(delivery), (delivery, []))
        if leader is not delivery:
            followers.append(delivery)
            return
        is_bulk = delivery.event.origin == "campaign"
        self._batcher.add(delivery, now=asyncio.get_running_loop().time(), is_bulk=is_bulk)
        self.pump()

    def followers(self, leader: Delivery) -> list[Delivery]:
        """Deliveries that wait for this one."""
        found, followers = self._followers.get(self._key(leader), (None, []))
        return followers if found is leader else []

    def left(self, leader: Delivery) -> list[Delivery]:
        """The delivery is gone from this stage; returns those that waited for it."""
        followers = self.followers(leader)
        key = self._key(leader)
        if key in self._followers and self._followers[key][0] is leader:
            del self._followers[key]
        return followers

    def pump(self) -> None:
        """Start what is due; set a timer for the rest."""
        now = asyncio.get_running_loop().time()
        while not self._is_closed and len(self._tasks) < self._concurrency:
            wait_s = self._batcher.wait_s(now)
            if wait_s is None:
                return
            if wait_s > 0 and not self._is_hurried():
                self._wake_in(wait_s)
                return
            self._start(self._batcher.take())

    def _wake_in(self, wait_s: float) -> None:
        """One timer is enough: whatever is added later is due later."""
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(wait_s, self._on_time)

    def _on_time(self) -> None:
        self._timer = None
        self.pump()

    def _start(self, batch: list[Delivery]) -> None:
        task = asyncio.create_task(self._run(batch), name=f"stage-{self.stage}")
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()):
            self._on_fault(error)
        self.pump()

    def purge(self, is_wanted: Callable[[Delivery], bool]) -> list[Delivery]:
        """Remove and return queued deliveries that nobody wants."""
        dropped = self._batcher.purge(is_wanted)
        for _, followers in self._followers.values():
            dropped += [delivery for delivery in followers if not is_wanted(delivery)]
            followers[:] = filter(is_wanted, followers)
        return dropped

    def queued(self) -> int:
        return len(self._batcher) + sum(len(followers) for _, followers in self._followers.values())

    async def settle_down(self, timeout_s: float) -> None:
        """Wait for the batches that run now."""
        if self._tasks:
            await asyncio.wait(set(self._tasks), timeout=timeout_s)

    async def close(self) -> None:
        """Start nothing more, and stop what runs."""
        self._is_closed = True
        if self._timer is not None:
            self._timer.cancel()
        await _cancelled(self._tasks)


async def _cancelled(tasks: Iterable[asyncio.Future[Any]]) -> None:
    """Cancel and wait, for a while: what does not end then must not hold up the end of the process."""
    pending = {task for task in tasks if not task.done()}
    for task in pending:
        task.cancel()
    if pending:
        ended, _ = await asyncio.wait(pending, timeout=_WIND_UP_S)
        for task in ended:
            _ = task.cancelled() or task.exception()


@dataclass(slots=True, eq=False)
class _Held:
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
        self._drains = 0
        self._leaving: set[TopicPartition] = set()
        self._deferred: dict[Delivery, asyncio.TimerHandle] = {}
        self._held: deque[_Held] = deque()
        self._held_wanted = asyncio.Event()
        self._buried: OrderedDict[_Place, None] = OrderedDict()
        self._offered_again_at = 0.0
        self._fault: BaseException | None = None
        self._faulted = asyncio.Event()
        self._background: set[asyncio.Task[Any]] = set()
        self.last_poll_at: float | None = None
        """Loop time at which the poll loop last came round."""
        self.last_progress_at: float | None = None
        """Loop time at which a record was last settled."""
        self._stages = {
            Stage.LEAD: self._stage(Stage.LEAD, self._run_lead, config.resolve_concurrency, sink.person_key),
            Stage.MESSAGE: self._stage(Stage.MESSAGE, self._run_message, config.message_concurrency, id),
            Stage.NOTE: self._stage(Stage.NOTE, self._run_note, config.note_concurrency, sink.note_key),
        }

    def _stage(
        self,
        stage: Stage,
        run: Callable[[list[Delivery]], Coroutine[None, None, None]],
        concurrency: int,
        key: Callable[[Delivery], Hashable],
    ) -> _StageQueue:
        config = self._config
        return _StageQueue(
            stage,
            run,
            max_records=config.batch_max_records,
            linger_s=0.0 if stage is Stage.NOTE else config.linger_s,
            concurrency=concurrency,
            key=key,
            is_hurried=lambda: self._drains > 0,
            on_fault=self._on_fault,
        )

    # -- life ---------------------------------------------------------------------------------------------------

    async def run(self, stop: asyncio.Event) -> None:
        """Work until `stop` is set, then drain within the deadline, commit, and leave the group.

        Raises what no part of it can cope with; the offsets are safe then, and a new process goes on from them.
        """
        stopping = self._spawn(stop.wait())
        loops = [self._spawn(self._commit_loop()), self._spawn(self._dead_letter_loop())]
        watched: list[asyncio.Task[Any]] = [stopping, self._spawn(self._faulted.wait()), *loops]
        try:
            if await self._is_done(self._source.start(self), watched):
                await self._poll_loop(watched)
            self._raise_faults(watched)
            await self._drain(None, self._config.drain_timeout_s)
        finally:
            await self._wind_up()

    def _spawn(self, work: Coroutine[Any, Any, _T]) -> asyncio.Task[_T]:
        task = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)
        return task

    async def _is_done(self, work: Coroutine[Any, Any, object], watched: Sequence[asyncio.Task[Any]]) -> bool:
        """True when the work ended before anything else; else it is left to itself (Kafka may be away for hours)."""
        task = self._spawn(work)
        await asyncio.wait({task, *watched}, return_when=asyncio.FIRST_COMPLETED)
        if any(other.done() for other in watched):
            return False
        task.result()
        return True

    async def _poll_loop(self, watched: Sequence[asyncio.Task[Any]]) -> None:
        loop = asyncio.get_running_loop()
        while not any(task.done() for task in watched):
            self.last_poll_at = loop.time()
            room = self.room()
            timeout_s = _POLL_S if room else _POLL_WITHOUT_ROOM_S
            # A poll is never cancelled: its records may be on their way.  One that outlasts the stop is ignored, and
            # what it brings is read again, for nothing of it is ever committed.
            polling = self._spawn(self._source.poll(max_records=room, timeout_s=timeout_s))
            await asyncio.wait({polling, *watched}, return_when=asyncio.FIRST_COMPLETED)
            if polling.done() and not any(task.done() for task in watched):
                self._take(polling.result())

    def _on_fault(self, error: BaseException) -> None:
        self._fault = self._fault or error
        self._faulted.set()

    def _raise_faults(self, watched: Sequence[asyncio.Task[Any]]) -> None:
        if self._fault is not None:
            raise self._fault
        for task in watched:
            if task.done():
                task.result()

    async def _wind_up(self) -> None:
        for timer in self._deferred.values():
            timer.cancel()
        await asyncio.gather(*(stage.close() for stage in self._stages.values()))
        await _cancelled(self._background)
        await self._commit(timeout_s=_LAST_COMMIT_TIMEOUT_S, is_final=True)
        await self._source.stop()

    def room(self) -> int:
        """Records that may still be read; a crumb of room counts as none, for records should come in batches."""
        if self._tracker.in_flight_bytes() >= self._config.max_in_flight_bytes:
            return 0
        room = self._config.max_in_flight - self._tracker.uncommitted()
        return room if room >= min(self._config.batch_max_records, self._config.max_in_flight // 10 + 1) else 0

    # -- intake -------------------------------------------------------------------------------------------------

    def _take(self, records: Sequence[Record]) -> None:
        """An ack for each record of the poll comes before anything else, so that no gap is ever overlooked.

        What still comes from a partition that is being taken away is left to its next owner.
        """
        now = asyncio.get_running_loop().time()
        ours = [record for record in records if record.tp not in self._leaving]
        acks = [self._issue(record, now) for record in ours]
        for record, ack in zip(ours, acks, strict=True):
            self._observer.record_received(record)
            self._intake(record, ack)

    def _issue(self, record: Record, now: float) -> Ack:
        return self._tracker.issue(
            record.tp, record.offset, now=now, size_bytes=record.size_bytes(), may_repeat=record.may_repeat
        )

    def _intake(self, record: Record, ack: Ack) -> None:
        decoded = decode(record.value, record.headers)
        if isinstance(decoded, Skip):
            self._skip(record, ack, decoded.reason)
        elif isinstance(decoded, Poison):
            rejected = Rejected(Stage.PARSE, decoded.reason, decoded.detail)
            self._hold(_Held(record, ack, rejected, self._now(), attempts=1))
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
        is_left = verdict.delivery is not None and not verdict.delivery.is_wanted()
        if verdict.seen is Seen.FRESH or is_left:
            # A delivery that was taken away is not revived: what it knows is older than what others did meanwhile.
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
        self._observer.record_skipped(record, reason)
        self._settle(ack)

    def _route(self, delivery: Delivery) -> None:
        """To the first stage that is not done."""
        delivery.parent = delivery.parent or self._sink.parent_of(delivery.phone)
        if delivery.parent is None:
            self._enter(delivery, Stage.LEAD)
        else:
            self._enter(delivery, Stage.NOTE if delivery.stage is Stage.NOTE else Stage.MESSAGE)

    def _enter(self, delivery: Delivery, stage: Stage) -> None:
        if delivery.stage is not stage:
            self._leave(delivery)
        self._stages[stage].add(delivery)

    def _leave(self, delivery: Delivery) -> None:
        """Whoever waited for it in its stage goes on alone: mostly, what it asked for is known now."""
        for follower in self._stages[delivery.stage].left(delivery):
            if follower.stage is Stage.NOTE:
                self._message_done(follower)
            else:
                self._route(follower)

    # -- stages -------------------------------------------------------------------------------------------------

    async def _run_lead(self, batch: list[Delivery]) -> None:
        await self._run(Stage.LEAD, batch, self._sink.resolve, self._lead_done)

    async def _run_message(self, batch: list[Delivery]) -> None:
        await self._run(Stage.MESSAGE, batch, self._sink.write_messages, self._message_done)

    async def _run_note(self, batch: list[Delivery]) -> None:
        await self._run(Stage.NOTE, batch, self._sink.write_notes, self._note_done)

    async def _run(
        self, stage: Stage, batch: list[Delivery], work: _Work, done: Callable[[Delivery, Parent | Delivered], None]
    ) -> None:
        started = self._now()
        outcomes = await self._outcomes(stage, batch, work)
        self._observer.batch_done(stage, len(batch), self._now() - started)
        for delivery, outcome in zip(batch, outcomes, strict=True):
            if isinstance(outcome, Rejected):
                self._reject(delivery, outcome)
            elif isinstance(outcome, Deferred):
                self._defer(delivery, outcome)
            else:
                delivery.deferrals = 0
                done(delivery, outcome)

    async def _outcomes(self, stage: Stage, batch: list[Delivery], work: _Work) -> Sequence[_StageOutcome]:
        try:
            return _one_for_each(await work(batch), batch)
        except Exception as error:  # noqa: BLE001 - the corridor's edge: whatever it is, nothing may be lost
            self._observer.stage_failed(stage, error)
            return [Deferred("INTERNAL_FAULT", wrote_maybe=True)] * len(batch)

    def _lead_done(self, delivery: Delivery, outcome: Parent | Delivered) -> None:
        delivery.parent = outcome if isinstance(outcome, Parent) else None
        self._go_on(delivery, Stage.MESSAGE)

    def _message_done(self, delivery: Delivery, _outcome: Parent | Delivered = _DELIVERED) -> None:
        if self._sink.needs_note(delivery):
            self._go_on(delivery, Stage.NOTE)
        else:
            self._finish(delivery)

    def _note_done(self, delivery: Delivery, _outcome: Parent | Delivered) -> None:
        self._finish(delivery)

    def _go_on(self, delivery: Delivery, stage: Stage) -> None:
        """What nobody waits for any more is not carried on: its next owner may be at it already."""
        if delivery.is_wanted():
            self._enter(delivery, stage)
        else:
            self._drop(delivery)

    def _finish(self, delivery: Delivery) -> None:
        self._leave(delivery)
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
        delivery.put_off(deferred)
        self._observer.delivery_deferred(delivery, deferred)
        wait_s = self._config.backoff.wait_s(
            delivery.deferrals, random=self._random(), retry_after_s=deferred.retry_after_s
        )
        self._deferred[delivery] = asyncio.get_running_loop().call_later(wait_s, self._resume, delivery)
        self._moved.set()

    def _resume(self, delivery: Delivery) -> None:
        self._deferred.pop(delivery, None)
        self._route(delivery)

    def _drop(self, delivery: Delivery) -> None:
        """It goes no further: rejected, or every partition it came from was taken away."""
        self._leave(delivery)
        self._dedup.forget(delivery)
        self._sink.gave_up(delivery)

    # -- dead letters -------------------------------------------------------------------------------------------

    def _reject(self, delivery: Delivery, rejected: Rejected) -> None:
        self._leave(delivery)
        attempts = delivery.attempts + 1
        self._hold(_Held(delivery.record, delivery.ack, rejected, self._now(), attempts, delivery))

    def _hold(self, held: _Held) -> None:
        self._breaker.note(held.record.tp, is_rejected=True)
        self._held.append(held)
        self._held_wanted.set()

    async def _dead_letter_loop(self) -> None:
        """Writes rejections once the breaker lets them go; a topic that takes none holds their offsets."""
        failures = 0
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(_HELD_CHECK_S if self._held else None):
                    await self._held_wanted.wait()
            self._held_wanted.clear()
            self._offer_again()
            failures = 0 if await self._bury(self._released()) else failures + 1
            if failures:
                await asyncio.sleep(self._config.backoff.wait_s(failures, random=self._random()))

    def _released(self) -> list[_Held]:
        """What may be written now."""
        ready: list[_Held] = []
        kept: deque[_Held] = deque()
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
        self._moved.set()
        return ready

    def _release_of(self, held: _Held) -> Release:
        return self._breaker.release(held.record.tp, held_s=self._now() - held.since)

    def _offer_again(self) -> None:
        """While the breaker is tripped, Zoho is asked now and then whether it still refuses: one batch of them."""
        now = self._now()
        if now < self._offered_again_at + _OFFER_AGAIN_S:
            return
        halted = [held for held in self._held if held.was_halted and held.delivery is not None]
        if halted:
            self._offered_again_at = now
        for held in halted[: self._config.batch_max_records]:
            self._held.remove(held)
            if held.delivery is not None:
                self._route(held.delivery)

    async def _bury(self, ready: list[_Held]) -> bool:
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
        self._moved.set()
        return not failed

    async def _find_buried(self, ready: list[_Held]) -> None:
        """What an earlier owner wrote before it ended, or we without an answer, is not written again."""
        suspects = [held.record for held in ready if held.is_suspect and _place(held.record) not in self._buried]
        if suspects:
            for place in await self._dead_letters.standing(suspects):
                self._remember_buried(place)

    def _remember_buried(self, place: _Place) -> None:
        self._buried[place] = None
        if len(self._buried) > _REMEMBERED_BURIED:
            self._buried.popitem(last=False)

    async def _write_dead_letter(self, held: _Held) -> bool:
        """A record that is no longer ours is left to its next owner, who judges it anew."""
        if not held.ack.is_fenced() and _place(held.record) not in self._buried:
            try:
                await self._dead_letters.write(held.record, held.rejected, attempts=held.attempts)
            except DeadLetterError as error:
                self._observer.dead_letter_failed(error)
                return False
            self._remember_buried(_place(held.record))
            self._observer.record_rejected(held.record, held.rejected)
        self._let_go(held)
        return True

    def _let_go(self, held: _Held) -> None:
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

    # -- commit and rebalance -----------------------------------------------------------------------------------

    def _settle(self, ack: Ack) -> None:
        ack.settle()
        self._progressed()

    def _progressed(self) -> None:
        self.last_progress_at = self._now()
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
            offsets = self._tracker.committable(again=is_final)
            if only is not None:
                offsets = {tp: offset for tp, offset in offsets.items() if tp in only}
            clean = {tp: offset for tp, offset in offsets.items() if is_final and self._tracker.is_clean(tp)}
            moved = self._tracker.committable()
            rest = {tp: offset for tp, offset in offsets.items() if tp in moved and tp not in clean}
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
        self._leaving.update(partitions)
        try:
            await self._drain(partitions, self._config.drain_timeout_s)
            await self._commit(only=partitions, timeout_s=_LAST_COMMIT_TIMEOUT_S, is_final=True)
        finally:
            async with self._commit_lock:
                self._fence(partitions)
        # A note has no key: one that is being written must be seen by the next owner, who looks before he writes.
        await self._stages[Stage.NOTE].settle_down(_NOTE_GRACE_S)

    def _fence(self, partitions: Collection[TopicPartition]) -> None:
        unsettled = self._unsettled(partitions)
        self._tracker.fence(partitions)
        self._leaving.difference_update(partitions)
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
        for delivery in [delivery for delivery in self._deferred if not delivery.is_wanted()]:
            self._deferred.pop(delivery).cancel()
            dropped.append(delivery)
        for delivery in dropped:
            self._drop(delivery)
        fenced = [held for held in self._held if held.ack.is_fenced()]
        self._held = deque(held for held in self._held if not held.ack.is_fenced())
        for held in fenced:
            self._let_go(held)

    # -- drain --------------------------------------------------------------------------------------------------

    async def _drain(self, partitions: Collection[TopicPartition] | None, timeout_s: float) -> None:
        """Finish what is in work, take nothing new; give up at the deadline, for a redelivery is safe.

        What waits out a backoff, or for the breaker, is not waited for: the next owner may be luckier.
        """
        self._drains += 1
        try:
            for stage in self._stages.values():
                stage.pump()
            with suppress(TimeoutError):
                async with asyncio.timeout(timeout_s):
                    while self._unsettled(partitions) > self._put_off(partitions):
                        self._moved.clear()
                        await self._moved.wait()
        finally:
            self._drains -= 1

    def _unsettled(self, partitions: Collection[TopicPartition] | None) -> int:
        if partitions is None:
            return self._tracker.in_flight()
        return sum(self._tracker.in_flight(tp) for tp in partitions)

    def _put_off(self, partitions: Collection[TopicPartition] | None) -> int:
        """Unsettled records of these partitions at which nobody works now."""
        idle = [held for held in self._held if held.has_failed or self._release_of(held) is Release.HALT]
        owed = [(held.record, held.ack) for held in idle if held.delivery is None]
        following = [follower for leader in self._deferred for follower in self._stages[leader.stage].followers(leader)]
        for delivery in (*self._deferred, *following, *(held.delivery for held in idle if held.delivery is not None)):
            owed += [(delivery.record, delivery.ack), *delivery.waiting]
        return sum(
            not ack.is_fenced() and not ack.is_settled and (partitions is None or record.tp in partitions)
            for record, ack in owed
        )

    # -- for health and console ---------------------------------------------------------------------------------

    def _now(self) -> float:
        return asyncio.get_running_loop().time()

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

    def failing_dead_letters(self) -> int:
        """Rejections that the dead-letter topic did not take."""
        return sum(held.has_failed for held in self._held)

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


def _place(record: Record) -> _Place:
    return record.tp, record.offset


def _one_for_each(outcomes: Sequence[_StageOutcome], batch: Sequence[Delivery]) -> Sequence[_StageOutcome]:
    if len(outcomes) != len(batch):
        raise RuntimeError(f"{len(outcomes)} outcomes for {len(batch)} deliveries")
    return outcomes
