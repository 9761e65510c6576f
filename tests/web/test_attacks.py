"""What strangers try, and how it ends."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from urllib.parse import quote, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.web.view import DialogLink, Explanation, FailureRow, HaltRow, LinkReason, LinkState, Subject, SubjectKind
from schemas.links import LONGEST_LIFE_S, Verdict, check, signature, signed_query
from tests.web.fakes import CRM, FakeView, busy_status, letter
from tests.web.site import BEARER, KEY, NOW, SAME_ORIGIN, TOKEN, Site, open_site

PHONE = "+4915123456789"
QUERY = f"phone={quote(PHONE, safe='')}"
PERSON = Subject(SubjectKind.PHONE, PHONE)
LEAD = DialogLink(LinkState.LINKED, LinkReason.FOUND, f"{CRM}/crm/tab/Leads/111/Messages", lead_id="111")
EVIL = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>"
GUARDED = [
    ("GET", "/"),
    ("GET", "/live"),
    ("GET", "/messages"),
    ("POST", "/messages"),
    ("GET", "/dead-letters"),
    ("POST", "/dead-letters/plan"),
    ("POST", "/dead-letters/replay"),
    ("GET", "/dead-letters/replays/x"),
    ("POST", "/dead-letters/replays/x/cancel"),
    ("POST", "/logout"),
]

# -- links ------------------------------------------------------------------------------------------------------


@pytest.fixture
def view() -> FakeView:
    return FakeView(found={PERSON: LEAD})


async def test_unsigned_link_is_refused(site: Site) -> None:
    """Without signature and token there is no answer, and nobody is looked up."""
    assert (await site.get(f"/open-in-zoho?{QUERY}")).status == 401
    answer = await site.get(f"/api/v1/dialog-link?{QUERY}")
    assert (answer.status, json.loads(answer.text)["url"]) == (401, None)
    assert site.view.asked == []


async def test_nothing_set_up_is_refused_with_advice() -> None:
    """With neither key, token nor org id the page says what to set."""
    async with open_site(FakeView(), token=None, key=None) as site:
        answer = await site.get(f"/open-in-zoho?{QUERY}")
        for headers in ({"Authorization": "Bearer "}, {"Cookie": "zoho_sync_session=9999999999."}):
            assert (await site.get(f"/open-in-zoho?{QUERY}", headers=headers)).status == 403
    assert answer.status == 403
    assert all(name in answer.text for name in ("LINK_SIGNING_KEY", "HTTP_API_TOKEN", "ZOHO_ORG_ID"))


async def test_advice_fits_the_link(site: Site) -> None:
    """A link with a dialog id is not helped by ZOHO_ORG_ID, and a signed one not by comparing a key that is not set."""
    dialog, signed = "/open-in-zoho?dialog=d-1", f"/open-in-zoho?{site.signed(kind='dialog', value='d-1')}"
    for org_id in (None, "org1"):
        async with open_site(FakeView(org_id=org_id), token=None, key=None) as closed:
            answer = await closed.get(dialog)
            assert (answer.status, "for links with a number only" in answer.text) == (403, True)
            assert all(name in answer.text for name in ("LINK_SIGNING_KEY", "HTTP_API_TOKEN"))
    for token in (None, TOKEN):
        async with open_site(FakeView(), token=token, key=None) as keyless:
            answer = await keyless.get(signed)
            assert (answer.status, "LINK_SIGNING_KEY is not set here" in answer.text) == (403, True)


async def test_expired_link_is_refused(site: Site) -> None:
    """A link that was good is refused the moment it ends, however often it was used before."""
    path = f"/open-in-zoho?{site.signed(value=PHONE, life_s=60)}"
    assert (await site.get(path)).status == 302
    site.now[0] += 60
    answer = await site.get(path)
    assert (answer.status, "expired" in answer.text) == (403, True)


@pytest.mark.parametrize(
    "query",
    [
        signed_query("another-key", kind="phone", value=PHONE, exp=int(NOW) + 60),
        signed_query(KEY, kind="phone", value=PHONE, exp=int(NOW) + LONGEST_LIFE_S + 1),
        f"{QUERY}&exp={int(NOW) + 60}",
        f"{QUERY}&exp={int(NOW) + 60}&sig=",
        f"{QUERY}&exp={int(NOW) + 60}&sig=%C3%A9",
        f"{QUERY}&exp=99999999999999999999&sig=0",
        f"{QUERY}&exp=-1&sig=0",
        f"{QUERY}&exp=%D9%A1&sig=0",
        f"{QUERY}&sig=0",
    ],
)
async def test_forged_link_is_refused(site: Site, query: str) -> None:
    """Another key, an endless life, a missing or mangled part: refused, and nobody is looked up."""
    assert (await site.get(f"/open-in-zoho?{query}")).status == 403
    assert (await site.get(f"/api/v1/dialog-link?{query}")).status == 403
    assert site.view.asked == []


async def test_signature_is_good_for_one_subject_and_time(site: Site) -> None:
    """A signature replayed for another number, as a dialog, or with a later end is refused."""
    exp = int(NOW) + 60
    sig = signature(KEY, kind="phone", value=PHONE, exp=exp)
    for query in (
        f"phone=%2B4915123456780&exp={exp}&sig={sig}",
        f"dialog={quote(PHONE, safe='')}&exp={exp}&sig={sig}",
        f"{QUERY}&exp={exp + 1}&sig={sig}",
        f"{QUERY}&exp=0{exp}&sig={sig}",
    ):
        assert (await site.get(f"/open-in-zoho?{query}")).status == 403, query


async def test_signed_link_opens_no_other_door(site: Site) -> None:
    """The holder of a link is no operator."""
    for path in ("/", "/dead-letters", "/messages"):
        assert (await site.get(f"{path}?{site.signed(value=PHONE)}")).status == 401


@given(kind=st.sampled_from(["phone", "dialog"]), value=st.text(), exp=st.integers(), sig=st.text())
def test_no_made_up_signature_passes(kind: str, value: str, exp: int, sig: str) -> None:
    """Whatever is sent, only the key's holder gets in, and nothing raises."""
    verdict = check(KEY, kind=kind, value=value, exp=str(exp), sig=sig, now=NOW)
    assert verdict is not Verdict.GOOD


