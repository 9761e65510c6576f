"""The operator's pages and probes, without a browser."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from consumer.web import texts
from consumer.web.assets import integrity_of
from consumer.web.pages import mask_phone, number, span
from consumer.web.view import Explanation, FailureRow, HaltRow, PartitionRow, Place, UnavailableError
from schemas.links import signature
from tests.web.fakes import FakeView, busy_status, letter
from tests.web.site import BEARER, open_site

if TYPE_CHECKING:
    from tests.web.site import Answer, Site

ROOT = Path(__file__).parents[2]


async def test_liveness_is_about_the_process_only(site: Site) -> None:
    """A service that cannot work now is alive; one whose loops stand still is not."""
    site.view.is_ready = False
    assert ((await site.get("/livez")).status, (await site.get("/readyz")).status) == (200, 503)
    site.view.is_ready, site.view.live = True, False
    assert ((await site.get("/livez")).status, (await site.get("/readyz")).status) == (503, 200)


async def test_readiness_lists_every_check(site: Site) -> None:
    """The body names each check and its reason, in both cases."""
    for is_ready in (True, False):
        site.view.is_ready = is_ready
        body = json.loads((await site.get("/readyz")).text)
        assert body["ready"] is is_ready
        assert body["checks"] == [{"name": "token", "ok": is_ready, "reason": "?"}]


async def test_metrics_have_their_type(site: Site) -> None:
    """Prometheus gets its text format."""
    answer = await site.get("/metrics")
    assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    assert "zoho_sync_build_info" in answer.text


@pytest.mark.parametrize(
    "state",
    ["disabled", "starting", "idle", "syncing", "standby", "rebalancing", "throttled", "halted", "stuck", "draining"],
)
@pytest.mark.parametrize("language", ["en", "ru"])
async def test_every_state_has_a_sentence_and_a_colour(site: Site, state: str, language: str) -> None:
    """Whatever the state, the page says it in words, in both languages."""
    site.view.shown = busy_status(state=state)
    text = (await site.get("/", headers=BEARER | {"Accept-Language": language})).text
    sentence = texts.teller(language)(f"sentence.{state}")
    assert f'<html lang="{language}">' in text
    assert sentence in text
    tone = {"idle": "good", "syncing": "good", "standby": "good", "halted": "bad", "stuck": "bad", "disabled": "off"}
    assert f'class="banner {tone.get(state, "wait")}"' in text


@pytest.mark.parametrize("name", ["brokers", "answers", "group", "token"])
@pytest.mark.parametrize("language", ["en", "ru"])
async def test_page_says_what_it_waits_for(site: Site, name: str, language: str) -> None:
    """While it cannot work yet, the page names what is missing, in both languages."""
    site.view.shown = busy_status(state="starting", not_yet=(name,))
    text = (await site.get("/", headers=BEARER | {"Accept-Language": language})).text
    assert texts.teller(language)(f"not_yet.{name}") in text


async def test_page_shows_what_an_operator_looks_for(site: Site) -> None:
    """Counts with reasons, lag as a number and as time, partitions, credits, failures with advice."""
    site.view.shown = busy_status(
        state="halted",
        halts=(HaltRow("OAUTH_SCOPE_MISMATCH", "Run auth again.", 60.0),),
        delivered=1400,
        skipped=(("no_phone", 60), ("before_since", 5)),
        dead_letters=(("schema_violation", 7),),
        lag=2500,
        oldest_s=300.0,
        behind_s=7300.0,
        partitions=(PartitionRow(3, 2500, 100, 300.0),),
        failures=(FailureRow("rejected", "zoho.INVALID_DATA", "Body", 7, 65.0, "3/17"),),
    )
    text = re.sub(r"[ \n]+", " ", (await site.get("/", headers=BEARER)).text)
    for shown in (
        "OAUTH_SCOPE_MISMATCH",
        "Run auth again.",
        "1\u202f400",
        "no phone number",
        ">65<",
        "schema_violation",
        "2\u202f500",
        "2 h",
        "5 min",
        "120 of 4\u202f000",
        "in 2 h",
        "median 0.2 s",
        "zoho.INVALID_DATA",
        "3/17",
        "compare the field",
    ):
        assert shown in text, shown


async def test_empty_page_says_that_this_is_normal(site: Site) -> None:
    """Nothing yet is not a mystery."""
    text = (await site.get("/", headers=BEARER)).text
    tell = texts.teller("en")
    for key in ("numbers.dead_letters_none", "numbers.skipped_none", "partitions.none", "zoho.none", "failures.none"):
        assert tell(key) in text
    assert tell("dead_letters.none") in (await site.get("/dead-letters", headers=BEARER)).text


async def test_live_stream_sends_what_changed(site: Site) -> None:
    """First every part, then only those that look different."""
    site.view.shown = busy_status(state="idle")
    seen: list[str] = []
    async with site.session.get(f"{site.url}/live", headers=BEARER) as reply:
        assert reply.headers["Content-Type"].startswith("text/event-stream")
        async for line in reply.content:
            if line.startswith(b"data:"):
                part = json.loads(line[5:])
                seen.append(part["id"])
                if len(seen) == 5:
                    site.view.shown = busy_status(state="idle", received=1501)
                if len(seen) == 6:
                    break
    assert seen == ["status", "numbers", "partitions", "zoho", "failures", "numbers"]
    assert "1\u202f501" in part["html"]


async def test_stream_ends_with_the_login(site: Site) -> None:
    """A page left open does not outlive its session."""
    login = await site.post(
        "/login", data={"token": BEARER["Authorization"][7:]}, headers={"Sec-Fetch-Site": "same-origin"}
    )
    cookie = {"Cookie": f"zoho_sync_session={login.cookies['zoho_sync_session'].value}"}
    async with site.session.get(f"{site.url}/live", headers=cookie) as reply:
        await reply.content.readline()
        site.now[0] += 13 * 3600
        await reply.content.read()


async def test_message_is_found_by_its_id(site: Site) -> None:
    """What became of it, in the reader's language, with its traces; the id does not come back."""
    rows = (("Kafka 0@7", "not settled"),)
    site.view.explanations["wamid.1"] = Explanation("waiting", "It waits.", rows, (("attempts", "3"),))
    answer = await site.post("/messages", data={"id": " wamid.1 "}, headers=BEARER)
    assert all(text in answer.text for text in ("It waits.", "Attempts", "Kafka 0@7", "not settled"))
    assert "wamid.1" not in answer.text
    unknown = await site.post("/messages", data={"id": "other"}, headers=BEARER | {"Accept-Language": "ru"})
    assert "Unknown (ru)." in unknown.text
    site.view.explanations["late"] = Explanation("unavailable")
    late = await site.post("/messages", data={"id": "late"}, headers=BEARER)
    assert "could not be asked in time" in late.text
    assert (await site.post("/messages", data={"id": ""}, headers=BEARER)).status == 400


