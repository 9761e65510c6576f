"""Bytes out and bytes in: what is sent, to whom, and what a broken connection means."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, ClassVar

import aiohttp
import orjson
import pytest

from consumer.core import datacenters
from consumer.core.errors import HaltedError, SyncError, ThrottledError, TransientError
from consumer.zoho.api import Call, Operation, write_call
from consumer.zoho.auth import HttpTokenEndpoint, with_token
from consumer.zoho.http import HttpSend
from tests.zoho.room import Told

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from aioresponses import aioresponses

BASE = "https://www.zohoapis.eu"
READ = with_token(Call(Operation.SEARCH_PEOPLE, "GET", "/Leads/search", params=(("phone", "+7 916"),)), "secret-token")
WRITE = with_token(write_call(Operation.CREATE_NOTES, "/Notes", [{"Note_Title": "ü"}]), "secret-token")
SEARCH = f"{BASE}/crm/v8/Leads/search?phone=%2B7+916"


async def send(call: Call, told: Told | None = None) -> Any:
    async with aiohttp.ClientSession() as session:
        return await HttpSend(session, BASE, timeout_s=5.0, observer=told or Told())(call)


async def failure(call: Call, told: Told | None = None) -> SyncError:
    with pytest.raises(SyncError) as caught:
        await send(call, told)
    return caught.value


async def test_a_call_goes_below_the_api_version_with_zohos_own_scheme(wire: aioresponses) -> None:
    """`Zoho-oauthtoken`, JSON, encoded parameters: a raw `+` would become a blank."""
    wire.get(SEARCH, status=204)
    wire.post(f"{BASE}/crm/v8/Notes", status=201, payload={"data": [{"code": "SUCCESS", "status": "success"}]})
    assert (await send(READ)).rows() == []
    assert len((await send(WRITE)).rows()) == 1
    [(_, read), (_, write)] = [(key, calls[0].kwargs) for key, calls in wire.requests.items()]
    assert read["headers"]["Authorization"] == "Zoho-oauthtoken secret-token"
    assert write["headers"]["Content-Type"] == "application/json"
    assert orjson.loads(write["data"]) == {"data": [{"Note_Title": "ü"}]}
    assert read["allow_redirects"] is write["allow_redirects"] is False


async def test_a_redirect_is_not_followed(wire: aioresponses) -> None:
    """The token must not travel to another host."""
    wire.get(SEARCH, status=302, headers={"Location": "https://evil.example/"})
    assert isinstance(await failure(READ), HaltedError)
    assert len(wire.requests) == 1


@pytest.mark.parametrize(
    ("error", "code", "is_certain"),
    [
        (
            aiohttp.ClientConnectorError(
                aiohttp.client_reqrep.ConnectionKey("h", 1, True, True, None, None, None), OSError()
            ),
            "CONNECT_FAILED",
            True,
        ),
        (aiohttp.ConnectionTimeoutError(), "CONNECT_FAILED", True),
        (aiohttp.ServerTimeoutError(), "TIMEOUT", False),
        (TimeoutError(), "TIMEOUT", False),
        (aiohttp.ServerDisconnectedError(), "CONNECTION_LOST", False),
        (aiohttp.ClientPayloadError(), "CONNECTION_LOST", False),
        (aiohttp.ClientOSError(), "CONNECTION_LOST", False),
        (ConnectionResetError(), "CONNECTION_LOST", False),
        (aiohttp.InvalidURL("x"), "CONNECTION_LOST", False),
    ],
)
async def test_no_answer_is_transient_and_a_write_may_have_happened(
    wire: aioresponses, error: Exception, code: str, is_certain: bool
) -> None:
    """Only where no connection came about it is certain that nothing was written."""
    wire.get(SEARCH, exception=error)
    wire.post(f"{BASE}/crm/v8/Notes", exception=error)
    read, write = await failure(READ), await failure(WRITE)
    assert isinstance(read, TransientError)
    assert isinstance(write, TransientError)
    assert (read.code, read.wrote_maybe) == (code, False)
    assert (write.code, write.wrote_maybe) == (code, not is_certain)


class Endless:
    """A session whose answers never end."""

    status = 200
    headers: ClassVar[dict[str, str]] = {}

    @asynccontextmanager
    async def request(self, *_: Any, **__: Any) -> AsyncIterator[Any]:
        yield self

    @property
    def content(self) -> Any:
        return self

    async def iter_chunked(self, size: int) -> AsyncIterator[bytes]:
        while True:
            yield b"x" * size


async def test_an_endless_answer_is_given_up() -> None:
    """A body beyond all measure is no answer of Zoho's."""
    session: Any = Endless()
    with pytest.raises(TransientError, match="CONNECTION_LOST"):
        await HttpSend(session, BASE, timeout_s=60.0, observer=Told())(WRITE)