@given(value=st.text(alphabet=st.characters(exclude_characters="\n", exclude_categories=["Cs"])))
def test_what_is_signed_is_recognised(value: str) -> None:
    """Signer and checker agree on every value of one line."""
    exp = int(NOW) + 60
    sig = signature(KEY, kind="dialog", value=value, exp=exp)
    assert check(KEY, kind="dialog", value=value, exp=str(exp), sig=sig, now=NOW) is Verdict.GOOD
    assert check(KEY, kind="dialog", value=value + "x", exp=str(exp), sig=sig, now=NOW) is Verdict.FORGED


async def test_recipe_of_the_documentation_holds() -> None:
    """The signature is HMAC-SHA-256 over four lines, in hexadecimal, as any language can make it."""
    import hashlib
    import hmac

    text = b"open-in-zoho.v1\ndialog\nd-1\n1770000060"
    assert (
        signature(KEY, kind="dialog", value="d-1", exp=1770000060)
        == hmac.new(KEY.encode(), text, hashlib.sha256).hexdigest()
    )


@pytest.mark.parametrize(
    "tail", ["&url=https://evil.example", "&next=//evil.example", "&redirect=https://evil.example"]
)
async def test_redirect_leads_to_zoho_only(site: Site, tail: str) -> None:
    """No parameter moves the target."""
    answer = await site.get(f"/open-in-zoho?{site.signed(value=PHONE)}{tail}")
    assert answer.location == LEAD.url


@pytest.mark.parametrize("value", ["x%0d%0aSet-Cookie:a=b", "x%0aLocation:%20https://evil.example", "%00", "%e2%80%ae"])
async def test_header_injection_is_refused(site: Site, value: str) -> None:
    """Control characters in an id end in a sentence, not in a header."""
    answer = await site.get(f"/open-in-zoho?dialog={value}", headers=BEARER)
    assert answer.status == 400
    assert "Set-Cookie" not in answer.headers


