"""Which operation a method and a path ask for."""

from __future__ import annotations

from dataclasses import dataclass, replace

from sandbox.zoho import composite, conversion, coql_query, metadata, metadata_writes, notes, records, search
from sandbox.zoho.call import Call, Handler, Operation
from sandbox.zoho.org import Organisation

Methods = dict[str, Operation]

PREFIX = ["", "crm", "v8"]
FIXED = frozenset({"coql", "org", "users", "settings", "__composite_requests"})
PAGING = frozenset({"page", "per_page"})
FILTERS = frozenset({"fields", "converted", "approved"})
LISTING = PAGING | FILTERS | {"ids", "sort_by", "sort_order", "page_token", "cvid"}
SEARCHING = PAGING | FILTERS | {"criteria", "email", "phone", "word", "type", "approval_state"}
MODULE = frozenset({"module"})


@dataclass(frozen=True, slots=True)
class Route:
    """A path's shape (None: Zoho serves no such path), with what stands in its variable parts."""

    shape: str | None
    module: str | None = None
    record_id: str | None = None


def resolve(path: str) -> Route:
    """The shape of a path under /crm/v8: `*` for a module, `id` for a record."""
    parts = path.split("/")
    if parts[:3] != PREFIX or len(parts) < 4 or not all(parts[3:]):
        return Route(None)
    rest = parts[3:]
    return _fixed(rest) if rest[0] in FIXED else _of_module(rest)


def _fixed(rest: list[str]) -> Route:
    if len(rest) == 3 and rest[:2] in (["settings", "modules"], ["settings", "fields"]):
        return Route(f"{rest[0]}/{rest[1]}/*", record_id=rest[2])
    return Route("/".join(rest))


def _of_module(rest: list[str]) -> Route:
    module, tail = rest[0], rest[1:]
    head = "Notes" if module == "Notes" else "*"
    record_id = tail[0] if tail and tail[0].isdigit() else None
    shown = ["id" if record_id else tail[0], *tail[1:]] if tail else []
    return Route("/".join([head, *shown]), module, record_id)


def operations() -> dict[str, Methods]:
    """Every operation, by the shape of its path and its method."""
    return {**_records(), **_notes(), **_about_the_organisation(), **_settings(), **_across_modules()}


def _read(name: str, handler: Handler, *scopes: str, params: frozenset[str] = frozenset()) -> Operation:
    return Operation(name=name, handler=handler, scopes=scopes, params=params)


def _write(name: str, handler: Handler, *scopes: str, params: frozenset[str] = frozenset()) -> Operation:
    return Operation(name=name, handler=handler, scopes=scopes, params=params, takes_json=True)


def _batch(name: str, handler: Handler, *scopes: str) -> Operation:
    """A write of many rows: a credit for every ten, heavy beyond ten."""
    write = _write(name, handler, *scopes)
    return replace(write, credits=records.credits_for_rows, is_heavy=records.is_heavy_write)


def _costs(operation: Operation, credits: int) -> Operation:
    return replace(operation, credits=lambda _org, _call: credits)


# Records


def _records() -> dict[str, Methods]:
    return {
        "*": {
            "GET": _list("records.list", records.list_rows, "module.READ"),
            "POST": _batch("records.insert", records.insert, "module.CREATE"),
            "PUT": _batch("records.update", records.update, "module.UPDATE"),
            "DELETE": _read("records.delete", records.delete_many, "module.DELETE", params=_DELETING | {"ids"}),
        },
        "*/id": {
            "GET": _read("records.get", records.get_one, "module.READ", params=FILTERS | {"cvid"}),
            "PUT": _write("records.update_one", records.update_one, "module.UPDATE"),
            "DELETE": _read("records.delete_one", records.delete_one, "module.DELETE", params=_DELETING),
        },
        "*/upsert": {"POST": _batch("records.upsert", records.upsert, "module.CREATE", "module.UPDATE")},
        "*/search": {"GET": _search()},
        "*/deleted": {"GET": _deleted()},
        "*/actions/count": {"GET": _read("records.count", records.count, "module.READ", params=FILTERS)},
        "*/id/actions/convert": {"POST": _convert()},
    }


_DELETING = frozenset({"wf_trigger"})


def _list(name: str, handler: Handler, *scopes: str) -> Operation:
    read = _read(name, handler, *scopes, params=LISTING)
    return replace(read, credits=_list_credits, is_heavy=_is_heavy_list)