async def test_dead_letters_are_filtered(site: Site) -> None:
    """By reason and by stage."""
    site.view.letters += [letter(1), letter(2, reason="schema_violation", stage="parse")]
    everything = (await site.get("/dead-letters", headers=BEARER)).text
    some = (await site.get("/dead-letters?reason=schema_violation", headers=BEARER)).text
    none = (await site.get("/dead-letters?reason=other", headers=BEARER)).text
    assert ("offset 101" in everything, "offset 102" in everything) == (True, True)
    assert ("offset 101" in some, "offset 102" in some) == (False, True)
    assert texts.teller("en")("dead_letters.none_selected") in none


async def test_plan_changes_nothing(site: Site) -> None:
    """The dry run counts by reason and replays nothing."""
    site.view.letters += [letter(1), letter(2), letter(3, reason="schema_violation")]
    answer = await site.post("/dead-letters/plan", data={}, headers=BEARER)
    assert "Replay 3 now" in answer.text
    assert site.view.replayed == []
    assert len(site.view.letters) == 3


@pytest.mark.parametrize("is_forgetful", [True, False])
async def test_plan_warns_of_a_broker_that_forgets(site: Site, is_forgetful: bool) -> None:
    """Before records are sent that may have been sent before, the page says so."""
    site.view.letters.append(letter(1))
    site.view.is_forgetful = is_forgetful
    answer = await site.post("/dead-letters/plan", data={}, headers=BEARER)
    assert (texts.teller("en")("plan.may_repeat") in answer.text) is is_forgetful


