"""The OAuth scopes that this service needs, each with the call that needs it; the catalogue tells what for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from consumer.core.limits import Cost
from consumer.operations.texts import phrase
from consumer.zoho.api import Call, Operation

if TYPE_CHECKING:
    from consumer.operations.texts import Lang
    from consumer.settings import Settings

_NOBODY = "+10000000000"
"""A number that nobody has."""


@dataclass(frozen=True, slots=True)
class Scope:
    """One scope.  `probe` is a call that needs it, and that reads or writes nothing at all."""

    name: str
    probe: Call | None = None
    is_essential: bool = True
    """Messages wait for ever without it; else something smaller is missing."""

    def reason(self, lang: Lang) -> str:
        """What it is needed for."""
        return phrase(lang, f"scope.{self.name}")


def needed_scopes(settings: Settings) -> list[Scope]:
    """What the running service and the doctor ask for."""
    module = settings.zoho_messages_module
    scopes = [
        Scope("ZohoCRM.modules.leads.READ", _list("Leads")),
        Scope("ZohoCRM.modules.leads.CREATE", _nothing("/Leads")),
        Scope("ZohoCRM.modules.leads.DELETE", None, False),
        Scope("ZohoCRM.modules.contacts.READ", _list("Contacts")),
        Scope("ZohoCRM.modules.custom.READ", _list(module)),
        Scope("ZohoCRM.modules.custom.CREATE", _nothing(f"/{module}/upsert")),
        Scope("ZohoCRM.modules.custom.UPDATE", _nothing(f"/{module}/upsert")),
        Scope("ZohoCRM.modules.notes.READ", _list("Notes")),
        Scope("ZohoCRM.modules.notes.CREATE", _nothing("/Notes")),
        Scope("ZohoCRM.modules.notes.DELETE", None, False),
        Scope("ZohoCRM.coql.READ", _query()),
        Scope("ZohoSearch.securesearch.READ", _search()),
        Scope("ZohoCRM.settings.fields.READ", _fields()),
        Scope("ZohoCRM.settings.modules.READ", _get("/settings/modules"), False),
        Scope("ZohoCRM.org.READ", _get("/org"), False),
        Scope("ZohoCRM.users.READ", _get("/users", ("type", "CurrentUser")), False),
    ]
    if settings.zoho_assignment_rule_id:
        rules = _get("/settings/automation/assignment_rules")
        scopes.append(Scope("ZohoCRM.settings.assignment_rules.READ", rules, False))
    if settings.zoho_composite:
        scopes.append(Scope("ZohoCRM.composite_requests.CUSTOM", None, False))
    return scopes


SETUP_SCOPES = (
    "ZohoCRM.settings.modules.CREATE",
    "ZohoCRM.settings.fields.CREATE",
    "ZohoCRM.settings.fields.UPDATE",
    "ZohoCRM.settings.profiles.READ",
)
"""In addition, for `zoho-sync setup` to create what is missing."""


def scope_names(settings: Settings, *, with_setup: bool) -> list[str]:
    """For the authorization URL."""
    return [scope.name for scope in needed_scopes(settings)] + list(SETUP_SCOPES if with_setup else ())


def covers(held: set[str], needed: str) -> bool:
    """Is `needed` among the scopes held, or covered by a wider one (`.ALL`, or without the middle part)?"""
    stem, _, verb = needed.rpartition(".")
    wider = {needed, f"{stem}.ALL"}
    parts = stem.split(".")
    if len(parts) == 3:
        wider |= {f"{parts[0]}.{parts[1]}.ALL", f"{parts[0]}.{parts[1]}.{verb}"}
    return not {scope.casefold() for scope in wider}.isdisjoint(scope.casefold() for scope in held)


def _get(path: str, *params: tuple[str, str]) -> Call:
    return Call(Operation.METADATA, "GET", path, params=params)


def _list(module: str) -> Call:
    field = "Note_Title" if module == "Notes" else "id"
    return Call(Operation.READ_RECORD, "GET", f"/{module}", params=(("fields", field), ("per_page", "1")))


def _nothing(path: str) -> Call:
    """A write of no records at all: Zoho looks at the right first, and then refuses the empty list."""
    return Call(Operation.METADATA, "POST", path, body={"data": []}, cost=Cost(credits=1))


def _query() -> Call:
    text = f"select id from Leads where (Phone in ('{_NOBODY}')) limit 0, 1"  # noqa: S608 - a fixed text
    return Call(Operation.FIND_PEOPLE, "POST", "/coql", body={"select_query": text}, cost=Cost(is_heavy=True))


def _search() -> Call:
    return Call(Operation.SEARCH_PEOPLE, "GET", "/Leads/search", params=(("phone", _NOBODY[1:]),))


def _fields() -> Call:
    return _get("/settings/fields", ("module", "Leads"))
