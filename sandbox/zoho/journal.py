"""The append-only record of what was asked and what changed, and the report of duplicates."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, NamedTuple

from sandbox.zoho.model import Json
from sandbox.zoho.store import Row

EffectKind = Literal["create", "update", "delete"]


class Effect(NamedTuple):
    """One change of one record; `row` is the record after it (before it, for a deletion).

    `call` is 0 for what a test did behind the client's back.
    """

    number: int
    kind: EffectKind
    module: str
    record_id: str
    row: Row
    at_s: float
    call: int


@dataclass(slots=True)
class CallEntry:
    """One call.

    `in_flight` counts it, at its admission; `status` 0 means that it never got an answer; `rows` are those sent,
    `succeeded` those that worked; `trigger` is what it asked for, `ran` the automations that ran for it; `detail` is
    the query, the search term, and the like.
    """

    number: int
    operation: str
    method: str
    path: str
    started_at_s: float
    module: str | None = None
    rows: int = 0
    credits: int = 0
    status: int = 0
    code: str | None = None
    in_flight: int = 0
    heavy_in_flight: int = 0
    is_heavy: bool = False
    finished_at_s: float | None = None
    drop: str | None = None
    client_id: str | None = None
    fault: str | None = None
    trigger: list[str] | None = None
    ran: list[str] = field(default_factory=list)
    lar_id: str | None = None
    unknown_keys: list[str] = field(default_factory=list)
    succeeded: int = 0
    detail: str | None = None

    def note_unknown(self, keys: list[str]) -> None:
        """Keys of a row that name no field; each is noted once."""
        self.unknown_keys.extend(key for key in keys if key not in self.unknown_keys)

    def as_json(self) -> Json:
        """For the control API."""
        return asdict(self)


class Journal:
    """Every call and every effect since the start or the last reset."""

    def __init__(self) -> None:
        self.calls: list[CallEntry] = []
        self.effects: list[Effect] = []
        self.created_by_calls: set[str] = set()
        self.peak_in_flight = 0
        self.peak_heavy_in_flight = 0

    def open_call(self, operation: str, method: str, path: str, *, now_s: float) -> CallEntry:
        """A call begins."""
        entry = CallEntry(len(self.calls) + 1, operation, method, path, now_s)
        self.calls.append(entry)
        return entry

    def admitted(self, entry: CallEntry, *, in_flight: int, heavy_in_flight: int) -> None:
        """Notes how many calls were in flight when this one came, itself included."""
        entry.in_flight = in_flight
        entry.heavy_in_flight = heavy_in_flight
        self.peak_in_flight = max(self.peak_in_flight, in_flight)
        self.peak_heavy_in_flight = max(self.peak_heavy_in_flight, heavy_in_flight)

    def changed(self, kind: EffectKind, module: str, row: Row, *, at_s: float, call: int) -> None:
        """A record was created, updated or deleted."""
        if kind == "create" and call:
            self.created_by_calls.add(row.id)
        self.effects.append(Effect(len(self.effects) + 1, kind, module, row.id, row, at_s, call))

    def calls_of(self, *operations: str) -> list[CallEntry]:
        """The calls of these operations, such as `records.upsert`."""
        return [entry for entry in self.calls if entry.operation in operations]

    def summary(self) -> Json:
        """Totals for a quick look: calls, rows and average rows by operation."""
        calls: dict[str, list[CallEntry]] = defaultdict(list)
        for entry in self.calls:
            calls[entry.operation].append(entry)
        operations = {name: _totals(entries) for name, entries in calls.items()}
        return {
            "calls": len(self.calls),
            "effects": len(self.effects),
            "credits": sum(entry.credits for entry in self.calls),
            "peak_in_flight": self.peak_in_flight,
            "peak_heavy_in_flight": self.peak_heavy_in_flight,
            "operations": operations,
        }


def _totals(calls: list[CallEntry]) -> Json:
    rows = sum(entry.rows for entry in calls)
    statuses = Counter(str(entry.status) for entry in calls)
    return {
        "calls": len(calls),
        "rows": rows,
        "rows_per_call": round(rows / len(calls), 2),
        "credits": sum(entry.credits for entry in calls),
        "statuses": dict(statuses),
    }


@dataclass(frozen=True, slots=True)
class Violation:
    """Records that should be one: `rule` says which promise they break, `key` what they share."""

    rule: Literal["leads_same_phone", "lead_beside_contact", "messages_same_id", "notes_same_text"]
    key: str
    record_ids: tuple[str, ...]

    def as_json(self) -> Json:
        """For the control API."""
        return {"rule": self.rule, "key": self.key, "record_ids": list(self.record_ids)}


def groups(pairs: Iterable[tuple[Hashable, str]]) -> dict[Any, list[str]]:
    """Record ids by what they share, only where at least two share it; each id once."""
    found: dict[Any, dict[str, None]] = defaultdict(dict)
    for key, record_id in pairs:
        found[key][record_id] = None
    return {key: list(ids) for key, ids in found.items() if len(ids) > 1}
