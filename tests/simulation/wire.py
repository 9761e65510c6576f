"""The way to the Zoho sandbox without sockets, and who had asked for each call.

A request travels, takes effect, and its answer travels back, whatever has become of the caller meanwhile.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from consumer.core.errors import TransientError
from consumer.zoho.api import API_VERSION, Call, Reply
from consumer.zoho.http import _late_s, read_reply
from sandbox.zoho import DropKind, Request, Response, ZohoEngine

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from random import Random

    from tests.virtual_time import Life, MortalLoop


@dataclass(slots=True)
class Fate:
    """What one call to the engine looked like to its caller."""

    life: Life
    sent_at: float
    answered_at: float | None = None
    """None: the caller died, gave up, or got no readable answer."""
    given_up_at: float = float("inf")
    """When the caller knew that it would get no answer."""

    def left_at(self) -> float:
        """From when on nobody waited for the answer."""
        return min(self.given_up_at, self.life.ended_at)


@dataclass(slots=True)
class Wire:
    """All calls of all processes."""

    loop: MortalLoop
    engine: ZohoEngine
    rng: Random
    fates: dict[int, Fate] = field(default_factory=dict)
    refused: list[Fate] = field(default_factory=list)
    """Calls that did not get through."""
    is_cut: bool = False
    """Nobody reaches Zoho."""

    async def exchange(self, request: Request, fate: Fate) -> Response:
        """Raises ConnectionRefusedError when the way is cut."""
        if self.is_cut:
            self.refused.append(fate)
            await asyncio.sleep(0.05)
            raise ConnectionRefusedError
        response: Response = await asyncio.shield(self.loop.spawn(self._carry(request, fate), None))
        return response

    async def _carry(self, request: Request, fate: Fate) -> Response:
        await asyncio.sleep(self.rng.random() * 0.1)
        flight = self.engine.begin(request)
        self.fates[flight.call.number] = fate
        await asyncio.sleep(flight.delay_s)
        response = self.engine.finish(flight)
        await asyncio.sleep(self.rng.random() * 0.1)
        return response


class WireSend:
    """The innermost `Send`, with the same meaning of broken connections as `HttpSend`."""

    def __init__(self, wire: Wire, life: Life, *, timeout_s: float, on_credits: Callable[[int], None]) -> None:
        self._wire = wire
        self._life = life
        self._timeout_s = timeout_s
        self._on_credits = on_credits

    async def __call__(self, call: Call) -> Reply:
        request = Request.build(
            call.method, f"/crm/{API_VERSION}{call.path}", token=call.token, params=dict(call.params), json=call.body
        )
        fate = Fate(self._life, self._wire.loop.time())
        try:
            reply = read_reply(call, *await self._answer(request, fate, is_write=call.is_write))
            fate.answered_at = self._wire.loop.time()
            return reply
        finally:
            if fate.answered_at is None:
                fate.given_up_at = self._wire.loop.time()

    async def _answer(self, request: Request, fate: Fate, *, is_write: bool) -> tuple[int, Mapping[str, str], bytes]:
        try:
            async with asyncio.timeout(self._timeout_s):
                response = await self._wire.exchange(request, fate)
                if response.drop is DropKind.HANG:
                    await asyncio.Event().wait()
        except ConnectionRefusedError:
            raise TransientError("CONNECT_FAILED") from None
        except TimeoutError:
            raise TransientError("TIMEOUT", wrote_maybe=is_write, late_s=_late_s(fate.sent_at)) from None
        if response.drop is not None:
            late_s = _late_s(fate.sent_at)
            raise TransientError("CONNECTION_LOST", wrote_maybe=is_write, late_s=late_s)
        if left := response.headers.get("X-API-CREDITS-REMAINING"):
            self._on_credits(int(left))
        return response.status, response.headers, response.body


class WireTokens:
    """The token endpoint."""

    def __init__(self, wire: Wire, life: Life) -> None:
        self._wire = wire
        self._life = life

    async def __call__(self, form: dict[str, str]) -> tuple[int, object]:
        request = Request.build("POST", "/oauth/v2/token", form=form)
        fate = Fate(self._life, self._wire.loop.time())
        try:
            response = await self._wire.exchange(request, fate)
            fate.answered_at = self._wire.loop.time()
            if response.drop is not None:
                raise TransientError("TOKEN_NO_ANSWER")
            return response.status, response.json()
        except (ConnectionRefusedError, ValueError):
            raise TransientError("TOKEN_NO_ANSWER") from None
        finally:
            if fate.answered_at is None:
                fate.given_up_at = self._wire.loop.time()
