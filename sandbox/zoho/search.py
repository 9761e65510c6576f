"""The search call. It sees records through an index that lags, and it matches loosely."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any

from sandbox.zoho.call import Call, Reply
from sandbox.zoho.criteria import Criterion, Node, leaves, parse_criteria, query_error
from sandbox.zoho.errors import ApiError
from sandbox.zoho.org import Organisation
from sandbox.zoho.records import PAGE_ROWS, is_wanted, wanted_fields
from sandbox.zoho.rendering import raw_value, show_row, show_whole
from sandbox.zoho.schema import NUMBER_TYPES, TEXT_TYPES, Module
from sandbox.zoho.store import TAIL_DIGITS, Row, RowIndex, digits_of
from sandbox.zoho.times import parse_time

PHONE_PARAM = re.compile(r"[+]?[0-9\s\-().]+", re.ASCII)
Test = Callable[[Row], bool]

SELECTORS = ("criteria", "email", "phone", "word")
MAX_FOUND = 2_000
# Zoho's search takes these, and blanks, for one another.
_LOOK_ALIKES = str.maketrans(dict.fromkeys("{}[]^:-/!?*_@", " "))


def search(org: Organisation, call: Call) -> Reply:
    """GET /{module}/search, by criteria, email, phone or word, in this precedence."""
    per_page = call.int_param("per_page", PAGE_ROWS, high=PAGE_ROWS)
    start = (call.int_param("page", 1) - 1) * per_page
    if start + per_page > MAX_FOUND:
        message = "maximum response iteration limit reached"
        raise ApiError(400, "LIMIT_REACHED", message, {"limit": str(MAX_FOUND)})
    converted = call.params.get("converted", "false")
    if converted not in ("true", "false", "both"):
        raise query_error("value", "converted", converted)
    rows = [row for row in _found(org, call) if is_wanted(row, converted)]
    page = rows[start : start + per_page]
    if not page:
        return Reply(204)
    info = {
        "per_page": per_page,
        "count": len(page),
        "page": start // per_page + 1,
        "more_records": len(rows) > start + per_page,
    }
    return Reply(200, {"data": _shown(org, call, page), "info": info})


def _shown(org: Organisation, call: Call, rows: list[Row]) -> list[Any]:
    module = call.the_module
    if "fields" not in call.params:
        return [show_whole(org, module, row) for row in rows]
    fields = wanted_fields(call)
    return [show_row(org, module, row, fields) for row in rows]


def _found(org: Organisation, call: Call) -> list[Row]:
    module = call.the_module
    index = org.table(module).search_view.at(org.clock())
    selector = next((name for name in SELECTORS if call.params.get(name)), None)
    if selector is None:
        message = "One of the expected parameter is missing"
        raise ApiError(400, "EXPECTED_PARAM_MISSING", message, {"param_names": list(SELECTORS)})
    value = call.params[selector]
    call.entry.detail = f"{selector}={value}"
    match selector:
        case "criteria":
            return _by_criteria(org, module, index, value)
        case "email":
            return _by_email(module, index, value)
        case "phone":
            return _by_phone(org, module, index, value)
        case _:
            return _by_word(module, index, value)


def _by_phone(org: Organisation, module: Module, index: RowIndex, text: str) -> list[Row]:
    names = tuple(each.api_name for each in module.of_type("phone"))
    if not names:
        raise ApiError(400, "FIELD_TYPE_UNAVAILABLE", "the field type is not available in the module", {})
    if text != text.strip() or not 3 <= len(text) <= 50 or not PHONE_PARAM.fullmatch(text):
        raise query_error("pattern does not match", "phone", text)
    wanted = digits_of(text)
    candidates = index.with_tail(wanted, names) if len(wanted) >= TAIL_DIGITS else index.rows.values()
    is_match = _either_suffix if org.config.phone_search == "either_suffix" else str.endswith
    return [row for row in candidates if any(is_match(digits, wanted) for digits in _phone_digits(row, names))]


def _either_suffix(stored: str, wanted: str) -> bool:
    return stored.endswith(wanted) or (len(stored) >= TAIL_DIGITS and wanted.endswith(stored))


def _phone_digits(row: Row, names: Iterable[str]) -> Iterable[str]:
    return (digits_of(row.values[name]) for name in names if row.values.get(name))


def _by_email(module: Module, index: RowIndex, text: str) -> list[Row]:
    if len(text) > 255:
        raise query_error("value", "email", text)
    found = {row.id: row for each in module.of_type("email") for row in index.find(each.api_name, text)}
    return list(found.values())


def _by_word(module: Module, index: RowIndex, text: str) -> list[Row]:
    if not 2 <= len(text) <= 100:
        raise ApiError(400, "INVALID_DATA", "provide atleast 2 letters for search", {"api_name": "word"})
    names = [each.api_name for each in module.fields.values() if each.data_type in TEXT_TYPES]
    words = _plain(text).split()
    return [row for row in index.rows.values() if _has_words(module, row, names, words)]


def _has_words(module: Module, row: Row, names: list[str], words: list[str]) -> bool:
    text = " ".join(_plain(str(raw_value(module, row, name) or "")) for name in names)
    return all(word in text for word in words)


def _by_criteria(org: Organisation, module: Module, index: RowIndex, text: str) -> list[Row]:
    node = parse_criteria(text, max_criteria=org.config.search_criteria_limit)
    for leaf in leaves(node):
        if leaf.api_name not in module.fields and leaf.api_name != "id":
            raise query_error("field not available", leaf.api_name)
    test = _test(org, module, node)
    return [row for row in index.rows.values() if test(row)]


def _test(org: Organisation, module: Module, node: Node) -> Test:
    if isinstance(node, Criterion):
        return _criterion_test(org, module, node)
    tests = [_test(org, module, item) for item in node.items]
    judge = all if node.word == "and" else any
    return lambda row: judge(test(row) for test in tests)


def _criterion_test(org: Organisation, module: Module, leaf: Criterion) -> Test:
    data_type = "id" if leaf.api_name == "id" else module.fields[leaf.api_name].data_type
    values = [_typed(org, leaf, data_type, value) for value in leaf.values]
    is_loose = data_type in TEXT_TYPES - {"picklist"}
    compare = _LOOSELY.get(leaf.operator) if is_loose else None
    holds = compare or _STRICTLY[leaf.operator]

    def test(row: Row) -> bool:
        stored = raw_value(module, row, leaf.api_name)
        if stored is None:
            return leaf.operator == "not_equal"
        return bool(holds(_plain(stored) if is_loose else stored, values))

    return test


def _typed(org: Organisation, leaf: Criterion, data_type: str, value: str) -> Any:
    if data_type in TEXT_TYPES - {"picklist"}:
        return _plain(value)
    if data_type == "datetime":
        moment = parse_time(value, naive_offset_min=org.config.utc_offset_min)
        if moment is None:
            raise query_error("value", leaf.api_name, value)
        return moment
    if data_type == "boolean":
        return value == "true"
    if data_type in NUMBER_TYPES:
        return _number(leaf, value)
    return value


def _number(leaf: Criterion, value: str) -> float:
    try:
        return float(value)
    except ValueError:
        raise query_error("value", leaf.api_name, value) from None


_LOOSELY: dict[str, Callable[[Any, list[Any]], Any]] = {
    "equals": lambda stored, values: values[0] in stored,
    "not_equal": lambda stored, values: values[0] not in stored,
    "in": lambda stored, values: any(value in stored for value in values),
}
_STRICTLY: dict[str, Callable[[Any, list[Any]], Any]] = {
    "equals": lambda stored, values: stored == values[0],
    "not_equal": lambda stored, values: stored != values[0],
    "in": lambda stored, values: stored in values,
    "starts_with": lambda stored, values: str(stored).startswith(str(values[0])),
    "between": lambda stored, values: values[0] <= stored <= values[1],
    "greater_than": lambda stored, values: stored > values[0],
    "greater_equal": lambda stored, values: stored >= values[0],
    "less_than": lambda stored, values: stored < values[0],
    "less_equal": lambda stored, values: stored <= values[0],
}


def _plain(text: str) -> str:
    """Text as the index keeps it: without case, and with look-alike characters as blanks."""
    return text.lower().translate(_LOOK_ALIKES)