async def test_replay_of_a_group(site: Site) -> None:
    """Only the selected ones are replayed, and the page of the job says how far it is."""
    site.view.letters += [letter(1), letter(2, reason="schema_violation"), letter(3)]
    started = await site.post("/dead-letters/replay", data={"reason": "zoho.INVALID_DATA"}, headers=BEARER)
    assert started.status == 303
    page = await _when_over(site, started.location)
    assert "Done." in page.text
    assert "2 of 2 replayed" in page.text
    assert site.view.replayed == [Place(0, 1), Place(0, 3)]


async def test_replay_of_one_letter_by_its_origin(site: Site) -> None:
    """The page of a failed link names a message by where it stood; just that one is replayed."""
    site.view.letters += [letter(1), letter(2)]
    data = {"source_partition": "2", "source_offset": "102"}
    plan = await site.post("/dead-letters/plan", data=data, headers=BEARER)
    fields = dict(re.findall(r'name="(\w+)" value="(\w+)"', plan.text))
    assert fields == data
    started = await site.post("/dead-letters/replay", data=fields, headers=BEARER)
    await _when_over(site, started.location)
    assert site.view.replayed == [Place(0, 2)]


async def test_second_click_joins_the_first(site: Site) -> None:
    """Two clicks are one replay."""
    site.view.letters += [letter(1), letter(2)]
    site.view.may_replay = asyncio.Semaphore(0)
    first = await site.post("/dead-letters/replay", data={}, headers=BEARER)
    second = await site.post("/dead-letters/replay", data={}, headers=BEARER)
    assert first.location == second.location
    site.view.may_replay.release()
    site.view.may_replay.release()
    await _when_over(site, first.location)
    assert site.view.replayed == [Place(0, 1), Place(0, 2)]


async def test_replay_is_cancelled(site: Site) -> None:
    """Cancel ends it after the letter at hand; the rest stays where it is."""
    site.view.letters += [letter(1), letter(2), letter(3)]
    site.view.may_replay = asyncio.Semaphore(1)
    started = await site.post("/dead-letters/replay", data={}, headers=BEARER)
    while not site.view.replayed:
        await asyncio.sleep(0)
    await site.post(f"{started.location}/cancel", headers=BEARER)
    site.view.may_replay.release()
    page = await _when_over(site, started.location)
    assert "Cancelled." in page.text
    assert site.view.replayed == [Place(0, 1)]


async def test_a_replay_of_another_process_is_told_honestly(site: Site) -> None:
    """Who reaches a process that does not run the replay reads so, and what still waits of the selection."""
    site.view.letters += [letter(1), letter(2, reason="schema_violation"), letter(3)]
    site.view.may_replay = asyncio.Semaphore(0)
    started = await site.post("/dead-letters/replay", data={"reason": "zoho.INVALID_DATA"}, headers=BEARER)
    other_view = FakeView(letters=[letter(2, reason="schema_violation"), letter(3)])
    async with open_site(other_view) as other:
        page = await other.get(started.location, headers=BEARER)
        live = await other.get(f"{started.location.partition('?')[0]}/live", headers=BEARER)
        cancel = re.search(r'action="([^"]+/cancel[^"]*)"', page.text)
        assert cancel
        not_here = await other.post(cancel[1], headers=BEARER)
    waits = texts.teller("en")("job.still_waiting", total="1")
    assert page.status == 200
    assert texts.teller("en")("job.elsewhere") in page.text
    assert waits in page.text
    assert waits in not_here.text
    assert live.status == 200
    assert (await site.post(cancel[1], headers=BEARER)).location == started.location


async def test_unreachable_brokers_are_a_sentence(site: Site) -> None:
    """When dead letters cannot be read, the page says why, in the reader's language."""
    site.view.problem = UnavailableError({"en": "No brokers.", "ru": "Нет брокеров."})
    english = await site.get("/dead-letters", headers=BEARER)
    russian = await site.post("/dead-letters/plan", data={}, headers=BEARER | {"Accept-Language": "ru"})
    assert (english.status, "No brokers." in english.text) == (503, True)
    assert (russian.status, "Нет брокеров." in russian.text) == (503, True)
    started = await site.post("/dead-letters/replay", data={}, headers=BEARER)
    assert "Stopped: No brokers." in (await _when_over(site, started.location)).text


