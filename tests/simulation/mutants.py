"""Faults made by hand, each of a kind that real systems had: the simulation must notice every one of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from consumer.core.dedup import Dedup, Seen, Verdict
from consumer.core.errors import DeadLetterError, TransientError
from consumer.core.model import Deferred, Delivered, Delivery, Rejected
from consumer.core.offsets import OffsetTracker, _Partition
from consumer.pipeline import Pipeline
from consumer.pipeline.dead_letter_desk import DeadLetterDesk
from consumer.pipeline.stage_queue import StageQueue
from consumer.zoho import note_desk, notes, sink
from consumer.zoho.note_desk import NoteDesk
from consumer.zoho.notes import DialogReferee
from consumer.zoho.people import People
from consumer.zoho.sink import ZohoSink
from consumer.zoho.verdicts import Verdicts

if TYPE_CHECKING:
    import pytest

Apply = Callable[["pytest.MonkeyPatch"], None]


@dataclass(frozen=True, slots=True)
class Mutant:
    """A fault, and the scenario that must notice it within so many seeds."""

    name: str
    apply: Apply
    scenario: str
    within: int = 40


def _replacing(owner: Any, name: str, make: Callable[[Any], Any]) -> Apply:
    """`make` gets the right function and returns the wrong one."""

    def apply(monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(owner, name, make(getattr(owner, name)))

    return apply


def _highest_settled(_right: Any) -> Any:
    def settled(self: _Partition, ack: Any) -> None:
        self.in_flight -= 1
        self.in_flight_bytes -= ack.size_bytes
        self.acks.remove(ack)
        self.uncommitted.append(ack.offset)
        self.committable = max(self.committable or 0, ack.offset + 1)

    return settled


def _settled_on_receipt(right: Any) -> Any:
    def route(self: Pipeline, delivery: Delivery) -> None:
        delivery.ack.settle()
        right(self, delivery)

    return route


def _settled_when_held(right: Any) -> Any:
    def hold(self: DeadLetterDesk, held: Any) -> None:
        held.ack.settle()
        right(self, held)

    return hold


def _seen_is_done(right: Any) -> Any:
    def look_up(self: Dedup, message_id: str, value: bytes | None) -> Verdict:
        verdict: Verdict = right(self, message_id, value)
        return Verdict(Seen.SETTLED) if verdict.seen is Seen.IN_FLIGHT else verdict

    return look_up


def _nothing_stands(_right: Any) -> Any:
    async def look(_self: NoteDesk, deliveries: Any) -> dict[int, note_desk._Look]:
        return {id(delivery): note_desk._Look() for delivery in deliveries}

    return look


def _unfenced(_right: Any) -> Any:
    def fence(self: OffsetTracker, partitions: Any) -> None:
        for tp in partitions:
            self._partitions.pop(tp, None)

    return fence


def _kept_after_revocation(_right: Any) -> Any:
    def fence(_self: OffsetTracker, _partitions: Any) -> None:
        return None

    return fence


def _created_blindly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the look afterwards, too: that one would take the second lead back."""
    for name in ("_by_query", "_by_search"):
        _replacing(People, name, _one_look)(monkeypatch)
    _replacing(People, "_settle", _no_settlement)(monkeypatch)


def _one_look(right: Any) -> Any:
    async def look(self: People, people: Any) -> Any:
        asked = self.__dict__.setdefault(f"asked by {right.__name__}", set())
        fresh = [person for person in people if person.key not in asked]
        asked.update(person.key for person in fresh)
        return await right(self, fresh) if fresh else {}

    return look


def _no_settlement(_right: Any) -> Any:
    async def settle(self: People, keys: list[str]) -> Any:
        return {key: self._unsettled.pop(key)[1] for key in keys if key in self._unsettled}

    return settle


def _never_needed(_right: Any) -> Any:
    return lambda _self, _delivery: False


