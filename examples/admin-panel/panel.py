"""An admin panel in one file: a list of chats, each with its "Open in Zoho".

    LINK_SIGNING_KEY=… ZOHO_SYNC_URL=http://127.0.0.1:8080 python examples/admin-panel/panel.py

The service it links to needs the same LINK_SIGNING_KEY, and ADMIN_PANEL_ORIGINS=http://127.0.0.1:8090.
"""

from __future__ import annotations

import hmac
import html
import os
import time
from pathlib import Path
from urllib.parse import urlencode

from aiohttp import web

HERE = Path(__file__).parent
CHATS = (
    ("Anna Schmidt", "dialog-1001", "Is the blue one still available?"),
    ("Иван Петров", "dialog-1002", "Спасибо, получил!"),
    ("João Silva", "dialog-1003", "Pode ser amanhã?"),
)


def link(service: str, key: str, dialog_id: str, *, life_s: int = 24 * 3600) -> str:
    """The signed address behind the button: made on the server, for the key must never reach a page."""
    exp = int(time.time()) + life_s
    text = f"open-in-zoho.v1\ndialog\n{dialog_id}\n{exp}"
    sig = hmac.digest(key.encode(), text.encode(), "sha256").hex()
    return f"{service}/open-in-zoho?" + urlencode({"dialog": dialog_id, "exp": exp, "sig": sig})


def page(service: str, key: str, chats: tuple[tuple[str, str, str], ...] = CHATS) -> str:
    """The page with all chats."""
    row, frame = ((HERE / name).read_text("utf-8") for name in ("chat.html", "index.html"))
    rows = [
        row.format(name=html.escape(name), text=html.escape(text), link=html.escape(link(service, key, dialog_id)))
        for name, dialog_id, text in chats
    ]
    return frame.format(service=html.escape(service), chats="\n".join(rows))


def policy(service: str) -> str:
    """What a strict host page must allow for the element: its script and its question, nothing inline."""
    return f"default-src 'none'; script-src {service}; connect-src {service}; style-src 'self'; base-uri 'none'"


def make_app(service: str, key: str) -> web.Application:
    """The panel as an aiohttp application."""

    async def index(_request: web.Request) -> web.Response:
        headers = {"Content-Security-Policy": policy(service)}
        return web.Response(text=page(service, key), content_type="text/html", headers=headers)

    async def style(_request: web.Request) -> web.Response:
        return web.Response(text=(HERE / "panel.css").read_text("utf-8"), content_type="text/css")

    app = web.Application()
    app.router.add_get("/", index)
    app.router.add_get("/panel.css", style)
    return app


if __name__ == "__main__":
    web.run_app(make_app(os.environ["ZOHO_SYNC_URL"], os.environ["LINK_SIGNING_KEY"]), host="127.0.0.1", port=8090)
