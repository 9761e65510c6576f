"""Zoho for one command: a session, a token, and a `Send` that tells at once what the service would wait for."""

from __future__ import annotations

import asyncio
import random
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

import aiohttp
import orjson

from consumer import __version__
from consumer.core.backoff import Backoff
from consumer.core.errors import TransientError
from consumer.core.limits import Limiter
from consumer.zoho.api import API_VERSION
from consumer.zoho.auth import Credentials, HttpTokenEndpoint, TokenCache, TokenSource, authorized, tokened
from consumer.zoho.http import HttpSend
from consumer.zoho.layers import Turnstile, limited, retried

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping
    from types import SimpleNamespace

    from consumer.settings import Settings
    from consumer.zoho.api import Call, Reply, Send

_BACKOFF = Backoff(base_s=0.5, cap_s=5.0)
_TIMEOUT_S = 30.0
_PATIENCE_S = 60.0
"""For one question with all its repetitions: somebody waits for the answer."""
_CONCURRENCY = 3
"""A command shares the organisation's limit with the service that runs beside it."""


@dataclass(slots=True)
class Traffic:
    """What the calls of a command have shown."""

    credits_used: int = 0
    credits_remaining: int | None = None
    server_ahead_s: float | None = None
    """How far Zoho's clock is ahead of ours."""
    token_answer: dict[str, Any] | None = field(default=None, repr=False)
    """The last answer to a refresh; None when the cached token was still good."""

    def called(  # one signature for all observers
        self,
        operation: str,  # noqa: ARG002
        *,
        credits_used: int,
        code: str,  # noqa: ARG002
        seconds: float,  # noqa: ARG002
        credits_remaining: int | None,
    ) -> None:
        """See `CallObserver`."""
        self.credits_used += credits_used
        if credits_remaining is not None:
            self.credits_remaining = credits_remaining


@dataclass(frozen=True, slots=True)
class ZohoDesk:
    """What a command needs."""

    send: Send
    tokens: TokenSource
    session: aiohttp.ClientSession
    traffic: Traffic
    api_domain: str

    def at(self, api_domain: str) -> Send:
        """The same token at another host; one try."""
        http = HttpSend(self.session, api_domain, timeout_s=_TIMEOUT_S, observer=self.traffic)
        return authorized(tokened(http, self.tokens), self.tokens)

    async def exchange(self, call: Call) -> dict[str, Any]:
        """The body of an answer, whatever its status: writes of metadata tell in it what they refuse.

        Raises TransientError when there is no readable answer, HaltedError while there is no token.
        """
        headers = {"Authorization": f"Zoho-oauthtoken {await self.tokens.token()}"}
        url = f"{self.api_domain}/crm/{API_VERSION}{call.path}"
        timeout = aiohttp.ClientTimeout(total=_TIMEOUT_S * 2)
        try:
            async with self.session.request(
                call.method,
                url,
                params=list(call.params),
                json=call.body,
                headers=headers,
                timeout=timeout,
                allow_redirects=False,
            ) as response:
                body = orjson.loads(await response.read())
        except (aiohttp.ClientError, TimeoutError, OSError, orjson.JSONDecodeError):
            raise TransientError("NO_READABLE_ANSWER", wrote_maybe=True) from None
        return body if isinstance(body, dict) else {}


@asynccontextmanager
async def new_session(traffic: Traffic, *, wall_clock: Callable[[], float]) -> AsyncIterator[aiohttp.ClientSession]:
    """A session that notes Zoho's clock."""
    tracing = aiohttp.TraceConfig()

    async def on_end(_session: aiohttp.ClientSession, _: SimpleNamespace, done: aiohttp.TraceRequestEndParams) -> None:
        traffic.server_ahead_s = _ahead_s(done.response.headers.get("Date"), wall_clock())

    tracing.on_request_end.append(on_end)
    headers = {"User-Agent": f"zoho-sync/{__version__}"}
    async with aiohttp.ClientSession(
        cookie_jar=aiohttp.DummyCookieJar(), headers=headers, trace_configs=[tracing]
    ) as session:
        yield session


def _ahead_s(date: str | None, now: float) -> float | None:
    try:
        return parsedate_to_datetime(date).timestamp() - now if date else None
    except ValueError:
        return None


def org_id_of(org: Mapping[str, Any]) -> str | None:
    """The organisation as links name it (`org…`), from its row of `/org`; None when the row does not tell."""
    number = org.get("zgid")
    return str(org.get("domain_name") or "") or (f"org{number}" if number else None)


def bounded(send: Send, *, patience_s: float) -> Send:
    """Ends a question to which no answer comes, however often it was repeated.  Raises TransientError."""

    async def send_bounded(call: Call) -> Reply:
        try:
            async with asyncio.timeout(patience_s):
                return await send(call)
        except TimeoutError:
            raise TransientError("TIMEOUT", wrote_maybe=call.is_write) from None

    return send_bounded


@asynccontextmanager
async def zoho_desk(
    settings: Settings, *, wall_clock: Callable[[], float] = time.time, patience_s: float = _PATIENCE_S
) -> AsyncIterator[ZohoDesk]:
    """Open it.  It uses the service's token cache, if there is one."""
    traffic = Traffic()
    async with new_session(traffic, wall_clock=wall_clock) as session:
        endpoint = HttpTokenEndpoint(session, settings.accounts_domain)

        async def noted(form: dict[str, str]) -> tuple[int, object]:
            status, body = await endpoint(form)
            traffic.token_answer = body if isinstance(body, dict) else {}
            return status, body

        tokens = TokenSource(
            Credentials(*map(settings.secret, ("ZOHO_CLIENT_ID", "ZOHO_CLIENT_SECRET", "ZOHO_REFRESH_TOKEN"))),
            noted,
            wall_clock=wall_clock,
            random=random.random,
            cache=TokenCache(settings.zoho_token_cache) if settings.zoho_token_cache else None,
            account=settings.accounts_domain,
        )
        http = HttpSend(session, settings.zoho_api_domain, timeout_s=_TIMEOUT_S, observer=traffic)
        ready, turnstile = tokened(http, tokens), Turnstile(Limiter(max_concurrency=_CONCURRENCY))
        calm = limited(ready, turnstile, backoff=_BACKOFF, random=random.random)
        send = retried(authorized(calm, tokens), backoff=_BACKOFF, random=random.random, attempts=3)
        yield ZohoDesk(bounded(send, patience_s=patience_s), tokens, session, traffic, settings.zoho_api_domain)
