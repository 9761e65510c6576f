"""Notes. No upsert, no unique field: a repeated POST makes a second note."""

from __future__ import annotations

from typing import Any

from sandbox.zoho.call import Call, Reply
from sandbox.zoho.errors import ApiError, field_details, invalid_data, row_error
from sandbox.zoho.model import Json
from sandbox.zoho.oauth import require_module_scope
from sandbox.zoho.org import Organisation
from sandbox.zoho.records import (
    credits_for_rows,
    each_row,
    page_info_of,
    reader_of,
    rows_of,
    success,
    wanted_fields,
    write_reply,
)
from sandbox.zoho.rendering import PARENT_MODULE, show_value, written
from sandbox.zoho.store import Row, Values

BAD_PARENT = "the related id given seems to be invalid"


def note_credits(org: Organisation, call: Call) -> int:
    """Like other writes, or 1 for the whole call: Zoho does not say."""
    return 1 if org.config.note_credits == "flat" else credits_for_rows(org, call)


def create(org: Organisation, call: Call) -> Reply:
    """POST /Notes: each note names its parent."""
    writer = NoteWriter(org, call)
    return write_reply(org, call, each_row(call, rows_of(call), writer.write_named), all_ok=201)


def create_related(org: Organisation, call: Call) -> Reply:
    """POST /{module}/{id}/Notes: the parent stands in the path."""
    parent = _path_parent(org, call)
    writer = NoteWriter(org, call)
    rows = rows_of(call)
    return write_reply(org, call, each_row(call, rows, lambda row, index: writer.write(row, index, parent)), all_ok=201)


class NoteWriter:
    """Writes the notes of one call."""

    def __init__(self, org: Organisation, call: Call) -> None:
        self._org = org
        self._call = call
        self._module = org.schema.module("Notes")
        self._reader = reader_of(org, self._module)

    def write_named(self, row: Any, index: int) -> Json:
        """A note that names its parent."""
        if not isinstance(row, dict):
            return self.write(row, index, {})
        parent, error = _named_parent(self._org, row, index)
        return error or self.write({key: row[key] for key in row if key != "se_module"}, index, parent)

    def write(self, row: Any, index: int, parent: Values) -> Json:
        """A note for this parent."""
        values, error, unknown = self._reader.read(row, index)
        self._call.entry.note_unknown(unknown)
        error = error or _text_error(self._org, values, index)
        if error:
            return error
        new = self._org.create(self._module, {**values, **parent}, call=self._call.number)
        details = written(self._org, new)
        del details["$approval_state"]
        return success(details, "record added")


def _path_parent(org: Organisation, call: Call) -> Values:
    require_module_scope(org, call, call.the_module, "READ")
    if not org.is_usable(call.the_module, call.the_id):
        raise ApiError(400, "INVALID_DATA", BAD_PARENT, {"resource_path_index": 1})
    return {"Parent_Id": call.the_id, PARENT_MODULE: call.the_module.module_name}


def _named_parent(org: Organisation, row: Json, index: int) -> tuple[Values, Json | None]:
    """The parent in either form: an object with module and id, or a bare id beside `se_module`."""
    given = row.get("Parent_Id")
    details = field_details("Parent_Id", index)
    if given is None:
        return {}, row_error("MANDATORY_NOT_FOUND", "required field not found", details)
    if isinstance(given, dict):
        module_part = given.get("module")
        api_name = module_part.get("api_name") if isinstance(module_part, dict) else module_part
        row_id = given.get("id")
    else:
        api_name, row_id = row.get("se_module"), given
    module = org.schema.find(str(api_name))
    if module is None:
        return {}, row_error("INVALID_MODULE", "the module name given seems to be invalid", details)
    if not isinstance(row_id, str) or not org.is_usable(module, row_id):
        return {}, invalid_data(details, BAD_PARENT)
    return {"Parent_Id": row_id, PARENT_MODULE: module.module_name}, None


def _text_error(org: Organisation, values: Values, index: int) -> Json | None:
    if values.get("Note_Content"):
        return None
    if org.config.note_needs == "content":
        return row_error("MANDATORY_NOT_FOUND", "required field not found", field_details("Note_Content", index))
    if values.get("Note_Title"):
        return None
    names = ("Note_Content", "Note_Title")
    details = {"expected_fields": [field_details(name, index) for name in names]}
    return row_error("EXPECTED_FIELD_MISSING", "should contain either content or title", details)


# Reads


def list_related(org: Organisation, call: Call) -> Reply:
    """GET /{module}/{id}/Notes?fields=…"""
    fields = wanted_fields(call)
    _path_parent(org, call)
    notes = org.schema.module("Notes")
    rows = org.table(notes).current.find("Parent_Id", call.the_id)[::-1]
    return _page(org, call, rows, fields)


def list_notes(org: Organisation, call: Call) -> Reply:
    """GET /Notes?fields=…"""
    fields = wanted_fields(call)
    rows = list(org.table(org.schema.module("Notes")))[::-1]
    if "ids" in call.params:
        wanted = set(call.params["ids"].split(","))
        rows = [row for row in rows if row.id in wanted]
    return _page(org, call, rows, fields)


def _page(org: Organisation, call: Call, rows: list[Row], fields: list[str]) -> Reply:
    page, info = page_info_of(org, call, rows)
    if not page:
        return Reply(204)
    return Reply(200, {"data": [show_note(org, row, fields) for row in page], "info": info})


def get_one(org: Organisation, call: Call) -> Reply:
    """GET /Notes/{id}"""
    row = org.table(call.the_module).get(call.the_id)
    if row is None:
        return Reply(204)
    return Reply(200, {"data": [show_note(org, row, wanted_fields(call, required=False), whole=True)]})


def show_note(org: Organisation, row: Row, fields: list[str], *, whole: bool = False) -> Json:
    """A note with the fields asked for; `whole` adds the flags that Zoho shows on a single note."""
    notes = org.schema.module("Notes")
    shown: Json = {name: show_value(org, notes, row, name) for name in fields if name in notes.fields}
    flags: Json = {
        "$attachments": None,
        "$editable": True,
        "$is_shared_to_client": False,
        "$size": None,
        "$state": "save",
        "$voice_note": False,
    }
    return {**shown, "id": row.id, **(flags if whole else {})}
