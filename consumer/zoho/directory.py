"""Records whose number the look-up by written forms cannot find, so that new people need no search each.

All records with a number are read once, in the order in which they were last modified, and from where the reading ended
again before each use: the query API shows a change at once, the search index only after a while.  Kept are the ends of
odd numbers alone, so a hit is no more than a candidate: whoever uses it reads the record and compares by value.

Reading may cost at most twice what the searches would cost that it saves.  So it can take several batches, and they
search until all is read.  Whatever goes wrong with it, there is the search.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from consumer.core.errors import HaltedError, RefusedError, TransientError
from consumer.core.model import Module, Parent
from consumer.zoho import coql
from consumer.zoho.api import Call, Operation, Reply, Send
from consumer.zoho.together import all_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from consumer.core.phones import Phones

_PAGE, _LONG_PAGE = 200, 2000
_SLICE = 100
"""Rows that are judged in one go, before others get their turn."""
_OVERLAP = timedelta(seconds=5)
"""What was modified in the last seconds of one reading is read again: a change can become visible a little late."""
_ALL_AGAIN_S = 86_400.0
"""A record that is restored, or imported with times of its own, may stand where the reading has been already."""
_MAX_ODD = 200_000
_MAX_FAILURES = 3
_CREDITS_OF_A_SEARCH = 2
_SAMPLES = ((Module.LEADS, ("converted", "false")), (Module.LEADS, ("converted", "true")), (Module.CONTACTS, None))

_Place = tuple[datetime, int, str]
"""Modified_Time and id (by its value): where a record stands in the order of reading."""
_START: _Place = (datetime(2000, 1, 1, tzinfo=UTC), 1, "0")


@dataclass(slots=True)
class _Reading:
    """How far one module has been read."""

    module: Module
    at: _Place = _START
    rows: int = 0
    expected: int = _LONG_PAGE
    """Rows of the reading before."""
    is_done: bool = False

    def begin(self) -> None:
        """Again from the last seconds of the reading before; one that has not ended goes on."""
        if self.is_done:
            self.at = max(_START, (self.at[0] - _OVERLAP, 1, "0"))
            self.expected, self.rows, self.is_done = self.rows, 0, False

    def where(self) -> str:
        """The records that stand behind this place."""
        moment, _, last = self.at
        since = moment.isoformat(timespec="seconds")
        return f"(Modified_Time >= '{since}' and (Modified_Time > '{since}' or id > '{last}'))"


class OddNumbers:
    """The records that a person's number may be in, oddly written, by its last digits."""

    def __init__(self, phones: Phones) -> None:
        self._phones = phones
        self._by_end: dict[int, tuple[Parent, ...]] = {}

    @property
    def count(self) -> int:
        """Kept numbers, those with one end as one."""
        return len(self._by_end)

    def add(self, parent: Parent, number: str) -> None:
        """A number in a record; one that the look-up by written forms finds is not kept."""
        for end in self._phones.odd_ends(number):
            known = self._by_end.get(end, ())
            if parent not in known:
                self._by_end[end] = (*known, parent)

    def candidates(self, phone: str) -> list[Parent]:
        """Records to be compared by value."""
        return list({parent for end in self._phones.ends(phone) for parent in self._by_end.get(end, ())})


