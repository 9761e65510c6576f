"""The static files: few, small, read once.  A name is looked up, never joined to a path."""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Final

from aiohttp import web

if TYPE_CHECKING:
    from collections.abc import Collection

ELEMENT: Final = "open-in-zoho.js"
_TYPES: Final = {
    ELEMENT: "text/javascript; charset=utf-8",
    "console.js": "text/javascript; charset=utf-8",
    "console.css": "text/css; charset=utf-8",
    "icon.svg": "image/svg+xml",
}
_HERE: Final = Path(__file__).parent / "static"


@cache
def content_of(name: str) -> bytes:
    """The bytes of a static file of ours."""
    return (_HERE / name).read_bytes()


def integrity_of(name: str) -> str:
    """The value of `integrity=` (SRI) for a static file."""
    digest = hashlib.sha384(content_of(name)).digest()
    return f"sha384-{base64.b64encode(digest).decode()}"


class Assets:
    """Serves the files; other origins may read the element only, and only those that are named."""

    def __init__(self, panel_origins: Collection[str]) -> None:
        self._panel_origins = frozenset(panel_origins)

    async def get(self, request: web.Request) -> web.Response:
        """One file by its name."""
        name = request.match_info["name"]
        if name not in _TYPES:
            raise web.HTTPNotFound
        tag = f'"{integrity_of(name)}"'
        headers = {"ETag": tag, "Cache-Control": "public, max-age=300", "Content-Type": _TYPES[name]}
        if name == ELEMENT:
            headers |= {"Cross-Origin-Resource-Policy": "cross-origin", **self.cors(request)}
        if tag in request.headers.get("If-None-Match", ""):
            return web.Response(status=304, headers=headers)
        return web.Response(body=content_of(name), headers=headers)

    def cors(self, request: web.Request) -> dict[str, str]:
        """Headers that let an admin panel's page read an answer.  Never with credentials."""
        origin = request.headers.get("Origin", "")
        allowed = {"Access-Control-Allow-Origin": origin} if origin in self._panel_origins else {}
        return {"Vary": "Origin"} | allowed
