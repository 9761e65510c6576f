"""The corridor: intake, three stages, dead letters, commit.  The only place with tasks and queues.

A record walks one way: poll → ack → decode → dedup → lead → message → note → settle → commit.  Each stage collects
deliveries into batches and runs a bounded number of them at once; a delivery that cannot be done now comes back after
its backoff, alone, so that one blocked record never stops the others.  The only brake is the number of records that
are read and not committed; without room the partitions pause, but polling goes on.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from consumer.core.breaker import Breaker
from consumer.core.decode import Poison, Skip, decode
from consumer.core.dedup import Dedup, Seen
from consumer.core.errors import CommitLostError, SyncError
from consumer.core.model import Deferred, Delivered, Delivery, Parent, Rejected, Stage, TopicPartition
from consumer.core.offsets import OffsetTracker
from consumer.pipeline.dead_letter_desk import DeadLetterDesk
from consumer.pipeline.stage_queue import StageQueue, cancelled

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Coroutine, Hashable, Sequence

    from consumer.core.model import Record
    from consumer.core.offsets import Ack
    from consumer.core.phones import Phones
    from consumer.core.ports import CrmSink, DeadLetters, RecordSource
    from consumer.pipeline.config import PipelineConfig
    from consumer.pipeline.observer import PipelineObserver
    from schemas.message_event import MessageEvent

    _StageOutcome: TypeAlias = Parent | Delivered | Rejected | Deferred
    _Work: TypeAlias = Callable[[Sequence[Delivery]], Awaitable[Sequence[_StageOutcome]]]

_T = TypeVar("_T")
_DELIVERED = Delivered()
_POLL_S = 0.5
_POLL_WITHOUT_ROOM_S = 0.05
_COMMIT_TIMEOUT_S = 10.0
_LAST_COMMIT_TIMEOUT_S = 5.0
_NOTE_GRACE_S = 5.0


@dataclass(frozen=True, slots=True)
class Blocked:
    """A delivery that Zoho keeps refusing for now."""

    tp: TopicPartition
    offset: int
    attempts: int
    code: str


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
        self._desk = DeadLetterDesk(
            dead_letters,
            self._breaker,
            observer=observer,
            backoff=config.backoff,
            batch_size=config.batch_max_records,
            random=random,
            route=self._route,
            drop=self._drop,
            settle=self._settle,
            intake=self._intake,
            on_change=self._moved.set,
        )
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
    ) -> StageQueue:
        config = self._config
        return StageQueue(
            stage,
            run,
            max_records=config.batch_max_records,
            linger_s=config.linger_s,
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
        loops = [self._spawn(self._commit_loop()), self._spawn(self._desk.run())]
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
            polling = self._spawn(self._poll(room, timeout_s, watched))
            await asyncio.wait({polling, *watched}, return_when=asyncio.FIRST_COMPLETED)
            if polling.done():
                polling.result()

    async def _poll(self, room: int, timeout_s: float, watched: Sequence[asyncio.Task[Any]]) -> None:
        """No turn of the loop lies between the source's answer and the acks: in it a partition could be taken away."""
        records = await self._source.poll(max_records=room, timeout_s=timeout_s)
        if not any(task.done() for task in watched):
            self._take(records)

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
        await cancelled(self._background)
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
            self._desk.reject(record, ack, rejected, attempts=1)
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
        """To the first stage that is not done; with another parent than before, its message is linked anew."""
        is_linked = delivery.stage is Stage.NOTE and delivery.parent is not None
        delivery.parent = delivery.parent or self._sink.parent_of(delivery.phone)
        if delivery.parent is None:
            self._enter(delivery, Stage.LEAD)
        else:
            self._enter(delivery, Stage.NOTE if is_linked else Stage.MESSAGE)

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
        if not delivery.ack.is_fenced():
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

    def _reject(self, delivery: Delivery, rejected: Rejected) -> None:
        """What nobody waits for any more is its next owner's to judge."""
        if not delivery.is_wanted():
            self._drop(delivery)
            return
        self._leave(delivery)
        attempts = delivery.attempts + 1
        self._desk.reject(delivery.record, delivery.ack, rejected, attempts=attempts, delivery=delivery)

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
        self._desk.let_fenced_go()

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
        idle = self._desk.idle()
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
        return self._desk.failing()

    def held_dead_letters(self) -> int:
        """Rejections that are not in the dead-letter topic yet."""
        return len(self._desk)

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


def _one_for_each(outcomes: Sequence[_StageOutcome], batch: Sequence[Delivery]) -> Sequence[_StageOutcome]:
    if len(outcomes) != len(batch):
        raise RuntimeError(f"{len(outcomes)} outcomes for {len(batch)} deliveries")
    return outcomes
