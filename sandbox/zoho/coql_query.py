"""Answers a COQL query from the store: candidates by index where the conditions allow it, then every condition."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any

from sandbox.zoho.call import Call, Reply, body_error
from sandbox.zoho.coql import Condition, Expression, Pair, Query, conditions, invalid_query, parse
from sandbox.zoho.errors import ApiError
from sandbox.zoho.model import Json
from sandbox.zoho.oauth import require_module_scope
from sandbox.zoho.org import Organisation
from sandbox.zoho.rendering import raw_value, show_value
from sandbox.zoho.schema import NUMBER_TYPES, TEXT_TYPES, Field, Module
from sandbox.zoho.store import Row, RowIndex
from sandbox.zoho.times import parse_time

Test = Callable[[Row], bool]
ORDERED_OPERATORS = frozenset({">", ">=", "<", "<=", "between"})


def query_credits(_org: Organisation, call: Call) -> int:
    """By the query's LIMIT; 1 for what is no query."""
    query = _parsed(call)
    return query.credits if isinstance(query, Query) else 1


def coql(org: Organisation, call: Call) -> Reply:
    """POST /coql"""
    query = _parsed(call)
    if isinstance(query, ApiError):
        raise query
    module = _queried_module(org, query.module)
    require_module_scope(org, call, module, "READ")
    call.module = module
    _check_columns(org, module, query)
    rows = _ordered(module, query, _matching(org, module, query))
    page = rows[query.offset : query.offset + query.limit]
    if not page:
        return Reply(204)
    columns = [each for each in query.columns if each != "id"]
    data = [_shown(org, module, row, columns) for row in page]
    return Reply(
        200,
        {"data": data, "info": {"count": len(page), "more_records": len(rows) > query.offset + len(page)}},
    )


def _parsed(call: Call) -> Query | ApiError:
    if "query" not in call.memo:
        call.memo["query"] = _parse(call)
    parsed: Query | ApiError = call.memo["query"]
    return parsed


def _parse(call: Call) -> Query | ApiError:
    if not isinstance(call.payload, dict):
        return body_error()
    text = call.payload.get("select_query")
    if text is None:
        details = {"api_name": "select_query", "json_path": "$.select_query"}
        return ApiError(400, "MANDATORY_NOT_FOUND", "required field not found", details)
    if not isinstance(text, str):
        details = {"expected_data_type": "string", "api_name": "select_query", "json_path": "$.select_query"}
        return ApiError(400, "INVALID_DATA", "invalid data", details)
    call.entry.detail = text
    try:
        return parse(text)
    except ApiError as error:
        return error


def _queried_module(org: Organisation, name: str) -> Module:
    module = org.schema.find(name)
    if module is None or not module.api_supported:
        raise ApiError(400, "INVALID_MODULE", "module name given seems to be invalid", {"module": name})
    if module.module_name == "Notes" and not org.config.coql_notes:
        raise invalid_query(module=name, reason="module not supported")
    return module


# Columns


def _column(org: Organisation, module: Module, name: str, clause: str) -> Field | None:
    """The field behind `Field`, `Lookup.id` or `Lookup.Field`; None for an id."""
    if name == "id":
        return None
    head, _, tail = name.partition(".")
    spec = module.fields.get(head)
    if spec is not None and not tail:
        return spec
    target = _target(org, spec)
    if target is None or (tail != "id" and tail not in target.fields):
        raise invalid_query("column given seems to be invalid", column_name=name, clause=clause)
    return None if tail == "id" else target.fields[tail]


def _target(org: Organisation, spec: Field | None) -> Module | None:
    if spec is None or spec.data_type != "lookup":
        return None
    return org.schema.get(spec.lookup)


def _check_columns(org: Organisation, module: Module, query: Query) -> None:
    for name in query.columns:
        _column(org, module, name, "select")
    for name, _ in query.order_by:
        _check_no_textarea(_column(org, module, name, "order by"), name, "order by")
    for each in conditions(query.where):
        spec = _column(org, module, each.column, "where")
        _check_no_textarea(spec, each.column, "where")
        _check_operator(spec, each)


def _check_no_textarea(spec: Field | None, name: str, clause: str) -> None:
    if spec is not None and spec.data_type == "textarea":
        raise invalid_query("data type not supported", column_name=name, data_type="textarea", clause=clause)


def _check_operator(spec: Field | None, condition: Condition) -> None:
    is_text = spec is not None and spec.data_type in TEXT_TYPES
    if condition.operator in ("like", "not like") and not is_text:
        raise invalid_query(column_name=condition.column, operator=condition.operator, clause="where")
    if condition.operator in ORDERED_OPERATORS and is_text:
        raise invalid_query(column_name=condition.column, operator=condition.operator, clause="where")


def _value(org: Organisation, module: Module, row: Row, name: str) -> Any:
    head, _, tail = name.partition(".")
    value = raw_value(module, row, head)
    if not tail or tail == "id" or value is None:
        return value
    target = _target(org, module.fields[head])
    other = org.table(target).get(value) if target else None
    return raw_value(target, other, tail) if target and other else None


