"""One call to Zoho CRM, one reply, and the one shape that every layer has: `Send = Call → awaitable Reply`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from consumer.core.limits import Cost

API_VERSION = "v8"
MAX_RECORDS = 100
"""Records in one insert, update or upsert, and values in one COQL `in` list."""
_HEAVY_FROM = 11
"""Writes with more than 10 records are in Zoho's sub-concurrency group."""


class Operation(StrEnum):
    """What a call is for: the label in metrics, and the name under which a halt is kept."""

    FIND_PEOPLE = "people.find"
    SEARCH_PEOPLE = "people.search"
    SEARCH_TOGETHER = "people.search_together"
    CREATE_LEADS = "leads.create"
    DELETE_LEADS = "leads.delete"
    READ_RECORD = "record.read"
    FIND_MESSAGES = "messages.find"
    UPSERT_MESSAGES = "messages.upsert"
    READ_NOTES = "notes.read"
    CREATE_NOTES = "notes.create"
    DELETE_NOTES = "notes.delete"
    METADATA = "metadata"


@dataclass(frozen=True, slots=True)
class Call:
    """A request below `/crm/v8`.  `body` is JSON; `token` is filled in by the `authorized` layer."""

    operation: Operation
    method: str
    path: str
    params: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    body: Any = field(default=None, repr=False)
    cost: Cost = field(default_factory=Cost)
    is_write: bool = False
    """Must not be repeated blindly when its answer was lost."""
    is_optional: bool = False
    """Nobody waits for it: a scope that it lacks stops no work."""
    is_wanted: Callable[[], bool] = field(default=lambda: True, repr=False, compare=False)
    """Asked right before it is sent, however long it had to wait: false when somebody else does it by now."""
    token: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer that is no error of the whole call.  204 has no body: nothing was found."""

    status: int
    body: dict[str, Any] | None
    sent_at: float = 0.0
    """Loop time at which the call went, however long it had waited."""

    def rows(self) -> list[dict[str, Any]]:
        """The records or per-record answers in `data`; empty for 204."""
        data = self.body.get("data") if self.body else None
        return [row for row in data if isinstance(row, dict)] if isinstance(data, list) else []

    def next_page_token(self) -> str | None:
        """What to ask the next page with."""
        info = self.body.get("info") if self.body else None
        token = info.get("next_page_token") if isinstance(info, dict) else None
        return token if isinstance(token, str) and token and self.has_more() else None

    def has_more(self) -> bool:
        """True when Zoho says that there is another page."""
        info = self.body.get("info") if self.body else None
        return bool(isinstance(info, dict) and info.get("more_records"))


Send = Callable[[Call], Awaitable[Reply]]
Halt = Callable[[Operation, str, str], None]
"""Told of a cause outside any one message that only the meaning of an answer showed: (what waits, code, advice)."""


def halt_nothing(_operation: Operation, _code: str, _advice: str) -> None:
    """For whoever has no gate."""


def write_call(
    operation: Operation, path: str, rows: list[dict[str, Any]], *, method: str = "POST", **options: Any
) -> Call:
    """A write of 1 to 100 records: one credit for every ten begun (v8 api-limits); `options` go beside `data`."""
    cost = Cost(credits=-(-len(rows) // 10), is_heavy=len(rows) >= _HEAVY_FROM)
    return Call(operation, method, path, body={"data": rows, **options}, cost=cost, is_write=True)