# -- doors ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("method", "path"), GUARDED)
async def test_every_page_needs_the_token(site: Site, method: str, path: str) -> None:
    """Without token, with a wrong one, or with a made-up cookie there is a login and nothing else."""
    bad_cookies = ["", "1.2", f"{int(NOW) + 99}.{'0' * 64}", f"{int(NOW) + 99}.", "é"]
    attempts = [
        {},
        {"Authorization": "Bearer wrong"},
        {"Authorization": "Bearer "},
        {"Authorization": f"Basic {TOKEN}"},
    ]
    attempts += [{"Cookie": f"zoho_sync_session={cookie}"} for cookie in bad_cookies]
    for headers in attempts:
        answer = await site.request(method, path, headers=headers)
        assert (answer.status, 'type="password"' in answer.text) == (401, True), headers


@pytest.mark.parametrize(("method", "path"), GUARDED)
async def test_without_a_token_the_pages_are_off(method: str, path: str) -> None:
    """No HTTP_API_TOKEN, no console: not for an empty token either."""
    async with open_site(FakeView(), token=None) as site:
        for headers in ({}, {"Authorization": "Bearer "}, {"Authorization": "Bearer None"}):
            assert (await site.request(method, path, headers=headers)).status == 404
        assert (await site.post("/login", data={"token": ""}, headers=SAME_ORIGIN)).status == 404


async def test_probes_and_metrics_are_open(site: Site) -> None:
    """What Kubernetes and Prometheus ask needs no token."""
    for path in ("/livez", "/readyz", "/metrics", "/static/open-in-zoho.js"):
        assert (await site.get(path)).status == 200


async def test_login_makes_a_cookie_that_scripts_cannot_read(site: Site) -> None:
    """The cookie is HttpOnly and SameSite, opens the console, and ends with its time and with the token."""
    answer = await site.post("/login", data={"token": TOKEN}, headers=SAME_ORIGIN)
    morsel = answer.cookies["zoho_sync_session"]
    assert (answer.status, answer.location) == (303, "/")
    assert (morsel["httponly"], morsel["samesite"], morsel["secure"]) == (True, "Lax", "")
    assert TOKEN not in morsel.value
    cookie = {"Cookie": f"zoho_sync_session={morsel.value}"}
    assert (await site.get("/", headers=cookie)).status == 200
    site.now[0] += 13 * 3600
    assert (await site.get("/", headers=cookie)).status == 401
    site.now[0] = NOW
    async with open_site(FakeView(), token="another-token") as other:
        assert (await other.get("/", headers=cookie)).status == 401


async def test_cookie_is_secure_behind_tls(site: Site) -> None:
    """Behind a proxy that ends TLS the cookie goes over TLS only, and the browser is told to stay there."""
    headers = SAME_ORIGIN | {"X-Forwarded-Proto": "https"}
    answer = await site.post("/login", data={"token": TOKEN}, headers=headers)
    assert answer.cookies["zoho_sync_session"]["secure"] is True
    assert "max-age" in answer.headers["Strict-Transport-Security"]


async def test_wrong_token_is_not_let_in(site: Site) -> None:
    """A wrong token gets the form again, with a word, and no cookie."""
    answer = await site.post("/login", data={"token": "wrong"}, headers=SAME_ORIGIN)
    assert answer.status == 401
    assert "not the token" in answer.text
    assert not answer.cookies


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "cross-site", "Origin": "https://evil.example"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "none"},
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {},
    ],
)
async def test_cross_site_posts_are_refused(site: Site, headers: dict[str, str]) -> None:
    """A form on another page cannot use the operator's login, nor log the operator in."""
    site.view.letters.append(letter(1))
    login = await site.post("/login", data={"token": TOKEN}, headers=SAME_ORIGIN)
    cookie = {"Cookie": f"zoho_sync_session={login.cookies['zoho_sync_session'].value}"}
    for path in ("/dead-letters/replay", "/dead-letters/plan", "/messages", "/logout"):
        assert (await site.post(path, data={"id": "m"}, headers=cookie | headers)).status == 403, path
    assert (await site.post("/login", data={"token": TOKEN}, headers=headers)).status == 403
    assert site.view.replayed == []


