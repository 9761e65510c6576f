"""Who may do what: bearer token, login cookie, signed links, and where a form was sent from.

Right and wrong are computed from the request and two secrets, so every process of a deployment answers alike.  Wrong
tokens are bounded, see `consumer.web.guesses`.
"""

from __future__ import annotations

import hmac
import re
import secrets
from collections import OrderedDict
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from consumer.web.guesses import Guesses, address_of
from schemas import links as signed_links
from schemas.links import Verdict

if TYPE_CHECKING:
    from collections.abc import Callable

    from aiohttp import web

    from consumer.web.view import Subject

SESSION_COOKIE: Final = "zoho_sync_session"
SESSION_LIFE_S: Final = 12 * 3600
_SESSION: Final = re.compile(r"[0-9]{1,12}\.[0-9a-f]{32}\.[0-9a-f]{64}")


_REMEMBERED_SESSIONS: Final = 1000


class Access:
    """Judges requests."""

    def __init__(
        self,
        *,
        api_token: Callable[[], str | None],
        link_key: Callable[[], str | None],
        wall_clock: Callable[[], float],
    ) -> None:
        self._api_token = api_token
        self._link_key = link_key
        self._now = wall_clock
        self._guesses = Guesses()
        self._sessions: OrderedDict[str, None] = OrderedDict()
        """Cookies that were good here.  Each holds a random part, so none of them can be met by guessing the token."""

    def has_console(self) -> bool:
        """Is there a token at all?  Without one, all that needs it is off."""
        return bool(self._api_token())

    def can_sign(self) -> bool:
        """Is there a key for links?"""
        return bool(self._link_key())

    def is_operator(self, request: web.Request) -> bool:
        """Bearer token or login."""
        return self.has_bearer(request) or self._has_session(request)

    def has_bearer(self, request: web.Request) -> bool:
        """`Authorization: Bearer …` with the token."""
        value = _bearer(request)
        return bool(value) and self.is_token(request, value)

    def is_token(self, request: web.Request, value: str) -> bool:
        """Compare in constant time; while too many were wrong, not at all."""
        token = self._api_token()
        return bool(token) and self._is_right(request, value, token or "")

    def wait_s(self, request: web.Request, *values: str) -> float:
        """How long until what the request offers, or one of `values`, is looked at; 0 when it was."""
        offered = [value for value in (*values, _bearer(request), _cookie(request)) if value]
        return max((self._wait_s(request, value) for value in offered), default=0.0)

    def _wait_s(self, request: web.Request, value: str) -> float:
        return 0.0 if value in self._sessions else self._guesses.wait_s(address_of(request), value, self._now())

    def _is_right(self, request: web.Request, value: str, expected: str) -> bool:
        if self._wait_s(request, value):
            return False
        address = address_of(request)
        is_right = hmac.compare_digest(_bytes(value), _bytes(expected))
        if is_right:
            self._guesses.was_right(address)
        else:
            self._guesses.was_wrong(address, value, self._now())
        return is_right

    def new_session(self) -> str:
        """Value of the login cookie: when it ends, and a proof that whoever made it knew the token."""
        return self._session_of(f"{int(self._now()) + SESSION_LIFE_S}.{secrets.token_hex(16)}")

    def _session_of(self, head: str) -> str:
        text = f"session.v2\n{head}"
        return f"{head}.{hmac.digest(_bytes(self._api_token() or ''), text.encode(), 'sha256').hex()}"

    def _has_session(self, request: web.Request) -> bool:
        cookie = _cookie(request)
        if not self.has_console() or not cookie:
            return False
        if not self._is_right(request, cookie, self._session_of(cookie.rpartition(".")[0])):
            return False
        self._sessions[cookie] = None
        if len(self._sessions) > _REMEMBERED_SESSIONS:
            self._sessions.popitem(last=False)
        return int(cookie.partition(".")[0]) > self._now()

    def link_verdict(self, subject: Subject, *, exp: str, sig: str) -> Verdict:
        """Is this link signed for this subject, and does it still hold?"""
        key = self._link_key()
        if not key:
            return Verdict.FORGED
        return signed_links.check(key, kind=subject.kind, value=subject.value, exp=exp, sig=sig, now=self._now())


def is_same_origin(request: web.Request) -> bool:
    """Was an unsafe request sent by a page of ours?  Browsers say so, and no page can make them lie."""
    site = request.headers.get("Sec-Fetch-Site")
    if site is not None:
        return site == "same-origin"
    origin = request.headers.get("Origin")
    return bool(origin) and urlsplit(origin or "").netloc.lower() == request.headers.get("Host", "").lower()


def is_tls(request: web.Request) -> bool:
    """Did the browser come over TLS, here or at the proxy in front?"""
    return request.secure or request.headers.get("X-Forwarded-Proto", "").split(",")[0].strip().lower() == "https"


def _bearer(request: web.Request) -> str:
    scheme, _, value = request.headers.get("Authorization", "").partition(" ")
    return value.strip() if scheme.lower() == "bearer" else ""


def _cookie(request: web.Request) -> str:
    value = request.cookies.get(SESSION_COOKIE, "")
    return value if _SESSION.fullmatch(value) else ""


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")
