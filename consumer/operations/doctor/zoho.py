"""Asks Zoho step by step: hosts, token, organisation, rights.  Reads only; the only writes are of empty lists."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from consumer.core import datacenters
from consumer.core.errors import HaltedError, SyncError, TransientError
from consumer.operations.doctor.findings import Finding, failed, ok, unchecked, warning
from consumer.operations.scopes import Scope, covers, needed_scopes
from consumer.operations.zoho_desk import org_id_of
from consumer.zoho.api import Call, Operation
from consumer.zoho.auth import HttpTokenEndpoint
from consumer.zoho.metadata import read_modules, read_org

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from consumer.core.datacenters import DataCenter
    from consumer.operations.zoho_desk import ZohoDesk
    from consumer.settings import Settings
    from consumer.zoho.api import Send

_SCOPE = "OAUTH_SCOPE_MISMATCH"
_RIGHTS = frozenset({"NO_PERMISSION", "AUTHORIZATION_FAILED", "FEATURE_NOT_ENABLED", "HTTP_403"})
_TAKEN = frozenset({"", _SCOPE, *_RIGHTS}) - {"HTTP_403"}
"""Answers of an API that has taken the token, whatever it says about the call; a bare 403 may be a proxy's."""
_STRANGE_CLIENT = ("invalid_client", "invalid_code", "invalid_client_secret")
_CONCURRENCY = {"free": 5, "standard": 10, "starter": 10, "professional": 15, "enterprise": 20, "ultimate": 25}
"""Calls at once, by edition (v8 api-limits)."""
_MAX_SKEW_S = 120.0


@dataclass(slots=True)
class ZohoView:
    """What later checks need of earlier ones; empty where it could not be read."""

    org: dict[str, Any] = field(default_factory=dict)
    org_error: str = "EMPTY_ANSWER"
    """Why there is no organisation, when there is none."""
    modules: list[dict[str, Any]] = field(default_factory=list)
    fields: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)
    """By module and API name; the raw rows, for they tell more than the service needs."""


# -- hosts ------------------------------------------------------------------------------------------------------


def host_findings(settings: Settings) -> list[Finding]:
    """Do API, accounts and CRM hosts belong together?  Without asking anybody."""
    center = datacenters.of_api_domain(settings.zoho_api_domain)
    if center is None:
        return [ok("zoho.hosts", "local", api=settings.zoho_api_domain)]
    for name, url, right in (
        ("ZOHO_ACCOUNTS_DOMAIN", settings.accounts_domain, center.accounts),
        ("ZOHO_CRM_URL", settings.crm_url, center.crm),
    ):
        if urlsplit(url).hostname != urlsplit(right).hostname:
            tell = failed if settings.is_of_two_centers else warning
            return [tell("zoho.hosts", "mixed", api=settings.zoho_api_domain, name=name, url=url, right=right)]
    return [ok("zoho.hosts", location=center.location, api=settings.zoho_api_domain)]


# -- token ------------------------------------------------------------------------------------------------------


async def token_findings(
    desk: ZohoDesk, settings: Settings, centers: Sequence[DataCenter]
) -> tuple[bool, list[Finding]]:
    """Can an access token be had?"""
    try:
        await desk.tokens.token()
    except TransientError as error:
        return False, [failed("zoho.token", "no_answer", accounts=settings.accounts_domain, detail=error.code)]
    except HaltedError as error:
        return False, [await _dead_token(error, desk, settings, centers)]
    return True, [_live_token(desk, settings)]


def _live_token(desk: ZohoDesk, settings: Settings) -> Finding:
    """Zoho names the API host of the token's organisation, always that of production."""
    told = str((desk.traffic.token_answer or {}).get("api_domain") or "")
    center = datacenters.of_api_domain(settings.zoho_api_domain)
    if center is not None and told and datacenters.of_api_domain(told) not in (None, center):
        return failed("zoho.token", "other_center", api=settings.zoho_api_domain, told=told)
    return ok("zoho.token", "cached" if desk.traffic.token_answer is None else "ok")


async def _dead_token(error: HaltedError, desk: ZohoDesk, settings: Settings, centers: Sequence[DataCenter]) -> Finding:
    if error.code == "TOKEN_THROTTLED":
        return warning("zoho.token", "throttled")
    code = error.code.removeprefix("TOKEN_").lower()
    if code in _STRANGE_CLIENT and (home := await _home(desk, settings, centers)):
        return failed("zoho.token", "elsewhere", accounts=settings.accounts_domain, api=home.api, right=home.accounts)
    known = code if code in (*_STRANGE_CLIENT, "access_denied", "unauthorized_client") else "refused"
    return failed("zoho.token", known, accounts=settings.accounts_domain, detail=code)


