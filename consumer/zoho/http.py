"""The innermost `Send`: bytes out, bytes in, and their meaning."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, Protocol

import aiohttp
import orjson

from consumer.core.datacenters import is_trusted_api
from consumer.core.errors import SyncError, TransientError
from consumer.zoho.answers import error_of, fault_of
from consumer.zoho.api import API_VERSION, Call, Reply

if TYPE_CHECKING:
    from collections.abc import Mapping

_LATEST_EFFECT_S = 65.0
"""From the start of a call whose answer broke off (no source; a gateway's patience is a minute)."""
_LATE_AT_LEAST_S = 5.0
_MAX_ANSWER_BYTES = 16 * 1024 * 1024


class CallObserver(Protocol):
    """Told of every attempt, for metrics and limits."""

    def called(
        self, operation: str, *, credits_used: int, code: str, seconds: float, credits_remaining: int | None
    ) -> None:
        """`code` is `ok`, Zoho's code, or why there was no answer."""


class HttpSend:
    """Sends calls to one base URL.  Follows no redirect: the token must not travel to another host.

    Raises ValueError at once for a host that is not Zoho's (or this machine), TransientError when there is no readable
    answer, and the errors of `answers.error_of`.
    """

    def __init__(
        self, session: aiohttp.ClientSession, base_url: str, *, timeout_s: float, observer: CallObserver
    ) -> None:
        if not is_trusted_api(base_url):
            raise ValueError("not an API host of Zoho")
        self._session = session
        self._root = f"{base_url}/crm/{API_VERSION}"
        self._timeout = aiohttp.ClientTimeout(total=timeout_s, sock_connect=min(10.0, timeout_s))
        self._observer = observer

    async def __call__(self, call: Call) -> Reply:
        started = asyncio.get_running_loop().time()
        code = "cancelled"
        headers: Mapping[str, str] = {}
        try:
            status, headers, raw = await self._exchange(call)
            reply = read_reply(call, status, headers, raw)
            code = "ok"
            return reply
        except SyncError as error:
            code = error.code
            raise
        finally:
            seconds = asyncio.get_running_loop().time() - started
            self._observer.called(
                call.operation.value,
                credits_used=call.cost.credits,
                code=code,
                seconds=seconds,
                credits_remaining=_credits(headers),
            )

    async def _exchange(self, call: Call) -> tuple[int, Mapping[str, str], bytes]:
        headers = {"Authorization": f"Zoho-oauthtoken {call.token}"} if call.token else {}
        body = None
        if call.body is not None:
            body = orjson.dumps(call.body)
            headers["Content-Type"] = "application/json"
        started = asyncio.get_running_loop().time()
        try:
            async with self._session.request(
                call.method,
                f"{self._root}{call.path}",
                params=list(call.params),
                data=body,
                headers=headers,
                timeout=self._timeout,
                allow_redirects=False,
            ) as response:
                return response.status, response.headers, await _read(response)
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError):
            raise TransientError("CONNECT_FAILED") from None
        except TimeoutError:
            late_s = _late_s(started)
            raise TransientError("TIMEOUT", wrote_maybe=call.is_write, late_s=late_s) from None
        except (aiohttp.ClientError, OSError, ValueError):
            late_s = _late_s(started)
            raise TransientError("CONNECTION_LOST", wrote_maybe=call.is_write, late_s=late_s) from None


def _late_s(started: float) -> float:
    """For how long a call without a whole answer may still take effect, counted from its start."""
    elapsed_s = asyncio.get_running_loop().time() - started
    return max(_LATE_AT_LEAST_S, _LATEST_EFFECT_S - elapsed_s)


async def _read(response: aiohttp.ClientResponse) -> bytes:
    parts: list[bytes] = []
    size = 0
    async for part in response.content.iter_chunked(65536):
        size += len(part)
        if size > _MAX_ANSWER_BYTES:
            raise ValueError
        parts.append(part)
    return b"".join(parts)


def read_reply(call: Call, status: int, headers: Mapping[str, str], raw: bytes) -> Reply:
    """Meaning of an answer.  Raises the error that stands for the whole call; per-record answers are the reply."""
    if status in (204, 304) and not raw:
        return Reply(status, None)
    return reply_of(call, status, _json(raw), retry_after_s=retry_after_s(headers))


def reply_of(call: Call, status: int, body: object, *, retry_after_s: float | None = None) -> Reply:
    """Meaning of a parsed body (None when it was no JSON); also for the calls within a composite call."""
    fault = fault_of(body, sent=_sent(call))
    if fault is not None:
        wait_s = fault.wait_s if retry_after_s is None else retry_after_s
        raise error_of(status, fault.code, is_write=call.is_write, retry_after_s=wait_s, fault=fault)
    if isinstance(body, dict) and status != 429 and (status < 300 or (_has_rows(body) and 400 <= status < 500)):
        return Reply(status, body)
    if status < 300:
        raise TransientError("UNREADABLE_ANSWER", wrote_maybe=call.is_write, late_s=0.0)
    raise error_of(status, None, is_write=call.is_write, retry_after_s=retry_after_s)


def _sent(call: Call) -> int | None:
    """Records that a write sends; None for a read."""
    rows = call.body.get("data") if isinstance(call.body, dict) else None
    return len(rows) if isinstance(rows, list) else None


def _has_rows(body: dict[str, Any]) -> bool:
    return isinstance(body.get("data"), list)


def _json(raw: bytes) -> object:
    if not raw:
        return None
    try:
        return orjson.loads(raw)
    except orjson.JSONDecodeError:
        return None


def retry_after_s(headers: Mapping[str, str], *, now: datetime | None = None) -> float | None:
    """Seconds of a Retry-After header in either of its forms (RFC 9110, 10.2.3), at most a day."""
    text = headers.get("Retry-After", "").strip()
    if not text:
        return None
    if text.isascii() and text.isdigit():
        return min(float(text), 86_400.0)
    try:
        moment = parsedate_to_datetime(text)
    except ValueError:
        return None
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return min(86_400.0, max(0.0, (moment - (now or datetime.now(UTC))).total_seconds()))


def _credits(headers: Mapping[str, str]) -> int | None:
    text = headers.get("X-API-CREDITS-REMAINING", "").strip()
    return int(text) if text.isascii() and text.isdigit() else None
