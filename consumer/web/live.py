"""Server-sent events: the parts of a page, sent again whenever they look different."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from aiohttp import web

if TYPE_CHECKING:
    from collections.abc import Callable

_HEARTBEAT_TICKS: Final = 8
_MAX_STREAMS: Final = 40
_HEADERS: Final = {"Content-Type": "text/event-stream; charset=utf-8", "X-Accel-Buffering": "no"}

Parts = dict[str, str]
"""Element id → its HTML."""


class LiveStreams:
    """Open streams, a bounded number of them."""

    def __init__(self, *, tick_s: float) -> None:
        self._tick_s = tick_s
        self._closing = asyncio.Event()
        self._open = 0

    async def stream(self, request: web.Request, parts: Callable[[], Parts | None]) -> web.StreamResponse:
        """Send `parts` at every tick, as far as they changed, until the reader leaves or `parts` gives None."""
        if self._open >= _MAX_STREAMS:
            raise web.HTTPServiceUnavailable(headers={"Retry-After": "30"})
        response = web.StreamResponse(headers=_HEADERS)
        await response.prepare(request)
        self._open += 1
        try:
            with suppress(ConnectionResetError):
                await self._send_changes(response, parts)
        finally:
            self._open -= 1
        return response

    async def _send_changes(self, response: web.StreamResponse, parts: Callable[[], Parts | None]) -> None:
        sent: Parts = {}
        ticks = 0
        while not self._closing.is_set() and (now := parts()) is not None:
            changed = {name: html for name, html in now.items() if sent.get(name) != html}
            for name, html in changed.items():
                await response.write(f"event: part\ndata: {json.dumps({'id': name, 'html': html})}\n\n".encode())
            if ticks % _HEARTBEAT_TICKS == 0:
                await response.write(b": still here\n\n")
            sent, ticks = now, ticks + 1
            with suppress(TimeoutError):
                async with asyncio.timeout(self._tick_s):
                    await self._closing.wait()

    def close(self) -> None:
        """End all streams."""
        self._closing.set()
