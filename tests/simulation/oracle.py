"""What was promised, checked against the only witnesses: the topic, the committed offsets, the dead letters, Zoho.

Known limits are not excused in general but one by one: a double lead or note is excused only where the call that made
the younger one had lost its caller, or came while two processes held the same message.  What is excused is counted.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from consumer.core.model import NotePolicy
from consumer.core.phones import Phones
from consumer.zoho.notes import Dialog, marker_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from sandbox.zoho import Effect, ZohoEngine
    from tests.simulation.broker import Broker, Letter, SimSource
    from tests.simulation.wire import Wire

SETTLED_S = 60.0
NOTE_WAITED_FOR_S = 30.0
"""So long the next owner of a message waits for a note that may be on its way."""
USER_RACE_S = 15.0
ANSWER_MISSED_S = 30.0
POISON, SKIP, EVENT = "poison", "skip", "event"


@dataclass(frozen=True, slots=True)
class Expected:
    """What a record asks for, as its producer knows it."""

    kind: str
    message_id: str = ""
    phone: str = ""
    """E.164."""
    dialog_id: str | None = None
    text: str = ""
    owes_note: bool = False
    """A person replays it since its note was refused."""


@dataclass(slots=True)
class Ledger:
    """What the producers published."""

    records: dict[tuple[int, int], Expected] = field(default_factory=dict)
    places_of: defaultdict[str, list[tuple[int, int]]] = field(default_factory=lambda: defaultdict(list))

    def add(self, place: tuple[int, int], expected: Expected) -> None:
        """One more record."""
        self.records[place] = expected
        if expected.kind == EVENT:
            self.places_of[expected.message_id].append(place)


@dataclass(frozen=True, slots=True)
class _Moved:
    """A partition's offset was stored."""

    at_s: float
    partition: int
    offset: int


