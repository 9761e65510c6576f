"""The link and the element, in a browser, in somebody else's page."""

from __future__ import annotations

from contextlib import asynccontextmanager
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from aiohttp import web

from consumer.web.view import DialogLink, LinkReason, LinkState, Place, Subject, SubjectKind
from tests.browser.conftest import log_in
from tests.web.fakes import CRM, FakeView, letter
from tests.web.site import KEY, Site, open_site

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from contextlib import AbstractAsyncContextManager
    from types import ModuleType

    from tests.browser.conftest import NewPage

    Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

pytestmark = [pytest.mark.xdist_group("browser"), pytest.mark.asyncio(loop_scope="module")]

PHONE = "+4915123456789"
PERSON = Subject(SubjectKind.PHONE, PHONE)
LEAD = DialogLink(LinkState.LINKED, LinkReason.FOUND, f"{CRM}/crm/tab/Leads/111/Messages", lead_id="111")
CONTACT = DialogLink(LinkState.LINKED, LinkReason.FOUND, f"{CRM}/crm/tab/Contacts/222/Messages", contact_id="222")
PENDING = DialogLink(LinkState.PENDING, LinkReason.QUEUED)
FAILED = DialogLink(LinkState.FAILED, LinkReason.REJECTED, code="zoho.INVALID_DATA", source=Place(2, 101))
PANEL = Path(__file__).parents[2] / "examples" / "admin-panel" / "panel.py"


def dialog(name: str) -> Subject:
    return Subject(SubjectKind.DIALOG, name)


def _panel() -> ModuleType:
    spec = spec_from_file_location("panel", PANEL)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@asynccontextmanager
async def host_page(make: Callable[[str], AbstractAsyncContextManager[Handler]]) -> AsyncIterator[str]:
    """A server for somebody else's page, made once its own address is known."""
    app = web.Application()
    runner = web.AppRunner(app)
    made: dict[str, Handler] = {}

    async def answer(request: web.Request) -> web.StreamResponse:
        return await made["handler"](request)

    app.router.add_get("/{path:.*}", answer)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        async with make(url) as handler:
            made["handler"] = handler
            yield url
    finally:
        await runner.cleanup()


@asynccontextmanager
async def example_panel(view: FakeView) -> AsyncIterator[str]:
    """The example of the documentation, in front of this service."""
    panel = _panel()

    @asynccontextmanager
    async def make(url: str) -> AsyncIterator[Handler]:
        import time

        async with open_site(view, panel_origins=(url,)) as site:
            site.now[0] = time.time()

            async def handler(request: web.Request) -> web.StreamResponse:
                if request.path == "/panel.css":
                    return web.Response(text=(PANEL.parent / "panel.css").read_text("utf-8"), content_type="text/css")
                headers = {"Content-Security-Policy": panel.policy(site.url)}
                return web.Response(text=panel.page(site.url, KEY), content_type="text/html", headers=headers)

            yield handler

    async with host_page(make) as url:
        yield url


@pytest.mark.parametrize("link", [LEAD, CONTACT])
async def test_link_opens_the_dialog(site: Site, new_page: NewPage, link: DialogLink) -> None:
    """A signed link leads to the lead, or to the contact that it has become."""
    site.view.found[PERSON] = link
    async with new_page() as page:
        await page.goto(f"{site.url}/open-in-zoho?{site.signed(value=PHONE)}")
        assert page.url == link.url
        assert await page.title() == "Zoho"


@pytest.mark.parametrize(
    ("link", "text"),
    [
        (FAILED, "Zoho refused the message"),
        (DialogLink(LinkState.UNKNOWN, LinkReason.NOT_SEEN), "Nobody in Zoho has this number"),
        (DialogLink(LinkState.UNKNOWN, LinkReason.SKIPPED, code="no_phone"), "Skipped"),
        (DialogLink(LinkState.UNKNOWN, LinkReason.UNAVAILABLE), "does not answer"),
    ],
)
async def test_page_says_what_is_missing(site: Site, new_page: NewPage, link: DialogLink, text: str) -> None:
    """Where there is no dialog, a page says why, and shows the number only in part."""
    site.view.found[PERSON] = link
    async with new_page() as page:
        await page.goto(f"{site.url}/open-in-zoho?{site.signed(value=PHONE)}")
        shown = await page.inner_text("main")
        assert text in shown
        assert "+49…89" in shown
        assert await page.locator("main button").count() == 0


async def test_pending_page_opens_the_dialog_by_itself(site: Site, new_page: NewPage) -> None:
    """Whoever clicked too early is taken to the dialog as soon as it is there."""
    site.view.known[PERSON] = PENDING
    async with new_page() as page:
        await page.goto(f"{site.url}/open-in-zoho?{site.signed(value=PHONE)}")
        assert "On its way" in await page.inner_text("main")
        site.view.known[PERSON] = site.view.found[PERSON] = LEAD
        await page.wait_for_url(LEAD.url or "")


