"""The service, which kills itself at a named point, `CRASH_AT=after:messages.upsert:2` say.

A point is `before`, `during` or `after`, what is done (a kind of call to Zoho, `dead_letter` or `commit`), and how
often it was done.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Awaitable
from typing import Any, NoReturn, TypeVar

from consumer import app
from consumer.__main__ import main
from consumer.kafka.dead_letters import KafkaDeadLetters
from consumer.kafka.source import KafkaSource
from consumer.zoho.api import Call, Reply
from consumer.zoho.http import HttpSend

_T = TypeVar("_T")
_IN_FLIGHT_S = 0.01


class _Point:
    def __init__(self, text: str) -> None:
        self._when, self._what, times = text.split(":")
        self._left = int(times)

    async def pass_through(self, what: str, work: Awaitable[_T]) -> _T:
        if what != self._what:
            return await work
        self._left -= 1
        if self._left:
            return await work
        if self._when == "before":
            _die()
        if self._when == "during":
            asyncio.get_running_loop().call_later(_IN_FLIGHT_S, _die)
        result = await work
        if self._when == "after":
            _die()
        await asyncio.Event().wait()
        return result


def _die() -> NoReturn:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


def _arm(point: _Point) -> None:
    class Send(HttpSend):
        async def __call__(self, call: Call) -> Reply:
            return await point.pass_through(call.operation.value, super().__call__(call))

    class Source(KafkaSource):
        async def commit(self, offsets: Any, *, is_clean: bool) -> None:
            await point.pass_through("commit", super().commit(offsets, is_clean=is_clean))

    class DeadLetters(KafkaDeadLetters):
        async def write(self, record: Any, rejected: Any, *, attempts: int) -> None:
            await point.pass_through("dead_letter", super().write(record, rejected, attempts=attempts))

    replacements = {"HttpSend": Send, "KafkaSource": Source, "KafkaDeadLetters": DeadLetters}
    for name, replacement in replacements.items():
        setattr(app, name, replacement)


if __name__ == "__main__":
    _arm(_Point(os.environ["CRASH_AT"]))
    main()
