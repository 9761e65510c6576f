"""Dead letters back to the topic that they came from: key and value unchanged, `dlq.replays` raised by one.

A record's own offset moves only after the broker has acknowledged its copy, so a crash repeats and never loses; a copy
that comes twice is one message for the service (same message_id).  What a run does not take stays where it is.  The
run sees the topic as it is at its start: what fails again while it runs is for the next run.
"""

from __future__ import annotations

import asyncio
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from aiokafka import TopicPartition as KafkaPartition
from aiokafka.errors import KafkaError, MessageSizeTooLargeError
from aiokafka.structs import OffsetAndMetadata

from consumer.core.decode import Poison, Skip
from consumer.core.model import REPLAYS
from consumer.kafka.producing import connected_producer
from consumer.operations.dlq.desk import DEFAULT_MAX_REPLAYS, is_remembered, opened
from consumer.operations.errors import OperationError
from consumer.operations.topics import bookkeeper, quiet, stopped, translated

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection

    from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

    from consumer.core.model import Headers, TopicPartition
    from consumer.operations.dlq.desk import Desk, Sheet
    from consumer.operations.dlq.letters import DeadLetter, Wanted
    from schemas.message_event import MessageEvent

_COMMIT_EVERY_S = 1.0
_SEND_TIMEOUT_S = 60.0
_FORECAST_EVENTS = 200


class Verdict(StrEnum):
    """What a replay does with one dead letter."""

    REPLAY = "replay"
    DONE = "done"
    """Replayed before; left alone unless asked for again."""
    EXHAUSTED = "exhausted"
    """Came back too often."""
    FOREIGN = "foreign"
    """Has no `dlq.topic`: it is no dead letter of this service, or would go in a circle."""
    NO_TOPIC = "no_topic"
    """Its topic is gone."""


@dataclass(frozen=True, slots=True)
class ReplayOptions:
    """How much, how fast, how often."""

    rate_per_s: float = 20.0
    max_replays: int = DEFAULT_MAX_REPLAYS
    limit: int | None = None
    again: bool = False
    """Also those that have been replayed already."""


@dataclass(slots=True)
class Plan:
    """What a replay would do now.  Grows while the topic is read."""

    verdicts: dict[Verdict, int] = field(default_factory=dict)
    reasons: dict[str, int] = field(default_factory=dict)
    """Of those to be replayed, by the reason why they are here."""
    readable: int = 0
    fails_again: dict[str, int] = field(default_factory=dict)
    """Of those to be replayed, the ones whose value is still at fault, by today's reason."""
    skips: dict[str, int] = field(default_factory=dict)
    """Of those to be replayed, the ones that the service will skip, by reason."""
    events: list[MessageEvent] = field(default_factory=list, repr=False)
    """The first of the readable ones, for a forecast."""
    may_repeat: bool = False
    """Some of those to be replayed may have been, by a filter: the broker has kept no record of it."""

    @property
    def total(self) -> int:
        """How many would be replayed."""
        return self.verdicts.get(Verdict.REPLAY, 0)

    def add(self, letter: DeadLetter, verdict: Verdict) -> None:
        """Count one more."""
        _count(self.verdicts, verdict)
        if verdict is Verdict.REPLAY:
            _count(self.reasons, f"{letter.stage}: {letter.reason}")
            self._foresee(letter)

    def _foresee(self, letter: DeadLetter) -> None:
        decoded = letter.decoded()
        if isinstance(decoded, Poison):
            _count(self.fails_again, decoded.reason)
        elif isinstance(decoded, Skip):
            _count(self.skips, decoded.reason)
        else:
            self.readable += 1
            if len(self.events) < _FORECAST_EVENTS:
                self.events.append(decoded)

    def as_json(self) -> dict[str, Any]:
        """For machines."""
        return {
            "would_replay": self.total,
            "reasons": self.reasons,
            "readable": self.readable,
            "fails_again": self.fails_again,
            "skips": self.skips,
            "may_repeat": self.may_repeat,
            "left_alone": {str(key): count for key, count in self.verdicts.items() if key is not Verdict.REPLAY},
        }