def _list_credits(_org: Organisation, call: Call) -> int:
    return 3 if "cvid" in call.params else 1


def _is_heavy_list(_org: Organisation, call: Call) -> bool:
    return "cvid" in call.params or "sort_by" in call.params


def _search() -> Operation:
    read = _read("records.search", search.search, "module.READ", "ZohoSearch.securesearch.READ", params=SEARCHING)
    return replace(read, is_heavy=lambda org, _call: org.config.search_is_heavy)


def _deleted() -> Operation:
    return _costs(_read("records.deleted", records.deleted, "module.READ", params=PAGING | {"type"}), 2)


def _convert() -> Operation:
    write = _write("records.convert", conversion.convert, "module.UPDATE")
    return replace(_costs(write, 5), is_heavy=_always)


def _always(_org: Organisation, _call: Call) -> bool:
    return True


# Notes


def _notes() -> dict[str, Methods]:
    return {
        "Notes": {
            "GET": _list("notes.list", notes.list_notes, "notes.READ"),
            "POST": _new_notes("notes.create", notes.create),
            "PUT": _batch("notes.update", records.update, "notes.UPDATE"),
            "DELETE": _read("notes.delete", records.delete_many, "notes.DELETE", params=_DELETING | {"ids"}),
        },
        "Notes/id": {
            "GET": _read("notes.get", notes.get_one, "notes.READ", params=frozenset({"fields"})),
            "PUT": _write("notes.update_one", records.update_one, "notes.UPDATE"),
            "DELETE": _read("notes.delete_one", records.delete_one, "notes.DELETE", params=_DELETING),
        },
        "Notes/search": {"GET": _search()},
        "Notes/deleted": {"GET": _deleted()},
        "Notes/actions/count": {"GET": _read("records.count", records.count, "notes.READ")},
        "*/id/Notes": {
            "GET": _list("notes.list_related", notes.list_related, "notes.READ"),
            "POST": _new_notes("notes.create_related", notes.create_related),
        },
    }


def _new_notes(name: str, handler: Handler) -> Operation:
    return replace(_batch(name, handler, "notes.CREATE"), credits=notes.note_credits)


# The rest


def _about_the_organisation() -> dict[str, Methods]:
    users = _read("users", metadata.get_users, "ZohoCRM.users.READ", params=PAGING | {"type", "ids"})
    return {"org": {"GET": _read("org", metadata.get_org, "ZohoCRM.org.READ")}, "users": {"GET": users}}


def _settings() -> dict[str, Methods]:
    stem, read, write = "ZohoCRM.settings", _read, _write
    modules, fields = f"{stem}.modules", f"{stem}.fields"
    rules = f"{stem}.assignment_rules.READ"
    get_modules = read("metadata.modules", metadata.get_modules, f"{modules}.READ", params=frozenset({"status"}))
    new_module = write("metadata.create_module", metadata_writes.create_module, f"{modules}.CREATE")
    get_fields = read("metadata.fields", metadata.get_fields, f"{fields}.READ", params=MODULE | {"type"})
    new_fields = write("metadata.create_fields", metadata_writes.create_fields, f"{fields}.CREATE", params=MODULE)
    changed = write("metadata.change_fields", metadata_writes.change_fields, f"{fields}.UPDATE", params=MODULE)
    one_changed = write("metadata.change_field", metadata_writes.change_field, f"{fields}.UPDATE", params=MODULE)
    get_rules = read("metadata.assignment_rules", metadata.get_assignment_rules, rules, params=MODULE)
    return {
        "settings/modules": {"GET": get_modules, "POST": _costs(new_module, 500)},
        "settings/modules/*": {"GET": read("metadata.module", metadata.get_module, f"{modules}.READ")},
        "settings/fields": {"GET": get_fields, "POST": new_fields, "PATCH": changed},
        "settings/fields/*": {"PATCH": one_changed},
        "settings/profiles": {"GET": read("metadata.profiles", metadata.get_profiles, f"{stem}.profiles.READ")},
        "settings/automation/assignment_rules": {"GET": get_rules},
    }


def _across_modules() -> dict[str, Methods]:
    query = _write("coql", coql_query.coql, "ZohoCRM.coql.READ")
    several = _write("composite", composite.run, "ZohoCRM.composite_requests.CUSTOM")
    return {
        "coql": {"POST": replace(query, credits=coql_query.query_credits, is_heavy=_always)},
        "__composite_requests": {"POST": several},
    }
