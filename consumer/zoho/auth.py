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
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import aiohttp
import orjson

from consumer.core.errors import HaltedError, TokenRefusedError, TransientError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from consumer.zoho.api import Call, Reply, Send

_DEFAULT_LIFE_S = 3600.0
_EARLY_S = 300.0
_EARLY_JITTER_S = 120.0
_WINDOW_S = 600.0
_TOKENS_PER_WINDOW = 8
"""Of Zoho's 10 we leave two to whoever else holds the refresh token (doctor, a colleague)."""
_DEAD_RETRY_S = 300.0
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


TokenPost = Any
"""`async (form) -> (status, body)`: the one HTTP request of a refresh."""


class HttpTokenEndpoint:
    """`POST {accounts}/oauth/v2/token`, secrets in the form body, never in the address."""

    def __init__(self, session: aiohttp.ClientSession, accounts_url: str, *, timeout_s: float = 20.0) -> None:
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


class TokenSource:
    """Gives the current token, and refreshes it in single flight.

    Raises HaltedError while the grant is dead or Zoho throttles tokens, TransientError when there was no answer.
    """

    def __init__(
        self,
        credentials: Credentials,
        endpoint: Callable[[dict[str, str]], Any],
        *,
        wall_clock: Callable[[], float],
        random: Callable[[], float],
        cache: TokenCache | None = None,
        account: str = "",
        on_refresh: Callable[[str], None] = lambda _outcome: None,
    ) -> None:
        self._credentials = credentials
        self._endpoint = endpoint
        self._now = wall_clock
        self._random = random
        self._cache = cache
        self._account = account
        self._on_refresh = on_refresh
        self._token: Token | None = None
        self._refreshing: asyncio.Task[Token] | None = None
        self._issued: list[float] = []
        self._throttled_until = 0.0
        self._dead: tuple[tuple[str, str, str], HaltedError, float] | None = None
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
        if self._now() >= token.refresh_at:
            _ = self._start(token.value)
        return token.value

    async def refused(self, failed: str) -> None:
        """Zoho did not take this token: have another one by the time this returns.

        Who comes second finds that the failed token is no longer the current one, and does not refresh.
        """
        if self._token is not None and self._token.value != failed:
            return
        await self._refresh(failed)

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
            self._token = await self._fetch(secrets)
            return self._token
        async with self._cache.locked():
            cached = self._cache.read(self._cache_key(secrets))
            if cached is not None and cached.value != failed and self._now() < cached.refresh_at:
                self._token = cached
                return cached
            self._token = await self._fetch(secrets)
            self._cache.write(self._cache_key(secrets), self._token)
            return self._token

    def _cache_key(self, secrets: tuple[str, str, str]) -> str:
        return hashlib.sha256("\0".join((self._account, *secrets)).encode()).hexdigest()

    async def _fetch(self, secrets: tuple[str, str, str]) -> Token:
        self._check_may_ask(secrets)
        client_id, client_secret, refresh_token = secrets
        form = {
            "grant_type": "refresh_token",
            "client_id": client_id,
            "client_secret": client_secret,
            "refresh_token": refresh_token,
        }
        try:
            status, body = await self._endpoint(form)
            token = self._read(status, body, secrets)
        except (HaltedError, TransientError) as error:
            self._on_refresh(error.code)
            raise
        self._on_refresh("ok")
        self._dead = None
        self._issued.append(self._now())
        return token

    def _check_may_ask(self, secrets: tuple[str, str, str]) -> None:
        now = self._now()
        if self._dead is not None and self._dead[0] == secrets and now < self._dead[2]:
            raise self._dead[1]
        if now < self._throttled_until:
            raise self._throttle_error(now)
        self._issued = [moment for moment in self._issued if moment > now - _WINDOW_S]
        if len(self._issued) >= _TOKENS_PER_WINDOW:
            self._throttled_until = self._issued[0] + _WINDOW_S
            raise self._throttle_error(now)

    def _throttle_error(self, now: float) -> HaltedError:
        advice = "Zoho gives 10 access tokens in 10 minutes; the service waits for the rest of that time."
        return HaltedError("TOKEN_THROTTLED", advice=advice, retry_after_s=max(1.0, self._throttled_until - now))

    def _read(self, status: int, body: object, secrets: tuple[str, str, str]) -> Token:
        """A token answer is good only if it holds `access_token`; its status means nothing."""
        fields = body if isinstance(body, dict) else {}
        value = fields.get("access_token")
        if isinstance(value, str) and value:
            return self._accept(value, fields)
        code = str(fields.get("error") or f"HTTP_{status}")
        if _is_throttle(code, fields):
            now = self._now()
            self._throttled_until = min(self._issued, default=now) + _WINDOW_S
            raise self._throttle_error(now)
        if code in _DEAD:
            error = HaltedError(f"TOKEN_{code.upper()}", advice=_DEAD[code], retry_after_s=5.0)
            self._dead = (secrets, error, self._now() + _DEAD_RETRY_S)
            raise error
        raise TransientError("TOKEN_ANSWER_UNUSABLE", code[:60])

    def _accept(self, value: str, fields: dict[str, Any]) -> Token:
        now = self._now()
        life_s = lifetime_s(fields)
        early_s = min(self._early_s, life_s * 0.2)
        return Token(value, now + life_s - min(5.0, life_s * 0.05), now + life_s - early_s)


