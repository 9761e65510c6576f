"""The console as people meet it: with eyes, fingers and keys."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from consumer.web.view import Explanation, FailureRow, HaltRow, PartitionRow, Place
from tests.browser.conftest import log_in
from tests.web.fakes import busy_status, letter
from tests.web.site import TOKEN

if TYPE_CHECKING:
    from playwright.async_api import Page

    from tests.browser.conftest import NewPage
    from tests.web.fakes import FakeView
    from tests.web.site import Site

pytestmark = [pytest.mark.xdist_group("browser"), pytest.mark.asyncio(loop_scope="module")]

PHONE_SCREEN = {"width": 360, "height": 740}
FULL = {
    "state": "halted",
    "halts": (HaltRow("OAUTH_SCOPE_MISMATCH", "Run `zoho-sync auth` again: a scope is missing.", 60.0),),
    "skipped": (("no_phone", 60), ("before_since", 5)),
    "dead_letters": (("schema_violation", 7), ("zoho.INVALID_DATA", 2)),
    "lag": 2500,
    "oldest_s": 300.0,
    "behind_s": 7300.0,
    "partitions": tuple(PartitionRow(number, 2500, 100, 300.0) for number in range(3)),
    "failures": (
        FailureRow("rejected", "zoho.INVALID_DATA", "message: Body text", 7, 65.0, "3/17"),
        FailureRow("deferred", "HTTP_503", "", 3, 5.0, "1/170000001"),
    ),
}
PAGES = ("/", "/dead-letters", "/messages")


async def test_login_and_sign_out(site: Site, new_page: NewPage) -> None:
    """A wrong token is told so; the right one opens the console; signing out closes it."""
    async with new_page() as page:
        await page.goto(f"{site.url}/")
        assert await page.evaluate("document.activeElement.id") == "token"
        await page.fill("#token", "wrong")
        await page.press("#token", "Enter")
        await page.wait_for_selector("[role=alert]")
        await page.fill("#token", TOKEN)
        await page.click("button")
        await page.wait_for_selector("main[data-live]")
        assert await page.evaluate("document.cookie") == ""
        await page.click("text=Sign out")
        await page.wait_for_selector("#token")


async def test_numbers_are_live(site: Site, view: FakeView, new_page: NewPage) -> None:
    """Counts and state change under the reader's eyes, without a reload."""
    view.shown = busy_status(received=10)
    async with new_page() as page:
        await log_in(page, site)
        await page.evaluate("window.isSamePage = true")
        view.shown = busy_status(received=4711, state="throttled", waiting_for="throttled")
        await page.wait_for_selector("[data-number=received]:text-is('4\u202f711')")
        await page.wait_for_selector(".banner.wait:has-text('429')")
        assert await page.evaluate("window.isSamePage")
        assert await page.inner_text("#live") == "Live"


async def test_console_is_readable_without_scripts(site: Site, view: FakeView, new_page: NewPage) -> None:
    """Everything is in the page itself, and forms work."""
    view.shown = busy_status(**FULL)
    view.letters.append(letter(1))
    async with new_page(java_script_enabled=False) as page:
        await log_in(page, site)
        assert "OAUTH_SCOPE_MISMATCH" in await page.inner_text("#status")
        await page.goto(f"{site.url}/dead-letters")
        await page.click("#replay-all")
        await page.click("#confirm")
        await page.wait_for_selector("text=1 of 1 replayed")
    assert view.replayed == [Place(0, 1)]


async def test_replay_by_keyboard(site: Site, view: FakeView, new_page: NewPage) -> None:
    """From the list to the confirmation to the progress, and a cancel, with the keyboard alone."""
    view.letters += [letter(number) for number in range(5)]
    view.may_replay = asyncio.Semaphore(2)
    async with new_page() as page:
        await log_in(page, site)
        await _activate(page, "Dead letters")
        await page.wait_for_selector("#replay-all")
        await _activate(page, "Replay these 5…")
        await page.wait_for_selector("#confirm")
        assert view.replayed == []
        await _activate(page, "Replay 5 now")
        await page.wait_for_selector("text=2 of 5 replayed")
        async with page.expect_response("**/cancel"):
            await _activate(page, "Cancel")
        view.may_replay.release()
        await page.wait_for_selector("text=Cancelled.")
    assert view.replayed == [Place(0, 0), Place(0, 1)]


async def _activate(page: Page, label: str) -> None:
    """Walk with Tab to what is called so, and press Enter; the focus must show."""
    for _ in range(60):
        await page.keyboard.press("Tab")
        found = await page.evaluate(
            "() => { const e = document.activeElement;"
            " return [e.textContent.trim(), getComputedStyle(e).outlineStyle] }"
        )
        if found[0] == label:
            assert found[1] != "none"
            await page.keyboard.press("Enter")
            return
    pytest.fail(f"no way to {label!r} with Tab")


