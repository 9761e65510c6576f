"""Looking into the dead-letter topic.  Reads only; the place that replays have reached is read with it."""

from __future__ import annotations

from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from consumer.core.model import TopicPartition
from consumer.operations.dlq.done import Done
from consumer.operations.dlq.letters import DeadLetter, Group, Place, Wanted, dead_letter_of
from consumer.operations.errors import OperationError
from consumer.operations.topics import Span, Spans, group_offsets, reader, scan, spans_of

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator

    from aiokafka import AIOKafkaConsumer

    from consumer.kafka.connection import KafkaConnection

DEFAULT_MAX_REPLAYS = 3
"""A record that failed this often after a replay is left alone, so that nothing goes round for ever."""


@dataclass(frozen=True, slots=True)
class Desk:
    """Where the dead letters are, and under which name replays remember their place."""

    connection: KafkaConnection
    topic: str
    group_id: str
    """Replays' own consumer group; its lag is what has not been replayed."""
    idempotence: bool = True


@dataclass(frozen=True, slots=True)
class Survey:
    """What the topic holds, grouped by reason and stage, most urgent first."""

    groups: list[Group]
    spans: Spans = field(repr=False)

    @property
    def count(self) -> int:
        """All dead letters that were asked for."""
        return sum(group.count for group in self.groups)

    @property
    def waiting(self) -> int:
        """Those that a replay would take."""
        return sum(group.waiting for group in self.groups)

    def as_json(self) -> dict[str, Any]:
        """For machines."""
        return {"count": self.count, "waiting": self.waiting, "groups": [group.as_json() for group in self.groups]}


@dataclass(frozen=True, slots=True)
class Sheet:
    """An open desk: a consumer, what lies there now, and what has been dealt with."""

    consumer: AIOKafkaConsumer
    spans: Spans
    done: dict[TopicPartition, Done]
    is_forgetful: bool = False
    """The place was stored without its text: what was replayed beyond it is not known."""

    def is_done(self, letter: DeadLetter) -> bool:
        """Has a replay dealt with it?"""
        return letter.place.offset in self.done[letter.record.tp]

    async def letters(self, wanted: Wanted) -> AsyncGenerator[DeadLetter, None]:
        """Those that are meant, in the order of their failure within what is read at once."""
        spans = self.spans
        if wanted.since_ms is not None:
            later = await spans_of(self.consumer, next(iter(spans)).topic, since_ms=wanted.since_ms)
            spans = {tp: Span(max(span.start, later[tp].start), span.end) for tp, span in spans.items()}
        async with aclosing(scan(self.consumer, spans)) as polls:
            async for records in polls:
                for record in records:
                    letter = dead_letter_of(record)
                    if wanted.includes(letter):
                        yield letter


@asynccontextmanager
async def opened(desk: Desk) -> AsyncIterator[Sheet]:
    """Connect and take stock.  Raises OperationError."""
    async with reader(desk.connection) as consumer:
        spans = await spans_of(consumer, desk.topic)
        stored = await group_offsets(desk.connection, desk.group_id, spans)
        is_forgetful = not all(Done.is_note(entry.metadata) for entry in stored.values())
        yield Sheet(consumer, spans, _done(stored, spans), is_forgetful)


async def is_remembered(desk: Desk, sheet: Sheet) -> bool:
    """Does the broker give back all that was stored about what is dealt with?  Raises OperationError."""
    with_holes = {tp: sheet.spans[tp] for tp, done in sheet.done.items() if done.has_holes}
    if not with_holes:
        return True
    stored = await group_offsets(desk.connection, desk.group_id, with_holes)
    return all(tp in stored and sheet.done[tp].is_kept_in(stored[tp].offset, stored[tp].metadata) for tp in with_holes)


def _done(stored: dict[TopicPartition, Any], spans: Spans) -> dict[TopicPartition, Done]:
    done = {tp: Done.parse(stored[tp].offset, stored[tp].metadata) if tp in stored else Done() for tp in spans}
    for tp, span in spans.items():
        if done[tp].prefix > span.end:
            done[tp] = Done()
        done[tp].begin_at(span.start)
    return done


async def survey(desk: Desk, wanted: Wanted | None = None, *, max_replays: int = DEFAULT_MAX_REPLAYS) -> Survey:
    """Group the dead letters.  Raises OperationError."""
    groups: dict[tuple[str, str], Group] = {}
    async with opened(desk) as sheet, aclosing(sheet.letters(wanted or Wanted())) as letters:
        async for letter in letters:
            group = groups.setdefault((letter.reason, letter.stage), Group(letter.reason, letter.stage))
            group.add(letter, is_done=sheet.is_done(letter), is_exhausted=letter.replays >= max_replays)
    return Survey(sorted(groups.values(), key=lambda group: (-group.waiting, -group.count, group.reason)), sheet.spans)


async def find(desk: Desk, wanted: Wanted, *, limit: int = 20) -> list[DeadLetter]:
    """The latest of those that are meant, latest first.  Raises OperationError."""
    found: list[DeadLetter] = []
    async with opened(desk) as sheet, aclosing(sheet.letters(wanted)) as letters:
        async for letter in letters:
            found.append(letter)
            del found[:-limit]
    return sorted(found, key=lambda letter: (letter.failed_at, letter.place), reverse=True)


async def read_one(desk: Desk, place: Place) -> DeadLetter:
    """The dead letter at a place.  Raises OperationError when there is none, or none any more."""
    tp = TopicPartition(desk.topic, place.partition)
    async with reader(desk.connection) as consumer:
        whole = (await spans_of(consumer, desk.topic)).get(tp, Span(0, 0))
        if whole.start <= place.offset < whole.end:
            async with aclosing(scan(consumer, {tp: Span(place.offset, place.offset + 1)})) as polls:
                async for records in polls:
                    return dead_letter_of(records[0])
    raise OperationError("dlq.no_such_record", place=str(place), topic=desk.topic)