def _shown(org: Organisation, module: Module, row: Row, columns: list[str]) -> Json:
    shown: Json = {}
    for name in columns:
        plain = "." not in name
        shown[name] = show_value(org, module, row, name, is_query=True) if plain else _value(org, module, row, name)
    return {**shown, "id": row.id}


# Conditions


def _matching(org: Organisation, module: Module, query: Query) -> list[Row]:
    index = _index(org, module)
    candidates = _candidates(org, module, index, query.where)
    test = _test(org, module, query.where)
    rows = index.rows.values() if candidates is None else candidates.values()
    keep_converted = org.config.coql_finds_converted
    return [row for row in rows if (keep_converted or not row.is_converted) and test(row)]


def _index(org: Organisation, module: Module) -> RowIndex:
    table = org.table(module)
    if org.config.coql_lag_s == (0.0, 0.0):
        return table.current
    return table.coql_view.at(org.clock())


def _candidates(org: Organisation, module: Module, index: RowIndex, node: Expression) -> dict[str, Row] | None:
    """Rows that may match, by index; None when only a full scan can tell."""
    if isinstance(node, Condition):
        return _by_index(org, module, index, node)
    left = _candidates(org, module, index, node.left)
    if node.word == "and" and left is not None:
        return left
    right = _candidates(org, module, index, node.right)
    if node.word == "and" or left is None or right is None:
        return right if node.word == "and" else None
    return left | right


def _by_index(org: Organisation, module: Module, index: RowIndex, node: Condition) -> dict[str, Row] | None:
    name = node.column.removesuffix(".id")
    is_stored = name == "id" or (name in module.fields and name not in ("Full_Name", "Converted__s"))
    if node.operator not in ("=", "in") or "." in name or not is_stored or name in _ROW_COLUMNS:
        return None
    spec = _column(org, module, node.column, "where")
    values = (_typed(org, spec, node, value) for value in node.values)
    return {row.id: row for value in values for row in index.find(name, value)}


_ROW_COLUMNS = frozenset({"Owner", "Created_By", "Modified_By", "Created_Time", "Modified_Time"})


def _test(org: Organisation, module: Module, node: Expression) -> Test:
    if isinstance(node, Pair):
        left, right = _test(org, module, node.left), _test(org, module, node.right)
        if node.word == "and":
            return lambda row: left(row) and right(row)
        return lambda row: left(row) or right(row)
    return _condition_test(org, module, node)


def _condition_test(org: Organisation, module: Module, node: Condition) -> Test:
    spec = _column(org, module, node.column, "where")
    operator = node.operator
    if operator == "is null":
        return lambda row: _value(org, module, row, node.column) is None
    if operator == "is not null":
        return lambda row: _value(org, module, row, node.column) is not None
    values = [_typed(org, spec, node, value) for value in node.values]
    compare = _comparison(operator, values)

    def test(row: Row) -> bool:
        stored = _value(org, module, row, node.column)
        return stored is not None and compare(stored)

    return test


def _comparison(operator: str, values: list[Any]) -> Callable[[Any], bool]:
    first, allowed = values[0], set(values)
    comparisons: dict[str, Callable[[Any], bool]] = {
        "=": lambda stored: stored == first,
        "!=": lambda stored: stored != first,
        "in": lambda stored: stored in allowed,
        "not in": lambda stored: stored not in allowed,
        ">": lambda stored: stored > first,
        ">=": lambda stored: stored >= first,
        "<": lambda stored: stored < first,
        "<=": lambda stored: stored <= first,
        "between": lambda stored: first <= stored <= values[-1],
        "like": lambda stored: _like(first).fullmatch(stored) is not None,
        "not like": lambda stored: _like(first).fullmatch(stored) is None,
    }
    return comparisons[operator]


def _like(pattern: str) -> re.Pattern[str]:
    return re.compile(".*".join(re.escape(part) for part in pattern.split("%")), re.IGNORECASE | re.DOTALL)


def _typed(org: Organisation, spec: Field | None, node: Condition, value: Any) -> Any:
    """A literal as the store holds values of this column.

    Raises:
        ApiError: the literal is of another type than the column.
    """
    data_type = spec.data_type if spec else "id"
    if data_type in ("id", "lookup", "ownerlookup"):
        typed: Any = str(value) if str(value).isdigit() else None
    elif data_type == "datetime":
        typed = parse_time(value, naive_offset_min=org.config.utc_offset_min) if isinstance(value, str) else None
    elif data_type == "boolean":
        typed = value if isinstance(value, bool) else None
    elif data_type in NUMBER_TYPES:
        typed = value if isinstance(value, int | float) and not isinstance(value, bool) else None
    else:
        typed = value if isinstance(value, str) else None
    if typed is None:
        message = "value given seems to be invalid for the column"
        raise invalid_query(message, column_name=node.column, expected_data_type=data_type, clause="where")
    return typed


# Order


def _ordered(module: Module, query: Query, rows: Iterable[Row]) -> list[Row]:
    ordered = sorted(rows, key=lambda row: row.id)
    for name, is_descending in reversed(query.order_by):
        ordered.sort(key=lambda row: _sort_key(raw_value(module, row, name)), reverse=is_descending)
    return ordered


def _sort_key(value: Any) -> tuple[bool, Any]:
    return (value is not None, value if value is not None else 0)