class Oracle:
    """Watches each commit while it happens, and judges the whole at the end."""

    def __init__(self, broker: Broker, engine: ZohoEngine, wire: Wire, ledger: Ledger, *, policy: NotePolicy) -> None:
        self.broker = broker
        self.engine = engine
        self.wire = wire
        self.ledger = ledger
        self.policy = policy
        self.first_wins = False
        """Nothing happens in this run that could make the content of a later event replace the first one's."""
        self.max_concurrency = 10
        self.began_s = 0.0
        """Since when our processes run."""
        self.members: list[SimSource] = []
        self.refuses: Callable[[str], bool] = lambda _key: False
        """Has Zoho refused this message, by its id, or note, by its marker, as such?"""
        self.violations: list[str] = []
        self.excused: Counter[str] = Counter()
        self.phones = Phones(None)
        self._read_effects = 0
        self._messages: dict[str, str] = {}
        self._notes: set[str] = set()
        self._oldest: dict[str, str] = {}
        self._letters: defaultdict[tuple[int, int], list[float]] = defaultdict(list)
        self._note_letters: set[str] = set()
        self._partitions_of: defaultdict[str, set[int]] = defaultdict(set)
        """From which a note may come, by its marker."""
        self._checked = [0] * len(broker.log)
        self._commits: list[_Moved] = []
        self._late_commits: list[_Moved] = []
        broker.on_commit = self.committed
        broker.on_late_commit = self.committed_late
        broker.on_letter = self.lettered

    # While it runs

    def lettered(self, letter: Letter) -> None:
        """A dead letter was stored."""
        self._letters[letter.place].append(self.broker.loop.time())
        expected = self.ledger.records.get(letter.place)
        if expected is None:
            return
        is_note = letter.header("dlq.stage") == "note"
        if expected.kind == EVENT and not self.refuses(self.marker(expected) if is_note else expected.message_id):
            self.violations.append(f"dead letter {letter.place} of what Zoho has not refused")
        if is_note:
            self._note_letters.add(self.marker(expected))

    def committed(self, member: SimSource, offsets: Mapping[int, int]) -> None:
        """Nothing unsettled may lie before a committed offset."""
        self._read()
        self._commits += self._moves(offsets)
        for partition, offset in offsets.items():
            for at in range(self._checked[partition], offset):
                why = self._unsettled((partition, at), offsets)
                if why:
                    now = self.broker.loop.time()
                    name = member.life.name
                    self.violations.append(f"committed too far: {partition}/{at} {why} ({name} at {now:.1f})")
            self._checked[partition] = max(self._checked[partition], offset)

    def committed_late(self, offsets: Mapping[int, int]) -> None:
        """What lies behind these offsets is read again by somebody who may not know that it is suspect."""
        self._late_commits += self._moves(offsets)

    def _moves(self, offsets: Mapping[int, int]) -> list[_Moved]:
        now = self.broker.loop.time()
        return [_Moved(now, partition, offset) for partition, offset in offsets.items()]

    def _read(self) -> None:
        self.engine.settle()
        for effect in self.engine.journal.effects[self._read_effects :]:
            if effect.kind == "create":
                self._created(effect)
        self._read_effects = len(self.engine.journal.effects)

    def _created(self, effect: Effect) -> None:
        values = effect.row.values
        if effect.module == "CustomModule1":
            message_id = str(values["Message_ID"])
            if not (values.get("Lead") or values.get("Contact")):
                self.violations.append(f"message {message_id} without lead or contact")
            self._messages.setdefault(message_id, effect.record_id)
            self._oldest.setdefault(self._marker_of(values.get("Dialog_ID"), str(values["Phone"])), message_id)
        elif effect.module == "Notes":
            self._notes.add(marker_in(str(values.get("Note_Title"))))

    def _unsettled(self, place: tuple[int, int], offsets: Mapping[int, int]) -> str:
        expected = self.ledger.records[place]
        if expected.kind == SKIP or place in self._letters:
            return ""
        if expected.kind == POISON:
            return "poison without dead letter"
        if expected.message_id not in self._messages:
            return "message not written"
        marker = self.marker(expected)
        if marker in self._notes:
            return ""
        if expected.owes_note:
            return "note of a replay not written"
        if marker in self._note_letters or self._is_owed_elsewhere(marker, offsets):
            return ""
        return "note not written"

    def _is_owed_elsewhere(self, marker: str, offsets: Mapping[int, int]) -> bool:
        """The dialog's oldest message is not committed yet: its note comes with it."""
        if self.policy is NotePolicy.PER_MESSAGE:
            return False
        oldest = self._oldest.get(marker)
        return any(
            at >= offsets.get(partition, self._checked[partition])
            for partition, at in self.ledger.places_of.get(oldest or "", ())
        )

    def marker(self, expected: Expected) -> str:
        """What the title of its note ends with."""
        if self.policy is NotePolicy.PER_MESSAGE:
            return marker_of(f"message\0{expected.message_id}")
        return self._marker_of(expected.dialog_id, expected.phone)

    def _marker_of(self, dialog_id: str | None, phone: str) -> str:
        return (Dialog(dialog_id) if dialog_id else Dialog(None, phone)).marker()

    # At the end

    def judge(self) -> list[str]:
        """Every broken promise."""
        self._read()
        for (partition, _), expected in self.ledger.records.items():
            if expected.kind == EVENT:
                self._partitions_of[self.marker(expected)].add(partition)
        self._judge_records()
        self._judge_letters()
        self._judge_messages()
        self._judge_notes()
        self._judge_ownership()
        self._judge_withdrawals()
        self._judge_parents()
        self._judge_leads()
        self._judge_limits()
        return self.violations

    def _judge_records(self) -> None:
        nothing: dict[int, int] = {number: len(records) for number, records in enumerate(self.broker.log)}
        for place in self.ledger.records:
            why = self._unsettled(place, nothing)
            if why:
                self.violations.append(f"lost: {place[0]}/{place[1]} {why}")

    def _judge_letters(self) -> None:
        for place, moments in self._letters.items():
            if len(moments) > 1 and self._came_back_late(place, moments):
                self.excused["dead letter after a commit came late"] += 1
            elif len(moments) > 1:
                self.violations.append(f"dead letter {place} {len(moments)} times")
        for letter in self.broker.letters:
            raw = self.broker.log[letter.place[0]][letter.place[1]]
            kept = [pair for pair in letter.headers if not pair[0].startswith("dlq.")]
            original = [pair for pair in raw.headers if not pair[0].startswith("dlq.")]
            if (letter.key, letter.value, kept) != (raw.key, raw.value, original):
                self.violations.append(f"dead letter {letter.place} is not the record")
            if self.ledger.records[letter.place].kind == SKIP:
                self.violations.append(f"dead letter {letter.place} of a record to be skipped")

    def _came_back_late(self, place: tuple[int, int], moments: list[float]) -> bool:
        """Whoever wrote one more began where a late commit had moved the offset back, and nobody had passed since."""
        partition, at = place
        for second in moments[1:]:
            openings = (opening for member in self.members for opening in member.openings)
            began_s = max(
                (opening.at_s for opening in openings if opening.partition == partition and opening.at_s < second),
                default=0.0,
            )
            moves = [move for move in self._commits if move.partition == partition and move.at_s <= began_s]
            on_time = (move for move in moves if move not in self._late_commits)
            passed_s = max((move.at_s for move in on_time if move.offset > at), default=0.0)
            back = [move for move in self._late_commits if move.partition == partition and move.offset <= at]
            if not any(passed_s < move.at_s <= began_s for move in back):
                return False
        return True

    def _rows(self, module: str) -> list[Any]:
        org = self.engine.org
        return list(org.table(org.schema.module(module)))

    def _judge_messages(self) -> None:
        counts = Counter(row.values["Message_ID"] for row in self._rows("CustomModule1"))
        self.violations += [f"message {key} {count} times" for key, count in counts.items() if count > 1]
        creates = Counter(
            effect.row.values["Message_ID"]
            for effect in self.engine.journal.effects
            if effect.module == "CustomModule1" and effect.kind == "create"
        )
        self.violations += [f"message {key} created {count} times" for key, count in creates.items() if count > 1]
        for row in self._rows("CustomModule1"):
            self._judge_content(row.values)

    def _judge_content(self, values: dict[str, Any]) -> None:
        places = self.ledger.places_of.get(str(values["Message_ID"]), [])
        events = [self.ledger.records[place] for place in places]
        if self.first_wins and events and len({place[0] for place in places}) == 1:
            events = events[:1] if places[0] not in self._letters else events
        if not any(values["Body"] == event.text and values["Phone"] == event.phone for event in events):
            self.violations.append(f"message {values['Message_ID']} holds what it should not")

    def _judge_notes(self) -> None:
        by_marker: defaultdict[str, list[Any]] = defaultdict(list)
        for row in self._rows("Notes"):
            by_marker[marker_in(str(row.values["Note_Title"]))].append(row)
        for marker, rows in by_marker.items():
            younger = sorted(rows, key=lambda row: int(row.id))[1:]
            if not younger:
                continue
            is_late = all(self._is_late(row.id) for row in younger)
            if is_late and all(self._took_s(row.id) > NOTE_WAITED_FOR_S for row in younger):
                self.excused["note that Zoho made long after its caller had gone"] += 1
            elif is_late and len(self._partitions_of[marker]) > 1:
                self.excused["note that Zoho made after its caller had gone, of a message on two partitions"] += 1
            elif len(self._partitions_of[marker]) > 1 and any(self._took_it_for_its_own(row.id) for row in rows):
                self.excused["note of a message on two partitions, of which one's answer was lost"] += 1
            elif self._has_moved(rows):
                self.excused["note of a person to whom a user gave a second record"] += 1
            else:
                self.violations.append(f"note {marker} {len(rows)} times: {[self._made(row.id) for row in rows]}")

    def _judge_withdrawals(self) -> None:
        """Of our own accord we delete a note only beside an elder one, and never with its lead."""
        standing: defaultdict[str, dict[str, str]] = defaultdict(dict)
        for effect in self.engine.journal.effects:
            if effect.module != "Notes" or effect.kind == "update":
                continue
            marker, parent = marker_in(str(effect.row.values["Note_Title"])), str(effect.row.values["Parent_Id"])
            if effect.kind == "create":
                standing[marker][effect.record_id] = parent
                continue
            del standing[marker][effect.record_id]
            elder = (note for note, where in standing[marker].items() if where == parent and note < effect.record_id)
            if effect.call and not any(elder):
                self.violations.append(f"note {effect.record_id[-6:]} deleted at {effect.at_s:.1f} with none beside it")

    def _judge_parents(self) -> None:
        """No message is left to a lead that we took back ourselves."""
        effects = self.engine.journal.effects
        withdrawn = {effect.record_id for effect in effects if effect.kind == "delete" and effect.call}
        self.violations += [
            f"message {row.values['Message_ID']} of a lead taken back"
            for row in self._rows("CustomModule1")
            if str(row.values.get("Lead")) in withdrawn
        ]

    def _judge_ownership(self) -> None:
        """A note is not sent for a message whose partition was taken away before."""
        owners = {member.life.name: member for member in self.members}
        for effect in self.engine.journal.effects:
            if effect.module == "Notes" and effect.kind == "create" and effect.call:
                fate = self.wire.fates[effect.call]
                partitions = self._partitions_of[marker_in(str(effect.row.values["Note_Title"]))]
                if not any(owners[fate.life.name].owned(partition, fate.sent_at) for partition in partitions):
                    self.violations.append(f"note sent for another owner: {self._made(effect.record_id)}")

    def _took_it_for_its_own(self, note_id: str) -> bool:
        """Its maker had no answer when it wrote the message, and could not know that somebody else's stood."""
        effect = self._create_effect(note_id)
        maker = self.wire.fates[effect.call].life if effect.call else None
        return any(
            fate.life is maker and fate.answered_at is None and effect.at_s - ANSWER_MISSED_S < fate.sent_at
            for number, fate in self.wire.fates.items()
            if self.engine.journal.calls[number - 1].operation == "records.upsert" and fate.sent_at <= effect.at_s
        )

    def _has_moved(self, rows: list[Any]) -> bool:
        """They were made on different records, of which a user made or changed one meanwhile."""
        parents = {str(self._create_effect(row.id).row.values["Parent_Id"]) for row in rows}
        return len(parents) == len(rows) and any(
            not effect.call and effect.record_id in parents and effect.at_s > self.began_s
            for effect in self.engine.journal.effects
        )

    def _create_effect(self, record_id: str) -> Effect:
        effects = self.engine.journal.effects
        return next(effect for effect in effects if effect.record_id == record_id and effect.kind == "create")

    def _is_late(self, record_id: str) -> bool:
        """Zoho made it when nobody waited for the answer any more."""
        effect = self._create_effect(record_id)
        return effect.call in self.wire.fates and effect.at_s > self.wire.fates[effect.call].left_at()

    def _took_s(self, record_id: str) -> float:
        """From the call to its effect."""
        effect = self._create_effect(record_id)
        return effect.at_s - self.wire.fates[effect.call].sent_at

    def _is_lost_in_a_race(self, record_id: str, rows: list[Any]) -> bool:
        """Its answer was lost, or denied what Zoho had done, while another process created the same person."""
        call = self._create_effect(record_id).call
        fate = self.wire.fates.get(call)
        lives = {self.wire.fates[call].life.name for row in rows if (call := self._create_effect(row.id).call)}
        return fate is not None and (fate.answered_at is None or self._denies(call)) and len(lives) > 1

    def _denies(self, call: int) -> bool:
        entry = self.engine.journal.calls[call - 1]
        return entry.succeeded < entry.rows

    def _was_left(self, record_id: str) -> bool:
        """Its process ended between the creation and the look for a twin, or in that look."""
        effect = self._create_effect(record_id)
        return effect.call in self.wire.fates and self.wire.fates[effect.call].life.ended_at < effect.at_s + SETTLED_S

    def _was_given_up(self, record_id: str) -> bool:
        """The look for a twin failed, or the deletion, and nothing came that would have made the process try again."""
        effect = self._create_effect(record_id)
        if effect.call not in self.wire.fates:
            return False
        life = self.wire.fates[effect.call].life
        looks = [
            fate
            for number, fate in self.wire.fates.items()
            if self.engine.journal.calls[number - 1].operation in ("coql", "records.get", "records.delete_one")
        ]
        return any(
            fate.life is life and fate.answered_at is None and effect.at_s <= fate.sent_at < effect.at_s + SETTLED_S
            for fate in (*looks, *self.wire.refused)
        )

    def _made(self, record_id: str) -> str:
        effect = self._create_effect(record_id)
        fate = self.wire.fates.get(effect.call)
        return f"{record_id[-6:]} by {fate.life.name if fate else 'user'} at {effect.at_s:.1f} call {effect.call}"

    def _judge_leads(self) -> None:
        by_person: defaultdict[str, list[Any]] = defaultdict(list)
        for row in [*self._rows("Leads"), *self._rows("Contacts")]:
            for phone in {self._canonical(row.values.get(name)) for name in ("Phone", "Mobile")} - {None}:
                if not row.is_converted:
                    by_person[self.phones.person(str(phone)).key].append(row)
        for person, rows in by_person.items():
            made = [row for row in rows if self._create_effect(row.id).call]
            if len(rows) > 1 and made:
                self._judge_double(person, rows, made)

    def _judge_double(self, person: str, rows: list[Any], made: list[Any]) -> None:
        youngest = max(rows, key=lambda row: row.id)
        if not self._create_effect(youngest.id).call:
            return  # a user made it after ours stood
        if self._is_hidden(rows, made):
            self.excused["person whom a user made when ours was made"] += 1
        elif any(self._is_late(row.id) for row in made):
            self.excused["lead that Zoho made after its caller had gone"] += 1
        elif any(self._is_lost_in_a_race(row.id, made) for row in made):
            self.excused["lead whose answer was lost while another process created it, too"] += 1
        elif any(self._was_left(row.id) for row in made):
            self.excused["lead of a process that ended before it saw the other one"] += 1
        elif any(self._was_given_up(row.id) for row in made):
            self.excused["lead of a process that had no more work when it could have taken it back"] += 1
        else:
            self.violations.append(f"person {person} {len(rows)} times: {[self._made(row.id) for row in rows]}")

    def _is_hidden(self, rows: list[Any], made: list[Any]) -> bool:
        """A user made or changed a record of the person after we had looked, or before the search showed it."""
        lag_s = max(USER_RACE_S, self.engine.config.search_lag_s[1])
        created = max((self._create_effect(row.id) for row in made), key=lambda effect: effect.at_s)
        since_s = min(created.at_s, self._looked_at_s(created)) - lag_s
        ids = {row.id for row in rows}
        return any(
            not effect.call and effect.record_id in ids and since_s < effect.at_s <= created.at_s
            for effect in self.engine.journal.effects
        )

    def _looked_at_s(self, created: Effect) -> float:
        """When its maker last asked for written forms of numbers, or odd ones: calls may wait long for their turn.

        All records are read one module beside the other; an outage can hold up one of them.
        """
        maker = self.wire.fates[created.call].life
        asked_s: dict[str, float] = {}
        for number, fate in self.wire.fates.items():
            if fate.life is maker and fate.sent_at < created.at_s:
                asked_s[_look(self.engine.journal.calls[number - 1])] = fate.sent_at
        searched_s = asked_s.get("search", 0.0)
        read_s = min(asked_s.get(f"all {module}", 0.0) for module in ("Leads", "Contacts"))
        return min(asked_s.get("forms", created.at_s), max(searched_s, read_s) or created.at_s)

    def _judge_limits(self) -> None:
        """Calls in flight, and refreshes, of each process."""
        spans: defaultdict[tuple[str, bool], list[tuple[float, int]]] = defaultdict(list)
        for number, fate in self.wire.fates.items():
            is_refresh = self.engine.journal.calls[number - 1].operation == "oauth.token"
            end = min(fate.answered_at or float("inf"), fate.left_at())
            spans[fate.life.name, is_refresh] += [(fate.sent_at, 1), (end, -1)]
        for (name, is_refresh), moments in spans.items():
            peak = _peak(moments)
            if peak > (1 if is_refresh else self.max_concurrency):
                self.violations.append(f"{name} had {peak} {'refreshes' if is_refresh else 'calls'} in flight at once")

    def _canonical(self, raw: str | None) -> str | None:
        return self.phones.canonical(raw) if raw else None


def _look(call: Any) -> str:
    """Which kind of look for people a call was; empty for all others."""
    detail = str(call.detail)
    if "Phone in" in detail:
        return "forms"
    if call.operation in ("records.search", "composite"):
        return "search"
    found = re.search(r"Phone.*Modified_Time from (\w+)", detail)
    return f"all {found[1]}" if found else ""


def _peak(moments: list[tuple[float, int]]) -> int:
    now = peak = 0
    for _, step in sorted(moments):
        now += step
        peak = max(peak, now)
    return peak


def marker_in(title: str) -> str:
    """The marker at the end of a note's title."""
    return title.rpartition("[")[2].rstrip("] ")
