"""The third stage: whose task a note is, and that it stands once.  See `notes` for the reasons."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from dataclasses import dataclass
from enum import Enum, auto
from typing import TYPE_CHECKING

from consumer.core.errors import HaltedError, RefusedError, SyncError, TransientError
from consumer.core.model import Deferred, Delivered, NotePolicy, Stage
from consumer.core.recent import Recent
from consumer.zoho import notes
from consumer.zoho.answers import TRIES_OF_UNKNOWN, RowAnswer, outcome_of
from consumer.zoho.api import Operation
from consumer.zoho.notes import Dialog, Standing, dialog_of
from consumer.zoho.splitting import in_parts
from consumer.zoho.together import all_of
from consumer.zoho.verdicts import never_written, outcome_of_error

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence
    from typing import Any

    from consumer.core.links import Links
    from consumer.core.model import Delivery, Parent
    from consumer.zoho.api import Send
    from consumer.zoho.metadata import Schema
    from consumer.zoho.verdicts import StageOutcome, Verdicts

_REMEMBERED_DIALOGS = 200_000
_LOOK_AGAIN_S = 5.0
FOREIGN_EFFECT_S = 30.0
"""How long after we saw somebody else's message its note may still come to stand: its maker is gone, or at it."""
_UNDISTURBED_S = 20.0
"""So long after we made a message nobody else writes its note; less than strangers wait, by what an answer may need."""


class _NoteState(Enum):
    STANDS = auto()
    """We have seen or written it."""
    ELSEWHERE = auto()
    """An older message owes it, which is not among ours."""


@dataclass(frozen=True, slots=True)
class _Owed:
    """A note that is to stand."""

    owner: Delivery
    """Whose message owes it."""
    is_uncertain: bool
    """It may stand already, or come to stand."""
    is_others: bool = False
    """Somebody else owes it, and may be at it; a person has asked for it all the same."""


@dataclass(frozen=True, slots=True)
class _Look:
    """What a look at a parent's notes told of one note."""

    stands: bool = False
    error: SyncError | None = None
    """The parent could not be read."""
    twin_error: SyncError | None = None
    """A younger twin could not be taken back now."""

    def outcome_before(self) -> StageOutcome | None:
        """None when the note is to be written.  A twin that will not go holds nothing up."""
        if self.error is not None:
            return never_written(outcome_of_error(self.error, Stage.NOTE))
        return Delivered() if self.stands else None

    def outcome_after(self) -> StageOutcome:
        """Of a note that we wrote; what could not be looked at, or taken back, is looked at once more."""
        error = self.error or self.twin_error
        if error is None:
            return Delivered()
        deferred = never_written(outcome_of_error(error, Stage.NOTE))
        return Deferred(deferred.code, wrote_maybe=True, halted=True) if isinstance(deferred, Deferred) else deferred