async def test_operator_retries_from_the_page(site: Site, new_page: NewPage) -> None:
    """An operator replays the message that failed from the page that says so."""
    site.view.found[PERSON] = FAILED
    site.view.letters += [letter(1), letter(2)]
    async with new_page() as page:
        await log_in(page, site)
        await page.goto(f"{site.url}/open-in-zoho?phone=%2B4915123456789")
        await page.click("text=Try the message again")
        await page.click("#confirm")
        await page.wait_for_selector("text=1 of 1 replayed")
    assert site.view.replayed == [Place(0, 1)]


async def test_element_shows_every_state_under_a_strict_policy(new_page: NewPage) -> None:
    """In the example panel each chat shows its state; the policy of the page is never hurt; the key is nowhere."""
    view = FakeView(known={dialog("dialog-1001"): LEAD, dialog("dialog-1002"): PENDING})
    view.found[dialog("dialog-1003")] = FAILED
    async with example_panel(view) as url, new_page() as page:
        await page.goto(url)
        for number, state in enumerate(("linked", "pending", "failed")):
            await page.wait_for_selector(f"li:nth-child({number + 1}) open-in-zoho[state={state}]")
        shown = await page.evaluate(
            "[...document.querySelectorAll('open-in-zoho')].map(e => e.shadowRoot.querySelector('span').textContent)"
        )
        assert shown == ["in Zoho", "on its way", "not in Zoho: failed"]
        assert KEY not in await page.content()


async def test_element_link_opens_zoho(new_page: NewPage) -> None:
    """The link inside the element opens the dialog in a new tab that knows nothing of the panel."""
    view = FakeView(known={dialog("dialog-1001"): LEAD}, found={dialog("dialog-1001"): LEAD})
    async with example_panel(view) as url, new_page() as page:
        await page.goto(url)
        async with page.expect_popup() as popup:
            await page.click("text=Open in Zoho >> nth=0")
        opened = await popup.value
        await opened.wait_for_url(LEAD.url or "")
        assert await opened.evaluate("[window.opener, document.referrer]") == [None, ""]


async def test_element_follows_the_message(new_page: NewPage) -> None:
    """A pending chat becomes linked under the agent's eyes."""
    view = FakeView(known={dialog("dialog-1001"): PENDING})
    async with example_panel(view) as url, new_page() as page:
        await page.goto(url)
        await page.wait_for_selector("li:first-child open-in-zoho[state=pending]")
        view.known[dialog("dialog-1001")] = LEAD
        await page.wait_for_selector("li:first-child open-in-zoho[state=linked]")


async def test_element_is_a_link_without_scripts(new_page: NewPage) -> None:
    """With scripts off the link is there and works."""
    view = FakeView(found={dialog("dialog-1001"): LEAD})
    async with example_panel(view) as url, new_page(java_script_enabled=False) as page:
        await page.goto(url)
        async with page.expect_popup() as popup:
            await page.click("text=Open in Zoho >> nth=0")
        await (await popup.value).wait_for_url(LEAD.url or "")


async def test_element_works_while_the_service_is_down(new_page: NewPage) -> None:
    """When the service does not answer, there is a link without a state, and no noise."""
    view = FakeView(known={dialog("dialog-1001"): LEAD})
    async with example_panel(view) as url, new_page() as page:
        await page.route("**/api/v1/dialog-link*", lambda route: route.abort())
        await page.goto(url)
        async with page.expect_request_finished(lambda request: "panel.css" in request.url or True):
            await page.reload()
        await page.wait_for_function("document.querySelector('open-in-zoho').shadowRoot !== null")
        assert await page.locator("open-in-zoho[state]").count() == 0
        assert await page.locator("open-in-zoho a").count() == 3


async def test_element_makes_its_own_link(new_page: NewPage) -> None:
    """With a phone attribute and no link inside, the element makes the link, in the page's language."""
    view = FakeView(org_id="org1")

    @asynccontextmanager
    async def make(url: str) -> AsyncIterator[Handler]:
        async with open_site(view, panel_origins=(url,)) as site:
            body = f'<html lang="ru"><script src="{site.url}/static/open-in-zoho.js" defer></script>'
            body += f'<open-in-zoho phone="{PHONE}"></open-in-zoho>'

            async def handler(_request: web.Request) -> web.StreamResponse:
                return web.Response(text=body, content_type="text/html")

            yield handler

    async with host_page(make) as url, new_page() as page:
        await page.goto(url)
        await page.wait_for_selector("open-in-zoho[state=linked]")
        assert await page.inner_text("open-in-zoho a") == "Открыть в Zoho"
        async with page.expect_popup() as popup:
            await page.click("open-in-zoho a")
        await (await popup.value).wait_for_url(f"{CRM}/crm/org1/tab/Messages?phone=%2B4915123456789")
