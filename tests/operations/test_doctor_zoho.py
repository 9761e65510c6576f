"""The doctor and Zoho: every trouble that it names, made for real in the stand-in."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from consumer.core.datacenters import DataCenter
from consumer.core.errors import TransientError
from consumer.operations.doctor.environment import link_findings
from consumer.operations.doctor.examine import examine
from consumer.operations.doctor.findings import Finding, Status, causes
from consumer.operations.doctor.modules import lead_findings
from consumer.operations.doctor.zoho import ZohoView, host_findings
from consumer.operations.scopes import covers, scope_names
from consumer.operations.zoho_desk import zoho_desk
from consumer.settings import Settings, load_settings
from consumer.zoho.metadata import read_org
from sandbox.zoho.config import SandboxConfig
from sandbox.zoho.faults import Action, Answer, Drop, Fault, Match, Throttle
from sandbox.zoho.server import SandboxServer
from tests.operations.conftest import environment

Meddle = Callable[[SandboxServer], Any]
ORG = "org808232144"


def settings_of(zoho: SandboxServer, **more: Any) -> Settings:
    """The service's settings for this stand-in, with everything in order unless told."""
    named = {"ZOHO_ORG_ID": ORG, "HTTP_API_TOKEN": "t", **more}
    variables = {name.lower(): value for name, value in environment(zoho, **named).items() if value is not None}
    return load_settings(_env_file=None, **(variables | {"zoho_crm_enabled": False}))


async def findings_of(settings: Settings, **options: Any) -> dict[str, Finding]:
    """What the doctor finds about Zoho, by code."""
    found = [finding async for finding in examine(settings, is_enabled=True, **options)]
    return {finding.code: finding for finding in found if not finding.check.startswith(("environment", "kafka"))}


async def rows_of(settings: Settings) -> list[Finding]:
    """Every row about Zoho."""
    return [item async for item in examine(settings, is_enabled=True) if item.check.startswith(("zoho", "clock"))]


def bad(found: dict[str, Finding]) -> dict[str, Status]:
    """Everything that is not in order."""
    return {code: finding.status for code, finding in found.items() if finding.status is not Status.OK}


async def test_all_is_well(zoho: SandboxServer) -> None:
    """In an organisation that has everything, every row is in order, and nothing was written."""
    before = len(zoho.engine.journal.effects)
    found = await findings_of(settings_of(zoho))
    assert bad(found) == {}
    assert {"zoho.scopes.ok", "zoho.fields.ok", "zoho.unique.ok", "zoho.leads.ok", "zoho.org.ok", "clock.ok"} <= set(
        found
    )
    assert len(zoho.engine.journal.effects) == before


async def test_the_scopes_that_auth_asks_for_are_enough(zoho: SandboxServer) -> None:
    """A token with exactly the printed scopes passes every check."""
    settings = settings_of(zoho)
    token = zoho.engine.accounts.issue_refresh_token(
        settings.secret("ZOHO_CLIENT_ID").get() or "", scope_names(settings, with_setup=False)
    )
    assert bad(await findings_of(settings_of(zoho, ZOHO_REFRESH_TOKEN=token))) == {}


@pytest.mark.parametrize("tells_scopes", [True, False])
@pytest.mark.parametrize("scope", scope_names(load_settings(_env_file=None), with_setup=False))
async def test_each_missing_scope_is_found(zoho: SandboxServer, scope: str, tells_scopes: bool) -> None:
    """Whichever scope the token lacks is named, whether or not Zoho lists the token's scopes."""
    zoho.engine.configure(scope_in_token_answer=tells_scopes)
    settings = settings_of(zoho)
    others = [name for name in scope_names(settings, with_setup=False) if name != scope]
    client_id = settings.secret("ZOHO_CLIENT_ID").get() or ""
    token = zoho.engine.accounts.issue_refresh_token(client_id, others)
    found = await findings_of(settings_of(zoho, ZOHO_REFRESH_TOKEN=token))
    if scope.endswith(".DELETE") and not tells_scopes:
        return
    named = [item for code, item in found.items() if code in ("zoho.scopes.missing", "zoho.scopes.lesser")]
    assert any(scope in item.facts["scopes"] for item in named)


def steps(name: str, **args: Any) -> Meddle:
    """A step of the stand-in."""
    return lambda zoho: zoho.engine.steps.run(name, args)


