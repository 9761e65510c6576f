"""One call on its way through the engine, and the table of operations."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sandbox.zoho.errors import ApiError, param_error
from sandbox.zoho.journal import CallEntry
from sandbox.zoho.model import Json, Request
from sandbox.zoho.schema import Module

if TYPE_CHECKING:
    from sandbox.zoho.faults import FailRow
    from sandbox.zoho.oauth import Grant
    from sandbox.zoho.org import Organisation


@dataclass(frozen=True, slots=True)
class Reply:
    """What a handler answers: a JSON value, raw bytes, or nothing (204)."""

    status: int
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)


Handler = Callable[["Organisation", "Call"], Reply]


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One thing Zoho can be asked: who may, what it costs, and the function that does it.

    `scopes`: for each thing needed, the scopes that grant it; `{m}` stands for the module's scope names.
    """

    name: str
    handler: Handler
    scopes: tuple[str, ...] = ()
    params: frozenset[str] = frozenset()
    takes_json: bool = False
    credits: Callable[[Organisation, Call], int] = lambda _org, _call: 1
    is_heavy: Callable[[Organisation, Call], bool] = lambda _org, _call: False

    @property
    def is_oauth(self) -> bool:
        """Is it Zoho Accounts that answers?"""
        return self.name.startswith("oauth.")


@dataclass(slots=True)
class Call:
    """One request after routing. `payload` is its JSON body, `rows` how many rows it carries."""

    request: Request
    operation: Operation
    entry: CallEntry
    module: Module | None = None
    record_id: str | None = None
    params: Mapping[str, str] = field(default_factory=dict)
    payload: Any = None
    grant: Grant | None = None
    row_faults: list[FailRow] = field(default_factory=list)
    memo: Json = field(default_factory=dict)
    route_error: ApiError | None = None
    body_error: ApiError | None = None
    has_slot: bool = False

    @property
    def number(self) -> int:
        """The call's number, from 1."""
        return self.entry.number

    @property
    def the_module(self) -> Module:
        """The module in the path, where the route has one."""
        if self.module is None:
            raise LookupError("the route names no module")
        return self.module

    @property
    def the_id(self) -> str:
        """The record id in the path, where the route has one."""
        if self.record_id is None:
            raise LookupError("the route names no record")
        return self.record_id

    def data(self, key: str = "data") -> list[Any]:
        """The list of rows in the body; empty when there is none, or it is no list."""
        rows = self.payload.get(key) if isinstance(self.payload, dict) else None
        return rows if isinstance(rows, list) else []

    def int_param(self, name: str, default: int, *, low: int = 1, high: int = 10**9) -> int:
        """A query parameter that must be a whole number within bounds."""
        text = self.params.get(name)
        if text is None:
            return default
        if not text.isascii() or not text.isdigit() or not low <= int(text) <= high:
            raise param_error(name)
        return int(text)


def body_error(expected: str = "jsonobject") -> ApiError:
    """The body is no JSON, or not of the expected kind."""
    return ApiError(400, "INVALID_DATA", "body", {"expected_data_type": expected})
