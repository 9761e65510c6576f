"""Insert, update, upsert, read, list and delete records."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from sandbox.zoho.call import Call, Reply, body_error
from sandbox.zoho.errors import (
    ApiError,
    field_details,
    id_error,
    invalid_data,
    missing_param,
    param_error,
    row_error,
)
from sandbox.zoho.lifecycle import delete_record
from sandbox.zoho.model import Json
from sandbox.zoho.org import Organisation
from sandbox.zoho.rendering import page_info, raw_value, show_row, show_whole, written
from sandbox.zoho.schema import Module
from sandbox.zoho.store import Row, Values
from sandbox.zoho.times import parse_time
from sandbox.zoho.validation import RECORD_ID, RowReader

MAX_ROWS = 100
MAX_FIELDS = 50
PAGE_ROWS = 200
DISCRETE_ROWS = 2_000
TRIGGERS = ("workflow", "approval", "blueprint", "pathfinder", "orchestration")


# Bodies


def rows_of(call: Call, *, key: str = "data") -> list[Any]:
    """The rows of a write: 1 to 100 of them, in a JSON object.

    Raises:
        ApiError: there are none, too many, or the body has another shape.
    """
    payload = call.payload
    if not isinstance(payload, dict):
        raise body_error()
    where: Json = {"api_name": key, "json_path": f"$.{key}"}
    if key not in payload:
        raise ApiError(400, "MANDATORY_NOT_FOUND", "required field not found", where)
    rows = payload[key]
    if not isinstance(rows, list) or not rows:
        raise ApiError(400, "INVALID_DATA", "invalid data", {"expected_data_type": "jsonarray", **where})
    if len(rows) > MAX_ROWS:
        raise ApiError(400, "INVALID_DATA", "invalid data", {"maximum_length": MAX_ROWS, **where})
    _check_triggers(call)
    return rows


def _check_triggers(call: Call) -> None:
    """Without `trigger` every automation runs; with an empty list none does [DOC7]."""
    triggers = call.payload.get("trigger")
    if triggers is None:
        call.entry.ran = list(TRIGGERS)
        return
    if not isinstance(triggers, list):
        details: Json = {"expected_data_type": "jsonarray", "api_name": "trigger", "json_path": "$.trigger"}
        raise ApiError(400, "INVALID_DATA", "invalid data", details)
    for index, each in enumerate(triggers):
        if each not in TRIGGERS:
            path = f"$.trigger[{index}]"
            details = {"supported_values": list(TRIGGERS), "api_name": "trigger", "json_path": path}
            raise ApiError(400, "INVALID_DATA", "invalid data", details)
    call.entry.ran = list(triggers)


def check_assignment_rule(org: Organisation, call: Call) -> None:
    """The assignment rule that new records are to follow must exist."""
    rule_id = call.entry.lar_id = call.payload.get("lar_id")
    if rule_id is not None and str(rule_id) not in org.assignment_rules:
        raise ApiError(400, "INVALID_DATA", "invalid data", {"api_name": "lar_id", "json_path": "$.lar_id"})


def credits_for_rows(_org: Organisation, call: Call) -> int:
    """One credit for each ten rows begun."""
    return max(1, -(-len(call.data()) // 10))


def is_heavy_write(_org: Organisation, call: Call) -> bool:
    """Writes of more than ten rows belong to the sub-concurrency group."""
    return len(call.data()) > 10


# Results


def write_reply(org: Organisation, call: Call, items: list[Json], *, all_ok: int) -> Reply:
    """One item per row, in order, under the status that Zoho gives to all, some, or none of them having worked."""
    call.entry.succeeded = sum(item["status"] == "success" for item in items)
    if call.entry.succeeded == len(items):
        return Reply(all_ok, {"data": items})
    mixed = call.entry.succeeded > 0
    return Reply(org.config.mixed_status if mixed else org.config.all_failed_status, {"data": items})


def success(details: Json, message: str) -> Json:
    """The item of a row that worked."""
    return {"code": "SUCCESS", "details": details, "message": message, "status": "success"}


def each_row(call: Call, rows: list[Any], write: Callable[[Any, int], Json]) -> list[Json]:
    """Writes the rows one by one; a planned fault can take the place of a row's result."""
    if not call.row_faults:
        return [write(row, index) for index, row in enumerate(rows)]
    return [_faulty(call, write, row, index) for index, row in enumerate(rows)]


