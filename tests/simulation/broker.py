"""A model of Kafka: one topic, one group, its offsets, and a dead-letter topic.  As strict as Kafka, and no stricter.

Eager rebalances with a generation: members are told to give up all partitions and are waited for, up to a limit.
A commit is accepted from any member of the current generation, whoever owns the partition (so does Kafka), and a
commit whose client gave up may still land, under the generation that its member has by then (so does aiokafka).
"""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from consumer.core.errors import CommitLostError, DeadLetterError, TransientError
from consumer.core.model import Record, TopicPartition
from consumer.kafka.dead_letters import headers_of, place_of
from consumer.kafka.start_position import CommitNote, Committed, From, Start, group_note, start_of

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence
    from random import Random

    from consumer.core.model import Headers, Rejected
    from consumer.core.ports import RebalanceListener
    from tests.virtual_time import Life, MortalLoop

TOPIC = "messages"


@dataclass(frozen=True, slots=True)
class Stored:
    """A record in the log."""

    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    headers: Headers = ()


@dataclass(frozen=True, slots=True)
class Letter:
    """A dead letter."""

    key: bytes | None
    value: bytes | None
    headers: Headers

    @property
    def place(self) -> tuple[int, int]:
        """Partition and offset of the record that it stands for."""
        found = place_of(self.headers)
        assert found is not None
        return found[0].partition, found[1]

    def header(self, name: str) -> str:
        """Text of a header."""
        return next(value.decode() for given, value in self.headers if given == name)


@dataclass(slots=True)
class BrokerFaults:
    """Probabilities for each call, and switches."""

    commit_fails: float = 0.0
    commit_answer_lost: float = 0.0
    commit_late: float = 0.0
    dead_letter_fails: float = 0.0
    dead_letter_answer_lost: float = 0.0
    is_down: bool = False
    is_dead_letter_topic_down: bool = False
    fired: Counter[str] = field(default_factory=Counter)

    def calm(self) -> None:
        """From now on nothing fails."""
        self.commit_fails = self.commit_answer_lost = self.commit_late = 0.0
        self.dead_letter_fails = self.dead_letter_answer_lost = 0.0
        self.is_down = self.is_dead_letter_topic_down = False