@dataclass(slots=True)
class ReplayReport:
    """How far a replay has come; the same object is handed to the progress callback again and again."""

    total: int
    replayed: int = 0
    refused: int = 0
    """The broker takes no record of this size; they stay."""
    left_alone: dict[Verdict, int] = field(default_factory=dict)
    is_cancelled: bool = False
    seconds: float = 0.0
    will_repeat: bool = False
    """A later replay without this filter sends some of them once more: the broker has kept no record of them."""

    @property
    def seconds_left(self) -> float | None:
        """At the pace so far; None before the first record."""
        if not self.replayed:
            return None
        return self.seconds / self.replayed * max(0, self.total - self.replayed - self.refused)

    def as_json(self) -> dict[str, Any]:
        """For machines."""
        return {
            "total": self.total,
            "replayed": self.replayed,
            "refused": self.refused,
            "left_alone": {str(key): count for key, count in self.left_alone.items()},
            "cancelled": self.is_cancelled,
            "seconds": round(self.seconds, 3),
            "will_repeat": self.will_repeat,
        }


def _count(counts: dict[Any, int], key: Any) -> None:
    counts[key] = counts.get(key, 0) + 1


def verdict_of(
    letter: DeadLetter, *, is_done: bool, options: ReplayOptions, topics: Collection[str], own_topic: str
) -> Verdict:
    """What to do with one dead letter."""
    if letter.topic is None or letter.topic == own_topic:
        return Verdict.FOREIGN
    if letter.replays >= options.max_replays:
        return Verdict.EXHAUSTED
    if is_done and not options.again:
        return Verdict.DONE
    return Verdict.REPLAY if letter.topic in topics else Verdict.NO_TOPIC


def replay_headers(letter: DeadLetter) -> Headers:
    """The producer's own headers, and how often this record has been replayed, this time included."""
    return (*letter.original_headers, (REPLAYS, str(letter.replays + 1).encode()))


async def plan(desk: Desk, wanted: Wanted, options: ReplayOptions | None = None) -> Plan:
    """What a replay would do.  Changes nothing.  Raises OperationError."""
    async with opened(desk) as sheet:
        return await _plan(sheet, desk, wanted, options or ReplayOptions())


async def _plan(sheet: Sheet, desk: Desk, wanted: Wanted, options: ReplayOptions) -> Plan:
    found = Plan(may_repeat=sheet.is_forgetful and not options.again)
    async with aclosing(_judged(sheet, desk, wanted, options)) as judged:
        async for letter, verdict in judged:
            if verdict is Verdict.REPLAY and found.total == options.limit:
                break
            found.add(letter, verdict)
    return found


async def _judged(
    sheet: Sheet, desk: Desk, wanted: Wanted, options: ReplayOptions
) -> AsyncGenerator[tuple[DeadLetter, Verdict], None]:
    topics = await sheet.consumer.topics()
    async with aclosing(sheet.letters(wanted)) as letters:
        async for letter in letters:
            is_done = sheet.is_done(letter)
            yield (
                letter,
                verdict_of(letter, is_done=is_done, options=options, topics=topics, own_topic=desk.topic),
            )


async def replay(
    desk: Desk,
    wanted: Wanted,
    options: ReplayOptions | None = None,
    *,
    on_progress: Callable[[ReplayReport], None] = lambda _report: None,
    cancel: asyncio.Event | None = None,
) -> ReplayReport:
    """Replay until all is done or `cancel` is set; the record in hand is finished, and the place remembered.

    Raises OperationError when the brokers fail; what was acknowledged until then is remembered.
    """
    options = options or ReplayOptions()
    async with opened(desk) as sheet:
        report = ReplayReport((await _plan(sheet, desk, wanted, options)).total)
        async with _producer(desk) as producer, bookkeeper(desk.connection, desk.group_id, sheet.spans) as books:
            run = _Run(sheet, producer, books, desk, options, report, on_progress, cancel or asyncio.Event())
            await run.go(wanted)
            report.will_repeat = not await is_remembered(desk, sheet)
            return report


