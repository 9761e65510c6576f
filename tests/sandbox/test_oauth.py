"""Points 1 to 8: Zoho Accounts, tokens and scopes."""

from __future__ import annotations

from urllib.parse import parse_qs, urlsplit

import pytest

from sandbox.zoho import Request, Response
from tests.sandbox.harness import Zoho, code

REDIRECT = "http://127.0.0.1:8085/callback"


def authorize(zoho: Zoho, **params: str) -> Response:
    wanted = {
        "client_id": zoho.engine.credentials["client_id"],
        "response_type": "code",
        "redirect_uri": REDIRECT,
        "scope": "ZohoCRM.modules.ALL,ZohoCRM.org.READ",
        "access_type": "offline",
        "state": "s1",
    }
    return zoho.engine.handle(Request.build("GET", "/oauth/v2/auth", params=wanted | params))


def redirected(response: Response) -> dict[str, str]:
    query = urlsplit(response.headers["location"]).query
    return {name: values[0] for name, values in parse_qs(query).items()}


def exchange(zoho: Zoho, auth_code: str, **params: str) -> Response:
    return zoho.token_call(**{"grant_type": "authorization_code", "code": auth_code, "redirect_uri": REDIRECT} | params)


def api_status(zoho: Zoho, token: str) -> int:
    return zoho.engine.handle(Request.build("GET", "/crm/v8/org", token=token)).status


def test_point_01_authorize_redirects_with_code_location_server_and_state() -> None:
    """The authorization URL sends the browser back with all that the token call needs."""
    answer = authorize(Zoho())
    assert answer.status == 302
    assert answer.headers["location"].startswith(REDIRECT)
    params = redirected(answer)
    assert params.pop("code").startswith("1000.")
    assert params == {"location": "us", "accounts-server": "https://accounts.zoho.com", "state": "s1"}


def test_point_01_a_local_organisation_names_its_own_server() -> None:
    """Where the API is served at another address, so are the accounts of its data centre, and of no other."""
    zoho = Zoho(api_domain="http://127.0.0.1:9")
    assert redirected(authorize(zoho))["accounts-server"] == "http://127.0.0.1:9"
    client = zoho.engine.accounts.add_client(dc="eu", redirect_uris=(REDIRECT,))
    request = Request.build(
        "GET",
        "/oauth/v2/auth",
        params={"client_id": client.id, "response_type": "code", "redirect_uri": REDIRECT},
        host="accounts.zoho.eu",
    )
    assert redirected(zoho.engine.handle(request))["accounts-server"] == "https://accounts.zoho.eu"


def test_point_01_refused_consent_redirects_with_access_denied() -> None:
    """A user who says no is sent back with an error instead of a code."""
    zoho = Zoho()
    zoho.engine.accounts.consents = False
    assert redirected(authorize(zoho)) == {"error": "access_denied", "state": "s1"}


@pytest.mark.parametrize("place", ["form", "query"])
def test_point_01_token_call_takes_form_and_query(place: str) -> None:
    """Token parameters may come as a form or in the query."""
    zoho = Zoho()
    params = {"grant_type": "refresh_token", **zoho.engine.credentials}
    request = (
        Request.build("POST", "/oauth/v2/token", form=params)
        if place == "form"
        else Request.build("POST", "/oauth/v2/token", params=params)
    )
    assert "access_token" in zoho.engine.handle(request).json()


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        ({"client_id": "1000.X"}, "invalid_client"),
        ({"client_secret": "x"}, "invalid_client_secret"),
        ({"refresh_token": "1000.x"}, "invalid_code"),
        ({"grant_type": "authorization_code", "code": "1000.x"}, "invalid_code"),
    ],
)
def test_point_02_oauth_faults_come_under_200(wrong: dict[str, str], error: str) -> None:
    """A wrong client, secret, code or refresh token is answered with HTTP 200 and an error in the body."""
    answer = Zoho().token_call(**wrong)
    assert (answer.status, answer.json()) == (200, {"error": error})


def test_point_02_wrong_redirect_is_a_fault_of_both_steps() -> None:
    """The redirect must be registered, and be the same in both steps."""
    zoho = Zoho()
    assert authorize(zoho, redirect_uri="http://evil.example/").json() == {"error": "invalid_redirect_uri"}
    auth_code = redirected(authorize(zoho))["code"]
    assert exchange(zoho, auth_code, redirect_uri="http://evil.example/").json() == {"error": "invalid_redirect_uri"}


