"""From a client in Zoho's API console to a refresh token in place.

The client secret goes only to hosts of Zoho's list, or to this machine itself; it is never shown, and neither is the
refresh token unless it was asked for.
"""

from __future__ import annotations

import asyncio
import base64
import os
import secrets
import tempfile
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlencode, urlsplit

from aiohttp import web

from consumer.core import datacenters
from consumer.core.errors import SyncError, TransientError
from consumer.operations.errors import OperationError
from consumer.operations.zoho_desk import Traffic, new_session, org_id_of
from consumer.zoho.api import Call, Operation
from consumer.zoho.auth import HttpTokenEndpoint, with_token
from consumer.zoho.http import HttpSend

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

DEFAULT_REDIRECT = "http://127.0.0.1:8085/callback"
_TIMEOUT_S = 30.0
_CREDENTIALS = ("ZOHO_CLIENT_ID", "ZOHO_CLIENT_SECRET", "ZOHO_REFRESH_TOKEN")
_NAMED = frozenset({"access_denied", "invalid_code", "invalid_redirect_uri", "invalid_client", "invalid_client_secret"})


@dataclass(frozen=True, slots=True)
class Client:
    """An OAuth client, and where its token calls go until Zoho names another host."""

    id: str
    secret: str = field(repr=False)
    accounts: str
    redirect_uri: str | None
    """None: a code of a self client, which has no redirect."""


@dataclass(frozen=True, slots=True)
class Redirected:
    """What came back from Zoho: the code, and the accounts host of the user's data centre."""

    code: str = field(repr=False)
    accounts: str | None = None
    location: str | None = None


@dataclass(frozen=True, slots=True)
class Grant:
    """What the exchange brought."""

    refresh_token: str = field(repr=False)
    access_token: str = field(repr=False)
    accounts: str
    api_domain: str
    scopes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Connected:
    """The grant, and the organisation that it opens; the organisation is None when it cannot be read."""

    grant: Grant
    api_domain: str
    org_id: str | None = None
    company: str | None = None
    org_error: str | None = None


def new_state() -> str:
    """One-use proof that the redirect answers our question."""
    return secrets.token_urlsafe(24)


def authorization_url(client: Client, scopes: Sequence[str], state: str) -> str:
    """Where the user consents.  Without `offline` and `consent` Zoho gives no refresh token."""
    query = {
        "scope": ",".join(scopes),
        "client_id": client.id,
        "response_type": "code",
        "access_type": "offline",
        "prompt": "consent",
        "redirect_uri": client.redirect_uri or "",
        "state": state,
    }
    return f"{client.accounts}/oauth/v2/auth?{urlencode(query)}"


def read_redirect(text: str, *, state: str | None) -> Redirected:
    """The code in a redirected URL; a text without `?` is taken for the code itself.  Raises OperationError."""
    text = _bare(text)
    if "?" not in text and "=" not in text and len(text) > 15:
        return Redirected(text)
    params = dict(parse_qsl(urlsplit(text).query))
    if error := params.get("error"):
        raise _error(error)
    code = params.get("code")
    if not code:
        raise OperationError("auth.not_a_redirect")
    if state is not None and not secrets.compare_digest(params.get("state", ""), state):
        raise OperationError("auth.state")
    return Redirected(code, _trusted(params.get("accounts-server")), params.get("location"))


def redirect_uri_in(text: str) -> str | None:
    """The redirect URI, letter for letter, of a redirected URL; None for a bare code."""
    uri, mark, _ = _bare(text).partition("?")
    return uri if mark and "://" in uri else None


def _bare(text: str) -> str:
    """Without what people copy along."""
    return text.strip().strip("\"'<>")


def _trusted(accounts: str | None) -> str | None:
    if accounts is None:
        return None
    if not datacenters.is_trusted_accounts(accounts):
        raise OperationError("auth.untrusted", host=urlsplit(accounts).hostname or accounts[:60])
    return accounts.rstrip("/")


def _error(code: str) -> OperationError:
    return OperationError(f"auth.{code}" if code in _NAMED else "auth.refused", detail=code[:60])


async def connect(client: Client, redirected: Redirected, *, api_domain: str | None = None) -> Connected:
    """Exchange the code, and read which organisation it opens.  Raises OperationError."""
    traffic = Traffic()
    async with new_session(traffic, wall_clock=time.time) as session:
        accounts = redirected.accounts or client.accounts
        grant = await _exchange(HttpTokenEndpoint(session, accounts), client, redirected, accounts, api_domain)
        for host in _api_hosts(grant.api_domain):
            send = HttpSend(session, host, timeout_s=_TIMEOUT_S, observer=traffic)
            connected = await _organisation(send, grant, host)
            if connected.org_id is not None:
                return connected
        return connected


async def _exchange(
    endpoint: HttpTokenEndpoint, client: Client, redirected: Redirected, accounts: str, api_domain: str | None
) -> Grant:
    form = {
        "grant_type": "authorization_code",
        "client_id": client.id,
        "client_secret": client.secret,
        "code": redirected.code,
    }
    if client.redirect_uri is not None:
        form["redirect_uri"] = client.redirect_uri
    try:
        status, body = await endpoint(form)
    except TransientError:
        raise OperationError("auth.no_answer", accounts=accounts) from None
    return _grant(body if isinstance(body, dict) else {}, status, accounts, api_domain)