@asynccontextmanager
async def _producer(desk: Desk) -> AsyncIterator[AIOKafkaProducer]:
    with translated(desk.connection):
        useless: list[AIOKafkaProducer] = []
        options = {"max_request_size": 4 * 1024 * 1024, **desk.connection.options()}
        try:
            with quiet():
                producer, _ = await connected_producer(options, idempotence=desk.idempotence, close=useless.append)
            useless.append(producer)
            yield producer
        finally:
            for each in useless:
                await stopped(each)


class _Run:
    """One replay: paces, sends, remembers."""

    def __init__(
        self,
        sheet: Sheet,
        producer: AIOKafkaProducer,
        books: AIOKafkaConsumer,
        desk: Desk,
        options: ReplayOptions,
        report: ReplayReport,
        on_progress: Callable[[ReplayReport], None],
        cancel: asyncio.Event,
    ) -> None:
        self._sheet = sheet
        self._producer = producer
        self._books = books
        self._desk = desk
        self._options = options
        self._report = report
        self._on_progress = on_progress
        self._cancel = cancel
        self._loop = asyncio.get_running_loop()
        self._started_at = self._loop.time()
        self._next_at = self._started_at
        self._committed_at = self._started_at
        self._changed: set[TopicPartition] = set()

    async def go(self, wanted: Wanted) -> None:
        """The whole run."""
        try:
            async with aclosing(_judged(self._sheet, self._desk, wanted, self._options)) as judged:
                async for letter, verdict in judged:
                    if not await self._may_go_on(verdict):
                        break
                    await self._take(letter, verdict)
        finally:
            await self._commit()

    async def _may_go_on(self, verdict: Verdict) -> bool:
        if verdict is not Verdict.REPLAY:
            return not self._cancel.is_set()
        if self._report.replayed == self._options.limit:
            return False
        await self._wait_for_turn()
        self._report.is_cancelled = self._cancel.is_set()
        return not self._report.is_cancelled

    async def _wait_for_turn(self) -> None:
        now = self._loop.time()
        wait_s = self._next_at - now
        self._next_at = max(self._next_at, now) + 1 / self._options.rate_per_s
        if wait_s > 0:
            waiter = asyncio.ensure_future(self._cancel.wait())
            await asyncio.wait({waiter}, timeout=wait_s)
            waiter.cancel()

    async def _take(self, letter: DeadLetter, verdict: Verdict) -> None:
        if verdict is Verdict.REPLAY:
            await self._send(letter)
        else:
            _count(self._report.left_alone, verdict)
        if verdict in (Verdict.EXHAUSTED, Verdict.FOREIGN):
            self._mark(letter)
        self._report.seconds = self._loop.time() - self._started_at
        self._on_progress(self._report)
        if self._loop.time() - self._committed_at > _COMMIT_EVERY_S:
            await self._commit()

    async def _send(self, letter: DeadLetter) -> None:
        known = await self._producer.partitions_for(letter.topic)
        try:
            async with asyncio.timeout(_SEND_TIMEOUT_S):
                await self._producer.send_and_wait(
                    letter.topic,
                    key=letter.record.key,
                    value=letter.record.value,
                    headers=list(replay_headers(letter)),
                    partition=letter.partition if letter.partition in known else None,
                )
        except MessageSizeTooLargeError:
            self._report.refused += 1
        else:
            self._report.replayed += 1
            self._mark(letter)

    def _mark(self, letter: DeadLetter) -> None:
        self._sheet.done[letter.record.tp].add(letter.place.offset)
        self._changed.add(letter.record.tp)

    async def _commit(self) -> None:
        """Remember what is done; a place that could not be remembered costs a second copy, nothing else."""
        self._committed_at = self._loop.time()
        changed, self._changed = self._changed, set()
        offsets = {
            KafkaPartition(tp.topic, tp.partition): OffsetAndMetadata(
                self._sheet.done[tp].prefix, self._sheet.done[tp].text()
            )
            for tp in changed
        }
        if offsets:
            try:
                await self._books.commit(offsets)
            except KafkaError as error:
                raise OperationError("dlq.place_not_stored", detail=type(error).__name__) from None