async def test_every_attempt_is_told_with_its_code_and_zohos_credits(wire: aioresponses) -> None:
    """For metrics and limits: what came of it, and what Zoho says is left."""
    told = Told()
    credits: list[int] = []
    told.on_credits = credits.append
    wire.get(SEARCH, status=200, payload={"data": []}, headers={"X-API-CREDITS-REMAINING": "4711"})
    wire.get(SEARCH, status=429, payload={"code": "TOO_MANY_REQUESTS", "status": "error"}, headers={"Retry-After": "7"})
    wire.get(SEARCH, status=200, payload={"data": []}, headers={"X-API-CREDITS-REMAINING": "many"})
    await send(READ, told)
    throttled = await failure(READ, told)
    assert isinstance(throttled, ThrottledError)
    assert throttled.retry_after_s == 7.0
    await send(READ, told)
    assert told.calls == [("people.search", "ok"), ("people.search", "TOO_MANY_REQUESTS"), ("people.search", "ok")]
    assert credits == [4711]


@pytest.mark.parametrize(
    "url",
    [
        "https://www.zohoapis.com.evil.example",
        "http://www.zohoapis.com",
        "https://evil.example",
        "https://crm.zoho.com",
        "https://www.zohoapis.com:99",
    ],
)
def test_a_strangers_host_is_refused_before_anything_is_sent(url: str) -> None:
    """The token goes to Zoho's API hosts, or stays on this machine."""
    with pytest.raises(ValueError, match="not an API host"):
        HttpSend(None, url, timeout_s=1.0, observer=Told())  # type: ignore[arg-type]


@pytest.mark.parametrize("center", datacenters.DATA_CENTERS, ids=lambda center: center.location)
async def test_a_token_is_asked_for_at_the_data_centres_own_host(
    wire: aioresponses, center: datacenters.DataCenter
) -> None:
    """Secrets in the body, never in the address; no redirect is followed."""
    url = f"{center.accounts}/oauth/v2/token"
    wire.post(url, status=200, payload={"access_token": "x"})
    wire.post(url, status=302, headers={"Location": "https://evil.example/"})
    wire.post(url, status=200, body="<html>")
    async with aiohttp.ClientSession() as session:
        endpoint = HttpTokenEndpoint(session, center.accounts)
        form = {"client_secret": "s"}
        assert await endpoint(form) == (200, {"access_token": "x"})
        assert (await endpoint(form))[0] == 302
        assert await endpoint(form) == (200, None)
    [(key, calls)] = wire.requests.items()
    assert str(key[1]) == url
    assert calls[0].kwargs["data"] == form
    assert calls[0].kwargs["allow_redirects"] is False


async def test_a_token_server_that_does_not_answer_is_transient(wire: aioresponses) -> None:
    """And its error says nothing of what was sent."""
    wire.post("https://accounts.zoho.eu/oauth/v2/token", exception=aiohttp.ServerDisconnectedError())
    async with aiohttp.ClientSession() as session:
        with pytest.raises(TransientError, match=r"^TOKEN_NO_ANSWER$"):
            await HttpTokenEndpoint(session, "https://accounts.zoho.eu")({"client_secret": "s"})