class NoteDesk:
    """Decides, looks, writes and takes back."""

    def __init__(
        self,
        send: Send,
        links: Links,
        schema: Schema,
        verdicts: Verdicts,
        *,
        module: str,
        policy: NotePolicy,
        late_effect_s: float,
    ) -> None:
        self._send = send
        self._links = links
        self._schema = schema
        self._verdicts = verdicts
        self._policy = policy
        self._late_effect_s = late_effect_s
        self._quiet: dict[str, float] = {}
        """Markers of notes whose creation went unanswered, and the loop time until which it may still take effect."""
        self._referee = notes.DialogReferee(send, module)
        self._expected: defaultdict[Dialog, dict[str, Delivery]] = defaultdict(dict)
        """Deliveries of each dialog that are on their way, by message id."""
        self._notes: Recent[Dialog, _NoteState] = Recent(_REMEMBERED_DIALOGS)
        self._maybe: set[Dialog] = set()
        self._deciding: dict[Dialog, asyncio.Future[None]] = {}

    def __len__(self) -> int:
        return len(self._expected)

    def expect(self, delivery: Delivery) -> None:
        """Its message is about to be written: from now on it may owe a note."""
        self._expected[dialog_of(delivery)][delivery.event.message_id] = delivery

    def gave_up(self, delivery: Delivery) -> None:
        """It is settled, rejected or lost: it owes no note any more."""
        expected = self._expected.get(dialog_of(delivery))
        if expected is not None and expected.get(delivery.event.message_id) is delivery:
            del expected[delivery.event.message_id]
            if not expected:
                del self._expected[dialog_of(delivery)]
                self._maybe.discard(dialog_of(delivery))

    def key(self, delivery: Delivery) -> Hashable:
        """What one note stands for: who shares it is decided together."""
        return dialog_of(delivery) if self._policy is NotePolicy.PER_DIALOG else delivery.event.message_id

    def needs_note(self, delivery: Delivery) -> bool:
        """False when the note stands, or is known to be the task of an older message that is not ours."""
        if self._policy is NotePolicy.PER_MESSAGE:
            return True
        state = self._notes.get(dialog_of(delivery))
        is_asked_for = not delivery.inserted or delivery.record.is_replay()
        return state is None or (state is _NoteState.ELSEWHERE and is_asked_for)

    async def write(self, deliveries: Sequence[Delivery]) -> list[StageOutcome]:
        """The notes that are owed for these deliveries; each of them has its message record."""
        if self._policy is NotePolicy.PER_MESSAGE:
            return await self._write_checked([_Owed(item, self._is_uncertain(item)) for item in deliveries])
        by_dialog: defaultdict[Dialog, list[Delivery]] = defaultdict(list)
        for delivery in deliveries:
            by_dialog[dialog_of(delivery)].append(delivery)
        await self._wait_for_others(by_dialog)
        outcomes = await self._decide(by_dialog)
        return [outcomes[id(delivery)] for delivery in deliveries]

    @staticmethod
    def _is_uncertain(delivery: Delivery) -> bool:
        """Only who made the message knows without a look that it has no note yet, and not for ever."""
        return not delivery.inserted or delivery.note_maybe or _came_late(delivery)

    async def _wait_for_others(self, dialogs: dict[Dialog, list[Delivery]]) -> None:
        """One decision in flight for a dialog."""
        while busy := [self._deciding[dialog] for dialog in dialogs if dialog in self._deciding]:
            await asyncio.wait(busy)

    async def _decide(self, by_dialog: dict[Dialog, list[Delivery]]) -> dict[int, StageOutcome]:
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        undecided = {
            dialog: group for dialog, group in by_dialog.items() if any(self.needs_note(delivery) for delivery in group)
        }
        self._deciding.update(dict.fromkeys(undecided, done))
        outcomes: dict[int, StageOutcome] = {id(item): Delivered() for group in by_dialog.values() for item in group}
        try:
            outcomes.update(await self._decide_undecided(undecided))
        except SyncError as error:
            deferred = never_written(outcome_of_error(error, Stage.NOTE))
            outcomes.update({id(item): deferred for group in undecided.values() for item in group})
        finally:
            for dialog in undecided:
                del self._deciding[dialog]
            done.set_result(None)
        return outcomes

    async def _decide_undecided(self, undecided: dict[Dialog, list[Delivery]]) -> dict[int, StageOutcome]:
        owners = await self._owners(undecided) if undecided else {}
        owed = {
            dialog: note
            for dialog, group in undecided.items()
            if (note := self._owed(dialog, group, owners)) is not None
        }
        written = await self._write_checked(list(owed.values()))
        outcomes: dict[int, StageOutcome] = {}
        for (dialog, note), outcome in zip(owed.items(), written, strict=True):
            self._learn(dialog, outcome)
            outcomes[id(note.owner)] = outcome
        return outcomes

    async def _owners(self, undecided: dict[Dialog, list[Delivery]]) -> dict[Dialog, str]:
        """An answer that nobody knows is none; but if there is never another one, the referee has no word."""
        try:
            return await self._referee.owners(list(undecided))
        except RefusedError as error:
            if any(_is_to_be_asked_again(error, item) for group in undecided.values() for item in group):
                raise TransientError(error.code) from None
            return {}

    def _owed(self, dialog: Dialog, group: list[Delivery], owners: dict[Dialog, str]) -> _Owed | None:
        """The note, if one of these owes it; only that one waits for it.

        An owner of ours that is at another stage is left alone: it has not been settled, so its turn will come.
        """
        owner = _owner(dialog, group, owners)
        if owner is not None:
            is_stand_in = dialog not in owners
            return _Owed(owner, is_stand_in or dialog in self._maybe or self._is_uncertain(owner))
        if owners[dialog] in self._expected.get(dialog, ()):
            return None
        replayed = next((delivery for delivery in group if delivery.record.is_replay()), None)
        if replayed is not None:
            return _Owed(replayed, is_uncertain=True, is_others=True)
        self._remember(dialog, _NoteState.ELSEWHERE)
        return None

    def _learn(self, dialog: Dialog, outcome: StageOutcome) -> None:
        if isinstance(outcome, Deferred):
            if outcome.wrote_maybe:
                self._maybe.add(dialog)
            return
        self._maybe.discard(dialog)
        self._remember(dialog, _NoteState.STANDS if isinstance(outcome, Delivered) else _NoteState.ELSEWHERE)

    def _remember(self, dialog: Dialog, state: _NoteState) -> None:
        self._notes.put(dialog, state)

    async def _write_checked(self, owed: list[_Owed]) -> list[StageOutcome]:
        """Write notes; those that may stand already only after a look at their parent, and with another one after.

        Somebody else may be at the same note: of two made in the same moment the younger is taken back.  That goes
        for a note, too, that was certain when it was sent, but came so late that strangers had stopped waiting for it.
        """
        looks = await self._look([note.owner for note in owed if note.is_uncertain])
        outcomes = {key: outcome for key, look in looks.items() if (outcome := look.outcome_before()) is not None}
        outcomes.update(self._not_yet([note for note in owed if id(note.owner) not in outcomes]))
        missing = [note for note in owed if id(note.owner) not in outcomes]
        owners = [note.owner for note in missing]
        if owners:
            outcomes.update(zip(map(id, owners), await self._create(owners), strict=True))
        doubted = [note.owner for note in missing if note.is_uncertain or _came_late(note.owner)]
        made = [owner for owner in doubted if outcomes[id(owner)] == Delivered()]
        outcomes.update({key: look.outcome_after() for key, look in (await self._look(made)).items()})
        return [outcomes[id(note.owner)] for note in owed]

    def _not_yet(self, owed: list[_Owed]) -> dict[int, StageOutcome]:
        """Notes whose creation may still be on its way, and must not be repeated yet."""
        now = _now()
        self._quiet = {marker: until for marker, until in self._quiet.items() if until > now}
        waits = {id(note.owner): self._uncertain_s(note, now) for note in owed}
        return {
            key: Deferred("NOTE_UNCERTAIN", wrote_maybe=True, halted=True, retry_after_s=wait_s)
            for key, wait_s in waits.items()
            if wait_s > 0
        }

    def _uncertain_s(self, note: _Owed, now: float) -> float:
        """Seconds until the next look for a note that we, or a stranger, asked for; 0: it will not come any more."""
        owner = note.owner
        ours_s = self._quiet.get(self._marker(owner), now) - now
        if ours_s > 0:
            return min(ours_s, max(_LOOK_AGAIN_S, self._late_effect_s - ours_s))
        if not (owner.is_foreign or note.is_others) or owner.stands_since is None:
            return 0.0
        return max(0.0, owner.stands_since + FOREIGN_EFFECT_S - now)

    async def _look(self, deliveries: list[Delivery]) -> dict[int, _Look]:
        """Does the note stand?  One look at each parent; a parent that cannot be read holds up its own notes only."""
        wanted: defaultdict[Parent, set[str]] = defaultdict(set)
        for delivery in deliveries:
            if delivery.parent is not None:
                wanted[delivery.parent].add(self._marker(delivery))
        found = dict(zip(wanted, await all_of(map(self._notes_on, wanted, wanted.values())), strict=True))
        looks: dict[int, _Look] = {}
        for delivery in deliveries:
            notes_there = found[delivery.parent] if delivery.parent is not None else {}
            if isinstance(notes_there, RefusedError):
                is_open = _is_to_be_asked_again(notes_there, delivery)
                looks[id(delivery)] = _Look(error=TransientError(notes_there.code) if is_open else None)
            elif isinstance(notes_there, SyncError):
                looks[id(delivery)] = _Look(error=notes_there)
            else:
                looks[id(delivery)] = await self._without_twins(notes_there.get(self._marker(delivery)))
        return looks

    async def _notes_on(self, parent: Parent, markers: set[str]) -> dict[str, Standing] | SyncError:
        try:
            return await notes.standing(self._send, parent, markers)
        except SyncError as error:
            return error

    async def _without_twins(self, note: Standing | None) -> _Look:
        """Take the younger ones back: everybody agrees which those are.  Without the right to, they stay."""
        failures = [error for error in await all_of(map(self._withdraw, note.twins if note else ())) if error]
        return _Look(stands=note is not None, twin_error=next(iter(failures), None))

    async def _withdraw(self, note_id: str) -> SyncError | None:
        try:
            await notes.withdraw(self._send, note_id)
        except (TransientError, HaltedError) as error:
            return error if isinstance(error, TransientError) or error.code.startswith("TOKEN_") else None
        except RefusedError:
            return None
        return None

    def _marker(self, delivery: Delivery) -> str:
        is_dialog = self._policy is NotePolicy.PER_DIALOG
        return dialog_of(delivery).marker() if is_dialog else notes.message_marker(delivery)

    async def _create(self, deliveries: list[Delivery]) -> list[StageOutcome]:
        """Not for those that were taken away meanwhile: their next owner has looked already, and is at it."""
        ready = [delivery for delivery in deliveries if delivery.is_wanted() and delivery.parent]
        outcomes: dict[int, StageOutcome] = {id(delivery): Deferred("NOT_READY") for delivery in deliveries}
        if ready:
            outcomes.update(zip(map(id, ready), await self._create_ready(ready), strict=True))
        return [outcomes[id(delivery)] for delivery in deliveries]

    async def _create_ready(self, deliveries: list[Delivery]) -> list[StageOutcome]:
        outcomes = await in_parts(
            deliveries,
            self._create_part,
            alone=lambda delivery, error: self._verdicts.refused(delivery, error, Stage.NOTE),
            hold=lambda error: self._verdicts.hold(Operation.CREATE_NOTES, error.code),
        )
        for delivery, outcome in zip(deliveries, outcomes, strict=True):
            delivery.note_maybe |= isinstance(outcome, Deferred) and outcome.wrote_maybe
        return outcomes

    async def _create_part(self, deliveries: Sequence[Delivery]) -> list[StageOutcome]:
        rows = [notes.note_of(delivery, self._policy, self._links, self._schema) for delivery in deliveries]
        try:
            answers = await notes.write(self._send, rows, is_wanted=lambda: all(d.is_wanted() for d in deliveries))
        except RefusedError:
            raise
        except SyncError as error:
            return self._unanswered(deliveries, error)
        return self._verdicts.judged(Operation.CREATE_NOTES, deliveries, rows, answers, self._note_outcome)

    def _unanswered(self, deliveries: Sequence[Delivery], error: SyncError) -> list[StageOutcome]:
        if isinstance(error, TransientError) and error.wrote_maybe:
            late_s = self._late_effect_s if error.late_s is None else error.late_s
            until = _now() + late_s
            self._quiet.update({self._marker(delivery): until for delivery in deliveries if late_s})
        return [outcome_of_error(error, Stage.NOTE)] * len(deliveries)

    def _note_outcome(self, delivery: Delivery, row: dict[str, Any], answer: RowAnswer) -> StageOutcome:
        if answer.is_ok:
            return Delivered()
        return (
            self._verdicts.stale_parent(delivery, answer)
            or self._verdicts.too_long(notes.MODULE, row, answer)
            or outcome_of(answer, Stage.NOTE, attempts=delivery.attempts)
        )


def _owner(dialog: Dialog, group: list[Delivery], owners: dict[Dialog, str]) -> Delivery | None:
    """Who of these owes the note; None when it is somebody else.  Without a referee's word, the first of them."""
    if dialog not in owners:
        return group[0]
    return next((delivery for delivery in group if delivery.event.message_id == owners[dialog]), None)


def _is_to_be_asked_again(error: RefusedError, delivery: Delivery) -> bool:
    """A look-up that was refused for a reason in no table has not said that there is nothing."""
    return error.is_unknown and delivery.attempts < TRIES_OF_UNKNOWN


def _came_late(delivery: Delivery) -> bool:
    return delivery.stands_since is not None and _now() > delivery.stands_since + _UNDISTURBED_S


def _now() -> float:
    return asyncio.get_running_loop().time()
