"""From a number to its lead or contact: look, search, and only then create.

Order of look-ups, cheapest and surest first:
1. what this process remembers;
2. COQL on the written forms of the number, many people in one call, without index delay;
3. only for those about to be created: Zoho's phone search, which finds any punctuation, but lags and is fuzzy, so
   each hit is compared again by value;
4. create, then look once more: Leads have no unique key, so two processes can create one person in the same moment.
   Everybody sees both leads then, the older one wins, and whoever made the younger one takes it back.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from consumer.core.errors import HaltedError, RefusedError, SyncError, TransientError
from consumer.core.model import Deferred, Module, Parent, Rejected, Stage
from consumer.core.phones import stored_form
from consumer.core.texts import fit, one_line
from consumer.zoho import coql
from consumer.zoho.answers import RowAnswer, is_fault_of_ours, outcome_of, row_answers
from consumer.zoho.api import MAX_RECORDS, Call, Operation, Send, write_call

if TYPE_CHECKING:
    from collections.abc import Sequence

    from consumer.core.phones import Person, Phones
    from consumer.zoho.metadata import Schema

_FORMS_PER_QUERY = coql.MAX_CRITERIA // 2 * MAX_RECORDS
_REMEMBERED = 200_000
_LAST_NAME_LENGTH = 80

Found = Parent | Rejected | Deferred


class PeopleObserver(Protocol):
    """Told of what happened to people, for metrics and log; gets no numbers."""

    def people_resolved(self, how: str, count: int) -> None:
        """`how`: query, search, created, duplicate."""

    def person_ambiguous(self, _hits: int) -> None:
        """Several records hold one number."""

    def lead_withdrawn(self, lead_id: str, kept_id: str, *, is_deleted: bool) -> None:
        """Two processes created one person; the younger lead was taken back."""


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
    ) -> None:
        self._send = send
        self._phones = phones
        self._schema = schema
        self._policy = policy
        self._options = options
        self._observer = observer
        self._known: OrderedDict[str, Parent] = OrderedDict()
        self._pending: dict[str, asyncio.Future[Found]] = {}

    def parent_of(self, person: Person) -> Parent | None:
        """What is remembered, at no cost."""
        return self._known.get(person.key)

    def forget(self, person: Person) -> None:
        """Zoho no longer knows the remembered record: look again next time."""
        self._known.pop(person.key, None)

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
        except TransientError as error:
            self._fill(fresh, results, Deferred(error.code, retry_after_s=error.retry_after_s))
        except SyncError as error:
            self._fill(fresh, results, Deferred(error.code, halted=True))
        finally:
            self._fill(fresh, results, Deferred("INTERRUPTED"))
            for key, result in results.items():
                if isinstance(result, Parent):
                    self._remember(key, result)
                future = self._pending.pop(key)
                if not future.done():
                    future.set_result(result)

    @staticmethod
    def _fill(fresh: dict[str, Person], results: dict[str, Found], result: Found) -> None:
        for key in fresh:
            results.setdefault(key, result)

    def _remember(self, key: str, parent: Parent) -> None:
        self._known[key] = parent
        if len(self._known) > _REMEMBERED:
            self._known.popitem(last=False)

    async def _find_or_create(self, people: list[Person], results: dict[str, Found]) -> None:
        """Fills `results` as it goes, so that what is found stays found when a later call fails."""
        results.update(await self._by_query(people))
        missing = [person for person in people if person.key not in results]
        results.update(await self._by_search(missing))
        missing = [person for person in missing if person.key not in results]
        self._observer.people_resolved("found", len(people) - len(missing))
        for start in range(0, len(missing), MAX_RECORDS):
            results.update(await self._create(missing[start : start + MAX_RECORDS]))

    # -- look-up ------------------------------------------------------------------------------------------------

    async def _by_query(self, people: list[Person]) -> dict[str, Parent]:
        groups = self._groups(people)
        found: dict[str, Parent] = {}
        for part in await asyncio.gather(*(self._query_group(group) for group in groups)):
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
            hits = await asyncio.gather(*(self._query_module(module, people) for module in Module))
        except RefusedError as error:
            if len(people) == 1:
                raise HaltedError(
                    error.code, advice="Zoho refuses the look-up by phone: see `zoho-sync doctor`."
                ) from None
            middle = len(people) // 2
            return await self._query_group(people[:middle]) | await self._query_group(people[middle:])
        return await self._choose(people, [row for rows in hits for row in rows])

    async def _query_module(self, module: Module, people: list[Person]) -> list[tuple[Module, dict[str, Any]]]:
        forms = list(dict.fromkeys(form for person in people for form in self._phones.written_forms(person.phone)))
        fields = [name for name in ("Phone", "Mobile") if self._schema.has(module, name)]
        criteria = [coql.is_in(field, part) for part in coql.chunks(forms) for field in fields]
        rows = await coql.select(
            self._send,
            Operation.FIND_PEOPLE,
            fields=", ".join(["id", *fields, *self._conversion_fields(module)]),
            module=module,
            where=coql.any_of(criteria) if len(criteria) > 1 else f"({criteria[0]})",
        )
        return [(module, row) for row in rows]

    def _conversion_fields(self, module: Module) -> list[str]:
        known = self._schema.fields_of(module) if module is Module.LEADS else None
        return [name for name in ("Converted__s", "Converted_Contact") if known and name in known]

    async def _by_search(self, people: list[Person]) -> dict[str, Parent]:
        found: dict[str, Parent] = {}
        for part in await asyncio.gather(*(self._search_person(person) for person in people)):
            found.update(part)
        return found

    async def _search_person(self, person: Person) -> dict[str, Parent]:
        hits = await asyncio.gather(*(self._search_module(module, person) for module in Module))
        return await self._choose([person], [row for rows in hits for row in rows])

    async def _search_module(self, module: Module, person: Person) -> list[tuple[Module, dict[str, Any]]]:
        params = [("phone", self._phones.search_digits(person.phone))]
        if module is Module.LEADS:
            params.append(("converted", "both"))
        call = Call(Operation.SEARCH_PEOPLE, "GET", f"/{module}/search", params=tuple(params))
        try:
            return [(module, row) for row in (await self._send(call)).rows()]
        except RefusedError:
            return []

    async def _choose(self, people: list[Person], rows: list[tuple[Module, dict[str, Any]]]) -> dict[str, Parent]:
        """Compare every row by value with the people it may be, and choose where several fit."""
        hits_of = self._hits(people, rows)
        found: dict[str, Parent] = {}
        for person in people:
            hits = hits_of.get(person.key, [])
            parents = list({parent for hit in hits if (parent := await self._parent_of_row(*hit))})
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

    async def _contact_of(self, lead_id: str, row: dict[str, Any]) -> Parent | None:
        contact = _lookup_id(row, "Converted_Contact") or _lookup_id(row, "$converted_detail", "contact")
        if contact is None:
            call = Call(Operation.READ_RECORD, "GET", f"/{Module.LEADS}/{lead_id}")
            rows = (await self._send(call)).rows()
            full = rows[0] if rows else {}
            contact = _lookup_id(full, "Converted_Contact") or _lookup_id(full, "$converted_detail", "contact")
        return Parent(Module.CONTACTS, contact) if contact else None

    # -- creation -----------------------------------------------------------------------------------------------

    async def _create(self, people: list[Person]) -> dict[str, Found]:
        try:
            answers = await self._insert(people)
        except RefusedError as error:
            return await self._create_halves(people, error)
        outcomes = self._outcomes(people, answers)
        created = {person.key: person for person, answer in zip(people, answers, strict=True) if answer.is_ok}
        if created:
            self._observer.people_resolved("created", len(created))
            outcomes.update(await self._settle_races(created, outcomes))
        return outcomes

    async def _insert(self, people: list[Person]) -> list[RowAnswer]:
        rows = [self._row(person) for person in people]
        call = write_call(Operation.CREATE_LEADS, f"/{Module.LEADS}", rows, **self._options.beside_data())
        return row_answers((await self._send(call)).rows(), expected=len(rows))

    def _row(self, person: Person) -> dict[str, Any]:
        name = one_line(person.name or "") or person.phone
        row = {"Last_Name": fit(name, self._schema.length_of(Module.LEADS, "Last_Name", _LAST_NAME_LENGTH))}
        row["Phone"] = person.phone
        if self._options.lead_source:
            row["Lead_Source"] = self._options.lead_source
        return row

    async def _create_halves(self, people: list[Person], error: RefusedError) -> dict[str, Found]:
        """A refused call is split until the bad record stands alone."""
        if len(people) == 1:
            return {people[0].key: Rejected(Stage.LEAD, f"zoho.{error.code}")}
        middle = len(people) // 2
        return await self._create(people[:middle]) | await self._create(people[middle:])

    def _outcomes(self, people: list[Person], answers: list[RowAnswer]) -> dict[str, Found]:
        if is_fault_of_ours(answers):
            return {
                person.key: Deferred(answer.code, halted=True) for person, answer in zip(people, answers, strict=True)
            }
        return {person.key: self._outcome(answer) for person, answer in zip(people, answers, strict=True)}

    def _outcome(self, answer: RowAnswer) -> Found:
        if answer.is_ok and answer.id:
            return Parent(Module.LEADS, answer.id)
        if answer.code == "DUPLICATE_DATA" and answer.duplicate_id:
            self._observer.people_resolved("duplicate", 1)
            is_contact = answer.duplicate_module == Module.CONTACTS
            return Parent(Module.CONTACTS if is_contact else Module.LEADS, answer.duplicate_id)
        return outcome_of(answer, Stage.LEAD, attempts=1)

    async def _settle_races(self, created: dict[str, Person], outcomes: dict[str, Found]) -> dict[str, Found]:
        """See whether somebody else created one of these people in the same moment."""
        phones = [person.phone for person in created.values()]
        rows = await coql.select(
            self._send,
            Operation.FIND_PEOPLE,
            fields="id, Phone",
            module=Module.LEADS,
            where=f"({coql.is_in('Phone', phones)})",
        )
        settled: dict[str, Found] = {}
        for key, person in created.items():
            ids = [str(row["id"]) for row in rows if row.get("Phone") == person.phone and row.get("id")]
            ours = outcomes[key]
            if isinstance(ours, Parent) and (kept := min([*ids, ours.id], key=age_key)) != ours.id:
                settled[key] = await self._withdraw(ours, kept)
        return settled

    async def _withdraw(self, ours: Parent, kept_id: str) -> Found:
        """Take back the lead that we made a moment ago: nothing points at it yet."""
        call = Call(Operation.DELETE_LEADS, "DELETE", f"/{Module.LEADS}/{ours.id}", is_write=True)
        try:
            await self._send(call)
            is_deleted = True
        except SyncError:
            is_deleted = False
        self._observer.lead_withdrawn(ours.id, kept_id, is_deleted=is_deleted)
        return Parent(Module.LEADS, kept_id)


def _lookup_id(row: dict[str, Any], *path: str) -> str | None:
    """Id of a lookup value, which Zoho gives as `{"id": …}` or as the id alone."""
    value: Any = row
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    value = value.get("id") if isinstance(value, dict) else value
    return str(value) if isinstance(value, (str, int)) and str(value).isdigit() else None
