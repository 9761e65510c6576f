"""The HTTP port: probes and metrics."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

if TYPE_CHECKING:
    from consumer.app import Service
    from consumer.settings import Settings
    from consumer.telemetry.recorder import Recorder


class HttpServer:
    """One aiohttp server in the service's own loop, so that its probes vouch for that loop."""

    def __init__(self, settings: Settings, recorder: Recorder, service: Service | None) -> None:
        self._settings = settings
        self._recorder = recorder
        self._service = service
        self._runner: web.AppRunner | None = None

    async def start(self) -> str:
        """Listen; returns the base URL."""
        app = web.Application(client_max_size=64 * 1024)
        app.router.add_get("/livez", self._livez)
        app.router.add_get("/readyz", self._readyz)
        app.router.add_get("/metrics", self._metrics)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        site = web.TCPSite(self._runner, self._settings.http_host, self._settings.http_port)
        await site.start()
        host, port = self._runner.addresses[0][:2]
        return f"http://{host}:{port}"

    async def stop(self) -> None:
        """Close the port."""
        if self._runner is not None:
            await self._runner.cleanup()

    async def _livez(self, _request: web.Request) -> web.Response:
        is_live = self._service is None or self._service.health().is_live
        return web.json_response({"live": is_live}, status=200 if is_live else 503)

    async def _readyz(self, _request: web.Request) -> web.Response:
        if self._service is None:
            checks = [{"name": "enabled", "ok": True, "reason": "ZOHO_CRM_ENABLED is false: idle on purpose"}]
            return web.json_response({"ready": True, "state": "disabled", "checks": checks})
        health = self._service.health()
        checks = [{"name": check.name, "ok": check.is_ok, "reason": check.reason} for check in health.checks]
        body = {"ready": health.is_ready, "state": health.state, "sentence": health.sentence, "checks": checks}
        return web.json_response(body, status=200 if health.is_ready else 503)

    async def _metrics(self, _request: web.Request) -> web.Response:
        if self._service is not None:
            self._service.refresh_gauges()
        body = generate_latest(self._recorder.metrics.registry)
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE_LATEST})