class Broker:
    """The log, the group and its offsets."""

    def __init__(self, loop: MortalLoop, rng: Random, *, partitions: int, session_timeout_s: float = 10.0) -> None:
        self.loop = loop
        self.rng = rng
        self.log: list[list[Stored]] = [[] for _ in range(partitions)]
        self.letters: list[Letter] = []
        self.committed: dict[int, Committed] = {}
        self.reached = [0] * partitions
        """The furthest offset that was ever committed."""
        self.faults = BrokerFaults()
        self.members: list[SimSource] = []
        self.generation = 0
        self.is_rebalancing = False
        self.rebalances = 0
        self.rebalance_timeout_s = 60.0
        self.session_timeout_s = session_timeout_s
        self.on_commit: Callable[[SimSource, Mapping[int, int]], None] = lambda _member, _offsets: None
        self.on_late_commit: Callable[[Mapping[int, int]], None] = lambda _offsets: None
        self.on_letter: Callable[[Letter], None] = lambda _letter: None
        self._arrived = asyncio.Event()
        self._wanted = asyncio.Event()
        self._settled = asyncio.Event()
        self._settled.set()
        loop.spawn(self._coordinate(), None)

    # Producers

    def append(self, partition: int, key: bytes | None, value: bytes | None, headers: Headers = ()) -> int:
        """Publish; returns the offset."""
        self.log[partition].append(Stored(int(self.loop.time() * 1000), key, value, headers))
        self._arrived.set()
        self._arrived = asyncio.Event()
        return len(self.log[partition]) - 1

    async def arrival(self, timeout_s: float) -> None:
        """Wait for something new."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._arrived.wait()

    async def latency(self) -> None:
        """One exchange with the broker."""
        await asyncio.sleep(0.001 + 0.01 * self.rng.random())

    # The group

    def join(self, member: SimSource) -> None:
        """A member is new, or back after it was thrown out."""
        self.members.append(member)
        self.kick()

    def leave(self, member: SimSource) -> None:
        """A member goes, or its session has ended."""
        if member in self.members:
            self.members.remove(member)
            member.generation = -1
            self.kick()

    def expire(self, member: SimSource) -> None:
        """A member is dead: the group notices when its session ends."""
        member.dies_at = self.loop.time() + self.session_timeout_s
        self.loop.spawn(self._expire(member), None)

    async def _expire(self, member: SimSource) -> None:
        await asyncio.sleep(self.session_timeout_s)
        self.leave(member)

    def kick(self) -> None:
        """Share the partitions out anew."""
        self._wanted.set()

    async def stable(self) -> None:
        """Wait until no rebalance is under way."""
        await self._settled.wait()

    async def _coordinate(self) -> None:
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            self._settled.clear()
            self.is_rebalancing = True
            await asyncio.sleep(0.1)
            await self._rebalance()
            self.is_rebalancing = False
            self._settled.set()

    async def _rebalance(self) -> None:
        self.rebalances += 1
        for member in self.members:
            member.is_ready = False
            if member.life.is_alive:
                self.loop.spawn(member.give_up(), member.life)
        deadline = self.loop.time() + self.rebalance_timeout_s
        while self.loop.time() < deadline and any(map(self._is_awaited, self.members)):
            await asyncio.sleep(0.1)
        thrown_out = [member for member in self.members if not member.is_ready or not member.life.is_alive]
        self.members = [member for member in self.members if member not in thrown_out]
        for member in thrown_out:
            member.generation = -1
        self.generation += 1
        self._assign()

    def _is_awaited(self, member: SimSource) -> bool:
        if member.life.is_alive and not member.is_ready and not member.is_giving_up:
            self.loop.spawn(member.give_up(), member.life)
        return not member.is_ready and (member.life.is_alive or self.loop.time() < member.dies_at)

    def _assign(self) -> None:
        owners: dict[SimSource, list[int]] = {member: [] for member in self.members}
        members = list(owners)
        self.rng.shuffle(members)
        for partition in range(len(self.log)):
            if members:
                owners[members[partition % len(members)]].append(partition)
        for member, partitions in owners.items():
            member.generation = self.generation
            self.loop.spawn(member.take_over(partitions), member.life)

    def store(self, member: SimSource, offsets: Mapping[int, int], note: CommitNote) -> None:
        """OffsetCommit.  Raises CommitLostError for a member that is not of this generation."""
        if member not in self.members or member.generation != self.generation:
            raise CommitLostError("COMMIT_REFUSED")
        for partition, offset in offsets.items():
            self.reached[partition] = max(self.reached[partition], offset)
            self.committed[partition] = Committed(offset, CommitNote.parse(note.text()))
        self.on_commit(member, offsets)

    def is_all_committed(self) -> bool:
        """Everything published has been settled at some time; a late commit may have moved the offset back since."""
        return all(self.reached[number] == len(records) for number, records in enumerate(self.log))


@dataclass(frozen=True, slots=True)
class Held:
    """A partition was a member's own for a while."""

    partition: int
    from_s: float
    to_s: float


@dataclass(frozen=True, slots=True)
class Opening:
    """A member began to read a partition where the group's offset was at this time."""

    partition: int
    at_s: float