TROUBLES: list[tuple[Meddle, dict[str, Any], str]] = [
    (steps("revoke_refresh_token"), {}, "zoho.token.invalid_code"),
    (lambda _: None, {"ZOHO_CLIENT_ID": "1000.NOBODY"}, "zoho.token.invalid_client"),
    (lambda _: None, {"ZOHO_CLIENT_SECRET": "wrong"}, "zoho.token.invalid_client_secret"),
    (steps("deactivate_user"), {}, "zoho.api.refused"),
    (steps("remove_module", module="Messages"), {}, "zoho.module.missing"),
    (steps("rename_module", module="Messages", api_name="Chats"), {}, "zoho.module.other_name"),
    (steps("remove_field", module="Messages", api_name="Message_ID"), {}, "zoho.fields.missing"),
    (steps("set_field", module="Messages", api_name="Message_ID", unique=None), {}, "zoho.unique.not_unique"),
    (steps("set_field", module="Messages", api_name="Sent_At", data_type="text"), {}, "zoho.fields.wrong_type"),
    (steps("set_field", module="Messages", api_name="Lead", lookup="Contacts"), {}, "zoho.fields.wrong_type"),
    (steps("set_field", module="Messages", api_name="Ours", mandatory=True), {}, "zoho.fields.demanded"),
    (steps("set_field", module="Leads", api_name="Company", mandatory=True), {}, "zoho.leads.demanded"),
    (steps("remove_field", module="Leads", api_name="Phone"), {}, "zoho.leads.no_phone"),
    (lambda _: None, {"ZOHO_LEAD_SOURCE": "Pigeon"}, "zoho.lead_source.missing"),
    (lambda _: None, {"ZOHO_ASSIGNMENT_RULE_ID": "12"}, "zoho.assignment_rule.missing"),
    (lambda _: None, {"ZOHO_ORG_ID": "808232144"}, "zoho.org.other"),
    (lambda zoho: zoho.engine.configure(daily_credits=34), {}, "zoho.credits.low"),
]


@pytest.mark.parametrize(("meddle", "variables", "code"), TROUBLES, ids=[code for _, _, code in TROUBLES])
async def test_names_the_failure(zoho: SandboxServer, meddle: Meddle, variables: dict[str, Any], code: str) -> None:
    """What keeps messages, leads or links from working fails its check, by its own name."""
    meddle(zoho)
    assert bad(await findings_of(settings_of(zoho, **variables))).get(code) is Status.FAILED


WARNINGS: list[tuple[Meddle, dict[str, Any], str]] = [
    (steps("set_field", module="Messages", api_name="Message_ID", unique=False), {}, "zoho.unique.ignores_case"),
    (lambda zoho: zoho.engine.configure(access_tokens_per_window=0), {}, "zoho.token.throttled"),
    (steps("remove_field", module="Messages", api_name="Agent"), {}, "zoho.fields.left_out"),
    (steps("set_field", module="Messages", api_name="Direction", values=["inbound"]), {}, "zoho.fields.values"),
    (steps("set_field", module="Messages", api_name="Body", length=500), {}, "zoho.fields.short"),
    (lambda zoho: zoho.engine.configure(edition="free"), {}, "zoho.credits.concurrency"),
    (lambda zoho: zoho.engine.configure(edition="free", users=1), {"ZOHO_ORG_ID": None}, "zoho.org.not_set"),
    (lambda _: None, {"HTTP_API_TOKEN": None}, "links.closed"),
]


@pytest.mark.parametrize(("meddle", "variables", "code"), WARNINGS, ids=[code for _, _, code in WARNINGS])
async def test_warns_of(zoho: SandboxServer, meddle: Meddle, variables: dict[str, Any], code: str) -> None:
    """What works with a but is a warning, and no failure."""
    meddle(zoho)
    found = bad(await findings_of(settings_of(zoho, **variables)))
    assert found.get(code) is Status.WARNING
    assert Status.FAILED not in found.values()


async def test_a_rule_and_a_source_that_exist_are_in_order(zoho: SandboxServer) -> None:
    """Settings that name something real are confirmed."""
    rule = zoho.engine.steps.run("add_assignment_rule", {})
    found = await findings_of(settings_of(zoho, ZOHO_ASSIGNMENT_RULE_ID=rule, ZOHO_LEAD_SOURCE="WhatsApp"))
    assert {"zoho.assignment_rule.ok", "zoho.lead_source.ok"} <= set(found)