def test_point_02_revoked_refresh_token_gives_invalid_code() -> None:
    """After the revocation the refresh token is worth nothing, and so are its access tokens."""
    zoho = Zoho()
    token = zoho.engine.credentials["refresh_token"]
    revoke = Request.build("POST", "/oauth/v2/token/revoke", params={"token": token})
    assert zoho.engine.handle(revoke).json() == {"status": "success"}
    assert zoho.token_call().json() == {"error": "invalid_code"}
    assert code(zoho.get("org")) == "INVALID_TOKEN"


def test_point_02_revoking_a_made_up_token_gives_a_page() -> None:
    """A token that never was is answered with 400 and HTML."""
    revoke = Request.build("POST", "/oauth/v2/token/revoke", params={"token": "x"})
    answer = Zoho().engine.handle(revoke)
    assert answer.status == 400
    assert answer.headers["content-type"].startswith("text/html")


def test_point_03_code_works_once() -> None:
    """A code is good for one exchange."""
    zoho = Zoho()
    auth_code = redirected(authorize(zoho))["code"]
    assert "refresh_token" in exchange(zoho, auth_code).json()
    assert exchange(zoho, auth_code).json() == {"error": "invalid_code"}


@pytest.mark.parametrize(("age_s", "is_good"), [(179, True), (180, False)])
def test_point_03_code_lives_three_minutes(age_s: float, is_good: bool) -> None:
    """A code that is three minutes old is worth nothing."""
    zoho = Zoho()
    auth_code = redirected(authorize(zoho))["code"]
    zoho.clock.advance(age_s)
    assert ("access_token" in exchange(zoho, auth_code).json()) == is_good


def test_point_03_refresh_token_only_for_offline_access() -> None:
    """Without `access_type=offline` there is no refresh token."""
    zoho = Zoho()
    answer = exchange(zoho, redirected(authorize(zoho, access_type="online"))["code"]).json()
    assert "access_token" in answer
    assert "refresh_token" not in answer


def test_point_03_second_consent_needs_the_prompt_for_a_refresh_token() -> None:
    """Only the first consent, or one that was asked for, brings a refresh token."""
    zoho = Zoho()
    assert "refresh_token" in exchange(zoho, redirected(authorize(zoho))["code"]).json()
    assert "refresh_token" not in exchange(zoho, redirected(authorize(zoho))["code"]).json()
    assert "refresh_token" in exchange(zoho, redirected(authorize(zoho, prompt="consent"))["code"]).json()


def test_point_03_self_client_gets_a_refresh_token_without_redirect() -> None:
    """A code made by hand needs no redirect and brings a refresh token."""
    zoho = Zoho()
    client = zoho.engine.accounts.add_client(is_self=True)
    auth_code = zoho.engine.accounts.self_client_code(client.id)
    answer = zoho.token_call(
        grant_type="authorization_code", client_id=client.id, client_secret=client.secret, code=auth_code
    )
    assert "refresh_token" in answer.json()


def test_point_03_refresh_brings_no_refresh_token() -> None:
    """A refresh answers with an access token alone."""
    assert "refresh_token" not in Zoho().token_call().json()


@pytest.mark.parametrize("status", [200, 400])
def test_point_04_eleventh_token_in_ten_minutes_is_refused(status: int) -> None:
    """Ten access tokens in ten minutes; the next attempt is told to stop, under either status."""
    zoho = Zoho(token_throttle_status=status)
    assert all("access_token" in zoho.token_call().json() for _ in range(10))
    answer = zoho.token_call()
    assert answer.status == status
    assert answer.json()["error"] == "Access Denied"
    assert "too many requests continuously" in answer.json()["error_description"]


@pytest.mark.parametrize("prolongs", [False, True])
def test_point_04_retrying_prolongs_the_throttle(prolongs: bool) -> None:
    """Who keeps asking stays refused, unless the organisation is set to count good answers only."""
    zoho = Zoho(token_throttle_prolongs=prolongs)
    for _ in range(10):
        zoho.token_call()
    for _ in range(11):
        zoho.clock.advance(60)
        answer = zoho.token_call()
    assert ("access_token" in answer.json()) is not prolongs


def test_point_04_retrying_prolongs_unless_told() -> None:
    """By default every refused attempt starts the ten minutes anew."""
    zoho = Zoho()
    for _ in range(11):
        zoho.token_call()
    zoho.clock.advance(599)
    zoho.token_call()
    zoho.clock.advance(599)
    assert "access_token" not in zoho.token_call().json()


def test_point_04_throttle_ends_with_its_window() -> None:
    """Ten quiet minutes later there is a token again."""
    zoho = Zoho()
    for _ in range(11):
        zoho.token_call()
    zoho.clock.advance(600)
    assert "access_token" in zoho.token_call().json()


