"""The engine without sockets, for callers on an event loop; with a virtual clock it takes no time."""

from __future__ import annotations

import asyncio

from sandbox.zoho.engine import InFlight, ZohoEngine
from sandbox.zoho.model import DropKind, Request, Response


class Wire:
    """Sends requests to an engine as over a network: with its latency, and with its broken connections.

    A caller that is cancelled, by a timeout say, leaves its call behind: it runs to its end on the other side.
    """

    def __init__(self, engine: ZohoEngine) -> None:
        self.engine = engine
        self._calls: set[asyncio.Task[Response]] = set()

    async def send(self, request: Request) -> Response:
        """One exchange.

        Raises:
            ConnectionResetError: the connection broke.
            asyncio.IncompleteReadError: it broke in the middle of the body; `partial` is what came.
        """
        task = asyncio.create_task(self._finish(self.engine.begin(request)))
        self._calls.add(task)
        task.add_done_callback(self._calls.discard)
        response = await asyncio.shield(task)
        match response.drop:
            case DropKind.HANG:
                await asyncio.Event().wait()
            case DropKind.RESET:
                raise ConnectionResetError("connection reset by peer")
            case DropKind.CUT:
                raise asyncio.IncompleteReadError(response.body, response.full_length_bytes)
        return response

    async def drain(self) -> None:
        """Waits for the calls that nobody waits for any more."""
        while self._calls:
            await asyncio.wait(set(self._calls))

    async def _finish(self, flight: InFlight) -> Response:
        try:
            await asyncio.sleep(flight.delay_s)
        finally:
            response = self.engine.finish(flight)
        return response