async def test_older_browsers_are_judged_by_origin(site: Site) -> None:
    """Without Sec-Fetch-Site, the Origin must be ours."""
    headers = {"Origin": site.url}
    assert (await site.post("/login", data={"token": TOKEN}, headers=headers)).status == 303


# -- content ----------------------------------------------------------------------------------------------------


async def test_no_text_becomes_markup(site: Site) -> None:
    """Names, details, codes, advice and ids from outside are shown as text wherever they appear."""
    site.view.shown = busy_status(
        state="halted",
        halts=(HaltRow(EVIL, EVIL, 1.0),),
        skipped=((EVIL, 1),),
        dead_letters=((EVIL, 1),),
        failures=(FailureRow(EVIL, EVIL, EVIL, 1, 1.0, EVIL),),
    )
    site.view.letters.append(replace(letter(1, reason=EVIL, detail=EVIL), stage=EVIL, failed_at=EVIL))
    site.view.explanations["m"] = Explanation("waiting", EVIL, ((EVIL, EVIL),), (("code", EVIL),))
    site.view.found[PERSON] = DialogLink(LinkState.FAILED, LinkReason.REJECTED, code=EVIL)
    pages = [
        await site.get("/", headers=BEARER),
        await site.get("/dead-letters", headers=BEARER),
        await site.get(f"/dead-letters?reason={quote(EVIL)}", headers=BEARER),
        await site.post("/dead-letters/plan", data={"reason": EVIL}, headers=BEARER),
        await site.post("/messages", data={"id": "m"}, headers=BEARER),
        await site.get(f"/open-in-zoho?{QUERY}", headers=BEARER),
    ]
    for page in pages:
        assert "&lt;script&gt;" in page.text
        assert EVIL[:8] not in page.text.replace("<script src=", "")
        assert "<img" not in page.text


async def test_live_parts_are_escaped_too(site: Site) -> None:
    """What is sent over the stream is the same markup as the page's."""
    site.view.shown = busy_status(skipped=((EVIL, 1),))
    async with site.session.get(f"{site.url}/live", headers=BEARER) as reply:
        async for line in reply.content:
            if line.startswith(b"data:") and (part := json.loads(line[5:]))["id"] == "numbers":
                assert "&lt;script&gt;" in part["html"]
                assert EVIL[:8] not in part["html"]
                break


PUBLIC = [
    "/livez",
    "/readyz",
    "/metrics",
    "/",
    "/nothing",
    "/open-in-zoho",
    "/api/v1/dialog-link",
    "/static/console.css",
]


@pytest.mark.parametrize("path", PUBLIC)
async def test_every_answer_tells_the_browser_to_be_strict(site: Site, path: str) -> None:
    """Policy, no sniffing, no frames, no referrer, and no version of the server."""
    headers = (await site.get(path)).headers
    policy = dict(part.split(" ", 1) for part in headers["Content-Security-Policy"].split("; "))
    assert policy["default-src"] == "'none'"
    assert policy["frame-ancestors"] == "'none'"
    assert not any("unsafe" in value or "*" in value or "http" in value for value in policy.values())
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["X-Frame-Options"] == "DENY"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert "aiohttp" not in headers["Server"]
    assert "Access-Control-Allow-Origin" not in headers


async def test_pages_hold_no_inline_code(site: Site) -> None:
    """No page needs what its policy forbids."""
    site.view.letters.append(letter(1))
    for path in ("/", "/dead-letters", "/messages"):
        text = (await site.get(path, headers=BEARER)).text
        assert "style=" not in text
        assert not any(f" on{name}=" in text for name in ("click", "load", "error", "submit"))
        assert text.count("<script") == text.count("<script src=")


@pytest.mark.parametrize("path", ["/api/v1/dialog-link", "/static/open-in-zoho.js"])
async def test_only_named_admin_panels_may_read_across_origins(path: str) -> None:
    """ADMIN_PANEL_ORIGINS may read the API and the element, nobody else, and never with credentials."""
    panel = "https://admin.example"
    async with open_site(FakeView(), panel_origins=(panel,)) as site:
        query = f"?{site.signed(value=PHONE)}"
        ours = await site.get(path + query, headers={"Origin": panel})
        for stranger in ("https://evil.example", "null", panel + ".evil.example", "http://admin.example"):
            headers = (await site.get(path + query, headers={"Origin": stranger})).headers
            assert "Access-Control-Allow-Origin" not in headers
        console = await site.get("/", headers={"Origin": panel} | BEARER)
    assert ours.headers["Access-Control-Allow-Origin"] == panel
    assert "Access-Control-Allow-Credentials" not in ours.headers
    assert ours.headers["Vary"] == "Origin"
    assert "Access-Control-Allow-Origin" not in console.headers


