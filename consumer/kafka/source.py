"""Kafka as a record source.  The only user of aiokafka's consumer; each comment below is one of its traps.

Rules that hold throughout: auto-commit is off and offsets are explicit; `getmany` is only called with its own timeout
and never cancelled (one cancelled call disables aiokafka's poll guard for good); values stay bytes (a deserializer
that raises blocks the partition); pausing is our own state and is applied again after each rebalance (aiokafka
forgets it); there is one assignor (each more costs a join).
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener
from aiokafka import TopicPartition as KafkaPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor
from aiokafka.errors import (
    CommitFailedError,
    IllegalStateError,
    KafkaError,
    NoOffsetForPartitionError,
    OffsetOutOfRangeError,
    RecordTooLargeError,
)
from aiokafka.structs import OffsetAndMetadata

from consumer.core.errors import CommitLostError, TransientError
from consumer.core.model import Record, TopicPartition
from consumer.kafka.start_position import CommitNote, Committed, From, Start, group_note, start_of

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from consumer.core.ports import RebalanceListener
    from consumer.kafka.connection import KafkaConnection

_Part = TypeVar("_Part")
_PAUSE_AFTER_S = 5.0
_ERROR_WAIT_S = 1.0
_STOP_TIMEOUT_S = 10.0


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
    repeat_window: int = 5000
    """Records of a partition that its last owner may have written without committing: its bound of in-flight ones."""


@dataclass(frozen=True, slots=True)
class HaltedPartition:
    """A partition that is not read, and why."""

    code: str
    advice: str
    since: float


class KafkaSource(ConsumerRebalanceListener):  # type: ignore[misc]  # aiokafka has no types
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
        self._listener: RebalanceListener | None = None
        self._consumer: AIOKafkaConsumer | None = None
        self._admin: AIOKafkaAdminClient | None = None
        self._note = CommitNote(0, 0)
        self._unopened: set[TopicPartition] = set()
        self._suspects: dict[TopicPartition, int] = {}
        self._positions: dict[TopicPartition, int] = {}
        self._no_room_since: float | None = None
        self.halted: dict[TopicPartition, HaltedPartition] = {}
        self.is_joined = False
        """True once the beginning of each partition of ours is committed; a standby without any is well, too.

        Not before: whoever waits for readiness and then produces must not fall before that beginning."""
        self.is_rebalancing = False
        self.partition_count = 0
        """Partitions of the topic, ours or not."""

    # -- life ---------------------------------------------------------------------------------------------------

    async def start(self, listener: RebalanceListener) -> None:
        """Connect and subscribe; tries again until the brokers answer."""
        self._listener = listener
        while True:
            try:
                await self._connect()
            except (KafkaError, OSError) as error:
                self._observer.kafka_failed("connect", error)
                await self._close()
                await asyncio.sleep(_ERROR_WAIT_S)
            else:
                return

    async def _connect(self) -> None:
        options = self._connection.options()
        self._admin = AIOKafkaAdminClient(**options)
        await self._admin.start()
        self._consumer = AIOKafkaConsumer(
            group_id=self._config.group_id,
            group_instance_id=self._config.group_instance_id,
            enable_auto_commit=False,
            auto_offset_reset="none",
            partition_assignment_strategy=(RoundRobinPartitionAssignor,),
            session_timeout_ms=int(self._config.session_timeout_s * 1000),
            heartbeat_interval_ms=int(min(3.0, self._config.session_timeout_s / 4) * 1000),
            rebalance_timeout_ms=int(self._config.rebalance_timeout_s * 1000),
            max_poll_interval_ms=600_000,
            fetch_max_bytes=16 * 1024 * 1024,
            max_partition_fetch_bytes=2 * 1024 * 1024,
            metadata_max_age_ms=60_000,
            **options,
        )
        self._consumer.subscribe([self._config.topic], listener=self)
        await self._consumer.start()

    async def recreate(self) -> None:
        """Leave and join with a new client, when this one makes no progress (it can hang after a broker loss)."""
        listener = self._required(self._listener)
        owned = self.assignment()
        await self._close()
        await listener.on_revoked(owned)
        self._forget(owned)
        await self.start(listener)

    @staticmethod
    def _required(part: _Part | None) -> _Part:
        if part is None:
            raise RuntimeError("the source has not been started")
        return part

    async def stop(self) -> None:
        """Leave the group; bounded, never raises."""
        await self._close()

    async def _close(self) -> None:
        consumer, self._consumer = self._consumer, None
        admin, self._admin = self._admin, None
        self.is_joined = False
        if consumer is not None:
            await self._close_bounded(consumer.stop())
        if admin is not None:
            await self._close_bounded(admin.close())

    async def _close_bounded(self, closing: Any) -> None:
        """aiokafka's stop() can hang, and can raise CancelledError of its own when brokers are gone."""
        task = asyncio.ensure_future(closing)
        await asyncio.wait({task}, timeout=_STOP_TIMEOUT_S)
        if not task.done():
            task.cancel()
        elif not task.cancelled() and (error := task.exception()):
            self._observer.kafka_failed("stop", error)

    # -- reading ------------------------------------------------------------------------------------------------

    async def poll(self, *, max_records: int, timeout_s: float) -> Sequence[Record]:
        """See `RecordSource.poll`."""
        consumer = self._consumer
        if consumer is None:
            await asyncio.sleep(timeout_s)
            return []
        if self._unopened and not await self._open_partitions(consumer):
            return []
        if not max_records and not self._must_pause():
            await asyncio.sleep(timeout_s)
            return []
        if max_records:
            self._no_room_since = None
        self._apply_pause(consumer, is_full=not max_records)
        return self._records(await self._getmany(consumer, max_records, timeout_s))

    def _must_pause(self) -> bool:
        """A short lack of room is sat out, for pausing throws away what is fetched; a long one pauses and polls."""
        now = asyncio.get_running_loop().time()
        if self._no_room_since is None:
            self._no_room_since = now
        return now - self._no_room_since > _PAUSE_AFTER_S

    async def _getmany(
        self, consumer: AIOKafkaConsumer, max_records: int, timeout_s: float
    ) -> Mapping[Any, Sequence[Any]]:
        try:
            batches: Mapping[Any, Sequence[Any]] = await consumer.getmany(
                timeout_ms=int(timeout_s * 1000), max_records=max_records or None
            )
            return batches
        except OffsetOutOfRangeError as error:
            self._halt_out_of_range(consumer, error)
        except NoOffsetForPartitionError:
            self._unopened.update(self.assignment() - self._positions.keys())
        except RecordTooLargeError as error:
            self._halt_too_large(consumer, error)
        except KafkaError as error:
            self._observer.kafka_failed("fetch", error)
            await asyncio.sleep(_ERROR_WAIT_S)
        return {}

    def _records(self, batches: Mapping[Any, Sequence[Any]]) -> list[Record]:
        records: list[Record] = []
        for kafka_tp, batch in batches.items():
            tp = TopicPartition(kafka_tp.topic, kafka_tp.partition)
            suspects = self._suspects.get(tp, 0)
            for raw in batch:
                records.append(_record(tp, raw, may_repeat=suspects > 0))
                suspects -= 1
            if batch:
                self._suspects[tp] = max(0, suspects)
                self._positions[tp] = batch[-1].offset + 1
        return records

    def _apply_pause(self, consumer: AIOKafkaConsumer, *, is_full: bool) -> None:
        paused = consumer.paused()
        for tp in self.assignment():
            kafka_tp = _kafka(tp)
            wants_pause = is_full or tp in self.halted or tp in self._unopened
            if wants_pause and kafka_tp not in paused:
                consumer.pause(kafka_tp)
            elif not wants_pause and kafka_tp in paused:
                consumer.resume(kafka_tp)

    def assignment(self) -> set[TopicPartition]:
        """Partitions that the group gave us."""
        if self._consumer is None:
            return set()
        return {TopicPartition(tp.topic, tp.partition) for tp in self._consumer.assignment()}

    def lag(self) -> dict[TopicPartition, int]:
        """Records between our position and the end, for each partition of ours, as far as known."""
        consumer = self._consumer
        if consumer is None:
            return {}
        found: dict[TopicPartition, int] = {}
        for tp in self.assignment() & self._positions.keys():
            with suppress(IllegalStateError, AssertionError):
                end = consumer.highwater(_kafka(tp))
                if end is not None:
                    found[tp] = max(0, end - self._positions[tp])
        return found

    # -- beginning ----------------------------------------------------------------------------------------------

    async def _open_partitions(self, consumer: AIOKafkaConsumer) -> bool:
        """Find where to begin, commit that at once, and only then read."""
        opening = self._unopened & self.assignment()
        try:
            if opening:
                await self._open(consumer, opening)
        except (CommitFailedError, IllegalStateError):
            return False
        except KafkaError as error:
            self._observer.kafka_failed("open", error)
            await asyncio.sleep(_ERROR_WAIT_S)
            return False
        self._unopened.clear()
        self.is_joined = True
        return True

    async def _open(self, consumer: AIOKafkaConsumer, opening: set[TopicPartition]) -> None:
        committed = await self._committed(consumer)
        now_ms = int(self._wall_clock() * 1000)
        self._note = group_note(committed, partitions=self.partition_count, now_ms=now_ms)
        starts = {tp: start_of(tp.partition, committed, self._note, since_ms=self._config.since_ms) for tp in opening}
        offsets = await self._offsets(consumer, starts)
        for tp, offset in offsets.items():
            consumer.seek(_kafka(tp), offset)
        await self._commit(consumer, offsets, is_clean=False)
        for tp, offset in offsets.items():
            self._positions[tp] = offset
            self._suspects[tp] = self._config.repeat_window if starts[tp].may_repeat else 0
            self._observer.partition_opened(tp, offset, starts[tp].kind.name.lower())

    async def _committed(self, consumer: AIOKafkaConsumer) -> dict[int, Committed]:
        """The group's offsets of the whole topic.  Only the admin client gives the text beside an offset."""
        admin = self._required(self._admin)
        numbers = consumer.partitions_for_topic(self._config.topic) or set()
        self.partition_count = max(len(numbers), self.partition_count)
        partitions = [KafkaPartition(self._config.topic, number) for number in sorted(numbers)]
        found = await admin.list_consumer_group_offsets(self._config.group_id, partitions=partitions)
        return {
            tp.partition: Committed(entry.offset, CommitNote.parse(entry.metadata))
            for tp, entry in found.items()
            if entry.offset >= 0
        }

    async def _offsets(
        self, consumer: AIOKafkaConsumer, starts: Mapping[TopicPartition, Start]
    ) -> dict[TopicPartition, int]:
        ends = await consumer.end_offsets([_kafka(tp) for tp in starts])
        beginnings = await consumer.beginning_offsets([_kafka(tp) for tp in starts])
        times = {_kafka(tp): start.time_ms for tp, start in starts.items() if start.kind is From.TIME}
        at_times = await consumer.offsets_for_times(times) if times else {}
        offsets: dict[TopicPartition, int] = {}
        for tp, start in starts.items():
            kafka_tp = _kafka(tp)
            at_time = at_times.get(kafka_tp)
            offsets[tp] = {
                From.OFFSET: start.offset or 0,
                From.BEGINNING: beginnings[kafka_tp],
                From.TIME: at_time.offset if at_time else ends[kafka_tp],
                From.END: ends[kafka_tp],
            }[start.kind]
        return offsets

    # -- committing ---------------------------------------------------------------------------------------------

    async def commit(self, offsets: Mapping[TopicPartition, int], *, is_clean: bool) -> None:
        """See `RecordSource.commit`."""
        consumer = self._consumer
        owned = self.assignment()
        if consumer is None or not offsets.keys() <= owned:
            raise CommitLostError("PARTITION_LOST")
        try:
            await self._commit(consumer, offsets, is_clean=is_clean)
        except (CommitFailedError, IllegalStateError):
            raise CommitLostError("COMMIT_REFUSED") from None
        except KafkaError as error:
            self._observer.kafka_failed("commit", error)
            raise TransientError(type(error).__name__) from None

    async def _commit(
        self, consumer: AIOKafkaConsumer, offsets: Mapping[TopicPartition, int], *, is_clean: bool
    ) -> None:
        text = CommitNote(self._note.born_ms, self._note.partitions, is_clean).text()
        await consumer.commit({_kafka(tp): OffsetAndMetadata(offset, text) for tp, offset in offsets.items()})

    # -- halting ------------------------------------------------------------------------------------------------

    def _halt_out_of_range(self, consumer: AIOKafkaConsumer, error: OffsetOutOfRangeError) -> None:
        """Deleted records behind the offset: jumping would lose messages in silence, so stop and say so."""
        advice = (
            "Records behind the committed offset are gone (retention?). Decide where to go on, stop the service, "
            "set the offset with kafka-consumer-groups --reset-offsets, start it again: see the runbook."
        )
        partitions = error.args[0] if error.args and isinstance(error.args[0], dict) else {}
        for kafka_tp in partitions:
            self._halt(consumer, TopicPartition(kafka_tp.topic, kafka_tp.partition), "OFFSET_OUT_OF_RANGE", advice)

    def _halt_too_large(self, consumer: AIOKafkaConsumer, error: RecordTooLargeError) -> None:
        """aiokafka steps over such a record when it raises; go back, for it would be lost."""
        advice = "A record is larger than the fetch limit of this service."
        self._observer.kafka_failed("fetch", error)
        for tp in self.assignment() & self._positions.keys():
            consumer.seek(_kafka(tp), self._positions[tp])
            self._halt(consumer, tp, "RECORD_TOO_LARGE", advice)

    def _halt(self, consumer: AIOKafkaConsumer, tp: TopicPartition, code: str, advice: str) -> None:
        now = asyncio.get_running_loop().time()
        if tp not in self.halted:
            self._observer.partition_halted(tp, code, advice)
        self.halted[tp] = HaltedPartition(code, advice, now)
        if tp in self.assignment():
            consumer.pause(_kafka(tp))

    # -- rebalance ----------------------------------------------------------------------------------------------

    async def on_partitions_revoked(self, revoked: Collection[Any]) -> None:
        """aiokafka logs and swallows what is raised here, so nothing may be."""
        partitions = {TopicPartition(tp.topic, tp.partition) for tp in revoked}
        self.is_rebalancing = True
        try:
            await self._required(self._listener).on_revoked(partitions)
        except Exception as error:  # noqa: BLE001 - the edge towards aiokafka
            self._observer.kafka_failed("revoke", error)
        self._forget(partitions)

    def _forget(self, partitions: Collection[TopicPartition]) -> None:
        for tp in partitions:
            self._unopened.discard(tp)
            self._suspects.pop(tp, None)
            self._positions.pop(tp, None)
            self.halted.pop(tp, None)

    async def on_partitions_assigned(self, assigned: Collection[Any]) -> None:
        """Touches own state only: waiting for Kafka here would deadlock with the coordinator."""
        partitions = {TopicPartition(tp.topic, tp.partition) for tp in assigned}
        self._unopened = set(partitions)
        consumer = self._consumer
        if consumer is not None:
            numbers = consumer.partitions_for_topic(self._config.topic) or set()
            self.partition_count = max(len(numbers), len(partitions))
            consumer.pause(*assigned)
        self.is_joined = not partitions
        self.is_rebalancing = False
        try:
            await self._required(self._listener).on_assigned(partitions)
        except Exception as error:  # noqa: BLE001 - the edge towards aiokafka
            self._observer.kafka_failed("assign", error)


def _kafka(tp: TopicPartition) -> Any:
    return KafkaPartition(tp.topic, tp.partition)


def _record(tp: TopicPartition, raw: Any, *, may_repeat: bool) -> Record:
    return Record(tp, raw.offset, raw.timestamp, raw.key, raw.value, tuple(raw.headers), may_repeat)