async def test_zoho_away_is_told(zoho: SandboxServer) -> None:
    """Without an answer the doctor says so, does not go on guessing, and names each check that it could not make."""
    settings = settings_of(zoho)
    complete = await rows_of(settings)
    await zoho.stop()
    rows = await rows_of(settings)
    failures = [item.code for item in rows if item.status is Status.FAILED]
    assert failures == ["zoho.token.no_answer"]
    assert {item.check for item in rows} == {item.check for item in complete}
    untold = [item.code for item in rows if item.check in ("zoho.scopes", "zoho.org", "zoho.unique", "zoho.leads")]
    assert set(untold) == {"unchecked.zoho.token"}


ORG_TROUBLES: list[tuple[str, Action]] = [
    ("no answer", Drop(commit=False)),
    ("unavailable", Answer(status=503)),
    ("missing scope", Answer(status=401, body={"code": "OAUTH_SCOPE_MISMATCH", "status": "error", "details": {}})),
    ("forbidden", Answer(status=403, body={"code": "NO_PERMISSION", "status": "error", "details": {}})),
    ("bare 403", Answer(status=403)),
    ("unknown path", Answer(status=404, body={"code": "INVALID_URL_PATTERN", "status": "error", "details": {}})),
    ("bare 404", Answer(status=404)),
    ("bare 401", Answer(status=401)),
    ("unknown code", Answer(status=400, body={"code": "NEVER_HEARD_OF", "status": "error", "details": {}})),
    ("no rows", Answer(status=200, body={"org": []})),
    ("a row without id", Answer(status=200, body={"org": [{"company_name": "C"}]})),
]


@pytest.mark.parametrize("action", [action for _, action in ORG_TROUBLES], ids=[name for name, _ in ORG_TROUBLES])
async def test_an_organisation_that_cannot_be_read_stops_nothing_else(zoho: SandboxServer, action: Action) -> None:
    """Whatever Zoho answers for the organisation, what needs it says so, and every other check is made."""
    settings = settings_of(zoho)
    well = {item.code for item in await rows_of(settings)}
    zoho.engine.faults.add(Fault(action=action, match=Match(path=r"/org\?"), times=None))
    found = {item.code: item for item in await rows_of(settings)}
    assert {"zoho.org.unknown", "zoho.credits.edition_unknown"} <= set(found)
    assert well - found.keys() <= {"zoho.org.ok", "zoho.scopes.ok"}
    assert Status.FAILED not in {item.status for item in found.values() if item.check != "zoho.scopes"}


async def test_an_api_that_answers_nothing_is_told(zoho: SandboxServer) -> None:
    """A token without an API behind it fails one row, and the others say what they wait for."""
    zoho.engine.faults.add(Fault(action=Answer(status=503), match=Match(path="/crm/"), times=None))
    rows = await rows_of(settings_of(zoho))
    assert [item.code for item in rows if item.status is Status.FAILED] == ["zoho.api.no_answer"]
    assert "unchecked.zoho.api" in {item.code for item in rows if item.check == "zoho.module"}


async def test_a_question_has_an_end(zoho: SandboxServer) -> None:
    """Zoho that throttles one address for ever does not hold a command up for ever."""
    zoho.engine.faults.add(Fault(action=Throttle(), match=Match(path=r"/org\?"), times=None))
    async with zoho_desk(settings_of(zoho), patience_s=0.1) as desk:
        with pytest.raises(TransientError):
            await read_org(desk.send)


async def test_tells_the_right_data_center(zoho: SandboxServer) -> None:
    """A client that another data centre knows is told apart from wrong credentials, with the host to set."""
    async with SandboxServer(SandboxConfig(latency_median_s=0.0), seed=7) as elsewhere:
        mine = {name: value for name, value in environment(elsewhere).items() if name != "ZOHO_API_DOMAIN"}
        centers = (DataCenter("eu", elsewhere.url, elsewhere.url, elsewhere.url),)
        found = await findings_of(settings_of(zoho, **mine), centers=centers)
    assert found["zoho.token.elsewhere"].facts["api"] == elsewhere.url


async def test_a_wrong_clock_is_told(zoho: SandboxServer) -> None:
    """Minutes of difference between this machine and Zoho are a warning with their number."""
    found = await findings_of(settings_of(zoho), wall_clock=lambda: time.time() + 600)
    assert found["clock.skewed"].status is Status.WARNING
    assert 500 < found["clock.skewed"].facts["seconds"] < 700


