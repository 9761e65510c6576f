"""Access tokens: one for all who need one.

Zoho gives 10 access tokens in 10 minutes for a refresh token and keeps 15 of them alive; one more kills the oldest,
which others may hold ("Token validity" page).  So a token is shared by everything that can share it: by all calls of
the process (single flight), and through a file by its restarts and by other processes on the same volume.
"""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import json
import os
import tempfile
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import aiohttp
import orjson

from consumer.core.backoff import Backoff
from consumer.core.datacenters import is_trusted_accounts
from consumer.core.errors import HaltedError, SyncError, TokenRefusedError, TransientError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from consumer.zoho.api import Call, Reply, Send

_DEFAULT_LIFE_S = 3600.0
_EARLY_S = 300.0
_EARLY_JITTER_S = 120.0
_WINDOW_S = 600.0
_TOKENS_PER_WINDOW = 8
"""Of Zoho's 10 we leave two to whoever else holds the refresh token (doctor, a colleague)."""
_DEAD_RETRY_S = 300.0
_DEAD_LOOK_S = 3.0
"""A dead grant is looked at this often: has the secret changed?  That costs no call."""
_LONGEST_LIFE_S = 86_400.0
_RETRY = Backoff(base_s=0.5, cap_s=30.0)
_RECONNECT = "Run `zoho-sync auth` and put the new refresh token in place; the service goes on by itself."

_DEAD = {
    "invalid_code": "The refresh token was revoked or belongs to another data centre. " + _RECONNECT,
    "invalid_client": "ZOHO_CLIENT_ID is unknown in this data centre: compare it with the API console.",
    "invalid_client_secret": "ZOHO_CLIENT_SECRET is wrong for this data centre: compare it with the API console.",
    "unauthorized_client": "The client may not use this grant. " + _RECONNECT,
    "access_denied": "The grant was refused. " + _RECONNECT,
}


class SecretSource(Protocol):
    """A secret that may change while the service runs."""

    def get(self) -> str | None:
        """The current value."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a refresh needs; read at each refresh, so that a new secret file works without a restart."""

    client_id: SecretSource
    client_secret: SecretSource
    refresh_token: SecretSource

    def current(self) -> tuple[str, str, str]:
        """Client id, client secret and refresh token, as they are now."""
        return self.client_id.get() or "", self.client_secret.get() or "", self.refresh_token.get() or ""


@dataclass(frozen=True, slots=True)
class Token:
    """An access token and when (wall clock, seconds) it ends."""

    value: str = field(repr=False)
    expires_at: float
    refresh_at: float


class HttpTokenEndpoint:
    """`POST {accounts}/oauth/v2/token`, secrets in the form body, never in the address.

    Raises ValueError for a host that is not one of Zoho's (or this machine): it must not see the client secret.
    """

    def __init__(self, session: aiohttp.ClientSession, accounts_url: str, *, timeout_s: float = 20.0) -> None:
        if not is_trusted_accounts(accounts_url):
            raise ValueError("not an accounts host of Zoho")
        self._session = session
        self._url = f"{accounts_url}/oauth/v2/token"
        self._timeout = aiohttp.ClientTimeout(total=timeout_s)

    async def __call__(self, form: dict[str, str]) -> tuple[int, object]:
        """Status and parsed body (None when it is no JSON).  Raises TransientError when there is no answer."""
        try:
            async with self._session.post(
                self._url, data=form, timeout=self._timeout, allow_redirects=False
            ) as response:
                raw = await response.content.read(65536)
                return response.status, _json(raw)
        except (aiohttp.ClientError, TimeoutError, OSError):
            raise TransientError("TOKEN_NO_ANSWER") from None


def _json(raw: bytes) -> object:
    try:
        return orjson.loads(raw)
    except orjson.JSONDecodeError:
        return None


