"""Who may do what: bearer token, login cookie, signed links, and where a form was sent from.

All of it is computed from the request and two secrets, so every process of a deployment answers alike.
"""

from __future__ import annotations

import hmac
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from schemas import links as signed_links
from schemas.links import Verdict

if TYPE_CHECKING:
    from collections.abc import Callable

    from aiohttp import web

    from consumer.web.view import Subject

SESSION_COOKIE: Final = "zoho_sync_session"
SESSION_LIFE_S: Final = 12 * 3600


class Access:
    """Judges requests; keeps no state."""

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
        scheme, _, value = request.headers.get("Authorization", "").partition(" ")
        return scheme.lower() == "bearer" and self.is_token(value.strip())

    def is_token(self, value: str) -> bool:
        """Compare in constant time."""
        token = self._api_token()
        return bool(token) and hmac.compare_digest(_bytes(value), _bytes(token or ""))

    def new_session(self) -> str:
        """Value of the login cookie: when it ends, and a proof that whoever made it knew the token."""
        return self._session_of(int(self._now()) + SESSION_LIFE_S)

    def _session_of(self, ends_at: int) -> str:
        text = f"session.v1\n{ends_at}"
        return f"{ends_at}.{hmac.digest(_bytes(self._api_token() or ''), text.encode(), 'sha256').hex()}"

    def _has_session(self, request: web.Request) -> bool:
        cookie = request.cookies.get(SESSION_COOKIE, "")
        ends_at = cookie.partition(".")[0]
        if not self.has_console() or not (ends_at.isascii() and ends_at.isdigit() and len(ends_at) <= 12):
            return False
        expected = self._session_of(int(ends_at))
        return hmac.compare_digest(_bytes(cookie), expected.encode()) and int(ends_at) > self._now()

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


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")
