"""From a client in the API console to a refresh token, and each way in which that can fail."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import aiohttp
import pytest

from consumer.operations import auth
from consumer.operations.auth import Client, Redirected
from consumer.operations.errors import OperationError
from consumer.operations.scopes import scope_names
from consumer.settings import load_settings
from sandbox.zoho.faults import Action, Answer, Drop, Fault, Match
from sandbox.zoho.server import SandboxServer

SCOPES = scope_names(load_settings(_env_file=None), with_setup=False)


def client_of(zoho: SandboxServer, **changes: Any) -> Client:
    """The stand-in's client."""
    given = zoho.credentials
    usual = {
        "id": given["client_id"],
        "secret": given["client_secret"],
        "accounts": given["url"],
        "redirect_uri": auth.DEFAULT_REDIRECT,
    }
    return Client(**(usual | changes))


async def consented(url: str) -> str:
    """What the browser's address bar shows after “Accept”."""
    async with aiohttp.ClientSession() as session, session.get(url, allow_redirects=False) as response:
        return response.headers["Location"]


async def code_of(zoho: SandboxServer, client: Client) -> Redirected:
    """A fresh code."""
    state = auth.new_state()
    return auth.read_redirect(await consented(auth.authorization_url(client, SCOPES, state)), state=state)


async def failure(zoho: SandboxServer, client: Client, redirected: Redirected) -> str:
    """The code of the error that the exchange ends with."""
    with pytest.raises(OperationError) as caught:
        await auth.connect(client, redirected, api_domain=zoho.url)
    return caught.value.code


async def test_connects(zoho: SandboxServer) -> None:
    """The pasted address becomes a refresh token with every scope, and the organisation is read."""
    client = client_of(zoho)
    connected = await auth.connect(client, await code_of(zoho, client))
    assert (connected.org_id, connected.company) == ("org808232144", "Sandbox Company")
    assert set(zoho.engine.accounts.refresh_tokens[connected.grant.refresh_token].scopes) == set(SCOPES)


@pytest.mark.parametrize(
    "action",
    [
        Drop(commit=False),
        Answer(status=404),
        Answer(status=200, body={"org": []}),
        Answer(status=200, body={"org": [{}]}),
    ],
)
async def test_connects_without_the_organisation(zoho: SandboxServer, action: Action) -> None:
    """Where Zoho does not tell the organisation, the token is kept all the same, and no id is made up."""
    zoho.engine.faults.add(Fault(action=action, match=Match(path=r"/org\?"), times=None))
    client = client_of(zoho)
    connected = await auth.connect(client, await code_of(zoho, client))
    assert connected.org_error
    assert "ZOHO_ORG_ID" not in auth.variables(client, connected)
    assert auth.variables(client, connected)["ZOHO_REFRESH_TOKEN"] in zoho.engine.accounts.refresh_tokens


async def test_a_code_of_a_self_client_connects(zoho: SandboxServer) -> None:
    """A bare code, made by hand in the API console, needs no redirect URI."""
    made = zoho.engine.accounts.add_client(is_self=True)
    code = zoho.engine.accounts.self_client_code(made.id, SCOPES)
    client = client_of(zoho, id=made.id, secret=made.secret, redirect_uri=None)
    assert (await auth.connect(client, auth.read_redirect(code, state=None))).org_id


async def test_listens_on_this_machine(zoho: SandboxServer, unused_tcp_port: int) -> None:
    """With a redirect URI on this machine nothing has to be pasted."""
    uri = f"http://127.0.0.1:{unused_tcp_port}/callback"
    made = zoho.engine.accounts.add_client(redirect_uris=(uri,))
    client = client_of(zoho, id=made.id, secret=made.secret, redirect_uri=uri)
    state = auth.new_state()
    async with auth.listening(uri, page="done") as arrived, aiohttp.ClientSession() as browser:
        async with browser.get(auth.authorization_url(client, SCOPES, state)) as page:
            assert await page.text() == "done"
        redirected = auth.read_redirect(await arrived, state=state)
    assert (await auth.connect(client, redirected)).org_id


def test_asks_for_a_refresh_token() -> None:
    """The address asks for offline access and consent, with scopes separated by commas."""
    client = Client("id", "s3cret", "https://accounts.zoho.eu", "https://x.example/back")
    query = dict(parse_qsl(urlsplit(auth.authorization_url(client, ["a.READ", "b.READ"], "st")).query))
    assert (query["access_type"], query["prompt"], query["scope"]) == ("offline", "consent", "a.READ,b.READ")
    assert "s3cret" not in str(query)


async def test_a_code_too_old_is_told(zoho: SandboxServer) -> None:
    """A code lives three minutes."""
    client = client_of(zoho)
    redirected = await code_of(zoho, client)
    zoho.clock.advance(181)
    assert await failure(zoho, client, redirected) == "auth.invalid_code"


async def test_a_code_used_twice_is_told(zoho: SandboxServer) -> None:
    """A code works once."""
    client = client_of(zoho)
    redirected = await code_of(zoho, client)
    await auth.connect(client, redirected)
    assert await failure(zoho, client, redirected) == "auth.invalid_code"


