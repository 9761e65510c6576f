"""A write that Zoho refuses as a whole is split until the bad record stands alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from consumer.core.errors import RefusedError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

T = TypeVar("T")
R = TypeVar("R")
_ENOUGH = 2
"""Records that are refused one after the other with a code in no table, and none taken: then it is not the records."""


async def in_parts(
    items: Sequence[T],
    write: Callable[[Sequence[T]], Awaitable[list[R]]],
    *,
    alone: Callable[[T, RefusedError], R],
    hold: Callable[[RefusedError], R],
) -> list[R]:
    """One result for each item, in order.

    `write` raises RefusedError for a call that was refused; `alone` judges the record that was its only one; `hold` is
    the result of all when the refusal has nothing to do with records.
    """
    results: list[R] = []
    parts: list[Sequence[T]] = [items]
    strangers = 0
    was_taken = False
    while parts:
        part = parts.pop()
        try:
            results += await write(part)
            was_taken = True
        except RefusedError as error:
            if len(part) > 1:
                middle = len(part) // 2
                parts += [part[middle:], part[:middle]]
                continue
            results.append(alone(part[0], error))
            strangers += error.is_unknown
            if strangers >= _ENOUGH and not was_taken:
                return [hold(error)] * len(items)
    return results