class SimSource:
    """A `RecordSource` on the model; mirrors what `KafkaSource` does with aiokafka."""

    def __init__(self, broker: Broker, life: Life, *, repeat_window: int, blocks_in_rebalance: bool) -> None:
        self.broker = broker
        self.life = life
        self._repeat_window = repeat_window
        self._blocks = blocks_in_rebalance
        self._listener: RebalanceListener | None = None
        self._note = CommitNote(0, 0)
        self._unopened: set[int] = set()
        self._suspects: dict[int, int] = {}
        self._positions: dict[int, int] = {}
        self.assignment: list[int] = []
        self.held: list[Held] = []
        """What it has owned, by its own lights."""
        self.openings: list[Opening] = []
        self._since = 0.0
        self.generation = -1
        self.is_ready = False
        self.is_giving_up = False
        self.is_stopped = False
        self.dies_at = float("inf")
        self.handed_out: Counter[tuple[int, int]] = Counter()

    async def start(self, listener: RebalanceListener) -> None:
        """See `RecordSource`."""
        self._listener = listener
        while self.broker.faults.is_down:
            await asyncio.sleep(1.0)
        self.broker.join(self)

    async def stop(self) -> None:
        """See `RecordSource`."""
        self.is_stopped = True
        self.broker.leave(self)

    def lag(self) -> dict[TopicPartition, int]:
        """See `RecordSource`."""
        return {}

    def owned(self, partition: int, at_s: float) -> bool:
        """Was the partition its own at that time?"""
        now = [Held(number, self._since, float("inf")) for number in self.assignment]
        return any(held.partition == partition and held.from_s <= at_s <= held.to_s for held in (*self.held, *now))

    # Rebalances

    async def give_up(self) -> None:
        """The group takes all partitions back."""
        if self.is_giving_up:
            return
        self.is_giving_up = True
        partitions = [TopicPartition(TOPIC, number) for number in self.assignment]
        if self._listener is not None:
            await self._listener.on_revoked(partitions)
        self.held += [Held(number, self._since, self.broker.loop.time()) for number in self.assignment]
        for number in self.assignment:
            self._unopened.discard(number)
            self._suspects.pop(number, None)
            self._positions.pop(number, None)
        self.assignment = []
        self.is_giving_up = False
        self.is_ready = True
        if self not in self.broker.members and not self.is_stopped:
            self.broker.join(self)

    async def take_over(self, partitions: list[int]) -> None:
        """The group gives us these."""
        self.assignment = partitions
        self._since = self.broker.loop.time()
        self._unopened = set(partitions)
        if self._listener is not None:
            await self._listener.on_assigned([TopicPartition(TOPIC, number) for number in partitions])

    # Reading

    async def poll(self, *, max_records: int, timeout_s: float) -> Sequence[Record]:
        """See `RecordSource`."""
        if self._blocks:
            await self.broker.stable()
        if self.broker.faults.is_down:
            await asyncio.sleep(1.0)
            return []
        if self._unopened and not await self._open():
            return []
        found = self._fetch(max_records)
        if not found:
            await (self.broker.arrival(timeout_s) if max_records else asyncio.sleep(timeout_s))
            found = self._fetch(max_records)
        return found

    def _fetch(self, max_records: int) -> list[Record]:
        if self.is_giving_up or self.generation != self.broker.generation:
            return []
        found: list[Record] = []
        for number in self.assignment:
            if number in self._positions:
                found += self._fetch_from(number, max_records - len(found))
        return found

    def _fetch_from(self, number: int, count: int) -> list[Record]:
        start = self._positions[number]
        records = []
        for offset in range(start, min(start + count, len(self.broker.log[number]))):
            raw = self.broker.log[number][offset]
            may_repeat = self._suspects[number] > 0
            self._suspects[number] -= may_repeat
            tp = TopicPartition(TOPIC, number)
            records.append(Record(tp, offset, raw.timestamp_ms, raw.key, raw.value, raw.headers, may_repeat))
            self.handed_out[number, offset] += 1
        self._positions[number] = start + len(records)
        return records

    async def _open(self) -> bool:
        opening, generation = set(self._unopened), self.generation
        await self.broker.latency()
        total = len(self.broker.log)
        self._note = group_note(self.broker.committed, partitions=total, now_ms=int(self.broker.loop.time() * 1000))
        starts = {number: start_of(number, self.broker.committed, self._note, since_ms=0) for number in sorted(opening)}
        offsets = {number: self._offset(start) for number, start in starts.items()}
        try:
            await self._send(offsets, is_clean=False, may_hang=False)
        except (CommitLostError, TransientError):
            return False
        if generation != self.generation or self.is_giving_up or not opening <= set(self.assignment):
            return False
        for number, offset in offsets.items():
            self._positions[number] = offset
            self._suspects[number] = self._repeat_window if starts[number].may_repeat else 0
            self._unopened.discard(number)
            self.openings.append(Opening(number, self.broker.loop.time()))
        return True

    @staticmethod
    def _offset(start: Start) -> int:
        return start.offset or 0 if start.kind is From.OFFSET else 0

    # Committing

    async def commit(self, offsets: Mapping[TopicPartition, int], *, is_clean: bool) -> None:
        """See `RecordSource`."""
        numbers = {tp.partition: offset for tp, offset in offsets.items()}
        if not numbers.keys() <= set(self.assignment):
            raise CommitLostError("PARTITION_LOST")
        await self._send(numbers, is_clean=is_clean)

    async def _send(self, offsets: Mapping[int, int], *, is_clean: bool, may_hang: bool = True) -> None:
        broker, faults = self.broker, self.broker.faults
        note = CommitNote(self._note.born_ms, self._note.partitions, is_clean)
        if faults.is_down or broker.rng.random() < faults.commit_fails:
            faults.fired["commit_fails"] += 1
            await asyncio.sleep(1.0)
            raise TransientError("COMMIT_FAILED")
        if may_hang and broker.rng.random() < faults.commit_late:
            faults.fired["commit_late"] += 1
            broker.loop.spawn(self._store_late(offsets, note, broker.rng.uniform(1.0, 40.0)), None)
            await asyncio.Event().wait()
        storing = broker.loop.spawn(self._store(offsets, note), None)
        storing.add_done_callback(lambda task: task.exception())
        await asyncio.shield(storing)
        if broker.rng.random() < faults.commit_answer_lost:
            faults.fired["commit_answer_lost"] += 1
            raise TransientError("ANSWER_LOST")

    async def _store(self, offsets: Mapping[int, int], note: CommitNote) -> None:
        await self.broker.latency()
        self.broker.store(self, offsets, note)

    async def _store_late(self, offsets: Mapping[int, int], note: CommitNote, wait_s: float) -> None:
        await asyncio.sleep(wait_s)
        if self.life.is_alive:
            with suppress(CommitLostError):
                self.broker.store(self, offsets, note)
                self.broker.on_late_commit(offsets)