class Directory:
    """All odd numbers of the organisation; decides itself whether it is worth its credits."""

    def __init__(
        self,
        send: Send,
        phones: Phones,
        *,
        phone_fields: Callable[[Module], Sequence[str]],
        worth_from: int,
        on_given_up: Callable[[], None],
        max_odd: int = _MAX_ODD,
    ) -> None:
        self._send = send
        self._phones = phones
        self._phone_fields = phone_fields
        self._worth_from = worth_from
        self._on_given_up = on_given_up
        self._max_odd = max_odd
        self._lock = asyncio.Lock()
        self._begun = 0
        self._current = 0
        """The last reading that came to its end, by its number."""
        self._whole_since: float | None = None
        self._is_given_up = False
        self._failures = 0
        self._readings = [_Reading(module) for module in Module]
        self._odd = OddNumbers(phones)

    @property
    def is_whole(self) -> bool:
        """Everything has been read; what was modified since is still to be."""
        return self._whole_since is not None

    async def current(self, missing: int) -> OddNumbers | None:
        """All odd numbers that stood when it was asked, for so many people.

        None when these people are to be searched for.  Raises HaltedError while there is no token.
        """
        asked = self._begun
        if not self._is_worth(missing):
            return None
        async with self._lock:
            # A reading that began after this was asked serves all who wait.
            is_current = self._current > asked or (
                self._is_worth(missing) and await self._read(_CREDITS_OF_A_SEARCH * missing)
            )
            return self._odd if is_current else None

    def give_up(self) -> None:
        """Until the end of the process: Zoho does not answer as it must for this."""
        if not self._is_given_up:
            self._on_given_up()
        self._is_given_up = True
        self._odd = OddNumbers(self._phones)

    def _is_worth(self, missing: int) -> bool:
        """A few people are searched for, unless all is read already (ski rental)."""
        now = asyncio.get_running_loop().time()
        if self._whole_since is not None and now - self._whole_since > _ALL_AGAIN_S:
            self._whole_since = None
            self._readings = [_Reading(module) for module in Module]
        return not self._is_given_up and (self._whole_since is not None or missing >= self._worth_from)

    async def _read(self, credits: int) -> bool:
        """A failure does no harm, but it is not tried for ever."""
        try:
            is_current = await self._catch_up(credits)
        except (TransientError, RefusedError, HaltedError) as error:
            if isinstance(error, HaltedError) and error.code.startswith("TOKEN_"):
                raise
            self._failures += 1
            is_passing = isinstance(error, TransientError) or (isinstance(error, RefusedError) and error.is_unknown)
            if not is_passing or self._failures >= _MAX_FAILURES:
                self.give_up()
            return False
        self._failures = 0
        return is_current

    async def _catch_up(self, credits: int) -> bool:
        """Read on, for at most so many credits; True when nothing is left to read."""
        self._begun += 1
        begun = self._begun
        for reading in self._readings:
            reading.begin()
        while behind := [reading for reading in self._readings if not reading.is_done]:
            limit = _limit(behind, credits // len(behind))
            if limit is None:
                return False
            credits -= coql.credits_of(limit) * len(behind)
            await all_of(self._read_page(reading, limit) for reading in behind)
        if self._whole_since is None:
            await self._check()
        self._current = begun
        return True

    async def _read_page(self, reading: _Reading, limit: int) -> None:
        fields = self._phone_fields(reading.module)
        has_number = coql.any_of([f"{field} is not null" for field in fields])
        reply = await self._query(
            reading.module,
            fields=", ".join(["id", *fields, "Modified_Time"]),
            where=f"({reading.where()} and {has_number})",
            limit=limit,
        )
        rows = reply.rows()
        places = [reading.at, *map(_place_of, rows)]
        if any(place >= following for place, following in pairwise(places)):
            raise RefusedError("ORDER_IGNORED")
        await self._keep(reading.module, rows, fields)
        reading.at = places[-1]
        reading.rows += len(rows)
        reading.is_done = len(rows) < limit and not reply.has_more()
        if not rows and not reading.is_done:
            raise RefusedError("PAGE_EMPTY")

    async def _keep(self, module: Module, rows: list[dict[str, Any]], fields: Sequence[str]) -> None:
        for part in coql.chunks(rows, _SLICE):
            for row in part:
                parent = Parent(module, str(row["id"]))
                for number in filter(None, map(row.get, fields)):
                    self._odd.add(parent, str(number))
            await asyncio.sleep(0)
        if self._odd.count > self._max_odd:
            raise RefusedError("TOO_MANY_ODD_NUMBERS")

    async def _check(self) -> None:
        """Queries must show what plain reads show, converted leads, too; nobody's word was found that they do."""
        await all_of(self._check_sample(module, param) for module, param in _SAMPLES)
        self._whole_since = asyncio.get_running_loop().time()

    async def _check_sample(self, module: Module, param: tuple[str, str] | None) -> None:
        params = (("fields", "id"), ("per_page", "1"), *([param] if param else []))
        call = Call(Operation.READ_RECORD, "GET", f"/{module}", params=params, is_optional=True)
        ids = [str(row.get("id")) for row in (await self._send(call)).rows()[:1]]
        if not ids:
            return
        where = f"({_Reading(module).where()} and {coql.is_in('id', ids)})"
        if not (await self._query(module, fields="id, Modified_Time", where=where, limit=_PAGE)).rows():
            raise RefusedError("RECORD_HIDDEN")

    async def _query(self, module: Module, *, fields: str, where: str, limit: int) -> Reply:
        call = coql.page_call(
            Operation.FIND_PEOPLE,
            fields=fields,
            module=module,
            where=where,
            order_by="Modified_Time asc, id asc",
            limit=limit,
        )
        return await self._send(replace(call, is_optional=True))


def _limit(behind: Sequence[_Reading], credits: int) -> int | None:
    """Rows of the next pages: many where many are expected, as far as the credits for each page go."""
    if credits >= coql.credits_of(_LONG_PAGE) and any(max(each.rows, each.expected) >= _PAGE for each in behind):
        return _LONG_PAGE
    return _PAGE if credits >= coql.credits_of(_PAGE) else None


def _place_of(row: dict[str, Any]) -> _Place:
    """Raises RefusedError for a row without the fields that were asked for."""
    try:
        moment = datetime.fromisoformat(str(row.get("Modified_Time")))
    except ValueError:
        raise RefusedError("MODIFIED_TIME_UNREADABLE") from None
    record_id = str(row.get("id") or "")
    if moment.tzinfo is None or not record_id.isdigit():
        raise RefusedError("MODIFIED_TIME_UNREADABLE")
    return moment, len(record_id), record_id
