"""The three ports of the corridor, in memory and under the test's control."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict, deque
from typing import TYPE_CHECKING, Any

from consumer.core.errors import CommitLostError, DeadLetterError, SyncError
from consumer.core.model import Deferred, Delivered, Module, Parent, Rejected, Stage

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Hashable, Mapping, Sequence

    from consumer.core.model import Delivery, Record, TopicPartition
    from consumer.core.ports import RebalanceListener

Answer = Rejected | Deferred | None
"""What a stage says of a delivery; None when all is well."""


class FakeSource:
    """Hands out what it is given; remembers what was committed."""

    def __init__(self) -> None:
        self.waiting: deque[Record] = deque()
        self.commits: list[tuple[dict[TopicPartition, int], bool]] = []
        self.asked_for: list[int] = []
        self.can_start = asyncio.Event()
        self.can_start.set()
        self.commit_error: SyncError | None = None
        self.commit_hangs = False
        self.poll_hangs = False
        self.is_stopped = False
        self.listener: RebalanceListener | None = None

    async def start(self, listener: RebalanceListener) -> None:
        """See `RecordSource`."""
        self.listener = listener
        await self.can_start.wait()

    async def poll(self, *, max_records: int, timeout_s: float) -> Sequence[Record]:
        """See `RecordSource`."""
        self.asked_for.append(max_records)
        if self.poll_hangs:
            await asyncio.Event().wait()
        if not max_records or not self.waiting:
            await asyncio.sleep(min(timeout_s, 0.05))
        return [self.waiting.popleft() for _ in range(min(max_records, len(self.waiting)))]

    async def commit(self, offsets: Mapping[TopicPartition, int], *, is_clean: bool) -> None:
        """See `RecordSource`."""
        if self.commit_hangs:
            await asyncio.Event().wait()
        if self.commit_error is not None:
            raise self.commit_error
        self.commits.append((dict(offsets), is_clean))

    async def stop(self) -> None:
        """See `RecordSource`."""
        self.is_stopped = True

    def lag(self) -> dict[TopicPartition, int]:
        """See `RecordSource`."""
        return {}

    def committed(self) -> dict[TopicPartition, int]:
        """Where each partition stands."""
        found: dict[TopicPartition, int] = {}
        for offsets, _ in self.commits:
            found |= offsets
        return found

    def lose_partitions(self) -> None:
        """From now on every commit comes too late."""
        self.commit_error = CommitLostError("PARTITION_LOST")


class FakeSink:
    """Takes everything, or answers as the test has planned; remembers what was written."""

    def __init__(self) -> None:
        self.parents: dict[str, Parent] = {}
        self.messages: Counter[str] = Counter()
        self.notes: Counter[str] = Counter()
        self.batches: defaultdict[Stage, list[list[str]]] = defaultdict(list)
        self.answers: dict[tuple[Stage, str], Answer] = {}
        self.errors: dict[Stage, Exception] = {}
        self.gates: dict[Stage, asyncio.Event] = {}
        self.seen: list[Delivery] = []
        self.wants_notes = True

    def hold(self, stage: Stage) -> asyncio.Event:
        """Nothing passes this stage until the event is set."""
        self.gates[stage] = asyncio.Event()
        return self.gates[stage]

    def parent_of(self, phone: str) -> Parent | None:
        """See `CrmSink`."""
        return self.parents.get(phone)

    def person_key(self, delivery: Delivery) -> Hashable:
        """See `CrmSink`."""
        return delivery.phone

    def note_key(self, delivery: Delivery) -> Hashable:
        """See `CrmSink`."""
        return delivery.event.message_id

    async def resolve(self, deliveries: Sequence[Delivery]) -> list[Any]:
        """See `CrmSink`."""
        return await self._work(Stage.LEAD, deliveries, self._find)

    async def write_messages(self, deliveries: Sequence[Delivery]) -> list[Any]:
        """See `CrmSink`."""
        return await self._work(Stage.MESSAGE, deliveries, lambda each: self._count(self.messages, each))

    def needs_note(self, _delivery: Delivery) -> bool:
        """See `CrmSink`."""
        return self.wants_notes

    async def write_notes(self, deliveries: Sequence[Delivery]) -> list[Any]:
        """See `CrmSink`."""
        return await self._work(Stage.NOTE, deliveries, lambda each: self._count(self.notes, each))

    def gave_up(self, delivery: Delivery) -> None:
        """See `CrmSink`."""

    async def _work(self, stage: Stage, deliveries: Sequence[Delivery], do: Callable[[Delivery], Any]) -> list[Any]:
        self.batches[stage].append([each.event.message_id for each in deliveries])
        self.seen += deliveries
        if stage in self.gates:
            await self.gates[stage].wait()
        if stage in self.errors:
            raise self.errors.pop(stage)
        return [self.answers.get((stage, each.event.message_id)) or do(each) for each in deliveries]

    def _find(self, delivery: Delivery) -> Parent:
        return self.parents.setdefault(delivery.phone, Parent(Module.LEADS, str(len(self.parents) + 1)))

    @staticmethod
    def _count(counter: Counter[str], delivery: Delivery) -> Delivered:
        counter[delivery.event.message_id] += 1
        return Delivered()


class FakeDeadLetters:
    """Keeps dead letters, or refuses them."""

    def __init__(self) -> None:
        self.letters: list[tuple[Record, Rejected, int]] = []
        self.standing_before: set[tuple[TopicPartition, int]] = set()
        self.is_down = False
        self.fault: Exception | None = None
        self.loses_answers = False
        self.tries = 0

    async def write(self, record: Record, rejected: Rejected, *, attempts: int) -> None:
        """See `DeadLetters`."""
        self.tries += 1
        if self.fault is not None:
            raise self.fault
        if self.is_down:
            raise DeadLetterError("TOPIC_DOWN")
        self.letters.append((record, rejected, attempts))
        if self.loses_answers:
            raise DeadLetterError("ANSWER_LOST")

    async def standing(self, records: Sequence[Record]) -> Collection[tuple[TopicPartition, int]]:
        """See `DeadLetters`."""
        if self.is_down:
            raise DeadLetterError("TOPIC_DOWN")
        written = {(record.tp, record.offset) for record, _, _ in self.letters}
        return (written | self.standing_before) & {(record.tp, record.offset) for record in records}


class Events:
    """An observer that counts what it is told."""

    def __init__(self) -> None:
        self.told: Counter[str] = Counter()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return lambda *_args, **_named: self.told.update([name])
