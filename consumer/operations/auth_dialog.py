"""The conversation around `auth`: asks for what is missing, shows the address, waits for the answer."""

from __future__ import annotations

import asyncio
import getpass
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from consumer.core import datacenters
from consumer.operations import auth
from consumer.operations.auth import Client, Connected, Redirected
from consumer.operations.errors import OperationError
from consumer.operations.scopes import scope_names
from consumer.operations.texts import phrase

if TYPE_CHECKING:
    from pathlib import Path

    from consumer.operations.terminal import Terminal
    from consumer.settings import Settings

_SECRETS = frozenset({"ZOHO_CLIENT_ID", "ZOHO_CLIENT_SECRET", "ZOHO_REFRESH_TOKEN"})


@dataclass(frozen=True, slots=True)
class AuthOptions:
    """What the command line says; None is asked for, or has a default."""

    dc: str | None = None
    redirect_uri: str | None = None
    listen: bool = False
    code: str | None = None
    with_setup: bool = False
    is_piped_on: bool = False
    """Standard output is for a secret alone, which another program reads."""
    timeout_s: float = 600.0


async def ask_and_connect(terminal: Terminal, settings: Settings, options: AuthOptions) -> tuple[Client, Connected]:
    """From nothing to a grant.  Raises OperationError."""
    client = _client(terminal, settings, options)
    if options.code is not None:
        redirected = auth.read_redirect(options.code, state=None)
    else:
        redirected = await _ask_zoho(terminal, settings, client, options)
    if redirected.location:
        terminal.note(phrase(terminal.lang, "auth.location", location=redirected.location))
    return client, await auth.connect(client, redirected, api_domain=settings.zoho_api_domain)


def _client(terminal: Terminal, settings: Settings, options: AuthOptions) -> Client:
    given = [settings.secret(name).get() for name in ("ZOHO_CLIENT_ID", "ZOHO_CLIENT_SECRET")]
    missing = [name for name, value in zip(("ZOHO_CLIENT_ID", "ZOHO_CLIENT_SECRET"), given, strict=True) if not value]
    if missing and not terminal.is_asking_possible:
        raise OperationError("auth.need", names=", ".join(missing))
    if missing:
        terminal.note(phrase(terminal.lang, "auth.intro"))
    accounts = _accounts(terminal, settings, options, is_new=bool(missing))
    client_id = given[0] or _ask(terminal, "auth.ask.client_id")
    secret = given[1] or _ask(terminal, "auth.ask.client_secret", is_hidden=True)
    return Client(client_id, secret, accounts, _redirect_uri(terminal, options, is_new=bool(missing)))


def _accounts(terminal: Terminal, settings: Settings, options: AuthOptions, *, is_new: bool) -> str:
    """`--dc`, or what is set; who begins from nothing is asked."""
    known = ", ".join(center.location for center in datacenters.DATA_CENTERS)
    text = options.dc
    if text is None and is_new and not {"zoho_api_domain", "zoho_accounts_domain"} & settings.model_fields_set:
        text = _ask(terminal, "auth.ask.dc", default="us", known=known)
    if text is None:
        return settings.accounts_domain
    center = datacenters.of_location(text.strip())
    if center is None:
        raise OperationError("auth.bad_dc", text=text, known=known)
    return center.accounts


def _redirect_uri(terminal: Terminal, options: AuthOptions, *, is_new: bool) -> str | None:
    """A bare code is one of a self client, unless a redirect URI is given with it; a whole address names its own."""
    if options.redirect_uri:
        return options.redirect_uri
    if options.code is not None:
        return auth.redirect_uri_in(options.code)
    if is_new:
        return _ask(terminal, "auth.ask.redirect", default=auth.DEFAULT_REDIRECT)
    return auth.DEFAULT_REDIRECT


def _ask(terminal: Terminal, code: str, *, default: str = "", is_hidden: bool = False, **facts: str) -> str:
    question = phrase(terminal.lang, code, **facts) + (f" [{default}]" if default else "") + ": "
    if is_hidden:
        return getpass.getpass(question).strip()
    sys.stderr.write(question)
    sys.stderr.flush()
    return sys.stdin.readline().strip() or default


async def _ask_zoho(terminal: Terminal, settings: Settings, client: Client, options: AuthOptions) -> Redirected:
    lang, state = terminal.lang, auth.new_state()
    names = scope_names(settings, with_setup=options.with_setup)
    terminal.note(phrase(lang, "auth.scopes"))
    for name in names:
        terminal.note(f"  {name:<38} {phrase(lang, f'scope.{name}')}")
    terminal.note()
    terminal.note(phrase(lang, "auth.open"))
    url = auth.authorization_url(client, names, state)
    if not options.listen:
        _show_url(terminal, url, options)
        return auth.read_redirect(await asyncio.to_thread(_ask, terminal, "auth.ask.paste"), state=state)
    return auth.read_redirect(await _listen(terminal, client, url, options), state=state)


def _show_url(terminal: Terminal, url: str, options: AuthOptions) -> None:
    """On standard output, in one piece; and on the screen, where standard output does not lead there or is taken."""
    terminal.note()
    if not options.is_piped_on:
        sys.stdout.write(f"{url}\n")
        sys.stdout.flush()
    if options.is_piped_on or (terminal.err.is_terminal and not terminal.out.is_terminal):
        terminal.note(url)
    terminal.note()


async def _listen(terminal: Terminal, client: Client, url: str, options: AuthOptions) -> str:
    uri = client.redirect_uri or auth.DEFAULT_REDIRECT
    async with auth.listening(uri, page=phrase(terminal.lang, "auth.page")) as arrived:
        _show_url(terminal, url, options)
        terminal.note(phrase(terminal.lang, "auth.listening", uri=uri))
        try:
            async with asyncio.timeout(options.timeout_s):
                return await arrived
        except TimeoutError:
            raise OperationError("auth.timeout", minutes=round(options.timeout_s / 60)) from None


def say_connected(terminal: Terminal, connected: Connected, values: dict[str, str], file: Path | None) -> None:
    """What came of it; secrets by name only."""
    lang = terminal.lang
    if connected.org_id:
        org, company = connected.org_id, connected.company or "?"
        terminal.note(phrase(lang, "auth.done.org", company=company, org=org), style="green")
    else:
        terminal.error(OperationError("auth.done.no_org", detail=connected.org_error))
    if file is not None:
        terminal.note(phrase(lang, "auth.done.env", file=file, names=", ".join(values)))
    else:
        for name in values.keys() - _SECRETS:
            terminal.note(f"{name}={values[name]}")
    terminal.note(phrase(lang, "auth.done.next"))
