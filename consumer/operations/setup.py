"""Makes in Zoho what the service needs and the organisation lacks: the module, its fields, uniqueness.

Compares first, and does only what is missing, so that it can be run again at any time.  It never deletes, and never
changes a field that is there, except that it forbids duplicates of Message_ID and adds values to its own picklists.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from consumer.core.errors import SyncError
from consumer.operations import blueprint
from consumer.operations.blueprint import MESSAGE_FIELDS, FieldSpec
from consumer.operations.doctor.modules import picklist
from consumer.operations.doctor.zoho import read_rows
from consumer.operations.errors import OperationError
from consumer.zoho.api import Call, Operation
from consumer.zoho.metadata import read_modules

if TYPE_CHECKING:
    from collections.abc import Callable

    from consumer.operations.zoho_desk import ZohoDesk

_FIELDS_PER_CALL = 5
_WAIT_S = 1.0
_TRIES = 30
"""A new module takes some seconds until it can be asked for."""


@dataclass(frozen=True, slots=True)
class Step:
    """One thing to create or change.  `kind`: module, field, unique, values."""

    kind: str
    name: str
    spec: FieldSpec | None = None
    field_id: str | None = None


@dataclass(frozen=True, slots=True)
class ByHand:
    """What only a person can do; `code` and `facts` are for the catalogue."""

    code: str
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SetupPlan:
    """What is missing, and what somebody has to do."""

    module: str
    steps: tuple[Step, ...] = ()
    by_hand: tuple[ByHand, ...] = ()


async def plan(desk: ZohoDesk, module: str) -> SetupPlan:
    """Compare the organisation with what is needed.  Changes nothing.  Raises OperationError."""
    try:
        modules = await read_modules(desk.send)
    except SyncError as error:
        raise failure(error) from None
    leads = await read_rows(desk.send, "Leads")
    if blueprint.find_module(modules, module) is None:
        if other := blueprint.find_by_label(modules, module):
            raise OperationError("setup.other_name", name=module, right=other.get("api_name"))
        steps = (Step("module", module), *(Step("field", spec.api_name, spec) for spec in MESSAGE_FIELDS))
        return SetupPlan(module, steps, tuple(_by_hand(module, {}, leads)))
    rows = await read_rows(desk.send, module)
    if not rows:
        raise OperationError("setup.unreadable", name=module)
    return SetupPlan(module, tuple(_steps(rows)), tuple(_by_hand(module, rows, leads)))


def failure(error: SyncError) -> OperationError:
    """Zoho's trouble in the words of the catalogue."""
    if error.code == "TOKEN_THROTTLED":
        return OperationError("auth.throttled")
    return OperationError("zoho.failed", code=error.code)


def _steps(rows: dict[str, dict[str, Any]]) -> list[Step]:
    steps: list[Step] = []
    for spec in MESSAGE_FIELDS:
        row = rows.get(spec.api_name)
        if row is None:
            steps.append(Step("field", spec.api_name, spec))
        elif spec.takes(str(row.get("data_type"))):
            steps += _changes(spec, row)
    return steps


def _changes(spec: FieldSpec, row: dict[str, Any]) -> list[Step]:
    if spec.is_unique and not row.get("unique"):
        return [Step("unique", spec.api_name, spec, str(row.get("id")))]
    is_list = bool(spec.values) and row.get("data_type") == "picklist"
    if is_list and not {value.casefold() for value in spec.values} <= {value.casefold() for value in picklist(row)}:
        return [Step("values", spec.api_name, spec, str(row.get("id")))]
    return []


def _by_hand(module: str, rows: dict[str, dict[str, Any]], leads: dict[str, dict[str, Any]]) -> list[ByHand]:
    found = [
        ByHand("setup.hand.type", {"name": module, "field": spec.api_name, "right": spec.data_type})
        for spec in MESSAGE_FIELDS
        if spec.api_name in rows and not spec.takes(str(rows[spec.api_name].get("data_type")))
    ]
    for name, its_rows, filled in (
        (module, rows, blueprint.FILLED_IN_MESSAGES),
        ("Leads", leads, blueprint.FILLED_IN_LEADS),
    ):
        if demanded := blueprint.demanded(its_rows, filled):
            found.append(ByHand("setup.hand.demanded", {"name": name, "fields": ", ".join(demanded)}))
    if not rows:
        found.append(ByHand("setup.hand.related", {"name": module}))
        found.append(ByHand("setup.hand.profiles", {"name": module}))
    return found


# -- doing it ---------------------------------------------------------------------------------------------------


async def carry_out(desk: ZohoDesk, found: SetupPlan, *, on_step: Callable[[Step], None] = lambda _step: None) -> None:
    """Do the steps of a plan, in order.  Raises OperationError; what was done stays, and the next run goes on."""
    by_kind: defaultdict[str, list[Step]] = defaultdict(list)
    for step in found.steps:
        by_kind[step.kind].append(step)
    for step in by_kind["module"]:
        await _create_module(desk, found.module)
        on_step(step)
    await _create_fields(desk, found.module, by_kind["field"], on_step)
    for step in [*by_kind["unique"], *by_kind["values"]]:
        await _change_field(desk, found.module, step)
        on_step(step)
    await _check_names(desk, found)


