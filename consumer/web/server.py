"""The HTTP port: probes and metrics."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiohttp import web

if TYPE_CHECKING:
    from consumer.web.view import ServiceView

_METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class HttpServer:
    """One aiohttp server in the service's own loop, so that its probes vouch for that loop."""

    def __init__(self, view: ServiceView, *, host: str, port: int) -> None:
        self._view = view
        self._host = host
        self._port = port
        self._runner: web.AppRunner | None = None

    async def start(self) -> str:
        """Listen; returns the base URL."""
        app = web.Application(client_max_size=64 * 1024)
        app.router.add_get("/livez", self._livez)
        app.router.add_get("/readyz", self._readyz)
        app.router.add_get("/metrics", self._metrics)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        await web.TCPSite(self._runner, self._host, self._port).start()
        host, port = self._runner.addresses[0][:2]
        return f"http://{host}:{port}"

    async def stop(self) -> None:
        """Close the port."""
        if self._runner is not None:
            await self._runner.cleanup()

    async def _livez(self, _request: web.Request) -> web.Response:
        is_live = self._view.is_live()
        return web.json_response({"live": is_live}, status=200 if is_live else 503)

    async def _readyz(self, _request: web.Request) -> web.Response:
        is_ready, body = self._view.readiness()
        return web.json_response(body, status=200 if is_ready else 503)

    async def _metrics(self, _request: web.Request) -> web.Response:
        return web.Response(body=self._view.metrics_text(), headers={"Content-Type": _METRICS_TYPE})
