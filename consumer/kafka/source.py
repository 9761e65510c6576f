"""Kafka as a record source.  The only user of aiokafka's consumer; each comment below is one of its traps.

Rules that hold throughout: auto-commit is off and offsets are explicit; `getmany` is only called with its own timeout
and never cancelled (one cancelled call disables aiokafka's poll guard for good); values stay bytes (a deserializer
that raises blocks the partition); pausing is our own state and is applied again after each rebalance (aiokafka
forgets it); there is one assignor (each more costs a join).  Where a partition is read from is our own state too:
whatever goes wrong, reading goes on behind the last record that was handed out.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener
from aiokafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor
from aiokafka.errors import (
    CommitFailedError,
    CorruptRecordException,
    IllegalStateError,
    KafkaConnectionError,
    KafkaError,
    NoOffsetForPartitionError,
    OffsetOutOfRangeError,
    RecordTooLargeError,
)
from aiokafka.structs import OffsetAndMetadata

from consumer.core.errors import CommitLostError, TransientError
from consumer.core.model import Record, TopicPartition
from consumer.kafka.closing import Closer
from consumer.kafka.opening import committed_offsets, kafka_partition, resolved
from consumer.kafka.reading import OutdatedError, Reader, UnreadableError
from consumer.kafka.start_position import CommitNote, group_note, start_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence

    from consumer.core.ports import RebalanceListener
    from consumer.kafka.connection import KafkaConnection

_Part = TypeVar("_Part")
_FETCH_BYTES = 1024 * 1024
"""Of one answer: thousands of records, several times in memory while it is read.  A larger batch still comes whole."""
_PAUSE_AFTER_S = 5.0
_ERROR_WAIT_S = 1.0
_STOP_TIMEOUT_S = 10.0
_COMMIT_TIMEOUT_S = 10.0
_ENDS_EVERY_S = 15.0
_ENDS_AGAIN_S = 2.0
_ENDS_TIMEOUT_S = 5.0
_UNREACHABLE_S = 60.0
"""A session is lost by then, so a new client costs nothing; it also reads a changed password."""
_REBALANCING_S = 120.0
"""Beyond the time that the members have for it."""
_HALT_S = 30.0
_GONE = (
    "Records behind the committed offset are gone (retention, or the topic was made anew). Decide where to go on, stop "
    "the service, set the offset with kafka-consumer-groups --reset-offsets, start it again: see the runbook."
)
_CORRUPT = (
    "The checksum of the record at offset {offset} of partition {number} is wrong: the broker's disk may be damaged. "
    "It is read again now and then."
)
_TOO_LARGE = (
    "The record at offset {offset} of partition {number} is larger than the broker sends at once. "
    "It is asked for again now and then."
)
_UNREADABLE = (
    "Kafka's client cannot read the record at offset {offset} of partition {number}, so nothing behind it is read. "
    "It is tried again now and then. To pass it, stop the service, set the offset behind it with "
    "kafka-consumer-groups --reset-offsets, start the service again: see the runbook."
)


class SourceObserver(Protocol):
    """Told of what happens in the Kafka room, for log and metrics."""

    def partition_opened(self, tp: TopicPartition, offset: int, why: str) -> None:
        """Reading begins at this offset."""

    def partition_halted(self, tp: TopicPartition, code: str, advice: str) -> None:
        """Reading stopped until somebody acts."""

    def kafka_failed(self, what: str, error: BaseException) -> None:
        """A call to the brokers failed; it is tried again."""


@dataclass(frozen=True, slots=True)
class SourceConfig:
    """What the source needs to know beside the connection."""

    topic: str
    group_id: str
    since_ms: int | None = None
    group_instance_id: str | None = None
    session_timeout_s: float = 30.0
    rebalance_timeout_s: float = 60.0
    max_poll_interval_s: float = 600.0
    metadata_max_age_s: float = 60.0
    """How soon a partition that was added to the topic is seen."""
    patience_s: float = 20.0
    """How long a client may go on failing before another takes its place."""
    repeat_window: int = 5000
    """Records of a partition that its last owner may have written without committing: its bound of in-flight ones."""


@dataclass(frozen=True, slots=True)
class HaltedPartition:
    """A partition that is not read, and why; `retry_at`: when it is tried again, if ever.

    It counts as halted until a record has been read.
    """

    code: str
    advice: str
    since: float
    retry_at: float | None = None

    def is_shut(self, now: float) -> bool:
        """Not even tried."""
        return self.retry_at is None or self.retry_at > now


class _Member(ConsumerRebalanceListener):  # type: ignore[misc]  # aiokafka has no types
    """What one consumer tells of its partitions; nobody listens once another consumer has taken its place."""

    def __init__(
        self,
        on_revoked: Callable[[set[TopicPartition]], Awaitable[None]],
        on_assigned: Callable[[set[TopicPartition]], Awaitable[None]],
    ) -> None:
        self._on_revoked = on_revoked
        self._on_assigned = on_assigned
        self.is_retired = False

    async def on_partitions_revoked(self, revoked: Collection[Any]) -> None:
        if not self.is_retired:
            await self._on_revoked(_ours(revoked))

    async def on_partitions_assigned(self, assigned: Collection[Any]) -> None:
        if not self.is_retired:
            await self._on_assigned(_ours(assigned))


class KafkaSource:
    """Reads one topic as a member of one group."""

    def __init__(
        self,
        connection: KafkaConnection,
        config: SourceConfig,
        *,
        observer: SourceObserver,
        wall_clock: Callable[[], float],
    ) -> None:
        self._connection = connection
        self._config = config
        self._observer = observer
        self._wall_clock = wall_clock
        self._closer = Closer(timeout_s=_STOP_TIMEOUT_S, on_failure=lambda error: observer.kafka_failed("stop", error))
        self._listener: RebalanceListener | None = None
        self._consumer: AIOKafkaConsumer | None = None
        self._member: _Member | None = None
        self._reader = Reader()
        self._replacing: asyncio.Task[None] | None = None
        self._commit_lock = asyncio.Lock()
        self._epoch = 0
        """Counts the changes of ownership."""
        self._note = CommitNote(0, 0)
        self._unopened: set[TopicPartition] = set()
        self._suspects: dict[TopicPartition, int] = {}
        self._positions: dict[TopicPartition, int] = {}
        self._stored: dict[TopicPartition, int] = {}
        self._ends: dict[TopicPartition, int] = {}
        self._ends_due_at = 0.0
        self._no_room_since: float | None = None
        self._failing_since: float | None = None
        self._rebalancing_since: float | None = None
        self._is_running = False
        self._was_running = False
        self._has_joined = False
        self._unreachable_since: float | None = None
        self.halted: dict[TopicPartition, HaltedPartition] = {}
        self.partition_count = 0
        """Partitions of the topic, ours or not."""

    # -- life ---------------------------------------------------------------------------------------------------

    async def start(self, listener: RebalanceListener) -> None:
        """Connect and subscribe; tries again until the brokers answer."""
        self._listener = listener
        await self._join()

    async def _join(self) -> None:
        """A setting that is wrong ends the first start; later it passes: somebody is writing a file of secrets anew."""
        while not self._is_running:
            try:
                await self._connect()
            except Exception as error:
                if not self._was_running and not isinstance(error, (KafkaError, OSError)):
                    raise
                self._observer.kafka_failed("connect", error)
                is_answered = isinstance(error, KafkaError) and not isinstance(error, KafkaConnectionError)
                self._failing_since = self._now() if is_answered else None
                await self._close()
                await asyncio.sleep(_ERROR_WAIT_S)
            else:
                self._failing_since = self._unreachable_since = None
                self._is_running = self._was_running = True

    async def _connect(self) -> None:
        config = self._config
        self._member = _Member(self._on_revoked, self._on_assigned)
        self._consumer = AIOKafkaConsumer(
            group_id=config.group_id,
            group_instance_id=config.group_instance_id,
            enable_auto_commit=False,
            auto_offset_reset="none",
            partition_assignment_strategy=(RoundRobinPartitionAssignor,),
            session_timeout_ms=int(config.session_timeout_s * 1000),
            heartbeat_interval_ms=int(min(3.0, config.session_timeout_s / 4) * 1000),
            rebalance_timeout_ms=int(config.rebalance_timeout_s * 1000),
            max_poll_interval_ms=int(config.max_poll_interval_s * 1000),
            fetch_max_bytes=_FETCH_BYTES,
            max_partition_fetch_bytes=_FETCH_BYTES,
            metadata_max_age_ms=int(config.metadata_max_age_s * 1000),
            **self._connection.options(),
        )
        self._consumer.subscribe([config.topic], listener=self._member)
        await self._consumer.start()

    async def recreate(self) -> None:
        """Leave and join with a new client, for this one makes no progress (it can hang after a broker loss).

        Done in the background: the poll loop goes on meanwhile, without records.
        """
        if self._replacing is None or self._replacing.done():
            self._replacing = asyncio.create_task(self._replace())

    async def _replace(self) -> None:
        self._is_running = False
        self._reader = Reader()
        if self._member is not None:
            self._member.is_retired = True
        await self._on_revoked(self.assignment())
        await self._close()
        await self._join()

    async def stop(self) -> None:
        """Leave the group; bounded, never raises."""
        if self._replacing is not None:
            self._replacing.cancel()
        await self._close()

    async def _close(self) -> None:
        consumer, self._consumer = self._consumer, None
        self._is_running = False
        self._has_joined = False
        self._rebalancing_since = None
        if self._member is not None:
            self._member.is_retired = True
        if consumer is not None:
            await self._closer.close(consumer)

    # -- what it looks like -------------------------------------------------------------------------------------

    @property
    def is_joined(self) -> bool:
        """True while the group counts us in, with partitions or without (a standby), and the brokers answer."""
        return self._has_joined and self._unreachable_since is None and self._failing_since is None

    @property
    def waits_for(self) -> str:
        """What keeps us from reading: `brokers`, `answers` (they come, but are errors), `group`; empty for nothing."""
        if self._unreachable_since is None and self._failing_since is not None:
            return "answers"
        if self._unreachable_since is not None or not self._is_running:
            return "brokers"
        return "" if self._has_joined else "group"

    @property
    def is_rebalancing(self) -> bool:
        """True while partitions are being shared out anew."""
        return self._rebalancing_since is not None

    def assignment(self) -> set[TopicPartition]:
        """Partitions that the group gave us."""
        return _ours(self._consumer.assignment()) if self._consumer is not None else set()

    def lag(self) -> dict[TopicPartition, int]:
        """Records between our position and the end, for each partition of ours, as far as known."""
        return {tp: max(0, self._end(tp) - self._positions[tp]) for tp in self.assignment() & self._positions.keys()}

    def _end(self, tp: TopicPartition) -> int:
        """As the last fetch or the last look says: what is paused is not fetched, but it grows."""
        fetched: int | None = None
        if self._consumer is not None:
            with suppress(IllegalStateError, AssertionError):
                fetched = self._consumer.highwater(kafka_partition(tp))
        return max(fetched or 0, self._ends.get(tp, 0))

    # -- reading ------------------------------------------------------------------------------------------------

    async def poll(self, *, max_records: int, timeout_s: float) -> Sequence[Record]:
        """See `RecordSource.poll`."""
        consumer = self._consumer
        if consumer is None or not self._is_running:
            await asyncio.sleep(timeout_s)
            return []
        try:
            records = await self._poll(consumer, max_records, timeout_s)
        except Exception as error:  # noqa: BLE001 - the edge towards aiokafka: no fault of it may end the service
            await self._failed(consumer, error)
            return []
        return records

    async def _poll(self, consumer: AIOKafkaConsumer, max_records: int, timeout_s: float) -> Sequence[Record]:
        await self._look_after(consumer)
        if self._unopened and not await self._open_partitions(consumer):
            await asyncio.sleep(timeout_s)
            return []
        if not self._is_in_use(consumer):
            return []
        if not max_records and not self._must_pause():
            await asyncio.sleep(timeout_s)
            return []
        if max_records:
            self._no_room_since = None
        self._apply_pause(consumer, is_full=not max_records)
        reader = self._reader
        batches = await reader.read(consumer, epoch=self._epoch, max_records=max_records, timeout_s=timeout_s)
        if batches is None or reader is not self._reader:
            return []
        self._failing_since = None
        return self._records(batches)

    def _is_in_use(self, consumer: AIOKafkaConsumer) -> bool:
        """It may have been replaced while a call of its was waited for."""
        return consumer is self._consumer and self._is_running

    def _must_pause(self) -> bool:
        """A short lack of room is sat out, for pausing throws away what is fetched; a long one pauses and polls."""
        if self._no_room_since is None:
            self._no_room_since = self._now()
        return self._now() - self._no_room_since > _PAUSE_AFTER_S

    def _records(self, batches: Mapping[Any, Sequence[Any]]) -> list[Record]:
        records: list[Record] = []
        for kafka_tp, batch in batches.items():
            tp = TopicPartition(kafka_tp.topic, kafka_tp.partition)
            if not batch or tp not in self._positions:
                continue
            suspects = self._suspects.get(tp, 0)
            for raw in batch:
                records.append(_record(tp, raw, may_repeat=suspects > 0))
                suspects -= 1
            self._suspects[tp] = max(0, suspects)
            self._positions[tp] = batch[-1].offset + 1
            self.halted.pop(tp, None)
        return records

    def _apply_pause(self, consumer: AIOKafkaConsumer, *, is_full: bool) -> None:
        paused, now = consumer.paused(), self._now()
        for tp in self.assignment():
            kafka_tp, halted = kafka_partition(tp), self.halted.get(tp)
            wants_pause = is_full or tp in self._unopened or (halted is not None and halted.is_shut(now))
            if wants_pause and kafka_tp not in paused:
                consumer.pause(kafka_tp)
            elif not wants_pause and kafka_tp in paused:
                consumer.resume(kafka_tp)

    # -- trouble ------------------------------------------------------------------------------------------------

    async def _failed(self, consumer: AIOKafkaConsumer, error: Exception) -> None:
        if not self._is_in_use(consumer):
            return
        self._rewind()
        if isinstance(error, OutdatedError):
            return
        if isinstance(error, NoOffsetForPartitionError):
            self._unopened.update(self.assignment() - self._positions.keys())
        elif isinstance(error, OffsetOutOfRangeError):
            await self._out_of_range(consumer, error)
        elif isinstance(error, UnreadableError):
            await self._unreadable(error)
        else:
            await self._bear(error)

    def _rewind(self) -> None:
        """What a failed `getmany` had already taken from its buffers is lost to it: go back to where we are."""
        for tp in self._positions.keys() & self.assignment():
            with suppress(IllegalStateError):
                self._required(self._consumer).seek(kafka_partition(tp), self._positions[tp])

    async def _bear(self, error: Exception) -> None:
        """Some of aiokafka's failures repeat for ever, its own tasks being dead: then only a new client helps."""
        self._observer.kafka_failed("poll", error)
        now = self._now()
        self._failing_since = self._failing_since or now
        if now - self._failing_since > self._config.patience_s:
            await self.recreate()
        await asyncio.sleep(_ERROR_WAIT_S)

    async def _out_of_range(self, consumer: AIOKafkaConsumer, error: OffsetOutOfRangeError) -> None:
        """Jumping would lose messages in silence, so stop and say so; and let the offset's note say it to others."""
        named = error.args[0] if error.args and isinstance(error.args[0], dict) else {}
        try:
            for kafka_tp, offset in named.items():
                if not await _is_in_range(consumer, kafka_tp, offset):
                    self._halt(TopicPartition(kafka_tp.topic, kafka_tp.partition), "OFFSET_OUT_OF_RANGE", _GONE)
            async with self._commit_lock:
                gone = {tp: self._stored[tp] for tp in self._gone() & self._stored.keys()}
                await self._commit(consumer, gone, is_clean=False)
        except (KafkaError, TimeoutError) as failure:
            await self._bear(failure)

    def _gone(self) -> set[TopicPartition]:
        return {tp for tp, halted in self.halted.items() if halted.retry_at is None} & self.assignment()

    async def _unreadable(self, error: UnreadableError) -> None:
        """At first it is only looked at more closely; what fails then is the record at our position."""
        reader = self._reader
        was_careful, reader.careful_until = reader.is_careful, 0.0
        tp = TopicPartition(*error.kafka_tp) if error.kafka_tp else None
        if not was_careful:
            self._observer.kafka_failed("fetch", error.cause)
            reader.careful_until = self._now() + _HALT_S
        elif tp in self._positions:
            code, advice = _why_unreadable(error.cause)
            told = advice.format(offset=self._positions[tp], number=tp.partition)
            self._halt(tp, code, told, retry_at=self._now() + _HALT_S)
        else:
            await self._bear(error.cause)

    def _halt(self, tp: TopicPartition, code: str, advice: str, *, retry_at: float | None = None) -> None:
        known = self.halted.get(tp)
        if known is None or known.code != code:
            self._observer.partition_halted(tp, code, advice)
        since = self._now() if known is None else known.since
        self.halted[tp] = HaltedPartition(code, advice, since, retry_at)

    async def _look_after(self, consumer: AIOKafkaConsumer) -> None:
        now = self._now()
        if now >= self._ends_due_at:
            await self._look_at_ends(consumer)
        if self._is_overdue(now):
            await self.recreate()

    def _is_overdue(self, now: float) -> bool:
        if self._unreachable_since is not None:
            return now - self._unreachable_since > _UNREACHABLE_S
        limit_s = self._config.rebalance_timeout_s + _REBALANCING_S
        return self._rebalancing_since is not None and now - self._rebalancing_since > limit_s

    async def _look_at_ends(self, consumer: AIOKafkaConsumer) -> None:
        """How far the topic has grown; also tells whether the brokers answer, which aiokafka keeps to itself."""
        topic = self._config.topic
        partitions = [kafka_partition(TopicPartition(topic, number)) for number in self._numbers(consumer)]
        try:
            async with asyncio.timeout(_ENDS_TIMEOUT_S):
                ends = await consumer.end_offsets(partitions)
        except (KafkaError, TimeoutError) as error:
            self._observer.kafka_failed("end_offsets", error)
            self._unreachable_since = self._unreachable_since or self._now()
            self._ends_due_at = self._now() + _ENDS_AGAIN_S
        else:
            self._ends = {TopicPartition(tp.topic, tp.partition): end for tp, end in ends.items()}
            self._unreachable_since = None
            self._ends_due_at = self._now() + _ENDS_EVERY_S

    def _numbers(self, consumer: AIOKafkaConsumer) -> set[int]:
        return set(consumer.partitions_for_topic(self._config.topic) or ())

    # -- beginning ----------------------------------------------------------------------------------------------

    async def _open_partitions(self, consumer: AIOKafkaConsumer) -> bool:
        """Find where to begin, commit that at once, and only then read; False when it was in vain."""
        opening = self._unopened & self.assignment()
        epoch = self._epoch
        try:
            if opening and not await self._open(consumer, opening, epoch):
                return False
        except (CommitFailedError, IllegalStateError):
            return False
        self._unopened -= opening
        return True

    async def _open(self, consumer: AIOKafkaConsumer, opening: set[TopicPartition], epoch: int) -> bool:
        topic = self._config.topic
        numbers = self._numbers(consumer) | {tp.partition for tp in opening}
        committed = await committed_offsets(self._connection, self._config.group_id, topic, numbers)
        note = group_note(committed, partitions=len(numbers), now_ms=int(self._wall_clock() * 1000))
        wanted = {tp: start_of(tp.partition, committed, note, since_ms=self._config.since_ms) for tp in opening}
        starts = await resolved(consumer, wanted)
        offsets = {tp: start.offset or 0 for tp, start in starts.items()}
        async with self._commit_lock:
            if epoch != self._epoch:
                return False
            self._note = note
            for tp in opening:
                if starts[tp].is_halted:
                    self._halt(tp, "OFFSET_OUT_OF_RANGE", _GONE)
            await self._commit(consumer, offsets, is_clean=False)
        if epoch != self._epoch:
            return False
        for tp, offset in offsets.items():
            consumer.seek(kafka_partition(tp), offset)
            self._positions[tp] = offset
            self._suspects[tp] = self._config.repeat_window if starts[tp].may_repeat else 0
            self._observer.partition_opened(tp, offset, starts[tp].kind.name.lower())
        return True

    # -- committing ---------------------------------------------------------------------------------------------

    async def commit(self, offsets: Mapping[TopicPartition, int], *, is_clean: bool) -> None:
        """See `RecordSource.commit`.  What is ours is stored also when the rest is lost; it may be stored again."""
        async with self._commit_lock:
            consumer = self._consumer
            ours = {tp: offsets[tp] for tp in offsets.keys() & self.assignment() & self._positions.keys()}
            if consumer is None or not ours:
                raise CommitLostError("PARTITION_LOST")
            try:
                await self._commit(consumer, ours, is_clean=is_clean)
            except (CommitFailedError, IllegalStateError):
                raise CommitLostError("COMMIT_REFUSED") from None
            except (KafkaError, TimeoutError) as error:
                self._observer.kafka_failed("commit", error)
                raise TransientError(type(error).__name__) from None
            if len(ours) < len(offsets):
                raise CommitLostError("PARTITION_LOST")

    async def _commit(
        self, consumer: AIOKafkaConsumer, offsets: Mapping[TopicPartition, int], *, is_clean: bool
    ) -> None:
        """Only with the lock: a commit that waits over a rebalance would be sent as the new generation's.

        Outside any generation, after a lost session, a group that has no members would take it from anybody.
        """
        if consumer._coordinator.generation < 0:  # noqa: SLF001 - not to be had otherwise
            raise CommitFailedError
        gone = self._gone()
        entries = {
            kafka_partition(tp): OffsetAndMetadata(
                offset, CommitNote(self._note.born_ms, self._note.partitions, is_clean, tp in gone).text()
            )
            for tp, offset in offsets.items()
        }
        async with asyncio.timeout(_COMMIT_TIMEOUT_S):
            await consumer.commit(entries)
        self._stored.update(offsets)

    # -- rebalance ----------------------------------------------------------------------------------------------

    async def _on_revoked(self, partitions: set[TopicPartition]) -> None:
        """aiokafka logs and swallows what is raised here, so nothing may be."""
        self._rebalancing_since = self._now()
        try:
            await self._required(self._listener).on_revoked(partitions)
        except Exception as error:  # noqa: BLE001 - the edge towards aiokafka
            self._observer.kafka_failed("revoke", error)
        async with self._commit_lock:
            self._epoch += 1
            for tp in partitions:
                self._forget(tp)

    def _forget(self, tp: TopicPartition) -> None:
        self._unopened.discard(tp)
        for known in (self._suspects, self._positions, self._stored, self.halted):
            known.pop(tp, None)

    async def _on_assigned(self, partitions: set[TopicPartition]) -> None:
        """Touches own state only: waiting for Kafka here would deadlock with the coordinator."""
        consumer = self._required(self._consumer)
        self._epoch += 1
        self._unopened = set(partitions)
        self.partition_count = max(len(self._numbers(consumer)), len(partitions))
        consumer.pause(*map(kafka_partition, partitions))
        self._has_joined = True
        self._rebalancing_since = None
        try:
            await self._required(self._listener).on_assigned(partitions)
        except Exception as error:  # noqa: BLE001 - the edge towards aiokafka
            self._observer.kafka_failed("assign", error)

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()

    @staticmethod
    def _required(part: _Part | None) -> _Part:
        if part is None:
            raise RuntimeError("the source has not been started")
        return part


def _why_unreadable(cause: Exception) -> tuple[str, str]:
    if isinstance(cause, CorruptRecordException):
        return "RECORD_CORRUPT", _CORRUPT
    if isinstance(cause, RecordTooLargeError):
        return "RECORD_TOO_LARGE", _TOO_LARGE
    return "RECORD_UNREADABLE", _UNREADABLE


async def _is_in_range(consumer: AIOKafkaConsumer, kafka_tp: Any, offset: int) -> bool:
    beginnings, ends = await consumer.beginning_offsets([kafka_tp]), await consumer.end_offsets([kafka_tp])
    return bool(beginnings[kafka_tp] <= offset <= ends[kafka_tp])


def _ours(partitions: Collection[Any]) -> set[TopicPartition]:
    return {TopicPartition(tp.topic, tp.partition) for tp in partitions}


def _record(tp: TopicPartition, raw: Any, *, may_repeat: bool) -> Record:
    return Record(tp, raw.offset, raw.timestamp, raw.key, raw.value, tuple(raw.headers), may_repeat)
