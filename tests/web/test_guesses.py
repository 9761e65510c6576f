"""Guesses of the token: bounded by address and in all, and nobody who knows it stays shut out."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.web.bucket import TokenBucket
from consumer.web.guesses import Guesses
from tests.web.site import BEARER, KEY, NOW, SAME_ORIGIN, TOKEN, Site

if TYPE_CHECKING:
    from tests.web.site import Answer

MANY = 300


async def log_in(site: Site, token: str, *, via: str = "203.0.113.1") -> Answer:
    """The form, through a proxy that names the browser."""
    headers = SAME_ORIGIN | {"X-Forwarded-For": f"10.0.0.1, {via}"}
    return await site.post("/login", data={"token": token}, headers=headers)


async def guess(site: Site, count: int = MANY, *, via: str = "203.0.113.1") -> list[int]:
    """So many different wrong tokens; the statuses."""
    return [(await log_in(site, f"wrong-{via}-{number}", via=via)).status for number in range(count)]


async def guess_from_everywhere(site: Site) -> list[int]:
    """One wrong token from each of many addresses."""
    return [(await guess(site, 1, via=f"198.51.100.{number}"))[0] for number in range(MANY)]


def seconds(answer: Answer) -> float:
    """What the answer asks to wait."""
    return float(answer.headers["Retry-After"])


async def test_guesses_from_one_address_are_bounded(site: Site) -> None:
    """After some wrong tokens none is looked at any more, the right one included, and the answer says for how long."""
    statuses = await guess(site)
    assert statuses[0] == 401
    assert statuses[-1] == 429
    refused = await log_in(site, TOKEN)
    assert refused.status == 429
    assert seconds(refused) > 0
    assert "Too many wrong tokens" in refused.text


async def test_who_knows_the_token_gets_in_after_the_wait(site: Site) -> None:
    """What was refused does not lengthen the wait: after the seconds that were named, the right token is taken."""
    await guess(site)
    site.now[0] += seconds(await log_in(site, TOKEN))
    assert (await log_in(site, TOKEN)).status == 303


async def test_another_address_is_not_shut_out(site: Site) -> None:
    """One guesser costs the others nothing."""
    await guess(site)
    assert (await log_in(site, TOKEN, via="203.0.113.2")).status == 303


async def test_guesses_from_everywhere_are_bounded_too(site: Site) -> None:
    """Many addresses share a bound, so that a herd guesses no faster than it lets them."""
    statuses = await guess_from_everywhere(site)
    assert statuses[-1] == 429
    site.now[0] += seconds(await log_in(site, TOKEN))
    assert (await log_in(site, TOKEN)).status == 303


async def test_an_address_that_was_right_passes_a_herd(site: Site) -> None:
    """Where the token was known before, it is taken while strangers are refused."""
    assert (await log_in(site, TOKEN)).status == 303
    assert (await guess_from_everywhere(site))[-1] == 429
    assert (await log_in(site, TOKEN)).status == 303


async def test_a_session_outlasts_a_guesser_next_door(site: Site) -> None:
    """Behind a proxy that names nobody, whoever is signed in stays so while the neighbour is refused."""
    login = await log_in(site, TOKEN)
    cookie = {"Cookie": f"zoho_sync_session={login.cookies['zoho_sync_session'].value}"}
    named = {"X-Forwarded-For": "203.0.113.1"}
    assert (await site.get("/", headers=cookie | named)).status == 200
    assert (await guess(site))[-1] == 429
    assert (await site.get("/", headers=cookie | named)).status == 200


async def test_one_wrong_token_again_and_again_is_one_guess(site: Site) -> None:
    """A program with an old token is told so each time, a bound or not, and shuts nobody out."""
    assert {(await log_in(site, "yesterday")).status for _ in range(MANY)} == {401}
    assert (await log_in(site, TOKEN)).status == 303
    assert (await guess(site))[-1] == 429
    assert (await log_in(site, "yesterday")).status == 401


@pytest.mark.parametrize("path", ["/", "/dead-letters", "/open-in-zoho?dialog=d", "/api/v1/dialog-link?dialog=d"])
async def test_the_header_is_no_way_around(site: Site, path: str) -> None:
    """Wrong bearer tokens count wherever one is taken, and end in 429 with Retry-After."""
    for number in range(MANY):
        answer = await site.get(path, headers={"Authorization": f"Bearer wrong-{number}"})
    right = await site.get(path, headers=BEARER)
    for refused in (answer, right):
        assert refused.status == 429
        assert seconds(refused) > 0
    site.now[0] += seconds(right)
    assert (await site.get(path, headers=BEARER)).status < 429


async def test_the_cookie_is_no_way_around(site: Site) -> None:
    """A session made up from a guessed token is a guess like any other."""
    for number in range(MANY):
        cookie = f"{int(NOW) + 99}.{number:032x}.{number:064x}"
        answer = await site.get("/", headers={"Cookie": f"zoho_sync_session={cookie}"})
    assert answer.status == 429


async def test_signed_links_and_probes_work_on(site: Site) -> None:
    """What needs no token is not touched by guesses."""
    await guess(site)
    assert (await site.get("/readyz")).status == 200
    answer = await site.get(f"/api/v1/dialog-link?{site.signed(kind='dialog', value='d', key=KEY)}")
    assert (answer.status, json.loads(answer.text)["state"]) == (200, "unknown")


@given(steps=st.lists(st.floats(0, 1e4), max_size=60), burst=st.integers(1, 20), per_s=st.floats(0.01, 100))
def test_a_bucket_never_gives_more_than_it_may(steps: list[float], burst: int, per_s: float) -> None:
    """In any span it gives at most the burst and what the span refills; and after the wait it gives one."""
    bucket, now, given_away = TokenBucket(burst=burst, per_s=per_s), 0.0, 0
    for step in steps:
        now += step
        given_away += bucket.wait_s(now) == 0
        assert given_away <= burst + now * per_s + 1e-6
    assert bucket.empty_s(now + bucket.empty_s(now) + 1e-3) == 0


@given(moves=st.lists(st.tuples(st.integers(0, 5), st.floats(0, 100)), max_size=100))
def test_a_clock_that_goes_back_opens_nothing(moves: list[tuple[int, float]]) -> None:
    """Whatever the clock does, the wait that is named is as short as without it."""
    guesses = Guesses()
    for number, (who, now) in enumerate(moves):
        if guesses.wait_s(str(who), str(number), now) == 0:
            guesses.was_wrong(str(who), str(number), now)
        assert 0 <= guesses.wait_s(str(who), "next", now) < 6