async def test_a_row_answers_each_complaint(zoho: SandboxServer) -> None:
    """Messages, links and leads that do not come are each explained by the row that fails."""
    zoho.engine.steps.run("remove_field", {"module": "Messages", "api_name": "Message_ID"})
    zoho.engine.steps.run("set_field", {"module": "Leads", "api_name": "Company", "mandatory": True})
    found = list((await findings_of(settings_of(zoho, ZOHO_ORG_ID="org1"))).values())
    assert "zoho.fields.missing" in [item.code for item in causes(found, "messages")]
    assert [item.code for item in causes(found, "links")] == ["zoho.org.other"]
    assert [item.code for item in causes(found, "leads")] == ["zoho.leads.demanded"]


async def test_a_dead_token_explains_every_complaint(zoho: SandboxServer) -> None:
    """Nothing works without a token, so none of the three complaints is answered with "nothing found"."""
    zoho.engine.steps.run("revoke_refresh_token", {})
    rows = await rows_of(settings_of(zoho))
    for symptom in ("messages", "links", "leads"):
        assert [item.code for item in causes(rows, symptom)] == ["zoho.token.invalid_code"]


def test_a_personal_field_is_told() -> None:
    """A Phone that the privacy settings hide from the API fails, for people would be created again and again."""
    phone = {"api_name": "Phone", "data_type": "phone", "length": 30, "private": {"restricted": True, "type": "High"}}
    view = ZohoView(fields={"Leads": {"Phone": phone}})
    assert "zoho.leads.personal" in [item.code for item in lead_findings(load_settings(_env_file=None), view)]


@pytest.mark.parametrize(
    ("names", "code"),
    [
        ({"link_signing_key": "k"}, "links.ok"),
        ({"link_signing_key": "k", "http_api_token": "t"}, "links.ok"),
        ({"http_api_token": "t"}, "links.no_key"),
        ({"zoho_org_id": "org1"}, "links.closed"),
        ({}, "links.closed"),
    ],
)
def test_who_may_follow_a_link_is_told(names: dict[str, str], code: str) -> None:
    """Signed links need the key: without it the row says who may follow links all the same."""
    [row] = link_findings(load_settings(_env_file=None, **names))
    assert row.code == code


def test_hosts_of_two_data_centers_are_told() -> None:
    """An API host of one data centre with the accounts host of another fails, without asking anybody.

    A host for links alone, or the only one that is set, is a warning.
    """
    mixed = load_settings(
        _env_file=None, zoho_api_domain="https://www.zohoapis.eu", zoho_accounts_domain="https://accounts.zoho.com"
    )
    [row] = host_findings(mixed)
    assert (row.code, row.status) == ("zoho.hosts.mixed", Status.FAILED)
    for lesser in ({"zoho_crm_url": "https://crm.zoho.eu"}, {"zoho_accounts_domain": "https://accounts.zoho.eu"}):
        [row] = host_findings(load_settings(_env_file=None, **lesser))
        assert (row.code, row.status) == ("zoho.hosts.mixed", Status.WARNING)
    alike = load_settings(_env_file=None, zoho_api_domain="https://sandbox.zohoapis.eu")
    assert [item.code for item in host_findings(alike)] == ["zoho.hosts.ok"]


@pytest.mark.parametrize(
    ("held", "needed", "is_covered"),
    [
        ("ZohoCRM.modules.ALL", "ZohoCRM.modules.leads.READ", True),
        ("ZohoCRM.modules.leads.ALL", "ZohoCRM.modules.leads.CREATE", True),
        ("ZohoCRM.modules.READ", "ZohoCRM.modules.leads.READ", True),
        ("ZohoCRM.modules.leads.READ", "ZohoCRM.modules.leads.CREATE", False),
        ("ZohoCRM.settings.ALL", "ZohoCRM.settings.fields.READ", True),
        ("zohocrm.coql.read", "ZohoCRM.coql.READ", True),
        ("ZohoCRM.org.READ", "ZohoCRM.users.READ", False),
    ],
)
def test_wider_scopes_cover_narrow_ones(held: str, needed: str, is_covered: bool) -> None:
    """Zoho's wide scopes hold the narrow ones in them."""
    assert covers({held}, needed) is is_covered
