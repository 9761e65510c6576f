"""The HTTP port on a free port, and a client that follows no redirects and keeps no cookies unless told."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import aiohttp

from consumer.web.server import HttpServer, WebConfig
from schemas.links import signed_query

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.web.fakes import FakeView

TOKEN = "a-token-for-tests"
KEY = "a-key-for-tests"
NOW = 1_770_000_000.0
BEARER = {"Authorization": f"Bearer {TOKEN}"}
SAME_ORIGIN = {"Sec-Fetch-Site": "same-origin"}


@dataclass
class Answer:
    """A whole answer."""

    status: int
    headers: Any
    text: str
    cookies: Any

    @property
    def location(self) -> str:
        return str(self.headers.get("Location", ""))


@dataclass
class Site:
    """A running port."""

    url: str
    view: FakeView
    session: aiohttp.ClientSession
    now: list[float] = field(default_factory=lambda: [NOW])

    async def get(self, path: str, **options: Any) -> Answer:
        return await self.request("GET", path, **options)

    async def post(self, path: str, **options: Any) -> Answer:
        return await self.request("POST", path, **options)

    async def request(self, method: str, path: str, **options: Any) -> Answer:
        # yarl would repair what an attacker sends as it is
        from yarl import URL

        async with self.session.request(
            method, URL(f"{self.url}{path}", encoded=True), allow_redirects=False, **options
        ) as reply:
            return Answer(reply.status, reply.headers, await reply.text(errors="replace"), reply.cookies)

    def signed(self, *, kind: str = "phone", value: str, life_s: int = 3600, key: str = KEY) -> str:
        return signed_query(key, kind=kind, value=value, exp=int(self.now[0]) + life_s)


@asynccontextmanager
async def open_site(
    view: FakeView, *, token: str | None = TOKEN, key: str | None = KEY, **options: Any
) -> AsyncIterator[Site]:
    """Start, and stop in the end."""
    now = [NOW]
    config = WebConfig("127.0.0.1", 0, lambda: token, lambda: key, lambda: now[0], live_tick_s=0.05, **options)
    server = HttpServer(view, config)
    url = await server.start()
    try:
        async with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as session:
            yield Site(url, view, session, now)
    finally:
        await server.stop()
