"""Queries: the read without index delay (Zoho's search page points to it), many values for one credit.

Rules (v8 COQL pages): WHERE is required; at most 100 values in a list and 25 criteria; more than two criteria are
nested in pairs; strings in single quotes.  A LIMIT up to 200 costs one credit, up to 1000 two, up to 2000 three.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, TypeVar

from consumer.core.limits import Cost
from consumer.zoho.api import MAX_RECORDS, Call, Operation, Send

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

T = TypeVar("T")

MAX_CRITERIA = 24
"""An even number below Zoho's 25, since phones are asked for in two fields at once."""
_PLAIN = re.compile(r"[^'\\\x00-\x1f]{1,255}")
_MAX_PAGES = 50


def is_plain(value: str) -> bool:
    """Can the value stand in a query?  Quotes and backslashes are not sent: sources disagree on their escape."""
    return _PLAIN.fullmatch(value) is not None


def is_in(field: str, values: Sequence[str]) -> str:
    """`field in ('a','b')`; the values must be plain, and at most 100."""
    _check_plain(values)
    quoted = ",".join(f"'{value}'" for value in values)
    return f"{field} in ({quoted})"


def _check_plain(values: Iterable[str]) -> None:
    if not all(map(is_plain, values)):
        raise ValueError("a value that cannot stand in a query")


def any_of(criteria: Sequence[str]) -> str:
    """Criteria joined by `or`, nested in pairs."""
    if len(criteria) == 1:
        return criteria[0]
    middle = (len(criteria) + 1) // 2
    return f"({any_of(criteria[:middle])} or {any_of(criteria[middle:])})"


def chunks(values: Sequence[T], size: int = MAX_RECORDS) -> list[Sequence[T]]:
    """Runs of at most `size` values."""
    return [values[start : start + size] for start in range(0, len(values), size)]


async def select(
    send: Send, operation: Operation, *, fields: str, module: str, where: str, limit: int = 200
) -> list[dict[str, Any]]:
    """All rows that match, page by page."""
    rows: list[dict[str, Any]] = []
    for page in range(_MAX_PAGES):
        call = page_call(operation, fields=fields, module=module, where=where, limit=limit, offset=page * limit)
        reply = await send(call)
        rows += reply.rows()
        if not reply.has_more():
            break
    return rows


def page_call(
    operation: Operation, *, fields: str, module: str, where: str, order_by: str = "id", limit: int, offset: int = 0
) -> Call:
    """One page of rows; by id unless told otherwise, as Zoho does by itself (v8 COQL overview)."""
    order = "" if order_by == "id" else f" order by {order_by}"
    text = f"select {fields} from {module} where {where}{order} limit {offset}, {limit}"  # noqa: S608 - plain values
    return query_call(operation, text, limit=limit)


def credits_of(limit: int) -> int:
    """What a query costs, by its LIMIT."""
    return 1 if limit <= 200 else 2 if limit <= 1000 else 3


def query_call(operation: Operation, text: str, *, limit: int) -> Call:
    """One query."""
    credits = credits_of(limit)
    return Call(operation, "POST", "/coql", body={"select_query": text}, cost=Cost(credits=credits, is_heavy=True))