@dataclass(frozen=True, slots=True)
class Grant:
    """What is known of one refresh token, by this process or by all that share the cache file.  Wall clock, seconds."""

    token: Token | None = None
    issued: tuple[float, ...] = ()
    """When tokens were issued in the last ten minutes."""
    throttled_until: float = 0.0

    def at(self, now: float) -> Grant:
        """Without what is past; a moment beyond a whole window comes from a clock that was wrong."""
        issued = tuple(moment for moment in self.issued if now - _WINDOW_S < moment <= now)
        return replace(self, issued=issued, throttled_until=min(self.throttled_until, now + _WINDOW_S))

    def joined_with(self, other: Grant) -> Grant:
        """What either knows; the longer memory of tokens holds the shorter one."""
        issued = max(self.issued, other.issued, key=len)
        return Grant(self.token or other.token, issued, max(self.throttled_until, other.throttled_until))


class TokenSource:
    """Gives the current token, and refreshes it in single flight.

    Raises HaltedError while the grant is dead or Zoho throttles tokens, TransientError when there was no answer.
    """

    def __init__(
        self,
        credentials: Credentials,
        endpoint: Callable[[dict[str, str]], Awaitable[tuple[int, object]]],
        *,
        wall_clock: Callable[[], float],
        random: Callable[[], float],
        cache: TokenCache | None = None,
        account: str = "",
        on_refresh: Callable[[str], None] = lambda _outcome: None,
        timeout_s: float = 25.0,
    ) -> None:
        self._credentials = credentials
        self._endpoint = endpoint
        self._now = wall_clock
        self._random = random
        self._cache = cache
        self._account = account
        self._on_refresh = on_refresh
        self._timeout_s = timeout_s
        self._token: Token | None = None
        self._refreshing: asyncio.Task[Token] | None = None
        self._grant = Grant()
        self._throttles = 0
        self._failures = 0
        self._retry_at = 0.0
        self._dead: tuple[tuple[str, str, str], str, float] | None = None
        self._useless: tuple[str, str, float] | None = None
        self._early_s = _EARLY_S + _EARLY_JITTER_S * random()

    @property
    def expires_at(self) -> float | None:
        """Wall clock at which the current token ends; None without one."""
        return self._token.expires_at if self._token else None

    async def token(self) -> str:
        """A token that is good for the next minutes."""
        token = self._token
        if token is None or self._now() >= token.expires_at:
            return (await self._refresh(token.value if token else None)).value
        if self._now() >= token.refresh_at and self._why_not(self._credentials.current()) is None:
            _ = self._start(token.value)
        return token.value

    async def refused(self, failed: str) -> None:
        """Zoho did not take this token: have another one by the time this returns.

        Who comes second finds that the failed token is no longer the current one, and does not refresh.
        """
        if self._token is not None and self._token.value != failed:
            return
        if self._useless is not None and self._useless[0] == failed and self._now() < self._useless[2]:
            raise _refused_error(self._useless[1])
        await self._refresh(failed)

    def accepted(self, token: str) -> None:
        """A call with this token came through."""
        if self._useless is not None and self._useless[0] == token:
            self._useless = None

    def fresh_refused(self, failed: str, code: str) -> HaltedError:
        """A token that was new a moment ago is refused, so it is not the token: another one is not worth its price.

        For some minutes the same token is offered again whenever somebody asks; then a new one is tried.
        """
        if self._useless is None or self._useless[0] != failed:
            self._useless = (failed, code, self._now() + _DEAD_RETRY_S)
        return _refused_error(code)

    async def _refresh(self, failed: str | None) -> Token:
        """Joins the refresh under way; a caller that is cancelled cancels nothing for the others."""
        return await asyncio.shield(self._start(failed))

    def _start(self, failed: str | None) -> asyncio.Task[Token]:
        if self._refreshing is None or self._refreshing.done():
            self._refreshing = asyncio.create_task(self._renew(failed), name="token-refresh")
            self._refreshing.add_done_callback(_retrieve)
        return self._refreshing

    async def _renew(self, failed: str | None) -> Token:
        secrets = self._credentials.current()
        if self._cache is None:
            return await self._fetch(secrets)
        key = self._cache_key(secrets)
        async with self._cache.locked():
            known = self._cache.read(key)
            if known is not None:
                self._grant = self._grant.joined_with(known)
                token = known.token
                if token is not None and token.value != failed and self._now() < token.refresh_at:
                    self._token = token
                    return token
            try:
                return await self._fetch(secrets)
            finally:
                self._cache.write(key, self._grant)

    def _cache_key(self, secrets: tuple[str, str, str]) -> str:
        return hashlib.sha256("\0".join((self._account, *secrets)).encode()).hexdigest()

    async def _fetch(self, secrets: tuple[str, str, str]) -> Token:
        if error := self._why_not(secrets):
            raise error
        try:
            token = await self._ask(secrets)
        except (HaltedError, TransientError) as error:
            if isinstance(error, TransientError):
                self._failures += 1
                self._retry_at = self._now() + _RETRY.wait_s(self._failures, random=self._random())
            self._on_refresh(error.code)
            raise
        self._on_refresh("ok")
        self._dead, self._failures, self._throttles = None, 0, 0
        self._token = token
        self._grant = replace(self._grant, token=token, issued=(*self._grant.issued, self._now()))
        return token

    async def _ask(self, secrets: tuple[str, str, str]) -> Token:
        names = ("client_id", "client_secret", "refresh_token")
        form = {"grant_type": "refresh_token", **dict(zip(names, secrets, strict=True))}
        try:
            async with asyncio.timeout(self._timeout_s):
                status, body = await self._endpoint(form)
        except TimeoutError:
            raise TransientError("TOKEN_NO_ANSWER") from None
        return self._read(status, body, secrets)

    def _why_not(self, secrets: tuple[str, str, str]) -> SyncError | None:
        """Why asking for a token would be useless or harmful now."""
        now = self._now()
        if self._dead is not None and self._dead[0] == secrets and now < self._dead[2]:
            return _dead_error(self._dead[1])
        self._grant = self._grant.at(now)
        if now >= self._grant.throttled_until and len(self._grant.issued) >= _TOKENS_PER_WINDOW:
            self._grant = replace(self._grant, throttled_until=self._grant.issued[0] + _WINDOW_S)
        if now < self._grant.throttled_until:
            return self._throttle_error()
        if now < self._retry_at:
            return TransientError("TOKEN_NO_ANSWER", retry_after_s=self._retry_at - now)
        return None

    def _throttle_error(self) -> HaltedError:
        advice = "Zoho gives 10 access tokens in 10 minutes; the service waits for the rest of that time."
        wait_s = max(1.0, self._grant.throttled_until - self._now())
        return HaltedError("TOKEN_THROTTLED", advice=advice, retry_after_s=wait_s)

    def _read(self, status: int, body: object, secrets: tuple[str, str, str]) -> Token:
        """A token answer is good only if it holds `access_token`; its status means nothing."""
        fields = body if isinstance(body, dict) else {}
        value = fields.get("access_token")
        if isinstance(value, str) and value:
            return self._accept(value, fields)
        code = str(fields.get("error") or "")
        if _is_throttle(code, fields):
            self._throttle()
            raise self._throttle_error()
        if code in _DEAD:
            self._dead = (secrets, code, self._now() + _DEAD_RETRY_S)
            raise _dead_error(code)
        raise TransientError("TOKEN_ANSWER_UNUSABLE", f"HTTP {status}")

    def _throttle(self) -> None:
        """Ask no more in this window.  It began with our first token in it, or we do not know; then a whole one.

        A second refusal in a row means that we were wrong about its beginning, and asking has prolonged it.
        """
        now = self._now()
        self._throttles += 1
        began = min(self._grant.issued, default=now) if self._throttles == 1 else now
        self._grant = replace(self._grant, throttled_until=began + _WINDOW_S)

    def _accept(self, value: str, fields: dict[str, Any]) -> Token:
        now = self._now()
        life_s = lifetime_s(fields)
        early_s = min(self._early_s, life_s * 0.2)
        return Token(value, now + life_s - min(5.0, life_s * 0.05), now + life_s - early_s)