async def test_progress_is_live(site: Site, view: FakeView, new_page: NewPage) -> None:
    """The page of a replay follows it to its end."""
    view.letters += [letter(number) for number in range(3)]
    view.may_replay = asyncio.Semaphore(0)
    async with new_page() as page:
        await log_in(page, site)
        await page.goto(f"{site.url}/dead-letters")
        await page.click("text=Replay… >> nth=0")
        await page.click("#confirm")
        await page.wait_for_selector("text=0 of 1 replayed")
        view.may_replay.release()
        await page.wait_for_selector("text=Done.")
        assert await page.evaluate("document.querySelector('progress').position") == 1
        assert await page.locator("text=Cancel").count() == 0


async def test_message_look_up(site: Site, view: FakeView, new_page: NewPage) -> None:
    """An id goes in, a plain answer comes out, and the id is not in the address."""
    view.explanations["wamid.X"] = Explanation("dead", "It was refused: zoho.INVALID_DATA.", (("Kafka 0@7", ""),))
    async with new_page() as page:
        await log_in(page, site)
        await page.click("text=Find a message")
        await page.fill("#id", "wamid.X")
        await page.press("#id", "Enter")
        await page.wait_for_selector("#explanation[data-state=dead]")
        assert "zoho.INVALID_DATA" in await page.inner_text("#explanation")
        assert "wamid" not in page.url


async def test_skip_link_comes_first(site: Site, new_page: NewPage) -> None:
    """The first Tab shows a way past the navigation, and it leads into the content."""
    async with new_page() as page:
        await log_in(page, site)
        await page.keyboard.press("Tab")
        assert await page.evaluate("document.activeElement.className") == "skip"
        assert (await page.locator(".skip").bounding_box() or {"x": -1})["x"] >= 0
        await page.keyboard.press("Enter")
        assert await page.evaluate("document.activeElement.id") == "main"


@pytest.mark.parametrize("language", ["en-GB", "ru-RU"])
async def test_pages_fit_a_phone(site: Site, view: FakeView, new_page: NewPage, language: str) -> None:
    """Nothing sticks out to the right, and what is pressed is big enough for a finger."""
    view.shown = busy_status(**FULL)
    view.letters += [letter(number, detail="Body: longer than the 32000 characters that fit") for number in range(3)]
    async with new_page(viewport=PHONE_SCREEN, locale=language) as page:
        await log_in(page, site)
        for path in PAGES:
            await page.goto(site.url + path)
            assert await page.evaluate("document.documentElement.scrollWidth") <= PHONE_SCREEN["width"], path
            heights = await page.evaluate("[...document.querySelectorAll('button')].map(b => b.offsetHeight)")
            assert all(height >= 40 for height in heights), path


_CONTRASTS = """() => {
  const parse = (text) => { const n = text.match(/[\\d.]+/g).map(Number); return n.length < 4 ? [...n, 1] : n; };
  const light = ([r, g, b]) => [r, g, b].map((v) => v / 255)
    .map((v) => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = (e) => { for (; e; e = e.parentElement) {
    const colour = parse(getComputedStyle(e).backgroundColor); if (colour[3] === 1) return colour; }
    return [255, 255, 255, 1]; };
  return [...document.querySelectorAll("body *")]
    .filter((e) => [...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim()) && e.offsetWidth)
    .map((e) => { const a = light(parse(getComputedStyle(e).color)), b = light(behind(e));
      return [(Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05), e.textContent.trim().slice(0, 40)]; })
    .filter(([ratio]) => ratio < 4.5);
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("state", ["syncing", "throttled", "halted", "disabled"])
async def test_text_stands_out(site: Site, view: FakeView, new_page: NewPage, scheme: str, state: str) -> None:
    """Every text has the contrast that WCAG asks for, 4.5 to 1, by day and by night."""
    view.shown = busy_status(**(FULL | {"state": state}))
    view.letters.append(letter(1))
    async with new_page(color_scheme=scheme) as page:
        await log_in(page, site)
        grounds = set()
        for path in PAGES:
            await page.goto(site.url + path)
            assert await page.evaluate(_CONTRASTS) == [], path
            grounds.add(await page.evaluate("getComputedStyle(document.body).backgroundColor"))
        assert len(grounds) == 1
        assert (grounds == {"rgb(245, 246, 248)"}) == (scheme == "light")


async def test_language_can_be_chosen(site: Site, new_page: NewPage) -> None:
    """A click changes the language, and it stays."""
    async with new_page(locale="en-GB") as page:
        await log_in(page, site)
        await page.click("text=RU")
        await page.wait_for_selector("text=Всё ли в порядке?")
        await page.click("text=Недоставленные >> nth=0")
        assert await page.get_attribute("html", "lang") == "ru"