def _faulty(call: Call, write: Callable[[Any, int], Json], row: Any, index: int) -> Json:
    fault = next((each for each in call.row_faults if each.hits(row, index)), None)
    if fault is None:
        return write(row, index)
    if fault.commit:
        write(row, index)
    return fault.item(index)


# Unique fields


def clash_error(org: Organisation, module: Module, values: Values, index: int, own_id: str | None) -> Json | None:
    """The error when another record already holds one of these unique values."""
    clashes: dict[str, str] = {}
    for name, unique in org.table(module).unique.items():
        value = values.get(name)
        holder = unique.holder(value) if value is not None else None
        if holder is not None and holder != own_id:
            clashes[name] = holder
    if not clashes:
        return None
    errors = [duplicate_error(org, module, name, holder, index) for name, holder in clashes.items()]
    if len(set(clashes.values())) == 1:
        return errors[0]
    return row_error("MULTIPLE_OR_MULTI_ERRORS", "Multiple errors in the request", {"errors": errors})


def duplicate_error(org: Organisation, module: Module, name: str, holder: str, index: int) -> Json:
    """DUPLICATE_DATA in the form that the organisation is set to."""
    match org.config.duplicate_form:
        case "id_only":
            details: Json = {"id": holder}
        case "api_name_and_id":
            details = {"api_name": name, "id": holder}
        case "no_id":
            details = field_details(name, index)
        case "v8":
            details = _duplicate_details(org, module, name, holder, index)
    return row_error("DUPLICATE_DATA", "duplicate data", details)


def _duplicate_details(org: Organisation, module: Module, name: str, holder: str, index: int) -> Json:
    row = org.table(module).get(holder)
    owner = org.users[row.owner] if row else org.user
    record = {
        "Owner": {"name": owner.name, "id": owner.id, "zuid": owner.zuid},
        "module": {"api_name": module.api_name, "id": module.id},
        "id": holder,
    }
    return field_details(name, index, duplicate_record=record, id=holder, more_records=False)


# Writes


@dataclass(slots=True)
class Writer:
    """Writes rows of one call into one module."""

    org: Organisation
    call: Call
    module: Module
    reader: RowReader
    check_order: tuple[str, ...] = ()
    created: set[str] = field(default_factory=set)

    def read(self, row: Any, index: int) -> tuple[Values, Json | None]:
        """The row's values, and its first error."""
        values, error, unknown = self.reader.read(row, index)
        if unknown:
            self.call.entry.unknown_keys.extend(key for key in unknown if key not in self.call.entry.unknown_keys)
        return values, error

    def insert(self, row: Any, index: int) -> Json:
        """One row of an insert."""
        values, error = self.read(row, index)
        error = error or self._insert_error(values, index)
        if error:
            return error
        return success(written(self.org, self._create(values)), "record added")

    def update(self, row: Any, index: int) -> Json:
        """One row of an update; it names its record by `id`."""
        row_id = row.get("id") if isinstance(row, dict) else None
        if isinstance(row, dict) and row_id is None:
            return row_error("MANDATORY_NOT_FOUND", "required field not found", field_details("id", index))
        values, error = self.read(row, index)
        if error:
            return error
        return self.update_id(str(row_id), values, index, id_details=field_details("id", index))

    def update_id(self, row_id: str, values: Values, index: int, *, id_details: Json) -> Json:
        """Updates the record with this id."""
        old = self.org.table(self.module).get(row_id)
        error = self._stale_error(old, id_details) or self._change_error(values, index, row_id)
        if error or old is None:
            return error or invalid_data(id_details)
        new = self.org.update(self.module, old, values, call=self.call.number)
        return success(written(self.org, new), "record updated")

    def upsert(self, row: Any, index: int) -> Json:
        """One row of an upsert: an update of the record it matches, or an insert."""
        values, error = self.read(row, index)
        if error:
            return error
        old, name = self._match(row, values)
        if old is None:
            return self._upsert_insert(values, index)
        if old.id in self.created and self.org.config.same_key_in_one_batch == "duplicate":
            return duplicate_error(self.org, self.module, name, old.id, index)
        item = self.update_id(old.id, values, index, id_details=field_details("id", index))
        return _upserted(item, "update", name)

    def _upsert_insert(self, values: Values, index: int) -> Json:
        error = self._insert_error(values, index)
        if error:
            return error
        new = self._create(values)
        return _upserted(success(written(self.org, new), "record added"), "insert", None)

    def _create(self, values: Values) -> Row:
        new = self.org.create(self.module, values, call=self.call.number)
        self.created.add(new.id)
        return new

    def _match(self, row: Json, values: Values) -> tuple[Row | None, str]:
        table = self.org.table(self.module)
        if row.get("id") is not None:
            return table.get(str(row["id"])), "id"
        for name in self.check_order:
            value = values.get(name)
            if value is None:
                continue
            unique = table.unique.get(name)
            found = [unique.holder(value)] if unique else [each.id for each in table.current.find(name, value)]
            live = (table.get(each) for each in found if each is not None)
            old = next((each for each in live if each is not None and not each.is_converted), None)
            if old is not None:
                return old, name
        return None, ""

    def _insert_error(self, values: Values, index: int) -> Json | None:
        missing = self.reader.missing(values, index, is_update=False)
        return missing or clash_error(self.org, self.module, values, index, None)

    def _change_error(self, values: Values, index: int, row_id: str) -> Json | None:
        missing = self.reader.missing(values, index, is_update=True)
        return missing or clash_error(self.org, self.module, values, index, row_id)

    def _stale_error(self, row: Row | None, id_details: Json) -> Json | None:
        if row is not None and not row.is_converted:
            return None
        if row is not None and self.org.config.stale_lead_code == "CONVERTED_RECORD":
            return row_error("CONVERTED_RECORD", "the record is converted", id_details)
        return invalid_data(id_details, "the id given seems to be invalid")