# -- paths, sizes, slowness -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    [
        "/static/../server.py",
        "/static/..%2fserver.py",
        "/static/%2e%2e/%2e%2e/settings.py",
        "/static/....//server.py",
        "/static//etc/passwd",
        "/static/console.css%00.js",
        "/static/",
        "/dead-letters/replays/..%2f..%2f",
        "/.env",
    ],
)
async def test_no_path_leads_out(site: Site, path: str) -> None:
    """A static name is looked up, so nothing else is ever read."""
    answer = await site.get(path, headers=BEARER)
    assert answer.status == 404
    assert "import" not in answer.text


async def test_huge_requests_are_refused(site: Site) -> None:
    """Bodies, addresses and headers have their limits."""
    assert (await site.post("/messages", data={"id": "x" * 100_000}, headers=BEARER)).status == 413
    assert (await site.get("/open-in-zoho?phone=" + "1" * 20_000)).status == 400
    assert (await site.get("/", headers={"X-Long": "x" * 20_000})).status == 400


@pytest.mark.parametrize(
    ("data", "kind"),
    [(b"{}", "application/json"), (b"--x--", "multipart/form-data; boundary=x"), (b"id=m", "text/plain")],
)
async def test_only_plain_forms_are_read(site: Site, data: bytes, kind: str) -> None:
    """Whatever else is posted is not parsed at all."""
    answer = await site.post("/messages", data=data, headers=BEARER | {"Content-Type": kind})
    assert answer.status == 415


@pytest.mark.parametrize(
    "place", [("x", "1"), ("1", ""), ("-1", "2"), ("1", "9" * 30), ("\N{ARABIC-INDIC DIGIT ONE}", "2")]
)
async def test_places_are_numbers(site: Site, place: tuple[str, str]) -> None:
    """A place that is none is refused before anybody is asked."""
    data = dict(zip(("partition", "offset"), place, strict=True))
    assert (await site.post("/dead-letters/replay", data=data, headers=BEARER)).status == 400


async def test_connection_that_never_asks_is_closed() -> None:
    """Headers that trickle in for ever do not hold a connection."""
    async with open_site(FakeView(), first_request_timeout_s=0.2) as site:
        parts = urlsplit(site.url)
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\nX-Slow: ")
        assert await reader.read() == b""
        writer.close()


async def test_form_that_never_ends_is_given_up() -> None:
    """A body that trickles in is not waited for."""
    async with open_site(FakeView(), form_timeout_s=0.2) as site:
        parts = urlsplit(site.url)
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
        head = f"POST /messages HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\nContent-Length: 50\r\n"
        writer.write(f"{head}Content-Type: application/x-www-form-urlencoded\r\n\r\nid=".encode())
        assert b" 408 " in await reader.readline()
        writer.close()


async def test_streams_are_counted(site: Site) -> None:
    """A browser that opens page after page is told to stop before the service is busy with it."""
    from contextlib import AsyncExitStack

    async with AsyncExitStack() as stack:
        statuses = []
        for _ in range(45):
            request = site.session.get(f"{site.url}/live", headers=BEARER)
            statuses.append((await stack.enter_async_context(request)).status)
    assert statuses[0] == 200
    assert statuses[-1] == 503
    assert (await site.get("/livez")).status == 200


async def test_connection_that_asked_stays() -> None:
    """The watch ends with the first request: a stream is not cut off by it."""
    async with (
        open_site(FakeView(), first_request_timeout_s=0.2) as site,
        site.session.get(f"{site.url}/live", headers=BEARER) as reply,
    ):
        for count in range(30):
            site.view.shown = busy_status(received=count)
            while f">{count}<".encode() not in await reply.content.readline():
                pass
