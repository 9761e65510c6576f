"""Creating modules and fields, and changing fields."""

from __future__ import annotations

import re
from typing import Any

from sandbox.zoho.call import Call, Reply, body_error
from sandbox.zoho.errors import ApiError, missing_param
from sandbox.zoho.model import Json
from sandbox.zoho.org import Organisation
from sandbox.zoho.records import success
from sandbox.zoho.schema import UNIQUE_TYPES, Field, Module, custom_field, make_field

MAX_FIELDS_PER_CALL = 5
_TYPES = frozenset(
    [
        "text",
        "textarea",
        "phone",
        "email",
        "picklist",
        "datetime",
        "date",
        "lookup",
        "boolean",
        "integer",
        "bigint",
        "double",
        "website",
    ]
)
_TEXTAREA_LENGTHS = {"small": 2_000, "large": 32_000, "rich_text": 50_000}


class BadItem(Exception):
    """One module or field of a request that cannot be made; `error` is its item in the answer."""

    def __init__(self, error: Json) -> None:
        super().__init__(error["code"])
        self.error = error


def _bad(code: str, path: str, message: str = "invalid data", **details: Any) -> BadItem:
    shown = {**details, "api_name": path.rpartition(".")[2], "json_path": path}
    return BadItem({"code": code, "details": shown, "message": message, "status": "error"})


def _items(call: Call, key: str, *, max_items: int) -> list[Json]:
    if not isinstance(call.payload, dict):
        raise body_error()
    items = call.payload.get(key)
    details = {"api_name": key, "json_path": f"$.{key}"}
    if not isinstance(items, list) or not items:
        raise ApiError(400, "MANDATORY_NOT_FOUND", "required field not found", details)
    if len(items) > max_items:
        raise ApiError(400, "INVALID_DATA", "invalid data", {**details, "maximum_length": max_items})
    if not all(isinstance(each, dict) for each in items):
        raise ApiError(400, "INVALID_DATA", "invalid data", {**details, "expected_data_type": "jsonobject"})
    return items


# Modules


def create_module(org: Organisation, call: Call) -> Reply:
    """POST /settings/modules: one custom module."""
    given = _items(call, "modules", max_items=1)[0]
    try:
        module = _new_module(org, given)
    except BadItem as bad:
        return Reply(400, {"modules": [bad.error]})
    return Reply(201, {"modules": [success({"id": module.id}, "module created")]})


def _new_module(org: Organisation, given: Json) -> Module:
    path = "$.modules[0]"
    singular = _label(given, "singular_label", path, limit=25)
    plural = _label(given, "plural_label", path, limit=25)
    api_name = given.get("api_name") or re.sub(r"\W+", "_", plural)
    if len(api_name) > 50:
        raise _bad("INVALID_DATA", f"{path}.api_name", maximum_length=50)
    if org.schema.find(api_name) is not None:
        raise _bad("DUPLICATE_DATA", f"{path}.api_name", "duplicate data")
    _check_profiles(org, given.get("profiles"), path)
    label, data_type = _display_field(given.get("display_field"), path)
    number = 1 + sum(module.is_custom for module in org.schema)
    module = Module(
        f"CustomModule{number}",
        api_name,
        singular,
        plural,
        org.ids.new(),
        generated_type="custom",
        system_duplicate_field="Name",
    )
    name = make_field("Name", data_type, length=120, mandatory=data_type == "text", label=label)
    return org.schema.add(module, [name])


def _label(given: Json, name: str, path: str, *, limit: int) -> str:
    value = given.get(name)
    if not value:
        raise _bad("MANDATORY_NOT_FOUND", f"{path}.{name}", "required field not found")
    if not isinstance(value, str):
        raise _bad("INVALID_DATA", f"{path}.{name}", expected_data_type="string")
    if len(value) > limit:
        raise _bad("INVALID_DATA", f"{path}.{name}", maximum_length=limit)
    return value


def _check_profiles(org: Organisation, profiles: Any, path: str) -> None:
    if not profiles:
        raise _bad("MANDATORY_NOT_FOUND", f"{path}.profiles", "required field not found")
    for index, each in enumerate(profiles):
        if not isinstance(each, dict) or each.get("id") not in org.profiles:
            raise _bad("INVALID_DATA", f"{path}.profiles[{index}].id")


def _display_field(given: Any, path: str) -> tuple[str, str]:
    if not isinstance(given, dict) or not given.get("field_label"):
        raise _bad("MANDATORY_NOT_FOUND", f"{path}.display_field", "required field not found")
    data_type = given.get("data_type", "text")
    if data_type not in ("text", "autonumber"):
        supported = ["text", "autonumber"]
        raise _bad("INVALID_DATA", f"{path}.display_field.data_type", supported_values=supported)
    return str(given["field_label"]), data_type


# Fields


def _module_of(org: Organisation, call: Call) -> Module:
    name = call.params.get("module")
    if not name:
        raise missing_param("module")
    module = org.schema.find(name)
    if module is None:
        raise ApiError(400, "INVALID_MODULE", "the module name given seems to be invalid", {"param_name": "module"})
    return module


