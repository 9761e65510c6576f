"""What the organisation looks like: modules, fields, lengths."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from consumer.core.errors import HaltedError, RefusedError, SyncError
from consumer.zoho.api import Call, Operation, Send

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_GOOD_S = 3600.0
_RETRY_S = 600.0
_PATIENCE_S = 3.0
"""How long messages wait for fields to be read again that are known already."""


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a module, as `/settings/fields` tells it."""

    api_name: str
    data_type: str
    length: int | None = None
    is_unique: bool = False
    is_mandatory: bool = False
    values: tuple[str, ...] = ()
    """Of a picklist."""
    label: str = ""
    lookup_module: str | None = None


@dataclass(frozen=True, slots=True)
class Column:
    """How a text gets into one field."""

    length: int
    """It is cut to this many characters."""
    options: Mapping[str, str]
    """Of a picklist: each option by its case-folded text; empty where any text will do."""

    def spelled(self, text: str) -> str | None:
        """The text as this organisation's picklist spells it; None when it has none like it."""
        return self.options.get(text.casefold()) if self.options else text


async def read_fields(send: Send, module: str) -> dict[str, Field]:
    """Fields by API name."""
    params = (("module", module),)
    reply = await send(Call(Operation.METADATA, "GET", "/settings/fields", params=params, is_optional=True))
    rows = reply.body.get("fields") if reply.body else None
    fields = [_field(row) for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []
    return {field.api_name: field for field in fields}


async def read_modules(send: Send) -> list[dict[str, Any]]:
    """Rows of `/settings/modules`."""
    reply = await send(Call(Operation.METADATA, "GET", "/settings/modules"))
    rows = reply.body.get("modules") if reply.body else None
    return [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []


async def read_org(send: Send) -> dict[str, Any]:
    """The row of `/org`; empty when Zoho gives none."""
    reply = await send(Call(Operation.METADATA, "GET", "/org"))
    rows = reply.body.get("org") if reply.body else None
    return rows[0] if isinstance(rows, list) and rows and isinstance(rows[0], dict) else {}


def _field(row: dict[str, Any]) -> Field:
    length = row.get("length")
    values = row.get("pick_list_values") or []
    lookup = row.get("lookup")
    module = lookup.get("module") if isinstance(lookup, dict) else None
    return Field(
        api_name=str(row.get("api_name", "")),
        data_type=str(row.get("data_type", "")),
        length=length if isinstance(length, int) and length > 0 else None,
        is_unique=bool(row.get("unique")),
        is_mandatory=bool(row.get("system_mandatory")),
        values=tuple(str(value.get("actual_value")) for value in values if isinstance(value, dict)),
        label=str(row.get("field_label") or row.get("display_label") or ""),
        lookup_module=_module_name(module),
    )


def _module_name(module: object) -> str | None:
    if isinstance(module, dict):
        return str(module.get("api_name") or "") or None
    return module if isinstance(module, str) else None


def _is_lack_of_rights(error: SyncError) -> bool:
    return isinstance(error, (HaltedError, RefusedError)) and not error.code.startswith("TOKEN_")


class Schema:
    """Fields of the modules that we write, read again every hour; unknown (None) until they can be read.

    A missing right to read settings must not stop messages: unknown means that every field is taken as present.
    """

    def __init__(
        self,
        send: Send,
        *,
        on_missing: Callable[[str, str], None] = lambda _module, _field: None,
        on_unreadable: Callable[[str], None] = lambda _code: None,
    ) -> None:
        self._send = send
        self._on_missing = on_missing
        self._on_unreadable = on_unreadable
        self._fields: dict[str, dict[str, Field]] = {}
        self._good_until: dict[str, float] = {}
        self._learned: dict[tuple[str, str], int] = {}
        self._columns: dict[tuple[str, str], Column | None] = {}
        self._told: set[tuple[str, str]] = set()

    async def load(self, module: str) -> None:
        """Read the fields of a module, unless that was done in the last hour.

        Raises TransientError when there was no answer, HaltedError while there is no token; but what is known already
        stays in use when it cannot be read again, or not soon.
        """
        if asyncio.get_running_loop().time() < self._good_until.get(module, float("-inf")):
            return
        try:
            async with asyncio.timeout(_PATIENCE_S if module in self._fields else None):
                self._take(module, await read_fields(self._send, module))
        except TimeoutError:
            self._rest()
        except SyncError as error:
            if module not in self._fields and not _is_lack_of_rights(error):
                raise
            self._keep(module, error)

    def _rest(self) -> None:
        """The other modules are not waited for, too."""
        until = asyncio.get_running_loop().time() + _RETRY_S
        self._good_until = {module: max(until, good) for module, good in self._good_until.items()}

    def _take(self, module: str, fields: dict[str, Field]) -> None:
        self._fields[module] = fields
        self._good_until[module] = asyncio.get_running_loop().time() + _GOOD_S
        self._learned = {key: length for key, length in self._learned.items() if key[0] != module}
        self._columns.clear()

    def _keep(self, module: str, error: SyncError) -> None:
        if module not in self._fields:
            self._on_unreadable(error.code)
        self._fields.setdefault(module, {})
        self._good_until[module] = asyncio.get_running_loop().time() + _RETRY_S

    def fields_of(self, module: str) -> Mapping[str, Field] | None:
        """Fields by API name, or None when nothing is known."""
        return self._fields.get(module) or None

    def has(self, module: str, field: str) -> bool:
        """May this field be written?  A field that is missing is told once."""
        fields = self.fields_of(module)
        if fields is None or field in fields:
            return True
        self._tell(module, field)
        return False

    def _tell(self, module: str, what: str) -> None:
        if (module, what) not in self._told:
            self._told.add((module, what))
            self._on_missing(module, what)

    def length_of(self, module: str, field: str, default: int) -> int:
        """Length of a text field."""
        known = (self.fields_of(module) or {}).get(field)
        length = known.length if known is not None and known.length else default
        return min(length, self._learned.get((module, field), length))

    def learn_length(self, module: str, field: str, length: int) -> None:
        """Zoho said that a text was too long for its field."""
        self._learned[module, field] = length
        self._columns.clear()

    def column(self, module: str, field: str, default_length: int) -> Column | None:
        """All of this at once, remembered for every message; None when the field is missing."""
        key = (module, field)
        if key not in self._columns:
            self._columns[key] = self._column(module, field, default_length) if self.has(module, field) else None
        return self._columns[key]

    def _column(self, module: str, field: str, default_length: int) -> Column:
        known = (self.fields_of(module) or {}).get(field)
        values = known.values if known is not None else ()
        first_of_each = {value.casefold(): value for value in reversed(values)}
        return Column(self.length_of(module, field, default_length), first_of_each)

    def option_missing(self, module: str, field: str) -> None:
        """A picklist has no option for a value of ours; told once."""
        self._tell(module, f"{field}: an option of its list")