def _upserted(item: Json, action: str, name: str | None) -> Json:
    if item["status"] == "error":
        return item
    return {"code": item["code"], "duplicate_field": name, "action": action, **item}


def _writer(org: Organisation, call: Call) -> Writer:
    return Writer(org, call, call.the_module, reader_of(org, call.the_module))


def reader_of(org: Organisation, module: Module) -> RowReader:
    """The module's row checks, made again when the schema has changed."""
    key = module.module_name
    cached = org.readers.get(key)
    if cached is None or cached[0] != org.schema.version:
        cached = (org.schema.version, RowReader(org, module))
        org.readers[key] = cached
    return cached[1]


def insert(org: Organisation, call: Call) -> Reply:
    """POST /{module}"""
    rows = rows_of(call)
    check_assignment_rule(org, call)
    return write_reply(org, call, each_row(call, rows, _writer(org, call).insert), all_ok=201)


def update(org: Organisation, call: Call) -> Reply:
    """PUT /{module}"""
    return write_reply(org, call, each_row(call, rows_of(call), _writer(org, call).update), all_ok=200)


def update_one(org: Organisation, call: Call) -> Reply:
    """PUT /{module}/{id}"""
    writer = _writer(org, call)
    rows = rows_of(call)
    if len(rows) > 1:
        details: Json = {"maximum_length": 1, "api_name": "data", "json_path": "$.data"}
        raise ApiError(400, "INVALID_DATA", "invalid data", details)
    _check_unmodified(org, call)

    def write(row: Any, index: int) -> Json:
        values, error = writer.read(row, index)
        return error or writer.update_id(call.the_id, values, index, id_details={"resource_path_index": 1})

    return write_reply(org, call, each_row(call, rows, write), all_ok=200)


def _check_unmodified(org: Organisation, call: Call) -> None:
    """The precondition of `If-Unmodified-Since`."""
    text = call.request.header("if-unmodified-since")
    row = org.table(call.the_module).get(call.the_id)
    if text is None or row is None:
        return
    limit_s = parse_time(text)
    if limit_s is None:
        raise ApiError(400, "INVALID_DATA", "invalid data", {"expected_data_type": "datetime"})
    if int(row.modified_at_s) > limit_s:
        raise ApiError(412, "ALREADY_MODIFIED", "the record has been modified since", {"resource_path_index": 1})