async def _home(desk: ZohoDesk, settings: Settings, centers: Sequence[DataCenter]) -> DataCenter | None:
    """The data centre that knows this client: wrong data centre and wrong credentials look alike."""
    names = ("ZOHO_CLIENT_ID", "ZOHO_CLIENT_SECRET", "ZOHO_REFRESH_TOKEN")
    client_id, client_secret, refresh_token = (settings.secret(name).get() or "" for name in names)
    form = {
        "grant_type": "refresh_token",
        "client_id": client_id,
        "client_secret": client_secret,
        "refresh_token": refresh_token,
    }
    others = [center for center in centers if center.accounts != settings.accounts_domain]
    answers = await asyncio.gather(*(_gives_token(desk, center, form) for center in others))
    return next((center for center, is_home in zip(others, answers, strict=True) if is_home), None)


async def _gives_token(desk: ZohoDesk, center: DataCenter, form: dict[str, str]) -> bool:
    try:
        _, body = await HttpTokenEndpoint(desk.session, center.accounts, timeout_s=10.0)(form)
    except TransientError:
        return False
    return isinstance(body, dict) and bool(body.get("access_token"))


# -- API and organisation ---------------------------------------------------------------------------------------


async def api_findings(desk: ZohoDesk, settings: Settings, view: ZohoView) -> tuple[bool, list[Finding]]:
    """Does the API take the token?  Fills in the organisation.

    A trouble with the organisation alone is no trouble with the API: another call decides.
    """
    check, api = "zoho.api", settings.zoho_api_domain
    try:
        view.org = await read_org(desk.send)
    except SyncError as error:
        view.org_error = error.code
        code = await _code(desk.send, Call(Operation.METADATA, "GET", "/settings/modules"))
        if code == "?":
            return False, [failed(check, "no_answer", api=api, detail=error.code)]
        if code not in _TAKEN:
            return False, [await _refusal(desk, settings, code)]
    return True, [ok(check, "ok", api=api)]


async def _refusal(desk: ZohoDesk, settings: Settings, code: str) -> Finding:
    check, api = "zoho.api", settings.zoho_api_domain
    if right := await _other_host(desk, settings):
        return failed(check, "wrong_host", api=api, right=right)
    return failed(check, "refused", api=api, detail=code)


async def _other_host(desk: ZohoDesk, settings: Settings) -> str | None:
    """A sandbox or developer organisation answers on a host of its own, and the others say a bare 401."""
    center = datacenters.of_api_domain(settings.zoho_api_domain)
    if center is None:
        return None
    for prefix in ("www", "sandbox", "developer"):
        host = center.api.replace("://www.", f"://{prefix}.")
        if host != settings.zoho_api_domain:
            try:
                await read_org(desk.at(host))
            except SyncError:
                continue
            return host
    return None


def org_findings(settings: Settings, view: ZohoView) -> Iterator[Finding]:
    """The id for links, and what the edition allows."""
    right = org_id_of(view.org)
    if right is None:
        yield warning("zoho.org", "unknown", detail=view.org_error)
        yield warning("zoho.credits", "edition_unknown", given=settings.zoho_max_concurrency)
        return
    given = settings.zoho_org_id
    company = str(view.org.get("company_name") or "")
    if given is None:
        yield warning("zoho.org", "not_set", right=right)
    elif given != right:
        yield failed("zoho.org", "other", given=given, right=right)
    else:
        yield ok("zoho.org", company=company, right=right)
    yield from _edition(settings, view.org)


def _edition(settings: Settings, org: dict[str, Any]) -> Iterator[Finding]:
    license_details = org.get("license_details") or {}
    edition = str(license_details.get("paid_type") or "").casefold()
    limit = _CONCURRENCY.get(edition)
    if limit is not None and settings.zoho_max_concurrency > limit:
        given = settings.zoho_max_concurrency
        yield warning("zoho.credits", "concurrency", edition=edition, limit=limit, given=given)


async def user_findings(desk: ZohoDesk) -> Iterable[Finding]:
    """Whose token it is: what this user may not do, the service may not do."""
    params = (("type", "CurrentUser"),)
    try:
        reply = await desk.send(Call(Operation.METADATA, "GET", "/users", params=params))
    except SyncError as error:
        return [warning("zoho.user", "unknown", detail=error.code)]
    users = reply.body.get("users") if reply.body else None
    user = users[0] if isinstance(users, list) and users else {}
    profile = str((user.get("profile") or {}).get("name") or "?")
    if user.get("status") not in (None, "active"):
        return [failed("zoho.user", "inactive", name=user.get("full_name", "?"))]
    return [ok("zoho.user", name=user.get("full_name", "?"), profile=profile)]


# -- scopes -----------------------------------------------------------------------------------------------------