@pytest.mark.parametrize("limit", [10, 15])
def test_point_05_one_token_too_many_kills_the_oldest(limit: int) -> None:
    """Only so many access tokens are alive; the oldest then fails like an expired one."""
    zoho = Zoho(active_access_tokens=limit, access_tokens_per_window=100)
    first = zoho.token
    for _ in range(limit - 1):
        zoho.token_call()
    assert api_status(zoho, first) == 200
    zoho.token_call()
    assert api_status(zoho, first) == 401


@pytest.mark.parametrize(("age_s", "status"), [(3599, 200), (3600, 401)])
def test_point_06_access_token_lives_an_hour(age_s: float, status: int) -> None:
    """An access token is good for 3,600 seconds."""
    zoho = Zoho()
    zoho.clock.advance(age_s)
    assert zoho.get("org").status == status


def test_point_06_tokens_can_be_expired_at_once() -> None:
    """A test can let every access token expire."""
    zoho = Zoho()
    zoho.engine.steps.run("expire_access_tokens", {})
    assert code(zoho.get("org")) == "INVALID_TOKEN"


@pytest.mark.parametrize(
    ("form", "life"),
    [
        ("seconds", {"expires_in": 3600}),
        ("omitted", {}),
        ("milliseconds", {"expires_in_sec": 3600, "expires_in": 3_600_000}),
    ],
)
def test_point_06_life_is_told_in_every_known_form(form: str, life: dict[str, int]) -> None:
    """The life of a token comes in seconds, not at all, or beside milliseconds."""
    answer = Zoho(expires_in_form=form).token_call().json()
    assert {name: answer[name] for name in answer if name.startswith("expires")} == life


def test_point_07_client_of_another_data_centre_is_unknown() -> None:
    """Each data centre knows only its own clients."""
    zoho = Zoho()
    assert zoho.token_call(host="accounts.zoho.eu").json() == {"error": "invalid_client"}
    assert "access_token" in zoho.token_call(host="accounts.zoho.com").json()


def test_point_07_token_of_another_data_centre_is_refused() -> None:
    """An access token opens only its own data centre."""
    zoho = Zoho()
    client = zoho.engine.accounts.add_client(dc="eu")
    refresh_token = zoho.engine.accounts.issue_refresh_token(client.id)
    credentials = {"client_id": client.id, "client_secret": client.secret, "refresh_token": refresh_token}
    answer = zoho.token_call(host="accounts.zoho.eu", **credentials).json()
    assert answer["api_domain"] == "https://www.zohoapis.eu"
    assert api_status(zoho, answer["access_token"]) == 401


@pytest.mark.parametrize(
    ("org_type", "host", "status"),
    [
        ("production", "www.zohoapis.com", 200),
        ("production", "developer.zohoapis.com", 401),
        ("production", "www.zohoapis.eu", 401),
        ("developer", "developer.zohoapis.com", 200),
        ("developer", "www.zohoapis.com", 401),
        ("sandbox", "sandbox.zohoapis.com", 200),
        ("production", "zoho.internal", 200),
    ],
)
def test_point_07_wrong_host_gives_a_bare_401(org_type: str, host: str, status: int) -> None:
    """A developer or sandbox organisation answers only on its own host, and elsewhere says nothing at all."""
    zoho = Zoho(org_type=org_type)
    answer = zoho.engine.handle(Request.build("GET", "/crm/v8/org", token=zoho.token, host=host))
    assert answer.status == status
    assert (answer.body == b"") == (status == 401)


def test_point_07_api_domain_is_always_the_production_host() -> None:
    """Even a developer organisation's token names the production host."""
    assert Zoho(org_type="developer").token_call().json()["api_domain"] == "https://www.zohoapis.com"


@pytest.mark.parametrize(
    ("authorization", "expected"),
    [
        (None, "AUTHENTICATION_FAILURE"),
        ("Bearer {token}", "AUTHENTICATION_FAILURE"),
        ("Zoho-oauthtoken 1000.x", "INVALID_TOKEN"),
    ],
)
def test_point_08_only_zohos_own_scheme_opens(authorization: str | None, expected: str) -> None:
    """No header, another scheme or a wrong token is a 401 with its own code."""
    zoho = Zoho()
    headers = {} if authorization is None else {"Authorization": authorization.format(token=zoho.token)}
    answer = zoho.engine.handle(Request("GET", "/crm/v8/org", headers=headers))
    assert (answer.status, code(answer)) == (401, expected)


@pytest.mark.parametrize("envelope", ["top", "data"])
def test_point_08_refusal_comes_in_either_envelope(envelope: str) -> None:
    """The error object stands alone, or in a `data` list, as the organisation is set."""
    zoho = Zoho(auth_error_envelope=envelope, invalid_token_code="AUTHENTICATION_FAILURE")
    zoho.token = "1000.x"
    body = zoho.get("org").json()
    assert (body if envelope == "top" else body["data"][0])["code"] == "AUTHENTICATION_FAILURE"


