"""Closes connections that never ask: aiohttp waits for ever for the headers of a connection's first request."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from aiohttp import web

if TYPE_CHECKING:
    from collections.abc import Callable

    from aiohttp.typedefs import Handler, Middleware


class SilenceGuard:
    """Gives each new connection so many seconds for its first whole request; later ones have aiohttp's keep-alive."""

    def __init__(self, *, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._silent: dict[asyncio.BaseProtocol, asyncio.TimerHandle] = {}

    def watched(self, runner: web.AppRunner) -> Callable[[], asyncio.BaseProtocol]:
        """The runner's protocols, each under watch from the start."""
        make_protocol = runner.server
        if make_protocol is None:
            raise RuntimeError("the runner is not set up")

        def make() -> asyncio.BaseProtocol:
            protocol = make_protocol()
            loop = asyncio.get_running_loop()
            self._silent[protocol] = loop.call_later(self._timeout_s, self._drop, protocol)
            return protocol

        return make

    def middleware(self) -> Middleware:
        """Notes who has spoken."""

        @web.middleware
        async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
            timer = self._silent.pop(request.protocol, None)
            if timer is not None:
                timer.cancel()
            return await handler(request)

        return middleware

    def _drop(self, protocol: web.RequestHandler) -> None:
        del self._silent[protocol]
        protocol.force_close()