async def test_a_wrong_redirect_uri_is_told(zoho: SandboxServer) -> None:
    """The redirect URI of the exchange must be that of the question."""
    redirected = await code_of(zoho, client_of(zoho))
    other = client_of(zoho, redirect_uri="http://127.0.0.1:8085/callback/")
    assert await failure(zoho, other, redirected) == "auth.invalid_redirect_uri"


@pytest.mark.parametrize("prompt", ["access_type=online", "prompt=none"])
async def test_a_missing_refresh_token_is_told(zoho: SandboxServer, prompt: str) -> None:
    """Zoho may give an access token alone, which would end in an hour."""
    client = client_of(zoho)
    await auth.connect(client, await code_of(zoho, client))
    url = auth.authorization_url(client, SCOPES, "st")
    url = url.replace("access_type=offline", prompt).replace("prompt=consent", prompt)
    redirected = auth.read_redirect(await consented(url), state="st")
    assert await failure(zoho, client, redirected) == "auth.no_refresh_token"


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"id": "1000.NOBODY"}, "auth.invalid_client"),
        ({"secret": "wrong"}, "auth.invalid_client_secret"),
        ({"accounts": "http://127.0.0.1:1"}, "auth.no_answer"),
    ],
)
async def test_wrong_credentials_are_told(zoho: SandboxServer, changes: dict[str, str], code: str) -> None:
    """Which of the client's two halves is wrong, or that nobody answers, is told by name."""
    assert await failure(zoho, client_of(zoho, **changes), Redirected("1000.some.code")) == code


async def test_a_refusal_is_told(zoho: SandboxServer) -> None:
    """“Reject” comes back as what it is."""
    zoho.engine.accounts.consents = False
    address = await consented(auth.authorization_url(client_of(zoho), SCOPES, "st"))
    with pytest.raises(OperationError) as caught:
        auth.read_redirect(address, state="st")
    assert caught.value.code == "auth.access_denied"


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("http://127.0.0.1:8085/callback?code=1000.a&state=other", "auth.state"),
        ("http://127.0.0.1:8085/callback?code=1000.a", "auth.state"),
        ("https://accounts.zoho.eu/oauth/v2/auth?client_id=1", "auth.not_a_redirect"),
        ("", "auth.not_a_redirect"),
        (
            "http://x/?code=1000.a&state=st&accounts-server=https%3A%2F%2Faccounts.zoho.com.evil.example",
            "auth.untrusted",
        ),
        ("http://x/?code=1000.a&state=st&accounts-server=http%3A%2F%2Faccounts.zoho.eu", "auth.untrusted"),
    ],
)
def test_a_wrong_answer_is_told_before_the_secret_leaves(text: str, code: str) -> None:
    """Another question's answer, no answer at all, and a host that is not Zoho's are refused."""
    with pytest.raises(OperationError) as caught:
        auth.read_redirect(text, state="st")
    assert caught.value.code == code


@pytest.mark.parametrize(
    ("text", "uri"),
    [
        ("1000.a.bare.code.of.a.self.client", None),
        ("http://127.0.0.1:9000/back?code=1000.a&location=eu", "http://127.0.0.1:9000/back"),
        (" 'https://x.example/oauth/?state=st&code=1000.a' ", "https://x.example/oauth/"),
    ],
)
def test_a_whole_address_names_its_redirect_uri(text: str, uri: str | None) -> None:
    """Zoho wants the redirect URI letter for letter, and the address that the browser ended at begins with it."""
    assert auth.redirect_uri_in(text) == uri


def test_follows_the_user_to_their_data_center() -> None:
    """The token call goes to the accounts host that the redirect names."""
    text = "http://x/?code=1000.a&state=st&location=eu&accounts-server=https%3A%2F%2Faccounts.zoho.eu"
    assert auth.read_redirect(text, state="st") == Redirected("1000.a", "https://accounts.zoho.eu", "eu")


def test_keeps_the_rest_of_the_file(tmp_path: Path) -> None:
    """Only what is new changes; comments and other variables stay, and nobody else can read the file."""
    file = tmp_path / ".env"
    file.write_text("# mine\nZOHO_REFRESH_TOKEN=old\nZOHO_ACCOUNTS_DOMAIN=https://accounts.zoho.com\nKAFKA_TOPIC=t\n")
    auth.write_env(file, {"ZOHO_REFRESH_TOKEN": "new", "ZOHO_CLIENT_ID": "1000.A"})
    assert file.read_text() == "# mine\nZOHO_REFRESH_TOKEN=new\nKAFKA_TOPIC=t\nZOHO_CLIENT_ID=1000.A\n"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_secrets_do_not_show() -> None:
    """What may end up in a log or a traceback holds no secret."""
    client = Client("id", "s3cret", "https://accounts.zoho.eu", None)
    grant = auth.Grant("r3fresh", "acc3ss", "https://accounts.zoho.eu", "https://www.zohoapis.eu")
    shown = repr((client, grant, Redirected("c0de")))
    assert not any(secret in shown for secret in ("s3cret", "r3fresh", "acc3ss", "c0de"))
