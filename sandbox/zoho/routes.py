"""Which operation a method and a path ask for."""

from __future__ import annotations

from dataclasses import dataclass

from sandbox.zoho import composite, coql_query, lifecycle, metadata, metadata_writes, notes, records, search
from sandbox.zoho.call import Call, Operation
from sandbox.zoho.org import Organisation

PREFIX = ["", "crm", "v8"]
PAGING = frozenset({"page", "per_page"})
LISTING = PAGING | {"fields", "ids", "sort_by", "sort_order", "page_token", "converted", "approved", "cvid"}
SEARCHING = PAGING | {
    "criteria",
    "email",
    "phone",
    "word",
    "converted",
    "approved",
    "fields",
    "type",
    "approval_state",
}
FIXED = frozenset({"coql", "org", "users", "settings", "__composite_requests"})


@dataclass(frozen=True, slots=True)
class Route:
    """A path's shape (None: Zoho serves no such path), with what stands in its variable parts."""

    shape: str | None
    module: str | None = None
    record_id: str | None = None


def resolve(path: str) -> Route:
    """The shape of a path under /crm/v8."""
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


def _get_records_credits(org: Organisation, call: Call) -> int:
    return 3 if "cvid" in call.params else 1


def _is_heavy_list(org: Organisation, call: Call) -> bool:
    return "cvid" in call.params or "sort_by" in call.params


def _is_heavy_search(org: Organisation, call: Call) -> bool:
    return org.config.search_is_heavy


def _always(org: Organisation, call: Call) -> bool:
    return True


def _record_operations() -> dict[str, dict[str, Operation]]:
    """Paths that start with a module's name."""
    write = {"takes_json": True, "credits": records.credits_for_rows, "is_heavy": records.is_heavy_write}
    insert = Operation(name="records.insert", handler=records.insert, scopes=("module.CREATE",), **write)  # type: ignore[arg-type]
    update = Operation(name="records.update", handler=records.update, scopes=("module.UPDATE",), **write)  # type: ignore[arg-type]
    upsert = Operation(
        name="records.upsert",
        handler=records.upsert,
        scopes=("module.CREATE", "module.UPDATE"),
        **write,  # type: ignore[arg-type]
    )
    return {
        "*": {
            "GET": Operation(
                name="records.list",
                handler=records.list_rows,
                scopes=("module.READ",),
                params=LISTING,
                credits=_get_records_credits,
                is_heavy=_is_heavy_list,
            ),
            "POST": insert,
            "PUT": update,
            "DELETE": _delete(many=True),
        },
        "*/upsert": {"POST": upsert},
        "*/search": {"GET": _search()},
        "*/deleted": {"GET": _read("records.deleted", records.deleted, PAGING | {"type"}, credits=2)},
        "*/actions/count": {"GET": _read("records.count", records.count, frozenset({"converted", "cvid"}))},
        "*/id": {
            "GET": _read(
                "records.get", records.get_one, frozenset({"fields", "converted", "approved", "cvid"})
            ),
            "PUT": Operation(
                name="records.update_one",
                handler=records.update_one,
                scopes=("module.UPDATE",),
                takes_json=True,
            ),
            "DELETE": _delete(many=False),
        },
        "*/id/actions/convert": {"POST": _convert()},
    }


def _read(name: str, handler: object, params: frozenset[str], *, credits: int = 1) -> Operation:
    return Operation(
        name=name,
        handler=handler,  # type: ignore[arg-type]
        scopes=("module.READ",),
        params=params,
        credits=lambda org, call: credits,
    )


def _delete(*, many: bool) -> Operation:
    return Operation(
        name="records.delete",
        handler=records.delete_many if many else records.delete_one,
        scopes=("module.DELETE",),
        params=frozenset({"ids", "wf_trigger"}) if many else frozenset({"wf_trigger"}),
    )


def _search() -> Operation:
    return Operation(
        name="records.search",
        handler=search.search,
        scopes=("module.READ", "ZohoSearch.securesearch.READ"),
        params=SEARCHING,
        is_heavy=_is_heavy_search,
    )


def _convert() -> Operation:
    return Operation(
        name="records.convert",
        handler=lifecycle.convert,
        scopes=("module.UPDATE",),
        takes_json=True,
        credits=lambda org, call: 5,
        is_heavy=_always,
    )