def _is_throttle(code: str, fields: dict[str, Any]) -> bool:
    text = f"{code} {fields.get('error_description', '')}".lower()
    return "too many requests" in text or code == "Access Denied"


def lifetime_s(fields: dict[str, Any]) -> float:
    """Seconds that a token lives.  With `expires_in_sec` present, `expires_in` is in milliseconds (Zoho's SDK)."""
    for name, unit in (("expires_in_sec", 1.0), ("expires_in", 1.0)):
        value = fields.get(name)
        if isinstance(value, (int, float)) and not isinstance(value, bool) and value > 0:
            seconds = float(value) * unit
            return seconds / 1000.0 if seconds > 86_400.0 else seconds
    return _DEFAULT_LIFE_S


def _retrieve(task: asyncio.Task[Token]) -> None:
    """A background refresh that failed is asked again by the next caller; its error needs no other reader."""
    if not task.cancelled():
        task.exception()


class TokenCache:
    """A file (mode 0600) with the current token, shared under a lock by all processes on the volume."""

    def __init__(self, path: Path, *, lock_timeout_s: float = 30.0) -> None:
        self._path = path
        self._lock_timeout_s = lock_timeout_s

    @asynccontextmanager
    async def locked(self) -> AsyncIterator[None]:
        """Hold the lock; after the timeout go on without it, for a stuck neighbour must not stop us."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(f"{self._path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            await self._lock(descriptor)
            yield
        finally:
            os.close(descriptor)

    async def _lock(self, descriptor: int) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(self._lock_timeout_s):
                while not _try_lock(descriptor):  # noqa: ASYNC110 - flock has no event to wait for
                    await asyncio.sleep(0.1)

    def read(self, key: str) -> Token | None:
        """The cached token of this grant, if the file holds one."""
        try:
            fields = json.loads(self._path.read_text("utf-8"))
            if fields["key"] != key:
                return None
            return Token(str(fields["token"]), float(fields["expires_at"]), float(fields["refresh_at"]))
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def write(self, key: str, token: Token) -> None:
        """Replace the file in one step.  A volume that cannot be written costs a token at the next start, no more."""
        fields = {"key": key, "token": token.value, "expires_at": token.expires_at, "refresh_at": token.refresh_at}
        with suppress(OSError):
            descriptor, name = tempfile.mkstemp(dir=self._path.parent, prefix=f".{self._path.name}.")
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                json.dump(fields, file)
            Path(name).replace(self._path)


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def authorized(send: Send, tokens: TokenSource) -> Send:
    """Adds the token; on a token that is not accepted, gets another one and repeats, once."""

    async def send_authorized(call: Call) -> Reply:
        token = await tokens.token()
        try:
            return await send(with_token(call, token))
        except TokenRefusedError:
            await tokens.refused(token)
        try:
            return await send(with_token(call, await tokens.token()))
        except TokenRefusedError as error:
            advice = "A fresh token is refused: is ZOHO_API_DOMAIN the host of this organisation, and its user active?"
            raise HaltedError(error.code, advice=advice) from None

    return send_authorized


def with_token(call: Call, token: str) -> Call:
    """The call with its token."""
    return replace(call, token=token)