def _grant(body: dict[str, Any], status: int, accounts: str, api_domain: str | None) -> Grant:
    """Zoho answers errors with 200, so only a token makes an answer good."""
    access_token, refresh_token = body.get("access_token"), body.get("refresh_token")
    if not isinstance(access_token, str):
        if "too many requests" in str(body.get("error_description", "")).lower():
            raise OperationError("auth.throttled")
        raise _error(str(body.get("error") or f"HTTP {status}"))
    if not isinstance(refresh_token, str):
        raise OperationError("auth.no_refresh_token")
    told = str(body.get("api_domain") or api_domain or "")
    if not datacenters.is_trusted_api(told):
        raise OperationError("auth.untrusted", host=urlsplit(told).hostname or told[:60])
    scopes = tuple(str(body.get("scope") or "").replace(",", " ").split())
    return Grant(refresh_token, access_token, accounts, told.rstrip("/"), scopes)


def _api_hosts(api_domain: str) -> list[str]:
    """Zoho names the host of production; a sandbox or developer organisation answers on one of its own."""
    others = ("sandbox", "developer") if "://www." in api_domain else ()
    return [api_domain, *(api_domain.replace("://www.", f"://{prefix}.") for prefix in others)]


async def _organisation(send: HttpSend, grant: Grant, host: str) -> Connected:
    call = with_token(Call(Operation.METADATA, "GET", "/org"), grant.access_token)
    try:
        reply = await send(call)
    except SyncError as error:
        return Connected(grant, grant.api_domain, org_error=error.code)
    rows = reply.body.get("org") if reply.body else None
    org = rows[0] if isinstance(rows, list) and rows and isinstance(rows[0], dict) else {}
    org_id = org_id_of(org)
    if org_id is None:
        return Connected(grant, grant.api_domain, org_error="EMPTY_ANSWER")
    return Connected(grant, host, org_id, str(org.get("company_name") or ""))


# -- the redirect on this machine -------------------------------------------------------------------------------


def loopback_address(redirect_uri: str) -> tuple[str, int, str]:
    """Host, port and path to listen on.  Raises OperationError for an address that is not of this machine."""
    parts = urlsplit(redirect_uri)
    if parts.scheme != "http" or not datacenters.is_loopback(redirect_uri):
        raise OperationError("auth.not_loopback", uri=redirect_uri)
    return parts.hostname or "127.0.0.1", parts.port or 80, parts.path or "/"


@asynccontextmanager
async def listening(redirect_uri: str, *, page: str) -> AsyncIterator[asyncio.Future[str]]:
    """Listen there; the future gets the redirected URL.  `page` is what the user's browser shows."""
    host, port, path = loopback_address(redirect_uri)
    arrived: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def on_redirect(request: web.Request) -> web.Response:
        if not arrived.done() and ("code" in request.query or "error" in request.query):
            arrived.set_result(str(request.url))
        return web.Response(text=page, headers={"Cache-Control": "no-store", "Referrer-Policy": "no-referrer"})

    app = web.Application()
    app.router.add_get(path, on_redirect)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port).start()
        yield arrived
    except OSError as error:
        raise OperationError("auth.port", port=port, detail=error.strerror or type(error).__name__) from None
    finally:
        await runner.cleanup()


# -- what is kept -----------------------------------------------------------------------------------------------


def variables(client: Client, connected: Connected) -> dict[str, str]:
    """What the service needs to know from now on."""
    found = {
        "ZOHO_CLIENT_ID": client.id,
        "ZOHO_CLIENT_SECRET": client.secret,
        "ZOHO_REFRESH_TOKEN": connected.grant.refresh_token,
        "ZOHO_API_DOMAIN": connected.api_domain,
    }
    center = datacenters.of_api_domain(connected.api_domain)
    if connected.grant.accounts != (center.accounts if center else connected.api_domain):
        found["ZOHO_ACCOUNTS_DOMAIN"] = connected.grant.accounts
    if connected.org_id:
        found["ZOHO_ORG_ID"] = connected.org_id
    return found


def write_env(file: Path, values: dict[str, str]) -> None:
    """Set these variables in the file, keep everything else of it; only its owner can read it afterwards."""
    lines = file.read_text("utf-8").splitlines() if file.exists() else []
    left = dict(values)
    kept = [f"{name}={left.pop(name)}" if (name := _name_in(line)) in left else line for line in lines]
    kept = [line for line in kept if not _is_stale(line, values)]
    text = "\n".join([*kept, *(f"{name}={value}" for name, value in left.items())]) + "\n"
    descriptor, name = tempfile.mkstemp(dir=file.resolve().parent, prefix=".env.")
    with os.fdopen(descriptor, "w", encoding="utf-8") as out:
        out.write(text)
    Path(name).replace(file.resolve())


def _name_in(line: str) -> str:
    return line.strip().removeprefix("export ").partition("=")[0].strip()


def _is_stale(line: str, values: dict[str, str]) -> bool:
    """An accounts host of before would send the new secrets to the old data centre."""
    return _name_in(line) == "ZOHO_ACCOUNTS_DOMAIN" and "ZOHO_ACCOUNTS_DOMAIN" not in values


def secret_manifest(name: str, values: dict[str, str]) -> str:
    """A Kubernetes Secret with the three credentials, as k8s/base mounts them."""
    data = {key.lower().replace("_", "-"): base64.b64encode(values[key].encode()).decode() for key in _CREDENTIALS}
    lines = [
        "apiVersion: v1",
        "kind: Secret",
        "metadata:",
        f"  name: {name}",
        "type: Opaque",
        "data:",
        *(f"  {key}: {value}" for key, value in data.items()),
    ]
    return "\n".join(lines) + "\n"