def _dead_error(code: str) -> HaltedError:
    return HaltedError(f"TOKEN_{code.upper()}", advice=_DEAD[code], retry_after_s=_DEAD_LOOK_S)


def _refused_error(code: str) -> HaltedError:
    advice = "A fresh token is refused: is ZOHO_API_DOMAIN the host of this organisation, and its user active?"
    return HaltedError("TOKEN_REFUSED", code, advice=advice)


def _is_throttle(code: str, fields: dict[str, Any]) -> bool:
    text = f"{code} {fields.get('error_description', '')}".lower()
    return "too many requests" in text or code == "Access Denied"


def lifetime_s(fields: dict[str, Any]) -> float:
    """Seconds that a token lives.  Beside `expires_in_sec`, `expires_in` is in milliseconds (Zoho's SDK)."""
    for name in ("expires_in_sec", "expires_in"):
        value = _number(fields.get(name))
        if value > 0:
            return value / 1000.0 if value > _LONGEST_LIFE_S else value
    return _DEFAULT_LIFE_S


def _number(value: object) -> float:
    if isinstance(value, str) and value.isascii() and value.isdigit():
        return float(value)
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else 0.0


def _retrieve(task: asyncio.Task[Token]) -> None:
    """A background refresh that failed is asked again by the next caller; its error needs no other reader."""
    if not task.cancelled():
        task.exception()