def _no_referee(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever comes first in a process believes that the dialog is new."""

    async def owners(_self: DialogReferee, dialogs: Any) -> dict[Any, str]:
        return dict.fromkeys(dialogs, "")

    monkeypatch.setattr(DialogReferee, "owners", owners)
    monkeypatch.setattr(note_desk, "_owner", _named)


def _named(dialog: Any, group: list[Delivery], owners: dict[Any, str]) -> Delivery:
    owners[dialog] = group[0].event.message_id
    return group[0]


def _dropped_letter(_right: Any) -> Any:
    async def write(self: DeadLetterDesk, held: Any) -> bool:
        try:
            await self._dead_letters.write(held.record, held.rejected, attempts=held.attempts)
        except DeadLetterError as error:
            self._observer.dead_letter_failed(error)
        self._let_go(held)
        return True

    return write


def _no_memory_of_letters(_right: Any) -> Any:
    async def find_buried(_self: DeadLetterDesk, _ready: Any) -> None:
        return None

    return find_buried


def _all_rows_are_fine(_right: Any) -> Any:
    def judged(_self: Verdicts, _operation: Any, deliveries: Any, *_rest: Any) -> list[Any]:
        return [Delivered()] * len(deliveries)

    return judged


def _deferred_is_done(_right: Any) -> Any:
    def defer(self: Pipeline, delivery: Delivery, _deferred: Deferred) -> None:
        self._finish(delivery)

    return defer


def _always_clean(_right: Any) -> Any:
    return lambda _self, _tp: True


def _always_wanted(_right: Any) -> Any:
    return lambda _self: True


def _forgotten_followers(right: Any) -> Any:
    def left(self: StageQueue, leader: Delivery) -> list[Delivery]:
        right(self, leader)
        return []

    return left


def _late_acks(_right: Any) -> Any:
    """The ack of a message comes when its turn comes, and not before anything else is done with its poll."""

    def take(self: Pipeline, records: Any) -> None:
        for record in records:
            if record.tp not in self._leaving:
                loop = asyncio.get_running_loop()
                loop.call_later(self._random() * 0.5, _receive, self, record)

    return take


def _receive(pipeline: Pipeline, record: Any) -> None:
    now = asyncio.get_running_loop().time()
    with suppress(ValueError):
        pipeline._intake(record, pipeline._issue(record, now))


def _withdraws_nothing(_right: Any) -> Any:
    async def withdraw(_self: NoteDesk, _note_id: str) -> None:
        return None

    return withdraw


def _withdraws_all(monkeypatch: pytest.MonkeyPatch) -> None:
    right = notes._standing

    def standing(rows: Any) -> notes.Standing:
        found = right(rows)
        return notes.Standing(found.oldest, (found.oldest, *found.twins))

    monkeypatch.setattr(notes, "_standing", standing)


def _gives_up(right: Any) -> Any:
    def outcome(error: Any, stage: Any) -> Any:
        return Rejected(stage, f"zoho.{error.code}") if isinstance(error, TransientError) else right(error, stage)

    return outcome


def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(note_desk, "FOREIGN_EFFECT_S", 0.0)


MUTANTS = (
    Mutant("commit the highest settled offset", _replacing(_Partition, "settled", _highest_settled), "crashes"),
    Mutant("settle before the write", _replacing(Pipeline, "_route", _settled_on_receipt), "crashes"),
    Mutant(
        "settle a poison record before its dead letter stands",
        _replacing(DeadLetterDesk, "_hold", _settled_when_held),
        "letters",
    ),
    Mutant(
        "call what is in flight a duplicate of something done", _replacing(Dedup, "look_up", _seen_is_done), "crashes"
    ),
    Mutant("write a note without looking for it", _replacing(NoteDesk, "_look", _nothing_stands), "notes"),
    Mutant("carry on what was taken away", _replacing(OffsetTracker, "fence", _unfenced), "notes", within=60),
    Mutant(
        "keep counting after a revocation", _replacing(OffsetTracker, "fence", _kept_after_revocation), "rebalances"
    ),
    Mutant("create again without looking, after a lost answer", _created_blindly, "zoho"),
    Mutant(
        "create a lead and not look whether somebody else did",
        _replacing(People, "_settle", _no_settlement),
        "rebalances",
        within=150,
    ),
    Mutant("take every note for somebody else's", _replacing(ZohoSink, "needs_note", _never_needed), "calm", within=3),
    Mutant("take every note for our own", _no_referee, "everything"),
    Mutant(
        "settle though the dead-letter topic took nothing",
        _replacing(DeadLetterDesk, "_write_dead_letter", _dropped_letter),
        "letters",
    ),
    Mutant(
        "write a dead letter without looking for it",
        _replacing(DeadLetterDesk, "_find_buried", _no_memory_of_letters),
        "letters",
    ),
    Mutant("take a batch with failures for a success", _replacing(Verdicts, "judged", _all_rows_are_fine), "zoho"),
    Mutant("take what was put off for done", _replacing(Pipeline, "_defer", _deferred_is_done), "zoho"),
    Mutant("issue an ack late", _replacing(Pipeline, "_take", _late_acks), "calm"),
    Mutant("take no twin of a note back", _replacing(NoteDesk, "_withdraw", _withdraws_nothing), "rebalances"),
    Mutant("take back every note that is looked at", _withdraws_all, "notes"),
    Mutant(
        "give a message up when there was no answer", _replacing(sink, "outcome_of_error", _gives_up), "zoho", within=3
    ),
    Mutant("write a stranger's note at once", _impatient, "notes"),
    Mutant("call every departure clean", _replacing(OffsetTracker, "is_clean", _always_clean), "letters", within=60),
    Mutant("want everything for ever", _replacing(Delivery, "is_wanted", _always_wanted), "notes", within=60),
    Mutant(
        "forget who waits for the same person", _replacing(StageQueue, "left", _forgotten_followers), "calm", within=3
    ),
)