def create_fields(org: Organisation, call: Call) -> Reply:
    """POST /settings/fields?module=…: up to five custom fields; all of them, or none."""
    module = _module_of(org, call)
    given = _items(call, "fields", max_items=MAX_FIELDS_PER_CALL)
    try:
        new = [_new_field(org, module, each, f"$.fields[{index}]") for index, each in enumerate(given)]
    except BadItem as bad:
        return Reply(400, {"fields": [bad.error]})
    stored = [org.schema.set_field(module, each) for each in new]
    return Reply(201, {"fields": [success({"id": each.id}, "field created") for each in stored]})


def _new_field(org: Organisation, module: Module, given: Json, path: str) -> Field:
    label = _label(given, "field_label", path, limit=50)
    data_type = given.get("data_type")
    if data_type is None:
        raise _bad("MANDATORY_NOT_FOUND", f"{path}.data_type", "required field not found")
    if data_type not in _TYPES:
        raise _bad("INVALID_DATA", f"{path}.data_type", supported_values=sorted(_TYPES))
    api_name = given.get("api_name") or re.sub(r"\W+", "_", label)
    if api_name in module.fields:
        raise _bad("DUPLICATE_DATA", f"{path}.field_label", "duplicate data")
    more = {**_length(given, data_type, path), **_choices(given, data_type, path)}
    return custom_field(
        api_name,
        data_type,
        label=label,
        unique=_unique(given, data_type, path),
        lookup=_lookup(org, given, data_type, path),
        **more,
    )


def _length(given: Json, data_type: str, path: str) -> dict[str, Any]:
    if data_type == "textarea":
        kind = (given.get("textarea") or {}).get("type", "small")
        if kind not in _TEXTAREA_LENGTHS:
            raise _bad("INVALID_DATA", f"{path}.textarea.type", supported_values=list(_TEXTAREA_LENGTHS))
        return {"textarea": kind, "length": _TEXTAREA_LENGTHS[kind]}
    length = given.get("length")
    if length is None:
        return {}
    if not isinstance(length, int) or not 1 <= length <= 255:
        raise _bad("INVALID_DATA", f"{path}.length", maximum_length=255)
    return {"length": length}


def _choices(given: Json, data_type: str, path: str) -> dict[str, Any]:
    if data_type != "picklist":
        return {}
    choices = given.get("pick_list_values")
    if not isinstance(choices, list) or not choices:
        raise _bad("MANDATORY_NOT_FOUND", f"{path}.pick_list_values", "required field not found")
    return {"values": tuple(str(each.get("actual_value", each.get("display_value"))) for each in choices)}


def _unique(given: Json, data_type: str, path: str) -> bool | None:
    unique = given.get("unique")
    if not unique:
        return None
    if data_type not in UNIQUE_TYPES:
        raise _bad("INVALID_DATA", f"{path}.unique")
    flag = unique.get("case_sensitive", unique.get("casesensitive"))
    return flag is True or flag == "true"


def _lookup(org: Organisation, given: Json, data_type: str, path: str) -> str | None:
    if data_type != "lookup":
        return None
    target = ((given.get("lookup") or {}).get("module") or {}).get("api_name")
    module = org.schema.find(str(target))
    if module is None:
        raise _bad("INVALID_DATA", f"{path}.lookup.module.api_name")
    return module.module_name


def change_fields(org: Organisation, call: Call) -> Reply:
    """PATCH /settings/fields?module=…: each field named by its id."""
    module = _module_of(org, call)
    given = _items(call, "fields", max_items=MAX_FIELDS_PER_CALL)
    return _changed(org, module, [(each.get("id"), each) for each in given])


def change_field(org: Organisation, call: Call) -> Reply:
    """PATCH /settings/fields/{id}?module=…"""
    given = _items(call, "fields", max_items=1)[0]
    return _changed(org, _module_of(org, call), [(call.the_id, given)])


def _changed(org: Organisation, module: Module, given: list[tuple[Any, Json]]) -> Reply:
    try:
        ids = [
            _change(org, module, field_id, each, f"$.fields[{index}]") for index, (field_id, each) in enumerate(given)
        ]
    except BadItem as bad:
        return Reply(400, {"fields": [bad.error]})
    return Reply(200, {"fields": [success({"id": field_id}, "field updated") for field_id in ids]})


def _change(org: Organisation, module: Module, field_id: Any, given: Json, path: str) -> str:
    spec = next((each for each in module.fields.values() if each.id == field_id), None)
    if spec is None:
        raise _bad("INVALID_DATA", f"{path}.id")
    changes: dict[str, Any] = {}
    if "field_label" in given:
        changes["label"] = _label(given, "field_label", path, limit=50)
    if "unique" in given:
        changes["unique"] = _unique(given, spec.data_type, path)
    if "pick_list_values" in given:
        changes |= _choices(given, spec.data_type, path)
    if "length" in given:
        changes |= _length(given, spec.data_type, path)
    try:
        org.change_field(module, spec.api_name, **changes)
    except ValueError:
        raise _bad("INVALID_DATA", f"{path}.unique", "the field holds duplicate values") from None
    return spec.id