def upsert(org: Organisation, call: Call) -> Reply:
    """POST /{module}/upsert"""
    rows = rows_of(call)
    check_assignment_rule(org, call)
    writer = _writer(org, call)
    writer.check_order = check_order(org, call)
    return write_reply(org, call, each_row(call, rows, writer.upsert), all_ok=200)


def check_order(org: Organisation, call: Call) -> tuple[str, ...]:
    """The fields that an upsert looks for its record by: the listed ones, then every unique one; without a list the
    system's own field, then every unique one [DOC7 upsert]."""
    module = call.the_module
    uniques = list(org.table(module).unique)
    listed = call.payload.get("duplicate_check_fields") or None
    if listed is None:
        listed = [module.system_duplicate_field] if module.system_duplicate_field else []
    else:
        _check_duplicate_fields(listed, [module.system_duplicate_field, *uniques])
    return (*listed, *(name for name in uniques if name not in listed))


def _check_duplicate_fields(listed: Any, allowed: list[Any]) -> None:
    name, path = "duplicate_check_fields", "$.duplicate_check_fields"
    if not isinstance(listed, list):
        raise _bad_check_fields({"expected_data_type": "jsonarray", "api_name": name, "json_path": path})
    if len(listed) > 10:
        raise _bad_check_fields({"maximum_length": 10, "api_name": name, "json_path": path})
    for index, each in enumerate(listed):
        if each not in allowed:
            raise _bad_check_fields({"api_name": name, "json_path": f"{path}[{index}]"})


def _bad_check_fields(details: Json) -> ApiError:
    return ApiError(400, "INVALID_DATA", "invalid data", details)


# Deletes


def delete_many(org: Organisation, call: Call) -> Reply:
    """DELETE /{module}?ids=a,b"""
    ids = call.params.get("ids")
    if not ids:
        raise missing_param("ids")
    wanted = ids.split(",")
    if len(wanted) > MAX_ROWS:
        raise ApiError(400, "INVALID_DATA", "invalid data", {"maximum_length": MAX_ROWS, "param_name": "ids"})
    call.entry.rows = len(wanted)
    items = each_row(call, wanted, lambda row_id, _index: delete_item(org, call, row_id))
    return write_reply(org, call, items, all_ok=200)


def delete_one(org: Organisation, call: Call) -> Reply:
    """DELETE /{module}/{id}"""
    _check_unmodified(org, call)
    item = delete_item(org, call, call.the_id)
    if item["status"] == "error":
        raise id_error()
    return write_reply(org, call, [item], all_ok=200)


def delete_item(org: Organisation, call: Call, row_id: str) -> Json:
    """Deletes one record."""
    if delete_record(org, call.the_module, row_id, call=call.number) is None:
        return invalid_data({"id": row_id}, "record not deleted")
    return success({"id": row_id}, "record deleted")


# Reads


def get_one(org: Organisation, call: Call) -> Reply:
    """GET /{module}/{id}"""
    if not RECORD_ID.fullmatch(call.the_id):
        raise id_error()
    module = call.the_module
    row = org.table(module).get(call.the_id)
    if row is None:
        return Reply(204)
    if is_unmodified([row], call):
        return Reply(304)
    if "fields" in call.params:
        return Reply(200, {"data": [show_row(org, module, row, wanted_fields(call))]})
    return Reply(200, {"data": [show_whole(org, module, row)]})


def wanted_fields(call: Call, *, required: bool = True) -> list[str]:
    """The names in `fields`, at most fifty. Without `fields`, an error, or every field where it may be missing."""
    text = call.params.get("fields")
    if not text:
        if required:
            raise missing_param("fields")
        return list(call.the_module.fields)
    names = text.split(",")
    if len(names) > MAX_FIELDS:
        raise ApiError(400, "LIMIT_EXCEEDED", "fields limit exceeded", {"limit": MAX_FIELDS, "param_name": "fields"})
    return names


def list_rows(org: Organisation, call: Call) -> Reply:
    """GET /{module}?fields=…"""
    fields = wanted_fields(call)
    module = call.the_module
    rows = list(_selected(org, call, module))
    _sort(module, rows, call)
    if is_unmodified(rows, call):
        return Reply(304)
    page, info = page_info_of(org, call, rows)
    if not page:
        return Reply(204)
    return Reply(200, {"data": [show_row(org, module, row, fields) for row in page], "info": info})