async def scope_findings(desk: ZohoDesk, settings: Settings) -> list[Finding]:
    """Each needed scope against a call that needs it, and against the list that Zoho gives with the token."""
    scopes = needed_scopes(settings)
    probes = {str(scope.probe): scope.probe for scope in scopes if scope.probe is not None}
    codes = dict(zip(probes, await asyncio.gather(*(_code(desk.send, call) for call in probes.values())), strict=True))
    held = set(str((desk.traffic.token_answer or {}).get("scope") or "").replace(",", " ").split())
    missing = [scope for scope in scopes if _is_missing(scope, codes.get(str(scope.probe)), held)]
    refused = [scope for scope in scopes if codes.get(str(scope.probe)) in _RIGHTS]
    found = list(_missing(missing))
    if refused:
        found.append(failed("zoho.scopes", "no_permission", scopes=_names(refused)))
    unanswered = [scope for scope in scopes if codes.get(str(scope.probe)) == "?"]
    if unanswered:
        found.append(warning("zoho.scopes", "unanswered", scopes=_names(unanswered)))
    return found or [ok("zoho.scopes", count=len(scopes))]


def _missing(missing: list[Scope]) -> Iterator[Finding]:
    essential = [scope for scope in missing if scope.is_essential]
    others = [scope for scope in missing if not scope.is_essential]
    if essential:
        yield failed("zoho.scopes", "missing", scopes=_names(essential))
    if others:
        yield warning("zoho.scopes", "lesser", scopes=_names(others))


def _names(scopes: Iterable[Scope]) -> str:
    return ",".join(scope.name for scope in scopes)


def _is_missing(scope: Scope, code: str | None, held: set[str]) -> bool:
    """A call that needs two scopes does not say which is missing; Zoho's own list does, where it gives one."""
    if code not in (None, _SCOPE):
        return False
    if held:
        return not covers(held, scope.name)
    return code == _SCOPE


async def _code(send: Send, call: Call) -> str:
    """Zoho's code for a probe; empty for a proper answer, `?` without one."""
    try:
        await send(call)
    except TransientError:
        return "?"
    except SyncError as error:
        return error.code
    return ""


# -- modules ----------------------------------------------------------------------------------------------------


async def load(desk: ZohoDesk, settings: Settings, view: ZohoView) -> None:
    """Modules and fields, as far as they can be read."""
    try:
        view.modules = await read_modules(desk.send)
    except SyncError:
        view.modules = []
    for module in (settings.zoho_messages_module, "Leads", "Contacts"):
        view.fields[module] = await read_rows(desk.send, module)


async def read_rows(send: Send, module: str) -> dict[str, dict[str, Any]]:
    """Raw rows of a module's fields, by API name; empty when they cannot be read."""
    try:
        reply = await send(Call(Operation.METADATA, "GET", "/settings/fields", params=(("module", module),)))
    except SyncError:
        return {}
    rows = reply.body.get("fields") if reply.body else None
    return {str(row.get("api_name")): row for row in rows or [] if isinstance(row, dict)}


def unchecked_findings(settings: Settings, because: str) -> Iterator[Finding]:
    """A row for each check that needs what `because` looked at."""
    checks = [
        *(("zoho.api",) if because == "zoho.token" else ()),
        *("zoho.scopes", "zoho.user", "zoho.org", "zoho.module", "zoho.fields", "zoho.unique", "zoho.leads"),
        *(("zoho.lead_source",) if settings.zoho_lead_source else ()),
        *(("zoho.assignment_rule",) if settings.zoho_assignment_rule_id else ()),
        "zoho.credits",
    ]
    return (unchecked(check, because) for check in checks)


# -- the rest ---------------------------------------------------------------------------------------------------


async def rule_findings(desk: ZohoDesk, settings: Settings) -> list[Finding]:
    """Is the assignment rule there?"""
    rule = settings.zoho_assignment_rule_id
    if rule is None:
        return []
    path = "/settings/automation/assignment_rules"
    try:
        reply = await desk.send(Call(Operation.METADATA, "GET", path, params=(("module", "Leads"),)))
    except SyncError as error:
        return [warning("zoho.assignment_rule", "unknown", detail=error.code)]
    rules = reply.body.get("assignment_rules") if reply.body else None
    names = {str(row.get("id")): str(row.get("name")) for row in rules or [] if isinstance(row, dict)}
    if rule not in names:
        known = "; ".join(f"{number} {name}" for number, name in names.items()) or "-"
        return [failed("zoho.assignment_rule", "missing", rule=rule, known=known)]
    return [ok("zoho.assignment_rule", name=names[rule])]


def credit_findings(desk: ZohoDesk) -> list[Finding]:
    """Zoho tells what is left only once half of the day's credits are used (v8 api-limits)."""
    left = desk.traffic.credits_remaining
    if left is None:
        return [ok("zoho.credits", "plenty", used=desk.traffic.credits_used)]
    if left < 1000:
        return [failed("zoho.credits", "low", left=left)]
    return [warning("zoho.credits", "half", left=left)]


def clock_findings(desk: ZohoDesk) -> list[Finding]:
    """Our clock against Zoho's."""
    ahead = desk.traffic.server_ahead_s
    if ahead is None:
        return [warning("clock", "unknown")]
    if abs(ahead) > _MAX_SKEW_S:
        return [warning("clock", "skewed", seconds=round(abs(ahead)))]
    return [ok("clock")]