async def test_a_replay_that_fails_otherwise_ends_too(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fault of our own ends the job and is told by its code, without the text; the next one may begin."""

    async def fail(*_args: object, **_how: object) -> None:
        raise ValueError("+4915112345678")

    site.view.letters.append(letter(1))
    with monkeypatch.context() as patch:
        patch.setattr(site.view, "replay", fail)
        started = await site.post("/dead-letters/replay", data={}, headers=BEARER)
        page = await _when_over(site, started.location)
    assert "Stopped: REPLAY_FAILED" in page.text
    assert "ValueError" in page.text
    assert "4915112345678" not in page.text
    again = await site.post("/dead-letters/replay", data={}, headers=BEARER)
    assert "Done." in (await _when_over(site, again.location)).text


async def _when_over(site: Site, path: str) -> Answer:
    while "/cancel" in (page := await site.get(path, headers=BEARER)).text:
        await asyncio.sleep(0)
    return page


# -- languages, numbers, files ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("header", "language"),
    [
        ("ru", "ru"),
        ("ru-RU,ru;q=0.9,en;q=0.8", "ru"),
        ("de, en;q=0.5, ru;q=0.7", "ru"),
        ("de", "en"),
        ("ru;q=0", "en"),
        ("ru;q=x,;;,", "en"),
        ("", "en"),
    ],
)
async def test_language_follows_the_browser(site: Site, header: str, language: str) -> None:
    """The best offered language that there is, else English."""
    assert f'<html lang="{language}">' in (await site.get("/", headers={"Accept-Language": header})).text


async def test_chosen_language_is_kept(site: Site) -> None:
    """A choice wins over the browser's, and is remembered."""
    answer = await site.get("/?lang=ru", headers={"Accept-Language": "en"})
    assert '<html lang="ru">' in answer.text
    cookie = {"Cookie": f"zoho_sync_lang={answer.cookies['zoho_sync_lang'].value}"}
    assert '<html lang="ru">' in (await site.get("/", headers=cookie)).text
    assert not (await site.get("/?lang=xx")).cookies


def test_both_languages_say_the_same_things() -> None:
    """Each sentence exists in both, with the same gaps; advice may be Russian alone."""
    english, russian = (texts.catalogue(language) for language in texts.LANGUAGES)
    assert english.keys() <= russian.keys()
    assert all(key.startswith("advice.") for key in russian.keys() - english.keys())
    for key, sentence in english.items():
        assert sorted(re.findall(r"{\w+}", sentence)) == sorted(re.findall(r"{\w+}", russian[key])), key


def test_masked_number_cannot_be_called() -> None:
    """Country and last digits remain."""
    assert mask_phone("+4915123456789") == "+49…89"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "–"),
        (0, "0 s"),
        (9.94, "9.9 s"),
        (59, "59 s"),
        (119, "119 s"),
        (120, "2 min"),
        (7200, "2 h"),
        (200_000, "2 days"),
    ],
)
def test_spans_are_told_in_the_unit_that_says_enough(seconds: float | None, text: str) -> None:
    """Seconds, minutes, hours, days; a dash for none."""
    assert span(seconds, "en") == text


def test_numbers_are_written_as_the_language_does() -> None:
    """Thousands apart; a comma for Russian."""
    assert (number(1234567, "en"), number(0.25, "en"), number(1.5, "ru")) == ("1\u202f234\u202f567", "0.2", "1,5")


async def test_static_files_are_cached_and_checked(site: Site) -> None:
    """A file that has not changed is not sent again."""
    first = await site.get("/static/console.css")
    again = await site.get("/static/console.css", headers={"If-None-Match": first.headers["ETag"]})
    assert (first.status, again.status, again.text) == (200, 304, "")


def test_example_of_the_documentation_is_right() -> None:
    """Whoever checks their signing code against the page checks it against this code."""
    shown = signature("example-key", kind="dialog", value="dialog-1001", exp=1770000000)
    assert shown in (ROOT / "docs" / "open-in-zoho.md").read_text("utf-8")


def test_documentation_names_the_integrity_of_the_element() -> None:
    """The hash in docs and example is the hash of the file that is served."""
    for place in ("docs/open-in-zoho.md", "examples/admin-panel/index.html"):
        assert integrity_of("open-in-zoho.js") in (ROOT / place).read_text("utf-8"), place
