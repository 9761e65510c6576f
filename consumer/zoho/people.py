"""From a number to its lead or contact: look, search, and only then create.

Order of look-ups, cheapest and surest first:
1. what this process remembers;
2. COQL on the written forms of the number, many people in one call, without index delay;
3. only for those about to be created, since people type numbers in forms that nobody can list: the directory of odd
   numbers; or, where that is not worth its credits, Zoho's phone search, which finds any punctuation, but takes one
   number a call and lags.  Each hit is compared again by value;
4. create, then look once more: Leads have no unique key, so two processes can create one person in the same moment.
   Everybody sees both leads then, the older one wins, and whoever made the younger one takes it back.

A look-up that Zoho refuses with a code in no table says nothing about what is there: its person is put off, and only
after a few tries it counts as any other refusal.

When the answer to a creation is lost, the lead may stand, or may come to stand some time later.  So it is looked for
again and again, and only after that time made once more.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
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
    from collections.abc import Awaitable, Callable, Sequence

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
_Rows = list[dict[str, Any]]
_Hit = tuple[Module, dict[str, Any]]
"""A row, and the module that it is of."""
Looked = Mapping[str, Parent | Deferred]
"""Who was found, and who has to be looked up again, by key; the others are not there."""


class _NoAnswerError(TransientError):
    """A look-up was refused for a reason that nobody knows."""


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
        self._tries: dict[tuple[Operation, str], int] = {}
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
        try:
            looked = await self._by_query([person]) or await self._by_search([person])
        finally:
            self._tries.pop((Operation.FIND_PEOPLE, person.key), None)  # of whoever may create it, not of this
        found = looked.get(person.key)
        if isinstance(found, Deferred):
            raise TransientError(found.code, retry_after_s=found.retry_after_s)
        if found:
            self._remember(person.key, found)
        return found

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
        parent = await self._parent_of_row(person, known.module, rows[0]) if rows else None
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
        for operation in (Operation.FIND_PEOPLE, Operation.CREATE_LEADS, Operation.DELETE_LEADS):
            self._tries.pop((operation, key), None)

    def _tried(self, operation: Operation, key: str) -> int:
        """How often it has failed now."""
        self._tries[operation, key] = self._tries.get((operation, key), 0) + 1
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

    def _is_no_answer(self, person: Person, error: RefusedError) -> bool:
        """Nobody knows why Zoho refused the look-up; the last of a few tries counts as it stands."""
        return error.is_unknown and self._tries.get((Operation.FIND_PEOPLE, person.key), 0) < TRIES_OF_UNKNOWN - 1

    def _unanswered(self, person: Person, error: SyncError) -> Deferred:
        """One try less for the person when its look-up was refused for a reason that nobody knows."""
        if isinstance(error, (_NoAnswerError, RefusedError)):
            self._tried(Operation.FIND_PEOPLE, person.key)
        return _put_off(error)

    async def _each(self, people: Sequence[Person], find: Callable[[Person], Awaitable[Parent | None]]) -> Looked:
        """Each person for itself; but when nobody gets an answer, it is not the person, and the batch comes back."""
        is_answering = False

        async def looked(person: Person) -> Parent | Deferred | None:
            nonlocal is_answering
            try:
                found = await find(person)
            except TransientError as error:
                if not is_answering and not isinstance(error, _NoAnswerError):
                    raise
                return self._unanswered(person, error)
            is_answering = True
            return found

        found = await all_of(map(looked, people))
        return {person.key: each for person, each in zip(people, found, strict=True) if each}

    async def _by_query(self, people: list[Person]) -> Looked:
        groups = self._groups(people)
        found: dict[str, Parent | Deferred] = {}
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

    async def _query_group(self, people: list[Person]) -> Looked:
        """A query that is refused is halved: it may be too big, or one person may be the reason."""
        hold = self._holding(people, Operation.FIND_PEOPLE, _NO_LOOK_UP)
        found = await in_parts(people, self._query_part, alone=self._query_refused, hold=hold)
        return {person.key: each for person, each in zip(people, found, strict=True) if each}

    def _query_refused(self, person: Person, error: RefusedError) -> Deferred:
        if self._is_no_answer(person, error):
            return self._unanswered(person, error)
        raise error

    async def _query_part(self, people: Sequence[Person]) -> list[Parent | Deferred | None]:
        """Both modules at once."""
        hits = await all_of(self._query_module(module, people) for module in Module)
        found = await self._choose(people, [row for rows in hits for row in rows])
        return [found.get(person.key) for person in people]

    def _holding(
        self, people: Sequence[Person], operation: Operation, advice: str
    ) -> Callable[[RefusedError], Deferred]:
        """Everybody waits, since the refusal has nothing to do with one of them; so no try of theirs counts."""
        before = {(operation, person.key): self._tries.get((operation, person.key), 0) for person in people}

        def hold(error: RefusedError) -> Deferred:
            self._tries.update(before)
            self._on_halted(operation, error.code, advice)
            return Deferred(error.code, halted=True)

        return hold

    async def _query_module(self, module: Module, people: Sequence[Person]) -> list[_Hit]:
        try:
            return await self._query_fields(module, people, self._phone_fields(module))
        except RefusedError as error:
            is_of_fields = module not in self._phone_only and self._schema.fields_of(module) is None
            if len(people) > 1 or not is_of_fields or self._is_no_answer(people[0], error):
                raise
        rows = await self._query_fields(module, people, ["Phone"])
        self._phone_only.add(module)
        return rows

    def _phone_fields(self, module: Module) -> list[str]:
        """Organisations may have removed Mobile; without a right to read the fields, a refused query tells."""
        if module in self._phone_only:
            return ["Phone"]
        return [name for name in ("Phone", "Mobile") if self._schema.has(module, name)] or ["Phone"]

    async def _query_fields(self, module: Module, people: Sequence[Person], fields: list[str]) -> list[_Hit]:
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

    async def _by_odd_number(self, people: list[Person], odd: OddNumbers | None) -> Looked:
        """In forms that nobody can list: by the directory, or one by one."""
        found: Looked = {}
        if odd is None and self._directory and people:
            asked_at = asyncio.get_running_loop().time()
            odd = await self._directory.current(len(people))
            if asyncio.get_running_loop().time() - asked_at > _STALE_S:
                found = await self._by_query(people)
        missing = [person for person in people if person.key not in found]
        if odd is not None and self._directory:
            try:
                return {**found, **await self._among(odd, missing)}
            except RefusedError as error:
                if not error.is_unknown:
                    self._directory.give_up()
        return {**found, **await self._by_search(missing)}

    async def _among(self, odd: OddNumbers, people: list[Person]) -> Looked:
        candidates = {person.key: odd.candidates(person.phone) for person in people}
        rows = await self._read_all({parent for parents in candidates.values() for parent in parents})

        async def choose(person: Person) -> Parent | None:
            hits = [(parent.module, rows[parent]) for parent in candidates[person.key] if parent in rows]
            return await self._chosen(person, self._hits([person], hits))

        return await self._each(people, choose)

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

    async def _read_part(self, module: Module, ids: Sequence[str]) -> _Rows:
        """Without the right to read fields queries cannot tell which leads were converted; whole records can."""
        if module is Module.LEADS and not self._conversion_fields(module):
            return [row for row in await all_of(self._whole(Parent(module, each)) for each in ids) if row]
        return await coql.select(
            self._send,
            Operation.FIND_PEOPLE,
            fields=", ".join(["id", *self._phone_fields(module), *self._conversion_fields(module)]),
            module=module,
            where=f"({coql.is_in('id', ids)})",
        )

    async def _by_search(self, people: list[Person]) -> Looked:
        calls = {person.key: [self._search_call(module, person) for module in Module] for person in people}
        known = await self._searched_together([call for pair in calls.values() for call in pair])

        async def search(person: Person) -> Parent | None:
            rows = await all_of(self._search(person, call, known.get(call)) for call in calls[person.key])
            hits = [(module, row) for module, found in zip(Module, rows, strict=True) for row in found]
            return await self._chosen(person, self._hits([person], hits))

        return await self._each(people, search)

    def _search_call(self, module: Module, person: Person) -> Call:
        params = [("phone", self._phones.search_digits(person.phone))]
        if module is Module.LEADS and self._may_ask_for_converted:
            params.append(_CONVERTED)
        return Call(Operation.SEARCH_PEOPLE, "GET", f"/{module}/search", params=tuple(params))

    async def _searched_together(self, calls: list[Call]) -> dict[Call, _Rows]:
        """Rows of searches that were made together, where that is allowed; what failed is to be asked alone."""
        parts = coql.chunks(calls, _TOGETHER) if self._composite else []
        found = await all_of(map(self._search_together, parts))
        return {call: rows for part in found for call, rows in part.items()}

    async def _search_together(self, calls: Sequence[Call]) -> dict[Call, _Rows]:
        """An organisation or token that cannot make composite calls is asked one by one from now on."""
        if not self._composite:
            return {}
        try:
            replies = await composite.send_together(self._send, calls)
        except (RefusedError, HaltedError) as error:
            if error.code.startswith("TOKEN_"):
                raise
            self._composite = False
            self._observer.people_resolved("composite_refused", 1)
            return {}
        except TransientError:
            return {}
        return {call: reply.rows() for call, reply in zip(calls, replies, strict=True) if reply}

    async def _search(self, person: Person, call: Call, known: _Rows | None) -> _Rows:
        """A number that cannot be searched for is found by nobody; `converted` that is not known is left out."""
        if known is not None:
            return known
        plain = replace(call, params=tuple(param for param in call.params if param != _CONVERTED))
        for attempt in dict.fromkeys((call, plain) if self._may_ask_for_converted else (plain,)):
            try:
                rows = (await self._send(attempt)).rows()
            except RefusedError as error:
                if self._is_no_answer(person, error):
                    raise _NoAnswerError(error.code) from None
                continue
            self._may_ask_for_converted = self._may_ask_for_converted and attempt == call
            return rows
        return []

    async def _choose(self, people: Sequence[Person], rows: list[_Hit]) -> Looked:
        """Compare every row by value with the people it may be, and choose where several fit."""
        hits = self._hits(people, rows)
        return await self._each([person for person in people if person.key in hits], partial(self._chosen, hits=hits))

    async def _chosen(self, person: Person, hits: Mapping[str, list[_Hit]]) -> Parent | None:
        rows = hits.get(person.key, [])
        parents = list({parent for row in rows if (parent := await self._parent_of_row(person, *row))})
        if person.key in self._doubted:
            living = await all_of(self._now(person, parent) for parent in parents)
            parents = list({parent for parent in living if parent})
        if len(parents) > 1:
            self._observer.person_ambiguous(len(parents))
        return self._policy.choose(parents)

    def _hits(self, people: Sequence[Person], rows: list[_Hit]) -> dict[str, list[_Hit]]:
        """Rows by person.  One person is compared with care: search finds forms that nobody can list."""
        index = self._phones.by_stored_form(people)
        hits: dict[str, list[_Hit]] = {}
        for module, row in rows:
            numbers = [row[name] for name in ("Phone", "Mobile") if isinstance(row.get(name), str)]
            found = {person.key for number in numbers for person in index.get(stored_form(number), [])}
            if not found and len(people) == 1:
                found = {people[0].key for number in numbers if self._phones.matches(number, people[0].phone)}
            for key in found:
                hits.setdefault(key, []).append((module, row))
        return hits

    async def _parent_of_row(self, person: Person, module: Module, row: dict[str, Any]) -> Parent | None:
        """A converted lead lives on as its contact."""
        record_id = str(row.get("id") or "")
        if not record_id:
            return None
        if module is Module.LEADS and (row.get("$converted") is True or row.get("Converted__s") is True):
            return await self._contact_of(person, record_id, row)
        return Parent(module, record_id)

    async def _now(self, person: Person, parent: Parent) -> Parent | None:
        """What became of a record: itself, the contact of a converted lead, or nothing."""
        row = await self._read(person, parent)
        return await self._parent_of_row(person, parent.module, row) if row else None

    async def _read(self, person: Person, parent: Parent) -> dict[str, Any]:
        """The whole record of a person; empty when there is none."""
        try:
            return await self._whole(parent)
        except RefusedError as error:
            if self._is_no_answer(person, error):
                raise _NoAnswerError(error.code) from None
        return {}

    async def _whole(self, parent: Parent) -> dict[str, Any]:
        """The same; a refusal for a reason that nobody knows is left to the caller."""
        try:
            rows = (await self._send(Call(Operation.READ_RECORD, "GET", f"/{parent.module}/{parent.id}"))).rows()
        except RefusedError as error:
            if error.is_unknown:
                raise
            return {}
        return rows[0] if rows else {}

    async def _contact_of(self, person: Person, lead_id: str, row: dict[str, Any]) -> Parent | None:
        contact = _lookup_id(row, "Converted_Contact") or _lookup_id(row, "$converted_detail", "contact")
        if contact is None:
            full = await self._read(person, Parent(Module.LEADS, lead_id))
            contact = _lookup_id(full, "Converted_Contact") or _lookup_id(full, "$converted_detail", "contact")
        return Parent(Module.CONTACTS, contact) if contact else None

    # -- creation -----------------------------------------------------------------------------------------------

    async def _create(self, people: Sequence[Person]) -> dict[str, Found]:
        hold = self._holding(people, Operation.CREATE_LEADS, _NO_LEADS)
        found = await in_parts(people, self._insert, alone=self._alone, hold=hold)
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
        for person, answer in zip(people, answers, strict=True):
            if lead := _lead_made(answer):
                self._unsettled[person.key] = person, lead
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

    def _row(self, person: Person) -> dict[str, Any]:
        name = one_line(person.name or "") or person.phone
        row = {"Last_Name": fit(name, self._schema.length_of(Module.LEADS, "Last_Name", _LAST_NAME_LENGTH))}
        row["Phone"] = person.phone
        if self._options.lead_source:
            row["Lead_Source"] = self._options.lead_source
        return row

    async def _outcome(self, person: Person, answer: RowAnswer) -> Found:
        if lead := _lead_made(answer):
            return lead
        is_number_taken = answer.code == "DUPLICATE_DATA" and answer.field in (None, "Phone", "Mobile")
        if is_number_taken and answer.duplicate_id:
            try:
                return await self._duplicate(person, answer)
            except TransientError as error:
                return self._unanswered(person, error)
        if self._is_name_too_long(person, answer):
            return Deferred("LENGTH_LEARNED")
        tries = self._tried(Operation.CREATE_LEADS, person.key)
        if is_number_taken and tries < TRIES_OF_UNKNOWN:
            return Deferred(answer.code)  # somebody else made it just now: the next look-up shows it
        return outcome_of(answer, Stage.LEAD, attempts=tries)

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
        row = await self._read(person, named)
        if row and not self._hits([person], [(module, row)]):
            return Rejected(Stage.LEAD, "zoho.DUPLICATE_DATA", answer.field or "")
        return (await self._parent_of_row(person, module, row) if row else None) or named

    async def _settle(self, keys: Sequence[str]) -> dict[str, Found]:
        """See whether somebody else created one of these people in the same moment.

        Who cannot be settled now is put off, and holds up nobody else.
        """
        if not keys:
            return {}
        made = {key: self._unsettled[key] for key in keys}
        people = [person for person, _ in made.values()]
        try:
            rows = await self._leads_with(people)
        except TransientError as error:
            return {person.key: self._unanswered(person, error) for person in people}
        hits = self._hits(people, [(Module.LEADS, row) for row in rows])
        settled = await all_of(
            self._settle_one(person, ours, [row for _, row in hits.get(person.key, [])])
            for person, ours in made.values()
        )
        return dict(zip(made, settled, strict=True))

    async def _settle_one(self, person: Person, ours: Parent, rows: _Rows) -> Found:
        try:
            kept = await self._first_living(person, _older(ours, rows))
            if kept:
                await self._withdraw(person, ours, kept)
        except TransientError as error:
            self._resting[person.key] = asyncio.get_running_loop().time() + _REST_S
            return self._unanswered(person, error)
        self._unsettled.pop(person.key, None)
        self._resting.pop(person.key, None)
        return kept or ours

    async def _leads_with(self, people: list[Person]) -> _Rows:
        """Leads with these people's numbers, and when they were created where Zoho tells."""
        phones = list({variant for person in people for variant in variants(person.phone)})
        where = _where([coql.is_in("Phone", part) for part in coql.chunks(phones)])
        fields, *others = self._age_fields
        try:
            return await coql.select(self._send, Operation.FIND_PEOPLE, fields=fields, module=Module.LEADS, where=where)
        except RefusedError as error:
            if all(self._is_no_answer(person, error) for person in people):
                raise _NoAnswerError(error.code) from None
            if not others:
                raise
        self._age_fields = tuple(others)
        return await self._leads_with(people)

    async def _first_living(self, person: Person, leads: list[Parent]) -> Parent | None:
        """The first that is a lead indeed: a converted one may stay in the list, and was passed over before."""
        for lead in leads:
            if await self._now(person, lead) == lead:
                return lead
        return None

    async def _withdraw(self, person: Person, ours: Parent, kept: Parent) -> None:
        """Take back the lead that we made a moment ago: nothing points at it yet.  A repeated deletion does no harm.

        Raises what may pass, a few times, so that it is tried again; a lead that cannot be deleted stays, and is told.
        """
        call = Call(Operation.DELETE_LEADS, "DELETE", f"/{Module.LEADS}/{ours.id}", is_optional=True)
        try:
            await self._send(call)
            is_deleted = True
        except (TransientError, RefusedError) as error:
            is_passing = isinstance(error, TransientError) or error.is_unknown
            if is_passing and self._tried(Operation.DELETE_LEADS, person.key) < TRIES_OF_UNKNOWN:
                raise TransientError(error.code) from None
            is_deleted = not await self._read(person, ours)
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


def _older(ours: Parent, rows: _Rows) -> list[Parent]:
    """The leads among these rows that are older than ours, oldest first."""
    leads = {lead.id: (age_of(row), lead) for row in rows if (lead := _lead_of(row))}
    own_age = leads[ours.id][0] if ours.id in leads else _NEWEST
    return [lead for age, lead in sorted(leads.values(), key=lambda pair: pair[0]) if age < own_age]


def _where(criteria: list[str]) -> str:
    return coql.any_of(criteria) if len(criteria) > 1 else f"({criteria[0]})"


def _lead_of(row: dict[str, Any]) -> Parent | None:
    return Parent(Module.LEADS, str(row["id"])) if row.get("id") else None


def _lead_made(answer: RowAnswer) -> Parent | None:
    return Parent(Module.LEADS, answer.id) if answer.is_ok and answer.id else None


def _lookup_id(row: dict[str, Any], *path: str) -> str | None:
    """Id of a lookup value, which Zoho gives as `{"id": …}` or as the id alone."""
    value: Any = row
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    value = value.get("id") if isinstance(value, dict) else value
    return str(value) if isinstance(value, (str, int)) and str(value).isdigit() else None