def is_unmodified(rows: list[Row], call: Call) -> bool:
    """Has nothing changed since `If-Modified-Since`?"""
    text = call.request.header("if-modified-since")
    since_s = parse_time(text) if text else None
    return since_s is not None and all(int(row.modified_at_s) <= since_s for row in rows)


def page_info_of(org: Organisation, call: Call, rows: list[Row]) -> tuple[list[Row], Json]:
    """The rows of the page that was asked for, and the `info` beside them."""
    start = page_start(org, call)
    per_page = call.int_param("per_page", PAGE_ROWS, high=PAGE_ROWS)
    page = rows[start : start + per_page]
    info = page_info(
        count=len(page),
        page=start // per_page + 1,
        per_page=per_page,
        more=len(rows) > start + per_page,
        sort_by=call.params.get("sort_by"),
        sort_order=call.params.get("sort_order"),
    )
    if info["more_records"]:
        now_s = org.clock()
        info["next_page_token"] = org.page_tokens.issue(start + per_page, _query_of(call), now_s=now_s)
        info["page_token_expiry"] = org.time_text(now_s + org.page_tokens.life_s)
    return page, info


def _query_of(call: Call) -> str:
    """What a page token is bound to: the path and all parameters but those of paging."""
    kept = {name: value for name, value in call.params.items() if name not in ("page", "page_token")}
    return f"{call.request.path}?{sorted(kept.items())}"


def page_start(org: Organisation, call: Call) -> int:
    """The first row of the page: by `page_token`, or by `page` within the first 2,000 rows."""
    token = call.params.get("page_token")
    if token is not None:
        return org.page_tokens.start(token, _query_of(call), now_s=org.clock())
    per_page = call.int_param("per_page", PAGE_ROWS, high=PAGE_ROWS)
    start = (call.int_param("page", 1) - 1) * per_page
    if start + per_page > DISCRETE_ROWS:
        code = "DISCRETE_PAGINATION_LIMIT_EXCEEDED"
        raise ApiError(400, code, "please use page_token to fetch more records", {"limit": DISCRETE_ROWS})
    return start


def _selected(org: Organisation, call: Call, module: Module) -> Iterator[Row]:
    table = org.table(module)
    converted = call.params.get("converted", "false")
    if "ids" in call.params:
        named: Iterable[Row | None] = (table.get(each) for each in call.params["ids"].split(","))
    else:
        named = table
    for row in named:
        if row is not None and is_wanted(row, converted):
            yield row


def is_wanted(row: Row, converted: str) -> bool:
    """Does the `converted` parameter (true, false, both) let this record through?"""
    return converted == "both" or row.is_converted == (converted == "true")


def _sort(module: Module, rows: list[Row], call: Call) -> None:
    name = call.params.get("sort_by", "id")
    if name not in ("id", "Created_Time", "Modified_Time"):
        raise param_error("sort_by")
    order = call.params.get("sort_order", "desc")
    if order not in ("asc", "desc"):
        raise param_error("sort_order")
    rows.sort(key=lambda row: (raw_value(module, row, name), row.id), reverse=order == "desc")


def count(org: Organisation, call: Call) -> Reply:
    """GET /{module}/actions/count"""
    rows = _selected(org, call, call.the_module)
    return Reply(200, {"count": sum(1 for _ in rows)})


def deleted(org: Organisation, call: Call) -> Reply:
    """GET /{module}/deleted"""
    kind = call.params.get("type", "all")
    if kind not in ("all", "recycle", "permanent"):
        raise param_error("type")
    table = org.table(call.the_module)
    if not table.deleted or kind == "permanent":
        return Reply(204)
    data = [
        {
            "id": row_id,
            "type": "recycle",
            "deleted_time": org.time_text(at_s),
            "deleted_by": org.user_ref(org.user.id),
        }
        for row_id, at_s in table.deleted.items()
    ]
    info = {
        "per_page": PAGE_ROWS,
        "count": len(data[:PAGE_ROWS]),
        "page": 1,
        "more_records": len(data) > PAGE_ROWS,
    }
    return Reply(200, {"data": data[:PAGE_ROWS], "info": info})