def _note_operations() -> dict[str, dict[str, Operation]]:
    write = {"takes_json": True, "credits": notes.note_credits, "is_heavy": records.is_heavy_write}
    create = Operation(name="notes.create", handler=notes.create, scopes=("notes.CREATE",), **write)  # type: ignore[arg-type]
    related = Operation(
        name="notes.create_related",
        handler=notes.create_related,
        scopes=("notes.CREATE",),
        **write,  # type: ignore[arg-type]
    )
    update = Operation(name="notes.update", handler=records.update, scopes=("notes.UPDATE",), **write)  # type: ignore[arg-type]
    return {
        "Notes": {
            "GET": Operation(
                name="notes.list", handler=notes.list_notes, scopes=("notes.READ",), params=LISTING
            ),
            "POST": create,
            "PUT": update,
            "DELETE": _delete(many=True),
        },
        "Notes/search": {"GET": _search()},
        "Notes/deleted": {"GET": _read("records.deleted", records.deleted, PAGING | {"type"}, credits=2)},
        "Notes/actions/count": {"GET": _read("records.count", records.count, frozenset())},
        "Notes/id": {
            "GET": _read("notes.get", notes.get_one, frozenset({"fields"})),
            "PUT": Operation(
                name="notes.update_one", handler=records.update_one, scopes=("notes.UPDATE",), takes_json=True
            ),
            "DELETE": _delete(many=False),
        },
        "*/id/Notes": {
            "GET": Operation(
                name="notes.list_related", handler=notes.list_related, scopes=("notes.READ",), params=LISTING
            ),
            "POST": related,
        },
    }


def _metadata_operations() -> dict[str, dict[str, Operation]]:
    modules, fields = "ZohoCRM.settings.modules", "ZohoCRM.settings.fields"
    return {
        "org": {"GET": Operation(name="org", handler=metadata.get_org, scopes=("ZohoCRM.org.READ",))},
        "users": {
            "GET": Operation(
                name="users",
                handler=metadata.get_users,
                scopes=("ZohoCRM.users.READ",),
                params=PAGING | {"type", "ids"},
            )
        },
        "settings/modules": {
            "GET": Operation(
                name="metadata.modules",
                handler=metadata.get_modules,
                scopes=(f"{modules}.READ",),
                params=frozenset({"status"}),
            ),
            "POST": Operation(
                name="metadata.create_module",
                handler=metadata_writes.create_module,
                scopes=(f"{modules}.CREATE",),
                takes_json=True,
                credits=lambda org, call: 500,
            ),
        },
        "settings/modules/*": {
            "GET": Operation(name="metadata.module", handler=metadata.get_module, scopes=(f"{modules}.READ",))
        },
        "settings/fields": _field_operations(fields),
        "settings/fields/*": {
            "PATCH": Operation(
                name="metadata.change_field",
                handler=metadata_writes.change_field,
                scopes=(f"{fields}.UPDATE",),
                params=frozenset({"module"}),
                takes_json=True,
            )
        },
        "settings/profiles": {
            "GET": Operation(
                name="metadata.profiles",
                handler=metadata.get_profiles,
                scopes=("ZohoCRM.settings.profiles.READ",),
            )
        },
        "settings/automation/assignment_rules": {
            "GET": Operation(
                name="metadata.assignment_rules",
                handler=metadata.get_assignment_rules,
                scopes=("ZohoCRM.settings.assignment_rules.READ",),
                params=frozenset({"module"}),
            )
        },
    }


def _field_operations(scope: str) -> dict[str, Operation]:
    return {
        "GET": Operation(
            name="metadata.fields",
            handler=metadata.get_fields,
            scopes=(f"{scope}.READ",),
            params=frozenset({"module", "type"}),
        ),
        "POST": Operation(
            name="metadata.create_fields",
            handler=metadata_writes.create_fields,
            scopes=(f"{scope}.CREATE",),
            params=frozenset({"module"}),
            takes_json=True,
        ),
        "PATCH": Operation(
            name="metadata.change_fields",
            handler=metadata_writes.change_fields,
            scopes=(f"{scope}.UPDATE",),
            params=frozenset({"module"}),
            takes_json=True,
        ),
    }


def operations() -> dict[str, dict[str, Operation]]:
    """Every operation, by the shape of its path and its method."""
    return {
        **_record_operations(),
        **_note_operations(),
        **_metadata_operations(),
        "coql": {
            "POST": Operation(
                name="coql",
                handler=coql_query.coql,
                scopes=("ZohoCRM.coql.READ",),
                takes_json=True,
                credits=coql_query.query_credits,
                is_heavy=_always,
            )
        },
        "__composite_requests": {
            "POST": Operation(
                name="composite",
                handler=composite.run,
                scopes=("ZohoCRM.composite_requests.CUSTOM",),
                takes_json=True,
            )
        },
    }
