"""What the organisation's modules and fields mean for this service.  Decides; no input or output."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from consumer.operations import blueprint
from consumer.operations.blueprint import MESSAGE_FIELDS, FieldSpec
from consumer.operations.doctor.findings import Finding, Status, failed, ok, unchecked, warning

if TYPE_CHECKING:
    from collections.abc import Iterator

    from consumer.operations.doctor.zoho import ZohoView
    from consumer.settings import Settings

Rows = dict[str, dict[str, Any]]


def module_findings(settings: Settings, view: ZohoView) -> Iterator[Finding]:
    """The messages module and its fields."""
    name = settings.zoho_messages_module
    rows = view.fields.get(name) or {}
    found = _module(name, view, rows)
    yield found
    if found.status is not Status.OK:
        yield unchecked("zoho.fields", "zoho.module")
        yield unchecked("zoho.unique", "zoho.module")
        return
    yield from _fields(name, rows)
    yield from _unique(name, rows)


def _module(name: str, view: ZohoView, rows: Rows) -> Finding:
    module = blueprint.find_module(view.modules, name)
    if view.modules and module is None:
        other = blueprint.find_by_label(view.modules, name)
        if other is not None:
            return failed("zoho.module", "other_name", name=name, right=other.get("api_name"))
        return failed("zoho.module", "missing", name=name)
    if module is not None and not (module.get("api_supported", True) and module.get("creatable", True)):
        return failed("zoho.module", "closed", name=name)
    return ok("zoho.module", name=name) if rows else warning("zoho.module", "unreadable", name=name)


def _fields(name: str, rows: Rows) -> Iterator[Finding]:
    problems = [*_absent(name, rows), *_types(name, rows), *_choices(name, rows), *_lengths(name, rows)]
    unknown = blueprint.demanded(rows, blueprint.FILLED_IN_MESSAGES)
    if unknown:
        problems.append(failed("zoho.fields", "demanded", name=name, fields=", ".join(unknown)))
    yield from problems or [ok("zoho.fields", name=name, count=len(MESSAGE_FIELDS))]


def _absent(name: str, rows: Rows) -> Iterator[Finding]:
    missing = [spec for spec in MESSAGE_FIELDS if spec.api_name not in rows]
    vital, others = [spec for spec in missing if spec.is_vital], [spec for spec in missing if not spec.is_vital]
    if vital:
        yield failed("zoho.fields", "missing", name=name, fields=_names(vital))
    if others:
        yield warning("zoho.fields", "left_out", name=name, fields=_names(others))


def _types(name: str, rows: Rows) -> Iterator[Finding]:
    wrong = [
        f"{spec.api_name} ({rows[spec.api_name].get('data_type')} → {spec.data_type})"
        for spec in MESSAGE_FIELDS
        if spec.api_name in rows and not _fits(spec, rows[spec.api_name])
    ]
    if wrong:
        yield failed("zoho.fields", "wrong_type", name=name, fields=", ".join(wrong))


def _fits(spec: FieldSpec, row: dict[str, Any]) -> bool:
    if not spec.takes(str(row.get("data_type"))):
        return False
    if spec.lookup is None:
        return True
    module = (row.get("lookup") or {}).get("module") or {}
    return str(module.get("api_name") if isinstance(module, dict) else module) == spec.lookup


def _choices(name: str, rows: Rows) -> Iterator[Finding]:
    lacking = [
        f"{spec.api_name}: {', '.join(absent)}"
        for spec in MESSAGE_FIELDS
        if spec.api_name in rows and (absent := _absent_values(spec, rows[spec.api_name]))
    ]
    if lacking:
        yield warning("zoho.fields", "values", name=name, fields="; ".join(lacking))


def _absent_values(spec: FieldSpec, row: dict[str, Any]) -> list[str]:
    if row.get("data_type") != "picklist":
        return []
    there = {value.casefold() for value in picklist(row)}
    return [value for value in spec.values if value.casefold() not in there]


def picklist(row: dict[str, Any]) -> list[str]:
    """The values of a picklist."""
    return [str(item.get("actual_value")) for item in row.get("pick_list_values") or [] if isinstance(item, dict)]


def _lengths(name: str, rows: Rows) -> Iterator[Finding]:
    short = [
        f"{spec.api_name} ({rows[spec.api_name]['length']} → {spec.length})"
        for spec in MESSAGE_FIELDS
        if spec.length and spec.api_name in rows and 0 < (rows[spec.api_name].get("length") or 0) < spec.length
    ]
    if short:
        yield warning("zoho.fields", "short", name=name, fields=", ".join(short))


def _unique(name: str, rows: Rows) -> Iterator[Finding]:
    row = rows.get("Message_ID")
    if row is None:
        return
    if not row.get("unique"):
        yield failed("zoho.unique", "not_unique", name=name)
    elif str(_case(row["unique"])).lower() == "false":
        yield warning("zoho.unique", "ignores_case", name=name)
    else:
        yield ok("zoho.unique", name=name)


def _case(unique: object) -> object:
    """Both spellings of Zoho's flag; None where it is not told."""
    flags = unique if isinstance(unique, dict) else {}
    return flags.get("case_sensitive", flags.get("casesensitive"))


def _names(specs: list[FieldSpec]) -> str:
    return ", ".join(spec.api_name for spec in specs)


# -- leads ------------------------------------------------------------------------------------------------------


def lead_findings(settings: Settings, view: ZohoView) -> Iterator[Finding]:
    """Can leads be found by number, and created?"""
    leads, contacts = view.fields.get("Leads") or {}, view.fields.get("Contacts") or {}
    if not leads:
        yield warning("zoho.leads", "unreadable")
        if not _no_source(settings):
            yield unchecked("zoho.lead_source", "zoho.leads")
        return
    problems = [*_numbers("Leads", leads), *_numbers("Contacts", contacts)]
    unknown = blueprint.demanded(
        leads, blueprint.FILLED_IN_LEADS - ({"Lead_Source"} if _no_source(settings) else set())
    )
    if unknown:
        problems.append(failed("zoho.leads", "demanded", fields=", ".join(unknown)))
    yield from problems or [ok("zoho.leads")]
    yield from _source(settings, leads)


def _no_source(settings: Settings) -> bool:
    return settings.zoho_lead_source is None


def _numbers(module: str, rows: Rows) -> Iterator[Finding]:
    if rows and "Phone" not in rows:
        yield failed("zoho.leads", "no_phone", module=module)
    for name in ("Phone", "Mobile"):
        private = rows.get(name, {}).get("private")
        if isinstance(private, dict) and private.get("restricted"):
            yield failed("zoho.leads", "personal", module=module, field=name)
    length = rows.get("Phone", {}).get("length")
    if isinstance(length, int) and 0 < length < 16:
        yield failed("zoho.leads", "short_phone", module=module, length=length)


def _source(settings: Settings, leads: Rows) -> Iterator[Finding]:
    source = settings.zoho_lead_source
    if source is None:
        return
    if "Lead_Source" not in leads:
        yield failed("zoho.lead_source", "no_field", source=source)
        return
    values = picklist(leads["Lead_Source"])
    if values and source not in values:
        yield failed("zoho.lead_source", "missing", source=source, known=", ".join(values))
    else:
        yield ok("zoho.lead_source", source=source)
