"""From a number to its lead or contact: look, search, and only then create.

Order of look-ups, cheapest and surest first:
1. what this process remembers;
2. COQL on the written forms of the number, many people in one call, without index delay;
3. only for those about to be created, since people type numbers in forms that nobody can list: the directory of odd
   numbers; or, where that is not worth its credits, Zoho's phone search, which finds any punctuation, but takes one
   number a call and lags.  Each hit is compared again by value;
4. create, then look once more: Leads have no unique key, so two processes can create one person in the same moment.
   Everybody sees both leads then, the older one wins, and whoever made the younger one takes it back.

When the answer to a creation is lost, the lead may stand, or may come to stand some time later.  So it is looked for
again and again, and only after that time made once more.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any, Protocol

from consumer.core.errors import HaltedError, RefusedError, SyncError, TransientError
from consumer.core.model import Deferred, Module, Parent, Rejected, Stage
from consumer.core.phones import stored_form, variants
from consumer.core.recent import Recent
from consumer.core.texts import fit, one_line, units
from consumer.zoho import composite, coql
from consumer.zoho.answers import (
    TRIES_OF_UNKNOWN,
    UNKNOWN_ADVICE,
    RowAnswer,
    is_fault_of_ours,
    outcome_of,
    outcome_of_refusal,
    row_answers,
)
from consumer.zoho.api import MAX_RECORDS, Call, Halt, Operation, Send, halt_nothing, write_call
from consumer.zoho.directory import Directory, OddNumbers
from consumer.zoho.splitting import in_parts
from consumer.zoho.together import all_of, both

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from consumer.core.phones import Person, Phones
    from consumer.zoho.metadata import Schema

_FORMS_PER_QUERY = coql.MAX_CRITERIA // 2 * MAX_RECORDS
_REMEMBERED = 200_000
_LAST_NAME_LENGTH = 80
_TOGETHER = 5
"""Sub-requests of one composite call."""
_CONVERTED = ("converted", "both")
"""Converted leads are searched, too: they lead to their contact."""
_STALE_S = 2.0
"""A directory that took longer to read leaves time for somebody else to create the people: they are looked up again."""
_LOOK_AGAIN_S = 5.0
_REST_S = 60.0
"""A twin that could not be deleted is its own person's task; only when nobody asks for so long it is others'."""
LATE_EFFECT_S = 65.0
"""How long after a lost answer a write may still take effect when nothing tells (a gateway's patience is a minute)."""
_NO_LOOK_UP = "Zoho refuses the look-up by phone: see `zoho-sync doctor`."
_NO_LEADS = "Zoho takes no new leads: see `zoho-sync doctor` and the code."

Found = Parent | Rejected | Deferred


class PeopleObserver(Protocol):
    """Told of what happened to people, for metrics and log; gets no numbers."""

    def people_resolved(self, how: str, count: int) -> None:
        """`how`: found, created, duplicate, composite_refused, directory_refused."""

    def person_ambiguous(self, _hits: int) -> None:
        """Several records hold one number."""

    def lead_withdrawn(self, lead_id: str, kept_id: str, *, is_deleted: bool) -> None:
        """Two processes created one person; the younger lead was taken back, unless it could not be deleted."""


@dataclass(frozen=True, slots=True)
class MatchPolicy:
    """Which record is the person when several hold the number."""

    prefer: str = "contact"
    """`contact` or `lead`."""
    order: str = "oldest"
    """`oldest` or `newest`, within the preferred kind; by Zoho's id, which grows."""

    def choose(self, hits: Sequence[Parent]) -> Parent | None:
        """One of the hits, the same one whoever asks."""
        preferred = Module.CONTACTS if self.prefer == "contact" else Module.LEADS
        pool = [hit for hit in hits if hit.module is preferred] or list(hits)
        pick = min if self.order == "oldest" else max
        return pick(pool, key=lambda hit: age_key(hit.id)) if pool else None


@dataclass(frozen=True, slots=True)
class LeadOptions:
    """What new leads get, beside name and number."""

    lead_source: str | None = None
    assignment_rule_id: str | None = None
    triggers: tuple[str, ...] | None = None

    def beside_data(self) -> dict[str, Any]:
        """Keys beside `data`: automations (absent = all run), assignment rule."""
        options: dict[str, Any] = {} if self.triggers is None else {"trigger": list(self.triggers)}
        return options | ({"lar_id": self.assignment_rule_id} if self.assignment_rule_id else {})


Age = tuple[float, int, str]
_NEWEST: Age = (float("inf"), 0, "")


def age_of(row: Mapping[str, Any]) -> Age:
    """Sort key of records, oldest first: by Created_Time where it is told (to the second), then by id."""
    record_id = str(row.get("id") or "")
    try:
        created_at = datetime.fromisoformat(str(row.get("Created_Time"))).timestamp()
    except ValueError:
        created_at = 0.0
    return created_at, *age_key(record_id)


def age_key(record_id: str) -> tuple[int, str]:
    """Sort key of Zoho ids, oldest first: digit strings of growing value."""
    return len(record_id), record_id


class People:
    """Resolves people, one resolution in flight for each, however many batches ask."""

    def __init__(
        self,
        send: Send,
        phones: Phones,
        schema: Schema,
        *,
        policy: MatchPolicy,
        options: LeadOptions,
        observer: PeopleObserver,
        on_halted: Halt = halt_nothing,
        use_composite: bool = False,
        directory_from: int = 0,
        late_effect_s: float = LATE_EFFECT_S,
    ) -> None:
        """`directory_from`: new people of one batch from whom on a directory is read in place of searches; 0: never."""
        self._send = send
        self._phones = phones
        self._schema = schema
        self._policy = policy
        self._options = options
        self._observer = observer
        self._on_halted = on_halted
        self._composite = use_composite
        self._directory = self._new_directory(directory_from) if directory_from else None
        self._late_effect_s = late_effect_s
        self._phone_only: set[Module] = set()
        self._may_ask_for_converted = True
        self._age_fields: tuple[str, ...] = ("id, Phone, Created_Time", "id, Phone")
        self._doubted: set[str] = set()
        """People of whom Zoho refused a link: its search shows records that are gone, so each one is read first."""
        self._uncertain: dict[str, float] = {}
        """People whose creation went unanswered, and the loop time until which it may still take effect."""
        self._unsettled: dict[str, tuple[Person, Parent]] = {}
        """Leads that we made, and nobody has looked yet whether somebody else made one too."""
        self._resting: dict[str, float] = {}
        """Twins that could not be deleted, and the loop time from which batches of others try it, too."""
        self._tries: Counter[tuple[Operation, str]] = Counter()
        """What failed for one person in a way that may be for good."""
        self._known: Recent[str, Parent] = Recent(_REMEMBERED)
        self._pending: dict[str, asyncio.Future[Found]] = {}
        self._most_were_new = False
        """Of the people looked up last."""

    def _new_directory(self, worth_from: int) -> Directory:
        return Directory(
            self._send,
            self._phones,
            phone_fields=self._phone_fields,
            worth_from=worth_from,
            on_given_up=lambda: self._observer.people_resolved("directory_refused", 1),
        )

    def parent_of(self, person: Person) -> Parent | None:
        """What is remembered, at no cost."""
        return self._known.get(person.key)

    def forget(self, person: Person) -> None:
        """Look the person up again next time."""
        self._known.drop(person.key)

    def doubt(self, person: Person, parent: Parent) -> None:
        """Zoho refused this record as a link: look the person up again, unless that has been done meanwhile."""
        if self._known.get(person.key) in (None, parent):
            self.forget(person)
            self._doubted.add(person.key)

    async def find(self, person: Person) -> Parent | None:
        """Look up one person without ever creating.  Raises SyncError."""
        if known := self.parent_of(person):
            return known
        found = await self._by_query([person])
        if person.key not in found:
            found = await self._by_search([person])
        if person.key in found:
            self._remember(person.key, found[person.key])
        return found.get(person.key)

    async def confirm(self, person: Person) -> Parent | None:
        """Is the remembered record still the person's?  A lead that was converted is followed to its contact.

        None when nothing is remembered, or the record is gone.  One credit.  Raises SyncError.
        """
        known = self.parent_of(person)
        if known is None:
            return None
        rows = await coql.select(
            self._send,
            Operation.FIND_PEOPLE,
            fields=", ".join(["id", *self._conversion_fields(known.module)]),
            module=known.module,
            where=f"({coql.is_in('id', [known.id])})",
        )
        parent = await self._parent_of_row(known.module, rows[0]) if rows else None
        if parent is None:
            self.forget(person)
        else:
            self._remember(person.key, parent)
        return parent

    async def resolve(self, people: Sequence[Person]) -> list[Found]:
        """The lead or contact of each person, created where there is none."""
        fresh: dict[str, Person] = {}
        for person in people:
            if person.key not in self._known and person.key not in self._pending:
                self._pending[person.key] = asyncio.get_running_loop().create_future()
                fresh[person.key] = person
        waiting = {person.key: self._pending[person.key] for person in people if person.key in self._pending}
        if fresh:
            await self._resolve_fresh(fresh)
        return [
            await asyncio.shield(waiting[person.key]) if person.key in waiting else self._known_or_deferred(person)
            for person in people
        ]

    def _known_or_deferred(self, person: Person) -> Found:
        return self._known.get(person.key) or Deferred("FORGOTTEN")

    async def _resolve_fresh(self, fresh: dict[str, Person]) -> None:
        results: dict[str, Found] = {}
        try:
            await self._find_or_create(list(fresh.values()), results)
        except SyncError as error:
            if not isinstance(error, (TransientError, HaltedError)):
                self._on_halted(Operation.FIND_PEOPLE, error.code, _NO_LOOK_UP)
            self._fill(fresh, results, _put_off(error))
        finally:
            self._fill(fresh, results, Deferred("INTERRUPTED"))
            for key, result in results.items():
                if isinstance(result, Parent):
                    self._remember(key, result)
                if not isinstance(result, Deferred):
                    self._clear(key)
                future = self._pending.pop(key)
                if not future.done():
                    future.set_result(result)

    @staticmethod
    def _fill(fresh: dict[str, Person], results: dict[str, Found], result: Found) -> None:
        for key in fresh:
            results.setdefault(key, result)

    def _remember(self, key: str, parent: Parent) -> None:
        self._known.put(key, parent)

    def _clear(self, key: str) -> None:
        self._doubted.discard(key)
        self._uncertain.pop(key, None)
        for operation in (Operation.CREATE_LEADS, Operation.DELETE_LEADS):
            self._tries.pop((operation, key), None)

    def _tried(self, operation: Operation, key: str) -> int:
        """How often it has failed now."""
        self._tries[operation, key] += 1
        return self._tries[operation, key]

    async def _find_or_create(self, people: list[Person], results: dict[str, Found]) -> None:
        """Fills `results` as it goes, so that what is found stays found when a later call fails."""
        results.update(await self._settle([person.key for person in people if person.key in self._unsettled]))
        missing = [person for person in people if person.key not in results]
        found, odd = await both(self._by_query(missing), self._odd_numbers_ahead(missing))
        self._most_were_new = len(found) * 2 < len(missing)
        results.update(found)
        missing = [person for person in missing if person.key not in results]
        results.update(self._not_yet(missing))
        missing = [person for person in missing if person.key not in results]
        results.update(await self._by_odd_number(missing, odd))
        missing = [person for person in missing if person.key not in results]
        self._observer.people_resolved("found", sum(isinstance(found, Parent) for found in results.values()))
        for part in coql.chunks(missing):
            results.update(await self._create(part))
        # Twins for whom nobody asks any more, since their messages were taken away: last, so that they hold up no one.
        await self._settle(self._left_alone())

    def _left_alone(self) -> list[str]:
        now = asyncio.get_running_loop().time()
        return [key for key in self._unsettled if key not in self._pending and self._resting.get(key, now) <= now]

    def _not_yet(self, people: list[Person]) -> dict[str, Found]:
        """Whose creation may still be on its way, and must not be repeated yet."""
        now = asyncio.get_running_loop().time()
        waits = {person.key: self._uncertain.get(person.key, now) - now for person in people}
        return {
            key: Deferred("LEAD_UNCERTAIN", retry_after_s=min(wait_s, _LOOK_AGAIN_S))
            for key, wait_s in waits.items()
            if wait_s > 0
        }

    # -- look-up ------------------------------------------------------------------------------------------------

    async def _by_query(self, people: list[Person]) -> dict[str, Parent]:
        groups = self._groups(people)
        found: dict[str, Parent] = {}
        for part in await all_of(self._query_group(group) for group in groups):
            found.update(part)
        return found

    def _groups(self, people: list[Person]) -> list[list[Person]]:
        """People whose written forms fit into one query together."""
        groups: list[list[Person]] = []
        room = 0
        for person in people:
            forms = len(self._phones.written_forms(person.phone))
            if forms > room or not groups:
                groups.append([])
                room = _FORMS_PER_QUERY
            groups[-1].append(person)
            room -= forms
        return groups

    async def _query_group(self, people: list[Person]) -> dict[str, Parent]:
        """Both modules at once; a query that Zoho finds too big is halved."""
        try:
            hits = await all_of(self._query_module(module, people) for module in Module)
        except RefusedError:
            if len(people) == 1:
                raise
            middle = len(people) // 2
            return await self._query_group(people[:middle]) | await self._query_group(people[middle:])
        return await self._choose(people, [row for rows in hits for row in rows])

    async def _query_module(self, module: Module, people: list[Person]) -> list[tuple[Module, dict[str, Any]]]:
        try:
            return await self._query_fields(module, people, self._phone_fields(module))
        except RefusedError:
            if len(people) > 1 or module in self._phone_only or self._schema.fields_of(module) is not None:
                raise
        rows = await self._query_fields(module, people, ["Phone"])
        self._phone_only.add(module)
        return rows

    def _phone_fields(self, module: Module) -> list[str]:
        """Organisations may have removed Mobile; without a right to read the fields, a refused query tells."""
        if module in self._phone_only:
            return ["Phone"]
        return [name for name in ("Phone", "Mobile") if self._schema.has(module, name)] or ["Phone"]

    async def _query_fields(
        self, module: Module, people: list[Person], fields: list[str]
    ) -> list[tuple[Module, dict[str, Any]]]:
        forms = list(dict.fromkeys(form for person in people for form in self._phones.written_forms(person.phone)))
        criteria = [coql.is_in(field, part) for part in coql.chunks(forms) for field in fields]
        rows = await coql.select(
            self._send,
            Operation.FIND_PEOPLE,
            fields=", ".join(["id", *fields, *self._conversion_fields(module)]),
            module=module,
            where=_where(criteria),
        )
        return [(module, row) for row in rows]

    def _conversion_fields(self, module: Module) -> list[str]:
        known = self._schema.fields_of(module) if module is Module.LEADS else None
        return [name for name in ("Converted__s", "Converted_Contact") if known and name in known]

    async def _odd_numbers_ahead(self, people: list[Person]) -> OddNumbers | None:
        """While the people are looked for otherwise, when most are likely to be new as those before them."""
        if self._directory and self._directory.is_whole and self._most_were_new and people:
            return await self._directory.current(len(people))
        return None

    async def _by_odd_number(self, people: list[Person], odd: OddNumbers | None) -> dict[str, Parent]:
        """In forms that nobody can list: by the directory, or one by one."""
        found: dict[str, Parent] = {}
        if odd is None and self._directory and people:
            asked_at = asyncio.get_running_loop().time()
            odd = await self._directory.current(len(people))
            if asyncio.get_running_loop().time() - asked_at > _STALE_S:
                found = await self._by_query(people)
        missing = [person for person in people if person.key not in found]
        if odd is not None and self._directory:
            try:
                return found | await self._among(odd, missing)
            except RefusedError:
                self._directory.give_up()
        return found | await self._by_search(missing)

    async def _among(self, odd: OddNumbers, people: list[Person]) -> dict[str, Parent]:
        candidates = {person.key: odd.candidates(person.phone) for person in people}
        rows = await self._read_all({parent for parents in candidates.values() for parent in parents})
        found: dict[str, Parent] = {}
        for person in people:
            hits = [(parent.module, rows[parent]) for parent in candidates[person.key] if parent in rows]
            found.update(await self._choose([person], hits))
        return found

    async def _read_all(self, parents: set[Parent]) -> dict[Parent, dict[str, Any]]:
        """The records as they are now, those that are gone left out."""
        parts = [
            (module, part)
            for module in Module
            for part in coql.chunks([parent.id for parent in parents if parent.module is module])
        ]
        rows = await all_of(self._read_part(module, ids) for module, ids in parts)
        return {
            Parent(module, str(row.get("id"))): row
            for (module, _), part in zip(parts, rows, strict=True)
            for row in part
        }

    async def _read_part(self, module: Module, ids: Sequence[str]) -> list[dict[str, Any]]:
        """Without the right to read fields queries cannot tell which leads were converted; whole records can."""
        if module is Module.LEADS and not self._conversion_fields(module):
            return [row for row in await all_of(self._read(Parent(module, each)) for each in ids) if row]
        return await coql.select(
            self._send,
            Operation.FIND_PEOPLE,
            fields=", ".join(["id", *self._phone_fields(module), *self._conversion_fields(module)]),
            module=module,
            where=f"({coql.is_in('id', ids)})",
        )

    async def _by_search(self, people: list[Person]) -> dict[str, Parent]:
        calls = {person.key: [self._search_call(module, person) for module in Module] for person in people}
        flat = [call for pair in calls.values() for call in pair]
        replies = dict(zip(map(id, flat), await self._search_all(flat), strict=True))
        found: dict[str, Parent] = {}
        for person in people:
            rows = [
                (module, row)
                for module, call in zip(Module, calls[person.key], strict=True)
                for row in replies[id(call)]
            ]
            found.update(await self._choose([person], rows))
        return found

    def _search_call(self, module: Module, person: Person) -> Call:
        params = [("phone", self._phones.search_digits(person.phone))]
        if module is Module.LEADS and self._may_ask_for_converted:
            params.append(_CONVERTED)
        return Call(Operation.SEARCH_PEOPLE, "GET", f"/{module}/search", params=tuple(params))

    async def _search_all(self, calls: list[Call]) -> list[list[dict[str, Any]]]:
        """Rows of each search: one by one, or five in one call where that is allowed."""
        if not self._composite:
            return await all_of(map(self._search, calls))
        parts = [calls[start : start + _TOGETHER] for start in range(0, len(calls), _TOGETHER)]
        found = await all_of(map(self._search_together, parts))
        return [rows for part in found for rows in part]

    async def _search(self, call: Call) -> list[dict[str, Any]]:
        """A number that cannot be searched for is found by nobody; `converted` that is not known is left out."""
        plain = replace(call, params=tuple(param for param in call.params if param != _CONVERTED))
        for attempt in dict.fromkeys((call, plain)):
            with suppress(RefusedError):
                rows = (await self._send(attempt)).rows()
                self._may_ask_for_converted = self._may_ask_for_converted and attempt == call
                return rows
        return []

    async def _search_together(self, calls: list[Call]) -> list[list[dict[str, Any]]]:
        """An organisation or token that cannot make composite calls is asked one by one from now on."""
        if self._composite:
            try:
                return [reply.rows() for reply in await composite.send_together(self._send, calls)]
            except (RefusedError, HaltedError) as error:
                if error.code.startswith("TOKEN_"):
                    raise
                self._composite = False
                self._observer.people_resolved("composite_refused", 1)
        return await all_of(map(self._search, calls))

    async def _choose(self, people: list[Person], rows: list[tuple[Module, dict[str, Any]]]) -> dict[str, Parent]:
        """Compare every row by value with the people it may be, and choose where several fit."""
        hits_of = self._hits(people, rows)
        found: dict[str, Parent] = {}
        for person in people:
            hits = hits_of.get(person.key, [])
            parents = list({parent for hit in hits if (parent := await self._parent_of_row(*hit))})
            if person.key in self._doubted:
                parents = list({parent for parent in await all_of(map(self._now, parents)) if parent})
            if len(parents) > 1:
                self._observer.person_ambiguous(len(parents))
            if chosen := self._policy.choose(parents):
                found[person.key] = chosen
        return found

    def _hits(
        self, people: list[Person], rows: list[tuple[Module, dict[str, Any]]]
    ) -> dict[str, list[tuple[Module, dict[str, Any]]]]:
        """Rows by person.  One person is compared with care: search finds forms that nobody can list."""
        index = self._phones.by_stored_form(people)
        hits: dict[str, list[tuple[Module, dict[str, Any]]]] = {}
        for module, row in rows:
            numbers = [row[name] for name in ("Phone", "Mobile") if isinstance(row.get(name), str)]
            found = {person.key for number in numbers for person in index.get(stored_form(number), [])}
            if not found and len(people) == 1:
                found = {people[0].key for number in numbers if self._phones.matches(number, people[0].phone)}
            for key in found:
                hits.setdefault(key, []).append((module, row))
        return hits

    async def _parent_of_row(self, module: Module, row: dict[str, Any]) -> Parent | None:
        """A converted lead lives on as its contact."""
        record_id = str(row.get("id") or "")
        if not record_id:
            return None
        if module is Module.LEADS and (row.get("$converted") is True or row.get("Converted__s") is True):
            return await self._contact_of(record_id, row)
        return Parent(module, record_id)

    async def _now(self, parent: Parent) -> Parent | None:
        """What became of a record: itself, the contact of a converted lead, or nothing."""
        row = await self._read(parent)
        return await self._parent_of_row(parent.module, row) if row else None

    async def _read(self, parent: Parent) -> dict[str, Any]:
        """The whole record; empty when there is none."""
        try:
            rows = (await self._send(Call(Operation.READ_RECORD, "GET", f"/{parent.module}/{parent.id}"))).rows()
        except RefusedError:
            return {}
        return rows[0] if rows else {}

    async def _contact_of(self, lead_id: str, row: dict[str, Any]) -> Parent | None:
        contact = _lookup_id(row, "Converted_Contact") or _lookup_id(row, "$converted_detail", "contact")
        if contact is None:
            full = await self._read(Parent(Module.LEADS, lead_id))
            contact = _lookup_id(full, "Converted_Contact") or _lookup_id(full, "$converted_detail", "contact")
        return Parent(Module.CONTACTS, contact) if contact else None

    # -- creation -----------------------------------------------------------------------------------------------

    async def _create(self, people: Sequence[Person]) -> dict[str, Found]:
        found = await in_parts(people, self._insert, alone=self._alone, hold=self._hold)
        outcomes = dict(zip([person.key for person in people], found, strict=True))
        made = [person.key for person in people if person.key in self._unsettled]
        self._observer.people_resolved("created", len(made))
        outcomes.update(await self._settle(made))
        return outcomes

    async def _insert(self, people: Sequence[Person]) -> list[Found]:
        rows = [self._row(person) for person in people]
        call = write_call(Operation.CREATE_LEADS, f"/{Module.LEADS}", rows, **self._options.beside_data())
        try:
            answers = row_answers((await self._send(call)).rows(), expected=len(rows))
        except TransientError as error:
            late_s = self._late_effect_s if error.late_s is None else error.late_s
            if error.wrote_maybe and late_s:
                until = asyncio.get_running_loop().time() + late_s
                self._uncertain.update({person.key: until for person in people})
            raise
        is_held = is_fault_of_ours(answers)
        return [
            self._held(answer) if is_held and not answer.is_ok else await self._outcome(person, answer)
            for person, answer in zip(people, answers, strict=True)
        ]

    def _held(self, answer: RowAnswer) -> Found:
        self._on_halted(Operation.CREATE_LEADS, answer.code, UNKNOWN_ADVICE)
        return Deferred(answer.code, halted=True)

    def _alone(self, person: Person, error: RefusedError) -> Found:
        return outcome_of_refusal(error, Stage.LEAD, attempts=self._tried(Operation.CREATE_LEADS, person.key))

    def _hold(self, error: RefusedError) -> Found:
        self._on_halted(Operation.CREATE_LEADS, error.code, _NO_LEADS)
        return Deferred(error.code, halted=True)

    def _row(self, person: Person) -> dict[str, Any]:
        name = one_line(person.name or "") or person.phone
        row = {"Last_Name": fit(name, self._schema.length_of(Module.LEADS, "Last_Name", _LAST_NAME_LENGTH))}
        row["Phone"] = person.phone
        if self._options.lead_source:
            row["Lead_Source"] = self._options.lead_source
        return row

    async def _outcome(self, person: Person, answer: RowAnswer) -> Found:
        if answer.is_ok and answer.id:
            lead = Parent(Module.LEADS, answer.id)
            self._unsettled[person.key] = person, lead
            return lead
        if answer.code == "DUPLICATE_DATA" and answer.duplicate_id and answer.field in (None, "Phone", "Mobile"):
            return await self._duplicate(person, answer)
        if self._is_name_too_long(person, answer):
            return Deferred("LENGTH_LEARNED")
        return outcome_of(answer, Stage.LEAD, attempts=self._tried(Operation.CREATE_LEADS, person.key))

    def _is_name_too_long(self, person: Person, answer: RowAnswer) -> bool:
        """The organisation's field is shorter than we could know: from now on the name is cut to it."""
        longest = answer.maximum_length
        if longest is None or answer.field != "Last_Name" or units(self._row(person)["Last_Name"]) <= longest:
            return False
        self._schema.learn_length(Module.LEADS, "Last_Name", longest)
        return True

    async def _duplicate(self, person: Person, answer: RowAnswer) -> Found:
        """Zoho names the record that has this number already; a lead among them may have been converted."""
        self._observer.people_resolved("duplicate", 1)
        module = Module.CONTACTS if answer.duplicate_module == Module.CONTACTS else Module.LEADS
        named = Parent(module, answer.duplicate_id or "")
        row = await self._read(named)
        if row and not self._hits([person], [(module, row)]):
            return Rejected(Stage.LEAD, "zoho.DUPLICATE_DATA", answer.field or "")
        return (await self._parent_of_row(module, row) if row else None) or named

    async def _settle(self, keys: Sequence[str]) -> dict[str, Found]:
        """See whether somebody else created one of these people in the same moment.

        Who cannot be settled now is put off, and holds up nobody else.
        """
        if not keys:
            return {}
        made = {key: self._unsettled[key] for key in keys}
        people = [person for person, _ in made.values()]
        try:
            rows = await self._leads_with(list({variant for person in people for variant in variants(person.phone)}))
        except TransientError as error:
            return dict.fromkeys(keys, _put_off(error))
        hits = self._hits(people, [(Module.LEADS, row) for row in rows])
        settled = await all_of(
            self._settle_one(key, ours, [row for _, row in hits.get(key, [])]) for key, (_, ours) in made.items()
        )
        return dict(zip(made, settled, strict=True))

    async def _settle_one(self, key: str, ours: Parent, rows: list[dict[str, Any]]) -> Found:
        try:
            kept = await self._first_living(_older(ours, rows))
            if kept:
                await self._withdraw(key, ours, kept)
        except TransientError as error:
            self._resting[key] = asyncio.get_running_loop().time() + _REST_S
            return _put_off(error)
        for memory in (self._unsettled, self._resting):
            memory.pop(key, None)
        return kept or ours

    async def _leads_with(self, phones: list[str]) -> list[dict[str, Any]]:
        """Leads with these numbers, and when they were created where Zoho tells."""
        where = _where([coql.is_in("Phone", part) for part in coql.chunks(phones)])
        fields, *others = self._age_fields
        try:
            return await coql.select(self._send, Operation.FIND_PEOPLE, fields=fields, module=Module.LEADS, where=where)
        except RefusedError:
            if not others:
                raise
        self._age_fields = tuple(others)
        return await self._leads_with(phones)

    async def _first_living(self, leads: list[Parent]) -> Parent | None:
        """The first that is a lead indeed: a converted one may stay in the list, and was passed over before."""
        for lead in leads:
            if await self._now(lead) == lead:
                return lead
        return None

    async def _withdraw(self, key: str, ours: Parent, kept: Parent) -> None:
        """Take back the lead that we made a moment ago: nothing points at it yet.  A repeated deletion does no harm.

        Raises what may pass, a few times, so that it is tried again; a lead that cannot be deleted stays, and is told.
        """
        call = Call(Operation.DELETE_LEADS, "DELETE", f"/{Module.LEADS}/{ours.id}", is_optional=True)
        try:
            await self._send(call)
            is_deleted = True
        except TransientError:
            if self._tried(Operation.DELETE_LEADS, key) < TRIES_OF_UNKNOWN:
                raise
            is_deleted = False
        except RefusedError:
            is_deleted = not await self._read(ours)
        except HaltedError as error:
            if error.code.startswith("TOKEN_"):
                raise
            is_deleted = False
        self._observer.lead_withdrawn(ours.id, kept.id, is_deleted=is_deleted)


def _put_off(error: SyncError) -> Deferred:
    """What a call that failed means for a person: later, and not before somebody removed the cause of a halt."""
    if isinstance(error, TransientError):
        return Deferred(error.code, retry_after_s=error.retry_after_s)
    return Deferred(error.code, halted=True)


def _older(ours: Parent, rows: list[dict[str, Any]]) -> list[Parent]:
    """The leads among these rows that are older than ours, oldest first."""
    leads = {lead.id: (age_of(row), lead) for row in rows if (lead := _lead_of(row))}
    own_age = leads[ours.id][0] if ours.id in leads else _NEWEST
    return [lead for age, lead in sorted(leads.values(), key=lambda pair: pair[0]) if age < own_age]


def _where(criteria: list[str]) -> str:
    return coql.any_of(criteria) if len(criteria) > 1 else f"({criteria[0]})"


def _lead_of(row: dict[str, Any]) -> Parent | None:
    return Parent(Module.LEADS, str(row["id"])) if row.get("id") else None


def _lookup_id(row: dict[str, Any], *path: str) -> str | None:
    """Id of a lookup value, which Zoho gives as `{"id": …}` or as the id alone."""
    value: Any = row
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    value = value.get("id") if isinstance(value, dict) else value
    return str(value) if isinstance(value, (str, int)) and str(value).isdigit() else None
