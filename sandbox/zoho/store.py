"""Records in memory: tables with their indexes, and views of them that lag behind."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

Values = dict[str, Any]
TAIL_DIGITS = 7


class Row(NamedTuple):
    """One version of one record. `values` is never changed; an update makes a new row.

    A tuple, since a benchmark makes a hundred thousand of them, each in a third of a dataclass's time.

    Lookups are held as the other record's id, date-times as epoch seconds.
    """

    id: str
    values: Values
    version: int
    created_at_s: float
    modified_at_s: float
    created_by: str
    modified_by: str
    owner: str
    is_converted: bool = False


def digits_of(text: str) -> str:
    """Only the digits."""
    return "".join(filter(str.isdigit, text))


def fold(value: Any) -> Any:
    """The key of a value in an index: text without case."""
    return value.lower() if isinstance(value, str) else value


class RowIndex:
    """Rows by id, by the value of any field, and by the last digits of any phone field.

    A field's index is built when it is first asked for, and kept up to date from then on.
    """

    def __init__(self) -> None:
        self.rows: dict[str, Row] = {}
        self._by_value: dict[str, dict[Any, dict[str, None]]] = {}
        self._by_tail: dict[str, dict[str, None]] = {}
        self._phone_fields: tuple[str, ...] = ()

    def put(self, row: Row) -> None:
        """Adds a row or replaces its older version."""
        old = self.rows.get(row.id)
        for name, index in self._by_value.items():
            self._move(index, row.id, old.values.get(name) if old else None, row.values.get(name))
        if self._phone_fields:
            self._drop_tails(old)
            self._add_tails(row)
        self.rows[row.id] = row

    def remove(self, row_id: str) -> Row | None:
        """Takes a row away; None if there was none."""
        old = self.rows.pop(row_id, None)
        if old is None:
            return None
        for name, index in self._by_value.items():
            self._move(index, row_id, old.values.get(name), None)
        self._drop_tails(old)
        return old

    def find(self, name: str, value: Any) -> list[Row]:
        """Rows whose field has this value, text compared without case, oldest first."""
        if name == "id":
            row = self.rows.get(value)
            return [row] if row else []
        index = self._by_value.get(name)
        if index is None:
            index = self._build(name)
        return [self.rows[row_id] for row_id in index.get(fold(value), ())]

    def with_tail(self, digits: str, phone_fields: tuple[str, ...]) -> list[Row]:
        """Rows with a phone field that may end in these digits (at least seven)."""
        if phone_fields != self._phone_fields:
            self._build_tails(phone_fields)
        return [self.rows[row_id] for row_id in self._by_tail.get(digits[-TAIL_DIGITS:], ())]

    def _build(self, name: str) -> dict[Any, dict[str, None]]:
        index: dict[Any, dict[str, None]] = {}
        for row in self.rows.values():
            self._move(index, row.id, None, row.values.get(name))
        self._by_value[name] = index
        return index

    @staticmethod
    def _move(index: dict[Any, dict[str, None]], row_id: str, old: Any, new: Any) -> None:
        if old == new or isinstance(new, list) or isinstance(old, list):
            return
        if old is not None:
            index[fold(old)].pop(row_id, None)
        if new is not None:
            index.setdefault(fold(new), {})[row_id] = None

    def _build_tails(self, phone_fields: tuple[str, ...]) -> None:
        self._phone_fields = phone_fields
        self._by_tail = {}
        for row in self.rows.values():
            self._add_tails(row)

    def _tails(self, row: Row) -> Iterator[str]:
        for name in self._phone_fields:
            value = row.values.get(name)
            if value:
                yield digits_of(value)[-TAIL_DIGITS:]

    def _add_tails(self, row: Row) -> None:
        for tail in self._tails(row):
            self._by_tail.setdefault(tail, {})[row.id] = None

    def _drop_tails(self, row: Row | None) -> None:
        if row is not None:
            for tail in self._tails(row):
                self._by_tail.get(tail, {}).pop(row.id, None)


class LaggedView:
    """What a search engine knows: each version of a record becomes visible at its own time, never an older one
    after a newer one."""

    def __init__(self) -> None:
        self._index = RowIndex()
        self._pending: list[tuple[float, int, str, int, Row | None]] = []
        self._count = 0
        self._gone: dict[str, int] = {}

    def write(self, row_id: str, version: int, row: Row | None, *, visible_at_s: float) -> None:
        """Announces a version, or with None a deletion."""
        self._count += 1
        heapq.heappush(self._pending, (visible_at_s, self._count, row_id, version, row))

    def at(self, now_s: float) -> RowIndex:
        """The rows that are visible now."""
        while self._pending and self._pending[0][0] <= now_s:
            _, _, row_id, version, row = heapq.heappop(self._pending)
            self._apply(row_id, version, row)
        return self._index

    def _apply(self, row_id: str, version: int, row: Row | None) -> None:
        known = self._index.rows.get(row_id)
        newest = max(known.version if known else 0, self._gone.get(row_id, 0))
        if version < newest:
            return
        if row is None:
            self._gone[row_id] = version
            self._index.remove(row_id)
        else:
            self._index.put(row)


class UniqueIndex:
    """Which record holds which value of a unique field; literal comparison, with or without case."""

    def __init__(self, *, case_sensitive: bool) -> None:
        self.case_sensitive = case_sensitive
        self._holders: dict[Any, str] = {}

    def holder(self, value: Any) -> str | None:
        """The id of the record with this value."""
        return self._holders.get(self._key(value))

    def put(self, row_id: str, old: Any, new: Any) -> None:
        """Moves a record from its old value to its new one."""
        if old is not None and self._holders.get(self._key(old)) == row_id:
            del self._holders[self._key(old)]
        if new is not None:
            self._holders[self._key(new)] = row_id

    def _key(self, value: Any) -> Any:
        return value if self.case_sensitive else fold(value)


class Table:
    """The records of one module: what is stored now, its unique fields, and what search and queries see."""

    def __init__(self) -> None:
        self.current = RowIndex()
        self.search_view = LaggedView()
        self.coql_view = LaggedView()
        self.deleted: dict[str, float] = {}
        self.unique: dict[str, UniqueIndex] = {}

    def __len__(self) -> int:
        return len(self.current.rows)

    def __iter__(self) -> Iterator[Row]:
        return iter(self.current.rows.values())

    def get(self, row_id: str) -> Row | None:
        """The record as it is now."""
        return self.current.rows.get(row_id)

    def put(self, row: Row) -> None:
        """Stores a version of a record and keeps the unique fields."""
        if self.unique:
            old = self.current.rows.get(row.id)
            for name, index in self.unique.items():
                index.put(row.id, old.values.get(name) if old else None, row.values.get(name))
        self.current.put(row)

    def remove(self, row_id: str, *, now_s: float) -> Row | None:
        """Deletes a record; its unique values are free again."""
        old = self.current.remove(row_id)
        if old is not None:
            self.deleted[row_id] = now_s
            for name, index in self.unique.items():
                index.put(row_id, old.values.get(name), None)
        return old

    def set_unique(self, fields: Iterable[tuple[str, bool]]) -> None:
        """Which fields are unique, each with whether case matters.

        Raises:
            ValueError: two records share a value; Zoho does not switch `unique` on then.
        """
        wanted = dict(fields)
        self.unique = {name: index for name, index in self.unique.items() if wanted.get(name) == index.case_sensitive}
        for name in wanted.keys() - self.unique.keys():
            self.unique[name] = self._unique_index(name, case_sensitive=wanted[name])

    def _unique_index(self, name: str, *, case_sensitive: bool) -> UniqueIndex:
        index = UniqueIndex(case_sensitive=case_sensitive)
        for row in self:
            value = row.values.get(name)
            if value is not None and index.holder(value) is not None:
                raise ValueError(f"field {name} holds duplicate values")
            index.put(row.id, None, value)
        return index
