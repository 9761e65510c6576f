"""The engine behind real sockets."""

from __future__ import annotations

import asyncio
import socket
import struct
import time
from types import TracebackType
from typing import Any, Self

from aiohttp import web

from sandbox.zoho.config import SandboxConfig
from sandbox.zoho.control import PREFIX, Control, OffsetClock
from sandbox.zoho.engine import ZohoEngine
from sandbox.zoho.model import DropKind, Json, Request, Response

MAX_REQUEST_BYTES = 64 * 1024 * 1024
RESET_ON_CLOSE = struct.pack("ii", 1, 0)
GONE_POLL_S = 0.05
SHUTDOWN_TIMEOUT_S = 1.0


class SandboxServer:
    """Serves one organisation over HTTP: API, accounts and control API on one port.

    `async with SandboxServer() as server:` gives `url`, `credentials` and the `engine` itself.
    """

    def __init__(
        self, config: SandboxConfig | None = None, *, host: str = "127.0.0.1", port: int = 0, seed: int = 0
    ) -> None:
        self._host = host
        self._port = port
        self.clock = OffsetClock(time.time)
        self.engine = ZohoEngine(config, now=self.clock, seed=seed)
        self._control = Control(self.engine, self.clock)
        self._runner: web.ServerRunner | None = None
        self.url = ""

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        """Listens. OSError when the address is taken."""
        server = web.Server(self._handle, request_factory=_make_request, access_log=None)
        self._runner = web.ServerRunner(server, shutdown_timeout=SHUTDOWN_TIMEOUT_S)
        await self._runner.setup()
        await web.TCPSite(self._runner, self._host, self._port).start()
        port = self._runner.addresses[0][1]
        host = f"[{self._host}]" if ":" in self._host else self._host
        self.url = f"http://{host}:{port}"
        if self.engine.config.api_domain is None:
            self.engine.configure(api_domain=self.url)
        self.url = self.engine.config.api_domain or self.url

    async def stop(self) -> None:
        """Closes every connection."""
        if self._runner is not None:
            await self._runner.cleanup()

    @property
    def credentials(self) -> Json:
        """`url`, `client_id`, `client_secret` and `refresh_token`."""
        return {"url": self.url, **self.engine.credentials}

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        body = await request.read()
        path, _, query = request.raw_path.partition("?")
        if path.startswith(PREFIX):
            status, answer = self._control.handle(request.method, path, query, body)
            return web.Response(status=status, body=answer, content_type="application/json")
        host = (request.host or "").rpartition(":")[0].strip("[]") or request.host
        flight = self.engine.begin(Request(request.method, path, query, request.headers, body, host))
        try:
            if flight.delay_s > 0:
                await asyncio.sleep(flight.delay_s)
        finally:
            response = self.engine.finish(flight)
        if response.drop is None:
            return web.Response(status=response.status, headers=response.headers, body=response.body)
        return await _drop(request, response)


def _make_request(message: Any, payload: Any, protocol: Any, writer: Any, task: asyncio.Task[None]) -> web.BaseRequest:
    loop = asyncio.get_running_loop()
    return web.BaseRequest(message, payload, protocol, writer, task, loop, client_max_size=MAX_REQUEST_BYTES)


async def _drop(request: web.BaseRequest, response: Response) -> web.StreamResponse:
    if response.drop is DropKind.HANG:
        while request.transport is not None and not request.transport.is_closing():  # noqa: ASYNC110 (no event)
            await asyncio.sleep(GONE_POLL_S)
        return web.Response()
    if response.drop is DropKind.CUT:
        return await _cut(request, response)
    _reset(request.transport)
    return web.Response()


def _reset(transport: asyncio.Transport | None) -> None:
    if transport is None:
        return
    sock = transport.get_extra_info("socket")
    if sock is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
    transport.abort()


async def _cut(request: web.BaseRequest, response: Response) -> web.StreamResponse:
    answer = web.StreamResponse(status=response.status, headers=response.headers)
    answer.content_length = response.full_length_bytes
    await answer.prepare(request)
    await answer.write(response.body)
    if request.transport is not None:
        request.transport.close()
    return answer
