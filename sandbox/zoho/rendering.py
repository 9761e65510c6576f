"""Stored rows as the JSON that answers carry."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from sandbox.zoho.model import Json
from sandbox.zoho.org import Organisation
from sandbox.zoho.schema import Field, Module
from sandbox.zoho.store import Row

# Where a note's row keeps the module of its parent.
PARENT_MODULE = "$se_module"
ROW_ATTRIBUTES = {
    "Owner": "owner",
    "Created_By": "created_by",
    "Modified_By": "modified_by",
    "Created_Time": "created_at_s",
    "Modified_Time": "modified_at_s",
}


def raw_value(module: Module, row: Row, name: str) -> Any:
    """A field's stored value: lookups and users as ids, date-times as epoch seconds."""
    if name == "id":
        return row.id
    attribute = ROW_ATTRIBUTES.get(name)
    if attribute is not None:
        value = getattr(row, attribute)
        return int(value) if isinstance(value, float) else value
    if name == "Full_Name" and name in module.fields:
        parts = (row.values.get("First_Name"), row.values.get("Last_Name"))
        return " ".join(part for part in parts if part)
    if name == "Converted__s":
        return row.is_converted
    return row.values.get(name)


def show_value(org: Organisation, module: Module, row: Row, name: str, *, is_query: bool = False) -> Any:
    """A field's value as JSON; a query shows other records by id alone."""
    value = raw_value(module, row, name)
    spec = module.fields.get(name)
    if value is None or spec is None:
        return value
    if spec.data_type == "datetime":
        return org.time_text(value)
    if spec.data_type == "ownerlookup":
        return {"id": value} if is_query else {**org.user_ref(value), "email": org.users[value].email}
    if spec.data_type == "lookup":
        return {"id": value} if is_query else _reference(org, spec, row, value)
    return value


def _reference(org: Organisation, spec: Field, row: Row, other_id: str) -> Json:
    """The record that a lookup names; a note's parent can be of any module, so its module is shown as well."""
    module_name = spec.lookup or row.values.get(PARENT_MODULE)
    module = org.schema.get(module_name)
    other = org.table(module).get(other_id) if module else None
    shown = {
        "name": raw_value(module, other, module.name_field) if module and other else None,
        "id": other_id,
    }
    if spec.lookup is not None:
        return shown
    return {"module": {"api_name": module.api_name, "id": module.id} if module else None, **shown}


def show_row(org: Organisation, module: Module, row: Row, fields: Iterable[str]) -> Json:
    """The fields asked for, those that exist, and the id."""
    shown = {name: show_value(org, module, row, name) for name in fields if name in module.fields}
    return {**shown, "id": row.id}


def show_whole(org: Organisation, module: Module, row: Row) -> Json:
    """Every field of a record, with the flags that Zoho adds."""
    flags: Json = {"$approval_state": "approved", "$editable": True}
    if "Converted__s" in module.fields:
        flags["$converted"] = row.is_converted
    return {**show_row(org, module, row, module.fields), **flags}


def written(org: Organisation, row: Row) -> Json:
    """The `details` of a row that was written."""
    return {
        "Modified_Time": org.time_text(row.modified_at_s),
        "Modified_By": org.user_ref(row.modified_by),
        "Created_Time": org.time_text(row.created_at_s),
        "id": row.id,
        "Created_By": org.user_ref(row.created_by),
        "$approval_state": "approved",
    }


def page_info(
    *,
    count: int,
    page: int,
    per_page: int,
    more: bool,
    sort_by: str | None = None,
    sort_order: str | None = None,
) -> Json:
    """The `info` object beside a page of records."""
    return {
        "per_page": per_page,
        "count": count,
        "page": page,
        "sort_by": sort_by or "id",
        "sort_order": sort_order or "desc",
        "more_records": more,
        "next_page_token": None,
        "previous_page_token": None,
        "page_token_expiry": None,
    }