async def _create_module(desk: ZohoDesk, module: str) -> None:
    plural = module.replace("_", " ")[:25]
    row = {
        "plural_label": plural,
        "singular_label": plural.removesuffix("s") or plural,
        "api_name": module,
        "profiles": await _profiles(desk),
        "display_field": {"field_label": "Message Name", "data_type": "text"},
    }
    await _write(desk, "POST", "/settings/modules", "modules", [row], what=module)
    for _ in range(_TRIES):
        if blueprint.find_module(await read_modules(desk.send), module):
            return
        await asyncio.sleep(_WAIT_S)
    raise OperationError("setup.slow", name=module)


async def _profiles(desk: ZohoDesk) -> list[dict[str, str]]:
    """Everybody may see the new module; profiles can be narrowed afterwards."""
    try:
        reply = await desk.send(Call(Operation.METADATA, "GET", "/settings/profiles"))
    except SyncError as error:
        raise _refusal(error.code, "profiles") from None
    rows = reply.body.get("profiles") if reply.body else None
    return [{"id": str(row["id"])} for row in rows or [] if isinstance(row, dict) and row.get("id")]


async def _create_fields(desk: ZohoDesk, module: str, steps: list[Step], on_step: Callable[[Step], None]) -> None:
    for start in range(0, len(steps), _FIELDS_PER_CALL):
        part = steps[start : start + _FIELDS_PER_CALL]
        rows = [_field_row(step.spec, module) for step in part if step.spec]
        what = ", ".join(step.name for step in part)
        await _write(desk, "POST", "/settings/fields", "fields", rows, what=what, module=module)
        for step in part:
            on_step(step)


def _field_row(spec: FieldSpec, module: str) -> dict[str, Any]:
    row: dict[str, Any] = {"field_label": spec.label, "data_type": spec.data_type}
    if spec.data_type == "textarea":
        row["textarea"] = {"type": "large" if (spec.length or 0) > 2_000 else "small"}
    elif spec.length:
        row["length"] = spec.length
    if spec.values:
        row["pick_list_values"] = _values(spec.values)
    if spec.lookup:
        row["lookup"] = {"module": {"api_name": spec.lookup}, "display_label": module.replace("_", " ")}
    if spec.is_unique:
        row["unique"] = {"case_sensitive": True}
    return row


def _values(values: tuple[str, ...]) -> list[dict[str, str]]:
    return [{"display_value": value, "actual_value": value} for value in values]


async def _change_field(desk: ZohoDesk, module: str, step: Step) -> None:
    row: dict[str, Any] = {"id": step.field_id}
    if step.kind == "unique":
        row["unique"] = {"case_sensitive": True}
    else:
        there = picklist((await read_rows(desk.send, module)).get(step.name, {}))
        known = {value.casefold() for value in there}
        more = (value for value in (step.spec.values if step.spec else ()) if value.casefold() not in known)
        row["pick_list_values"] = _values((*there, *more))
    await _write(desk, "PATCH", "/settings/fields", "fields", [row], what=step.name, module=module)


async def _write(
    desk: ZohoDesk, method: str, path: str, key: str, rows: list[dict[str, Any]], *, what: str, module: str = ""
) -> None:
    """One write of metadata; its answers come in `key`, not in `data`.  Never repeated blindly."""
    params = (("module", module),) if module else ()
    call = Call(Operation.METADATA, method, path, params=params, body={key: rows}, is_write=True)
    try:
        answer = await desk.exchange(call)
    except SyncError as error:
        raise _refusal(error.code, what) from None
    answers = answer.get(key) if isinstance(answer.get(key), list) else [answer]
    for item in answers if isinstance(answers, list) else []:
        if isinstance(item, dict) and item.get("status") != "success":
            details = item.get("details") if isinstance(item.get("details"), dict) else {}
            place = str((details or {}).get("json_path") or (details or {}).get("api_name") or "")
            raise _refusal(str(item.get("code") or "NO_CODE"), what, place)


def _refusal(code: str, what: str, place: str = "") -> OperationError:
    if code == "OAUTH_SCOPE_MISMATCH":
        return OperationError("setup.no_scope")
    if code == "INVALID_DATA" and place.endswith("unique"):
        return OperationError("setup.duplicates", what=what)
    return OperationError("setup.refused", what=what, code=" ".join(filter(None, (code, place))))


async def _check_names(desk: ZohoDesk, found: SetupPlan) -> None:
    """Zoho makes API names itself; with another one the service would not find the field."""
    wanted = [step.name for step in found.steps if step.kind == "field"]
    for _ in range(_TRIES if wanted else 0):
        rows = await read_rows(desk.send, found.module)
        missing = [name for name in wanted if name not in rows]
        if not missing:
            return
        await asyncio.sleep(_WAIT_S)
    if wanted:
        raise OperationError("setup.renamed", name=found.module, fields=", ".join(missing))
