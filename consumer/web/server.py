"""The HTTP port: probes, metrics, links, console."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from aiohttp import web

from consumer.web.access import Access
from consumer.web.assets import Assets
from consumer.web.console import Console
from consumer.web.desk import LinkDesk
from consumer.web.links import LinkRoutes
from consumer.web.pages import Pages
from consumer.web.replays import Replays
from consumer.web.shield import add_headers, plain_errors
from consumer.web.silence import SilenceGuard

if TYPE_CHECKING:
    from collections.abc import Callable

    from aiohttp.typedefs import Handler

    from consumer.web.view import ServiceView

_METRICS_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
_LARGEST_BODY_BYTES: Final = 64 * 1024
_FIRST_REQUEST_TIMEOUT_S: Final = 15.0
_SHUTDOWN_TIMEOUT_S: Final = 3.0


@dataclass(frozen=True, slots=True)
class WebConfig:
    """What the port needs to know; secrets are asked for at each use, since their files may change."""

    host: str
    port: int
    api_token: Callable[[], str | None]
    link_key: Callable[[], str | None]
    wall_clock: Callable[[], float]
    panel_origins: tuple[str, ...] = ()
    first_request_timeout_s: float = _FIRST_REQUEST_TIMEOUT_S
    form_timeout_s: float = 10.0
    live_tick_s: float = 2.0


class HttpServer:
    """One aiohttp server in the service's own loop, so that its probes vouch for that loop."""

    def __init__(self, view: ServiceView, config: WebConfig) -> None:
        self._view = view
        self._config = config
        access = Access(api_token=config.api_token, link_key=config.link_key, wall_clock=config.wall_clock)
        self._pages = Pages(access)
        self._desk = LinkDesk(view)
        self._replays = Replays(view)
        self._assets = Assets(config.panel_origins)
        self._links = LinkRoutes(view, self._desk, access, self._pages)
        self._console = Console(
            view,
            access,
            self._pages,
            self._replays,
            live_tick_s=config.live_tick_s,
            form_timeout_s=config.form_timeout_s,
        )
        self._silence = SilenceGuard(timeout_s=config.first_request_timeout_s)
        self._runner: web.AppRunner | None = None
        self._server: asyncio.Server | None = None

    def _app(self) -> web.Application:
        app = web.Application(
            client_max_size=_LARGEST_BODY_BYTES,
            middlewares=[self._silence.middleware(), plain_errors(self._pages), self._shared],
        )
        app.on_response_prepare.append(add_headers)
        app.router.add_get("/livez", self._livez)
        app.router.add_get("/readyz", self._readyz)
        app.router.add_get("/metrics", self._metrics)
        app.router.add_get("/open-in-zoho", self._links.open)
        app.router.add_get("/api/v1/dialog-link", self._links.api)
        app.router.add_get("/static/{name}", self._assets.get)
        app.router.add_routes(self._console.routes())
        return app

    @web.middleware
    async def _shared(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Answers of the API may be read by the admin panel's pages."""
        response = await handler(request)
        if request.path.startswith("/api/"):
            response.headers.update(self._assets.cors(request))
            response.headers["Cross-Origin-Resource-Policy"] = "cross-origin"
        return response

    async def start(self) -> str:
        """Listen; returns the base URL."""
        self._runner = web.AppRunner(self._app(), access_log=None, shutdown_timeout=_SHUTDOWN_TIMEOUT_S)
        await self._runner.setup()
        make_protocol = self._silence.watched(self._runner)
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(make_protocol, self._config.host, self._config.port)
        host, port = self._server.sockets[0].getsockname()[:2]
        return f"http://{host}:{port}"

    async def stop(self) -> None:
        """Close the port."""
        self._console.close()
        await self._replays.close()
        await self._desk.close()
        if self._server is not None:
            self._server.close()
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
