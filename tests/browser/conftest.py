"""Chromium, headless, a fresh window for each test, in front of the HTTP port.

On a build machine (CI=true) a missing browser is installed from the system's packages; elsewhere the tests are left
out, and the header of the run says so.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import gettempdir
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest
import pytest_asyncio
from aiohttp import web
from playwright.async_api import Browser, Page, async_playwright

from tests.web.fakes import CRM, FakeView
from tests.web.site import TOKEN, Site, open_site

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from contextlib import AbstractAsyncContextManager

    NewPage = Callable[..., AbstractAsyncContextManager[Page]]

_NAMES = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome")
_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-features=HttpsUpgrades,HttpsFirstBalancedModeAutoEnable",
)
_IS_CI = os.environ.get("CI") == "true"


def _installed() -> str | None:
    return next((path for name in _NAMES if (path := shutil.which(name))), None)


collect_ignore_glob = [] if _installed() or _IS_CI else ["test_*.py"]


def pytest_report_header() -> str | None:
    """Say what is left out."""
    return "browser: no Chromium here, tests/browser is left out" if collect_ignore_glob else None


@pytest.fixture(scope="session")
def chromium() -> str:
    """Path of the browser."""
    with (Path(gettempdir()) / "zoho-sync-chromium.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if _installed() is None:
            for command in (["update"], ["install", "--yes", "--no-install-recommends", "chromium"]):
                subprocess.run(["apt-get", "--quiet", *command], check=True, timeout=600)
    path = _installed()
    assert path is not None
    return path


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def zoho_port() -> AsyncIterator[int]:
    """Where links into Zoho end in these tests."""

    async def answer(_request: web.Request) -> web.Response:
        return web.Response(text="<title>Zoho</title><h1>Messages</h1>", content_type="text/html")

    app = web.Application()
    app.router.add_get("/{path:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield runner.addresses[0][1]
    await runner.cleanup()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser(chromium: str, zoho_port: int) -> AsyncIterator[Browser]:
    """A browser with a profile of its own."""
    stand_in = f"--host-resolver-rules=MAP {urlsplit(CRM).hostname} 127.0.0.1:{zoho_port}"
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=chromium, args=[*_FLAGS, stand_in])
        yield browser
        await browser.close()


@pytest.fixture
def view() -> FakeView:
    return FakeView()


@pytest_asyncio.fixture(loop_scope="module")
async def site(view: FakeView) -> AsyncIterator[Site]:
    async with open_site(view) as site:
        yield site


@pytest.fixture
def new_page(browser: Browser) -> NewPage:
    """`async with new_page(…) as page`: a window in which nothing may go wrong in silence."""

    @asynccontextmanager
    async def opened(**options: Any) -> AsyncIterator[Page]:
        context = await browser.new_context(**options)
        complaints: list[str] = []
        context.on("weberror", lambda error: complaints.append(str(error.error)))
        context.on("console", lambda line: complaints.append(line.text) if _is_complaint(line) else None)
        page = await context.new_page()
        page.set_default_timeout(15_000)
        yield page
        await context.close()
        assert complaints == []

    return opened


def _is_complaint(line: Any) -> bool:
    """Refusals of policy and faults of scripts; an answer of 4xx is what some tests ask for."""
    return line.type == "error" and "Failed to load resource" not in line.text


async def log_in(page: Page, site: Site) -> None:
    """As an operator does it."""
    await page.goto(f"{site.url}/")
    await page.fill("#token", TOKEN)
    await page.press("#token", "Enter")
    await page.wait_for_selector("main[data-live]")
