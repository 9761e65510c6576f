"""Calls side by side, for one batch."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterable

T = TypeVar("T")
U = TypeVar("U")


async def all_of(work: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """Results in order.  The first failure ends the others: no call goes on for a batch that has failed already.

    Returns or raises when all have ended.
    """
    tasks = [asyncio.create_task(each) for each in work]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        if left := [task for task in tasks if not task.done()]:
            for task in left:
                task.cancel()
            await asyncio.wait(left)


async def both(first: Coroutine[Any, Any, T], second: Coroutine[Any, Any, U]) -> tuple[T, U]:
    """Two that differ, as `all_of`."""
    found: list[Any] = await all_of((first, second))
    return found[0], found[1]