class TokenCache:
    """A file (mode 0600) with what is known of the grant, shared under a lock by all processes on the volume.

    A volume that cannot be written or locked costs a token at the next start, no more.
    """

    def __init__(self, path: Path, *, lock_timeout_s: float = 30.0) -> None:
        self._path = path
        self._lock_timeout_s = lock_timeout_s

    @asynccontextmanager
    async def locked(self) -> AsyncIterator[None]:
        """Hold the lock; after the timeout go on without it, for a stuck neighbour must not stop us."""
        descriptor = self._open()
        try:
            if descriptor is not None:
                await self._lock(descriptor)
            yield
        finally:
            if descriptor is not None:
                os.close(descriptor)

    def _open(self) -> int | None:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            return os.open(f"{self._path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError:
            return None

    async def _lock(self, descriptor: int) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(self._lock_timeout_s):
                while not _try_lock(descriptor):  # noqa: ASYNC110 - flock has no event to wait for
                    await asyncio.sleep(0.1)

    def read(self, key: str) -> Grant | None:
        """What the file knows of this grant."""
        try:
            fields = json.loads(self._path.read_text("utf-8"))
            if fields["key"] != key:
                return None
            token = Token(**fields["token"]) if fields["token"] else None
            return Grant(token, tuple(map(float, fields["issued"])), float(fields["throttled_until"]))
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def write(self, key: str, grant: Grant) -> None:
        """Replace the file in one step."""
        with suppress(OSError):
            descriptor, name = tempfile.mkstemp(dir=self._path.parent, prefix=f".{self._path.name}.")
            try:
                with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                    json.dump({"key": key, **asdict(grant)}, file)
                Path(name).replace(self._path)
            except OSError:
                Path(name).unlink(missing_ok=True)


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


def tokened(send: Send, tokens: TokenSource) -> Send:
    """Adds the token when the call goes: it may have waited for its permit longer than a token lives."""

    async def send_tokened(call: Call) -> Reply:
        token = await tokens.token()
        try:
            reply = await send(with_token(call, token))
        except TokenRefusedError as error:
            error.token = token
            raise
        tokens.accepted(token)
        return reply

    return send_tokened


def authorized(send: Send, tokens: TokenSource) -> Send:
    """On a token that is not accepted, gets another one and repeats, once.  To be put around `tokened`."""

    async def send_authorized(call: Call) -> Reply:
        try:
            return await send(call)
        except TokenRefusedError as error:
            await tokens.refused(error.token)
        try:
            return await send(call)
        except TokenRefusedError as error:
            raise tokens.fresh_refused(error.token, error.code) from None

    return send_authorized


def with_token(call: Call, token: str) -> Call:
    """The call with its token."""
    return replace(call, token=token)
