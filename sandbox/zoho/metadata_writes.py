"""Creating modules and fields, and changing fields."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from sandbox.zoho.call import Call, Reply, body_error
from sandbox.zoho.errors import ApiError, missing_param, row_error
from sandbox.zoho.model import Json
from sandbox.zoho.org import Organisation
from sandbox.zoho.records import success
from sandbox.zoho.schema import UNIQUE_TYPES, Field, Module, custom_field, make_field

MAX_FIELDS_PER_CALL = 5
DATA_TYPES = (
    "bigint",
    "boolean",
    "date",
    "datetime",
    "double",
    "email",
    "integer",
    "lookup",
    "phone",
    "picklist",
    "text",
    "textarea",
    "website",
)
TEXTAREA_LENGTHS = {"small": 2_000, "large": 32_000, "rich_text": 50_000}


class BadItem(Exception):
    """One module or field of a request that cannot be made; `error` is its item in the answer."""

    def __init__(self, error: Json) -> None:
        super().__init__(error["code"])
        self.error = error


@dataclass(frozen=True, slots=True)
class Item:
    """An object within a request, and where it stands."""

    members: Json
    path: str

    def bad(self, name: str, code: str = "INVALID_DATA", message: str = "invalid data", **details: Any) -> BadItem:
        """The error about one of its members."""
        where = {"api_name": name, "json_path": f"{self.path}.{name}"}
        return BadItem(row_error(code, message, {**details, **where}))

    def missing(self, name: str) -> BadItem:
        """The error about a member that must be there."""
        return self.bad(name, "MANDATORY_NOT_FOUND", "required field not found")

    def text(self, name: str, *, limit: int, default: str | None = None) -> str:
        """A member that is text; without a default it must be there."""
        value = self.members.get(name) or default
        if value is None:
            raise self.missing(name)
        if not isinstance(value, str):
            raise self.bad(name, expected_data_type="string")
        if len(value) > limit:
            raise self.bad(name, maximum_length=limit)
        return value

    def choice(self, name: str, supported: tuple[str, ...], *, default: str | None = None) -> str:
        """A member that is one of some words."""
        value = self.text(name, limit=100, default=default)
        if value not in supported:
            raise self.bad(name, supported_values=list(supported))
        return value

    def item(self, name: str) -> Item:
        """A member that is an object; an empty one when it is not there."""
        value = self.members.get(name) or {}
        if not isinstance(value, dict):
            raise self.bad(name, expected_data_type="jsonobject")
        return Item(value, f"{self.path}.{name}")

    def items(self, name: str) -> list[Item]:
        """A member that is a list of objects, at least one."""
        value = self.members.get(name)
        if not value:
            raise self.missing(name)
        if not isinstance(value, list) or not all(isinstance(each, dict) for each in value):
            raise self.bad(name, expected_data_type="jsonarray")
        return [Item(each, f"{self.path}.{name}[{index}]") for index, each in enumerate(value)]


def _items(call: Call, key: str, *, max_items: int) -> list[Item]:
    if not isinstance(call.payload, dict):
        raise body_error()
    given = call.payload.get(key)
    details = {"api_name": key, "json_path": f"$.{key}"}
    if not isinstance(given, list) or not given:
        raise ApiError(400, "MANDATORY_NOT_FOUND", "required field not found", details)
    if len(given) > max_items:
        raise ApiError(400, "INVALID_DATA", "invalid data", {**details, "maximum_length": max_items})
    if not all(isinstance(each, dict) for each in given):
        raise ApiError(400, "INVALID_DATA", "invalid data", {**details, "expected_data_type": "jsonobject"})
    return [Item(each, f"$.{key}[{index}]") for index, each in enumerate(given)]


# Modules


def create_module(org: Organisation, call: Call) -> Reply:
    """POST /settings/modules: one custom module."""
    if org.config.edition == "free":
        raise ApiError(400, "FEATURE_NOT_SUPPORTED", "the feature is not supported in this edition")
    given = _items(call, "modules", max_items=1)[0]
    try:
        module = _new_module(org, given)
    except BadItem as bad:
        return Reply(400, {"modules": [bad.error]})
    return Reply(200, {"modules": [success({"id": module.id}, "module created")]})


def _new_module(org: Organisation, given: Item) -> Module:
    singular, plural = given.text("singular_label", limit=25), given.text("plural_label", limit=25)
    api_name = given.text("api_name", limit=50, default=_api_name(plural))
    if org.schema.find(api_name) is not None:
        raise given.bad("api_name", "DUPLICATE_DATA", "duplicate data")
    for profile in given.items("profiles"):
        if profile.text("id", limit=20) not in org.profiles:
            raise profile.bad("id")
    display = given.item("display_field")
    label = display.text("field_label", limit=50)
    data_type = display.choice("data_type", ("text", "autonumber"), default="text")
    number = 1 + sum(module.is_custom for module in org.schema)
    name = make_field("Name", data_type, length=120, mandatory=data_type == "text", label=label)
    module = Module(f"CustomModule{number}", api_name, singular, plural, org.ids.new(), generated_type="custom")
    module.system_duplicate_field = "Name"
    return org.schema.add(module, [name])


def _api_name(label: str) -> str:
    return re.sub(r"\W+", "_", label)


# Fields


def _module_of(org: Organisation, call: Call) -> Module:
    name = call.params.get("module")
    if not name:
        raise missing_param("module")
    module = org.schema.find(name)
    if module is None:
        message = "the module name given seems to be invalid"
        raise ApiError(400, "INVALID_MODULE", message, {"param_name": "module"})
    return module


def create_fields(org: Organisation, call: Call) -> Reply:
    """POST /settings/fields?module=…: up to five custom fields; all of them, or none."""
    module = _module_of(org, call)
    given = _items(call, "fields", max_items=MAX_FIELDS_PER_CALL)
    try:
        new = [_new_field(org, module, each) for each in given]
    except BadItem as bad:
        return Reply(400, {"fields": [bad.error]})
    stored = [org.schema.set_field(module, each) for each in new]
    return Reply(201, {"fields": [success({"id": each.id}, "field created") for each in stored]})


def _new_field(org: Organisation, module: Module, given: Item) -> Field:
    label = given.text("field_label", limit=50)
    data_type = given.choice("data_type", DATA_TYPES)
    api_name = given.text("api_name", limit=50, default=_api_name(label))
    if api_name in module.fields:
        raise given.bad("field_label", "DUPLICATE_DATA", "duplicate data")
    more = {**_length(given, data_type), **_choices(given, data_type), **_target(org, given, data_type)}
    return custom_field(api_name, data_type, label=label, unique=_unique(given, data_type), **more)


def _length(given: Item, data_type: str) -> Json:
    if data_type == "textarea":
        kind = given.item("textarea").choice("type", tuple(TEXTAREA_LENGTHS), default="small")
        return {"textarea": kind, "length": TEXTAREA_LENGTHS[kind]}
    length = given.members.get("length")
    if length is None:
        return {}
    if not isinstance(length, int) or not 1 <= length <= 255:
        raise given.bad("length", maximum_length=255)
    return {"length": length}


def _choices(given: Item, data_type: str) -> Json:
    if data_type != "picklist":
        return {}
    choices = given.items("pick_list_values")
    return {"values": tuple(each.text("actual_value", limit=120, default=_shown(each)) for each in choices)}


def _shown(choice: Item) -> str:
    return choice.text("display_value", limit=120, default=str(choice.members.get("actual_value", "")))


def _target(org: Organisation, given: Item, data_type: str) -> Json:
    if data_type != "lookup":
        return {}
    target = given.item("lookup").item("module")
    module = org.schema.find(target.text("api_name", limit=50))
    if module is None:
        raise target.bad("api_name")
    return {"lookup": module.module_name}


def _unique(given: Item, data_type: str) -> bool | None:
    unique = given.item("unique").members
    if not unique:
        return None
    if data_type not in UNIQUE_TYPES:
        raise given.bad("unique")
    return unique.get("case_sensitive", unique.get("casesensitive")) in (True, "true")


def change_fields(org: Organisation, call: Call) -> Reply:
    """PATCH /settings/fields?module=…: each field named by its id."""
    module = _module_of(org, call)
    given = _items(call, "fields", max_items=MAX_FIELDS_PER_CALL)
    return _changed(org, module, [(each.members.get("id"), each) for each in given])


def change_field(org: Organisation, call: Call) -> Reply:
    """PATCH /settings/fields/{id}?module=…"""
    given = _items(call, "fields", max_items=1)[0]
    return _changed(org, _module_of(org, call), [(call.the_id, given)])


def _changed(org: Organisation, module: Module, given: list[tuple[Any, Item]]) -> Reply:
    try:
        ids = [_change(org, module, field_id, each) for field_id, each in given]
    except BadItem as bad:
        return Reply(400, {"fields": [bad.error]})
    return Reply(200, {"fields": [success({"id": field_id}, "field updated") for field_id in ids]})


def _change(org: Organisation, module: Module, field_id: Any, given: Item) -> str:
    spec = next((each for each in module.fields.values() if each.id == field_id), None)
    if spec is None:
        raise given.bad("id")
    changes: Json = {}
    if "field_label" in given.members:
        changes["label"] = given.text("field_label", limit=50)
    if "unique" in given.members:
        changes["unique"] = _unique(given, spec.data_type)
    if "pick_list_values" in given.members:
        changes |= _choices(given, spec.data_type)
    if "length" in given.members:
        changes |= _length(given, spec.data_type)
    try:
        org.change_field(module, spec.api_name, **changes)
    except ValueError:
        raise given.bad("unique", message="the field holds duplicate values") from None
    return spec.id