class SimDeadLetters:
    """A `DeadLetters` on the model."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker

    async def write(self, record: Record, rejected: Rejected, *, attempts: int) -> None:
        """See `DeadLetters`."""
        broker, faults = self._broker, self._broker.faults
        if faults.is_dead_letter_topic_down or broker.rng.random() < faults.dead_letter_fails:
            faults.fired["dead_letter_fails"] += 1
            await asyncio.sleep(1.0)
            raise DeadLetterError("TOPIC_DOWN")
        failed_at = datetime.fromtimestamp(broker.loop.time(), UTC)
        letter = Letter(record.key, record.value, headers_of(record, rejected, attempts=attempts, failed_at=failed_at))
        await asyncio.shield(broker.loop.spawn(self._append(letter), None))
        if broker.rng.random() < faults.dead_letter_answer_lost:
            faults.fired["dead_letter_answer_lost"] += 1
            raise DeadLetterError("ANSWER_LOST")

    async def _append(self, letter: Letter) -> None:
        await self._broker.latency()
        self._broker.letters.append(letter)
        self._broker.on_letter(letter)

    async def standing(self, records: Sequence[Record]) -> Collection[tuple[TopicPartition, int]]:
        """See `DeadLetters`."""
        await self._broker.latency()
        if self._broker.faults.is_dead_letter_topic_down:
            raise DeadLetterError("TOPIC_DOWN")
        wanted = {(record.tp.partition, record.offset) for record in records}
        found = {letter.place for letter in self._broker.letters}
        return {(TopicPartition(TOPIC, number), offset) for number, offset in sorted(wanted & found)}
