"""Checks one row of a write against its module's fields, and turns it into what the store holds."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from sandbox.zoho.errors import field_details, invalid_data, row_error
from sandbox.zoho.model import Json
from sandbox.zoho.org import Organisation
from sandbox.zoho.schema import Field, Module
from sandbox.zoho.store import Values
from sandbox.zoho.times import is_date, parse_time

# Zoho's own pattern for phone fields, as its field errors quote it.
PHONE = re.compile(
    r"([+]?)(?![.-])(?>(?>[.-]?[ ]?[\da-zA-Z]+)+|([ ]?\((?![.-])(?>[ .-]?[\da-zA-Z]+)+\)(?![.])([ -]?[\da-zA-Z]+)?)+)+"
    r"(?>(?>([,]+)?[;]?[.-]?[ ]?[\da-zA-Z]+)+)?[#;]?",
    re.ASCII,
)
EMAIL = re.compile(r"[\w.!#$%&'*+/=?^`{|}~-]+@[\w-]+(\.[\w-]+)+", re.ASCII)
RECORD_ID = re.compile(r"\d{1,19}", re.ASCII)
_INT_LIMITS = {"integer": 10**9, "bigint": 10**18}

Check = Callable[[Any], Any]


class Refused(Exception):
    """A value that its field does not take."""

    def __init__(self, details: Json, message: str = "invalid data", path: str = "") -> None:
        super().__init__(message)
        self.details = details
        self.message = message
        self.path = path


class RowReader:
    """The checks of one module, made once per version of the schema."""

    def __init__(self, org: Organisation, module: Module) -> None:
        self._org = org
        self._reads = {each.api_name: make_check(org, each) for each in module.fields.values() if not each.read_only}
        self._known = {*module.fields, "id"}
        self.mandatory = [each.api_name for each in module.fields.values() if each.mandatory and not each.read_only]

    def read(self, row: Any, index: int) -> tuple[Values, Json | None, list[str]]:
        """The values to store, the first error if there is one, and keys that name no field."""
        if not isinstance(row, dict):
            return {}, invalid_data({"expected_data_type": "jsonobject", "json_path": f"$.data[{index}]"}), []
        values: Values = {}
        unknown: list[str] = []
        check_of = self._reads.get
        for key, value in row.items():
            check = check_of(key)
            if check is None:
                self._note_unknown(key, unknown)
                continue
            try:
                values[key] = None if value is None or value == "" else check(value)
            except Refused as refused:
                return values, _refusal(key, index, refused), unknown
        return values, self._unknown_error(unknown, index), unknown

    def missing(self, values: Values, index: int, *, is_update: bool) -> Json | None:
        """The error for the first mandatory field that is not there, or is being emptied."""
        for name in self.mandatory:
            if values.get(name) is None and (name in values or not is_update):
                return row_error("MANDATORY_NOT_FOUND", "required field not found", field_details(name, index))
        return None

    def _note_unknown(self, key: str, unknown: list[str]) -> None:
        if key not in self._known and not key.startswith("$"):
            unknown.append(key)

    def _unknown_error(self, unknown: list[str], index: int) -> Json | None:
        if not unknown or self._org.config.unknown_keys == "ignore":
            return None
        return invalid_data(field_details(unknown[0], index), "the field is not available")


def _refusal(key: str, index: int, refused: Refused) -> Json:
    details = {**refused.details, "api_name": refused.details.get("api_name", key)}
    details["json_path"] = f"$.data[{index}].{key}{refused.path}"
    return invalid_data(details, refused.message)


def make_check(org: Organisation, spec: Field) -> Check:
    """The function that takes a JSON value of this field to what is stored, or raises Refused."""
    match spec.data_type:
        case "text" | "textarea" | "autonumber":
            return _text_check(spec, "string")
        case "phone" | "email" | "website":
            return _pattern_check(spec)
        case "picklist":
            return _choice_check(spec)
        case "datetime":
            return lambda value: _moment(value, org)
        case "lookup":
            return lambda value: _lookup(value, spec, org)
        case "ownerlookup":
            return lambda value: _owner(value, org)
        case other:
            return lambda value: _plain(value, other)


def _text_check(spec: Field, data_type: str) -> Check:
    length = spec.length

    def check(value: Any) -> str:
        if not isinstance(value, str):
            raise Refused({"expected_data_type": data_type})
        if len(value) > length:
            raise Refused({"maximum_length": length})
        return value

    return check


_PATTERNS = {"phone": PHONE, "email": EMAIL, "website": re.compile(r"\S+")}


def _pattern_check(spec: Field) -> Check:
    is_match = _PATTERNS[spec.data_type].fullmatch
    as_text = _text_check(spec, spec.data_type)

    def check(value: Any) -> Any:
        if not is_match(as_text(value)):
            raise Refused({"expected_data_type": spec.data_type})
        return value

    return check


def _choice_check(spec: Field) -> Check:
    as_text = _text_check(spec, "string")
    if not spec.restricted:
        return as_text
    allowed = frozenset(spec.values)

    def check(value: Any) -> Any:
        if as_text(value) not in allowed:
            raise Refused({"supported_values": list(spec.values)})
        return value

    return check


def _moment(value: Any, org: Organisation) -> int:
    naive_min = org.config.utc_offset_min if org.config.naive_datetimes else None
    epoch_s = parse_time(value, naive_offset_min=naive_min) if isinstance(value, str) else None
    if epoch_s is None:
        raise Refused({"expected_data_type": "datetime"})
    return epoch_s


def _lookup(value: Any, spec: Field, org: Organisation) -> str:
    if not isinstance(value, dict) or not isinstance(value.get("id"), str):
        raise Refused({"expected_data_type": "jsonobject"})
    row_id: str = value["id"]
    target = org.schema.get(spec.lookup)
    if target is None or not org.is_usable(target, row_id):
        details, path = ({"api_name": "id"}, ".id") if org.config.lookup_fault_form == "id" else ({}, "")
        raise Refused(details, "the related id given seems to be invalid", path)
    return row_id


def _owner(value: Any, org: Organisation) -> str:
    row_id = value.get("id") if isinstance(value, dict) else None
    if not isinstance(row_id, str) or row_id not in org.users:
        raise Refused({}, "the id given seems to be invalid")
    return row_id


def _plain(value: Any, data_type: str) -> Any:
    if not _is_plain(value, data_type):
        raise Refused({"expected_data_type": data_type})
    return value


def _is_plain(value: Any, data_type: str) -> bool:
    if data_type == "boolean":
        return isinstance(value, bool)
    if data_type in _INT_LIMITS:
        return isinstance(value, int) and not isinstance(value, bool) and abs(value) < _INT_LIMITS[data_type]
    if data_type in ("double", "currency"):
        return isinstance(value, int | float) and not isinstance(value, bool)
    if data_type == "date":
        return isinstance(value, str) and is_date(value)
    return True