@pytest.mark.parametrize(
    ("scope", "method", "path"),
    [
        ("ZohoSearch.securesearch.READ", "GET", "Leads/search?phone=14155550100"),
        ("ZohoCRM.coql.READ", "POST", "coql"),
        ("ZohoCRM.org.READ", "GET", "org"),
        ("ZohoCRM.users.READ", "GET", "users?type=CurrentUser"),
        ("ZohoCRM.settings.ALL", "GET", "settings/modules"),
        ("ZohoCRM.settings.ALL", "GET", "settings/fields?module=Leads"),
        ("ZohoCRM.modules.ALL", "GET", "Leads?fields=Last_Name"),
    ],
)
def test_point_08_each_call_needs_its_scope(scope: str, method: str, path: str) -> None:
    """Without its scope a call is refused with OAUTH_SCOPE_MISMATCH, and with it it is not."""
    zoho = Zoho()
    path, _, query = path.partition("?")
    params = dict(pair.split("=") for pair in query.split("&")) if query else {}
    body = {"select_query": "select id from Leads where id = 1"} if method == "POST" else None
    assert zoho.call(method, path, body, **params).status in (200, 204)
    zoho.use_scopes_without(scope)
    answer = zoho.call(method, path, body, **params)
    assert (answer.status, code(answer)) == (401, "OAUTH_SCOPE_MISMATCH")


@pytest.mark.parametrize(
    ("scopes", "module", "is_allowed"),
    [
        (["ZohoCRM.modules.leads.CREATE"], "Leads", True),
        (["ZohoCRM.modules.leads.CREATE"], "Contacts", False),
        (["ZohoCRM.modules.Leads.ALL"], "Leads", True),
        (["ZohoCRM.modules.CREATE"], "Leads", True),
        (["ZohoCRM.modules.leads.READ"], "Leads", False),
        (["ZohoCRM.modules.custom.CREATE"], "Messages", True),
        (["ZohoCRM.modules.custom.CREATE"], "Leads", False),
        (["ZohoCRM.modules.messages.CREATE"], "Messages", True),
    ],
)
def test_point_08_module_scopes_name_module_and_verb(scopes: list[str], module: str, is_allowed: bool) -> None:
    """A module's scope is for that module and that verb; `custom` stands for every custom module."""
    zoho = Zoho()
    zoho.use_scopes(*scopes)
    row = {"Last_Name": "A", "Name": "A"}
    assert (zoho.insert(module, row).status == 201) == is_allowed


def test_point_08_notes_have_their_own_scopes() -> None:
    """To make notes one needs the scope for notes; for a note in the path of a lead also the lead's READ."""
    zoho = Zoho()
    lead_id = zoho.lead()
    zoho.use_scopes("ZohoCRM.modules.notes.CREATE")
    assert zoho.note(lead_id).status == 201
    row = {"Note_Content": "C"}
    assert code(zoho.insert(f"Leads/{lead_id}/Notes", row)) == "OAUTH_SCOPE_MISMATCH"
    zoho.use_scopes("ZohoCRM.modules.notes.CREATE", "ZohoCRM.modules.leads.READ")
    assert zoho.insert(f"Leads/{lead_id}/Notes", row).status == 201


def test_point_08_query_needs_the_modules_scope_too() -> None:
    """A query also needs READ on the module that it asks."""
    zoho = Zoho()
    zoho.use_scopes("ZohoCRM.coql.READ", "ZohoCRM.modules.contacts.READ")
    assert code(zoho.coql("select id from Leads where id = 1")) == "OAUTH_SCOPE_MISMATCH"
    assert zoho.coql("select id from Contacts where id = 1").status == 204


def test_only_ten_codes_in_ten_minutes() -> None:
    """The eleventh code of a client in ten minutes is denied."""
    zoho = Zoho()
    assert all("code" in redirected(authorize(zoho)) for _ in range(10))
    assert redirected(authorize(zoho))["error"] == "access_denied"


def test_twenty_first_refresh_token_kills_the_oldest() -> None:
    """A user has twenty refresh tokens with a client; one more ends the first, with its access tokens."""
    zoho = Zoho()
    accounts = zoho.engine.accounts
    for _ in range(19):
        accounts.issue_refresh_token(accounts.default_client.id)
    assert zoho.get("org").status == 200
    accounts.issue_refresh_token(accounts.default_client.id)
    assert zoho.token_call().json() == {"error": "invalid_code"}
    assert zoho.get("org").status == 401
