"""The answers have the shapes that Zoho's own OpenAPI files draw, where the files agree with the live service."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.sandbox.harness import Json, Zoho, items
from tests.sandbox.openapi import Deviation, Files, folder

PHONE = "+14155550100"
NO_PAGE = "null until there is such a page, as captured"
SHOWS_ITS_FIELDS = "shows only what `fields` asked for"
NEWER_ERRORS = "the newer documentation adds it"
INFO = "properties"

DEVIATIONS = (
    Deviation("record.json", f"Info/{INFO}/next_page_token", "nullable", NO_PAGE),
    Deviation("record.json", f"Info/{INFO}/previous_page_token", "nullable", NO_PAGE),
    Deviation("record.json", f"Info/{INFO}/page_token_expiry", "nullable", NO_PAGE),
    Deviation(
        "record.json", "Success_Response/properties/duplicate_field", "nullable", "null on an insert, as captured"
    ),
    Deviation(
        "record.json",
        "API_Exception/properties/details/properties/maximum_length",
        "any",
        "a number in every capture and sample",
    ),
    Deviation(
        "record.json",
        "API_Exception/properties/details/properties/duplicate_record/properties/Owner",
        "any",
        "the newer documentation adds `zuid`",
    ),
    Deviation("record.json", "API_Exception/properties/details/properties/more_records", "added", NEWER_ERRORS),
    Deviation(
        "record.json",
        "API_Exception/properties/message/enum",
        "the related id given seems to be invalid",
        "the message of a lookup or note without its record, as documented",
    ),
    Deviation("record.json", "API_Exception/properties/details/properties/supported_values", "added", NEWER_ERRORS),
    Deviation("notes.json", f"Info/{INFO}/next_page_token", "nullable", NO_PAGE),
    Deviation("notes.json", f"Info/{INFO}/previous_page_token", "nullable", NO_PAGE),
    Deviation("notes.json", f"Info/{INFO}/page_token_expiry", "nullable", NO_PAGE),
    Deviation("notes.json", "Note", "nothing required", SHOWS_ITS_FIELDS),
    Deviation("notes.json", "Note/properties/$attachments", "nullable", "null without attachments"),
    Deviation("notes.json", "Note/properties/$size", "nullable", "null without attachments"),
    Deviation("notes.json", "Mandatory_API_Exception/properties/details/properties/json_path", "added", NEWER_ERRORS),
    Deviation("notes.json", "Max_Length_API_Exception/properties/details/properties/json_path", "added", NEWER_ERRORS),
    Deviation("module_search.json", "Record", "nothing described", "a record has any fields"),
    Deviation("module_search.json", "Response_Wrapper/properties/info", "added", "captured beside every page"),
    Deviation("org.json", "Org/properties/type/enum", "production", "in small letters in the documentation"),
    Deviation("users.json", "users/properties/email", "any", "the file's pattern fits one address only"),
    Deviation("users.json", "users/properties/time_zone", "any", "a name in every capture"),
    Deviation("modules.json", "modules", "nothing required", "the list leaves out what a single module shows"),
    Deviation("modules.json", "fields", "nothing required", "a module names its fields by id and name only"),
    Deviation("modules.json", "modules", "all nullable", "null where a module has no such thing, as captured"),
    Deviation("fields.json", "fields", "all nullable", "null where a field has no such thing, as captured"),
)


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer, and the schema that describes it."""

    file: str
    schema: str
    body: Any


def answers() -> list[Answer]:
    """At least one answer of each kind."""
    zoho = Zoho(search_criteria_limit=15)
    lead_id = zoho.lead(Phone=PHONE, Email="a@b.org")
    message_id = zoho.message("m1", Lead={"id": lead_id})
    note = zoho.note(lead_id)
    return [
        *_writes(zoho, lead_id),
        *_reads(zoho, lead_id, message_id),
        *_row_errors(zoho),
        *_errors(zoho),
        *_notes(zoho, lead_id, items(note)[0]),
        *_metadata(zoho),
        *_query_errors(zoho),
        *_search_errors(zoho),
        *_composites(zoho),
    ]


def _writes(zoho: Zoho, lead_id: str) -> list[Answer]:
    made = [
        zoho.insert("Leads", {"Last_Name": "A"}),
        zoho.update("Leads", {"id": lead_id, "Company": "C"}),
        zoho.upsert("Messages", {"Message_ID": "m1"}, {"Name": "n"}, fields=["Message_ID"]),
        zoho.call("DELETE", f"Leads/{zoho.lead()}"),
        zoho.call("POST", f"Leads/{zoho.lead()}/actions/convert", {"data": [{}]}),
    ]
    return [Answer("record.json", "Success_Response", item) for answer in made for item in items(answer)]


def _reads(zoho: Zoho, lead_id: str, message_id: str) -> list[Answer]:
    query = f"select Name, Lead, Created_Time from Messages where id = {message_id}"
    found = zoho.search("Leads", phone=PHONE).json()
    pages = [
        zoho.get("Leads", fields="Last_Name,Owner,Created_Time").json(),
        zoho.get(f"Leads/{lead_id}").json(),
        found,
    ]
    return [
        *(Answer("record.json", "Response_Wrapper", page) for page in pages),
        Answer("module_search.json", "Response_Wrapper", found),
        Answer("coql.json", "Response_Wrapper", zoho.coql(query).json()),
    ]


def _row_errors(zoho: Zoho) -> list[Answer]:
    refused = [
        zoho.insert("Leads", {}),
        zoho.insert("Leads", {"Last_Name": "x" * 81}),
        zoho.insert("Leads", {"Last_Name": 5}),
        zoho.insert("Messages", {"Name": "n", "Message_ID": "m1"}),
        zoho.insert("Messages", {"Name": "n", "Direction": "up"}),
        zoho.insert("Messages", {"Name": "n", "Lead": {"id": "1"}}),
        zoho.update("Leads", {"id": "1"}),
        zoho.call("DELETE", "Leads", ids="1"),
    ]
    return [Answer("record.json", "API_Exception", items(answer)[0]) for answer in refused]


def _errors(zoho: Zoho) -> list[Answer]:
    token, zoho.token = zoho.token, "1000.x"
    unknown = zoho.get("Leads", fields="Last_Name").json()
    zoho.token = token
    refused = [
        zoho.get("Nothing").json(),
        zoho.get("Leads/x/y").json(),
        zoho.call("PATCH", "Leads").json(),
        zoho.get("Leads").json(),
        zoho.call("POST", "Leads/1/actions/convert", {"data": [{}]}).json(),
        zoho.call("POST", "Leads", {}).json(),
        unknown,
    ]
    return [Answer("record.json", "API_Exception", body) for body in refused]


def _notes(zoho: Zoho, lead_id: str, made: Json) -> list[Answer]:
    parent = {"module": {"api_name": "Leads"}, "id": lead_id}
    long = zoho.insert("Notes", {"Note_Title": "x" * 121, "Parent_Id": parent})
    note_id = made["details"]["id"]
    listed = [
        zoho.get(f"Leads/{lead_id}/Notes", fields="Note_Title,Parent_Id").json(),
        zoho.get("Notes", fields="Note_Content").json(),
        zoho.get(f"Notes/{note_id}").json(),
    ]
    return [
        Answer("notes.json", "Success_Response", made),
        *(Answer("notes.json", "Response_Wrapper", page) for page in listed),
        Answer("notes.json", "Mandatory_API_Exception", items(zoho.insert("Notes", {"Note_Content": "C"}))[0]),
        Answer("notes.json", "Max_Length_API_Exception", items(long)[0]),
    ]


def _metadata(zoho: Zoho) -> list[Answer]:
    changed = zoho.call(
        "POST", "settings/fields", {"fields": [{"field_label": "F", "data_type": "text"}]}, module="Leads"
    )
    wrong = zoho.call("POST", "settings/fields", {"fields": [{"data_type": "text"}]}, module="Leads")
    return [
        Answer("org.json", "Response_Wrapper", zoho.get("org").json()),
        Answer("users.json", "Response_Wrapper", zoho.get("users", type="CurrentUser").json()),
        Answer("users.json", "InvalidParamError", zoho.get("users", type="X").json()),
        Answer("modules.json", "Response_Wrapper", zoho.get("settings/modules").json()),
        Answer("modules.json", "Response_Wrapper", zoho.get("settings/modules/Messages").json()),
        Answer("modules.json", "Invalid_Module", zoho.get("settings/modules/Nothing").json()),
        Answer("fields.json", "Response_Wrapper", zoho.get("settings/fields", module="Messages").json()),
        Answer("fields.json", "MandatoryParamError", zoho.get("settings/fields").json()),
        Answer("fields.json", "SuccessWrapper", changed.json()),
        Answer("fields.json", "MandatoryErrorWrapper", wrong.json()),
    ]


def _query_errors(zoho: Zoho) -> list[Answer]:
    queries = {
        "select id from Leads": "Syntax_Exception",
        "select id from Leads where x y": "Syntax_Exception",
        "select Nothing from Leads where id = 1": "Query_Exception",
        "select id from Leads where id = 1 limit 3000": "Limit_Exceeded_Exception",
    }
    return [Answer("coql.json", schema, zoho.coql(query).json()) for query, schema in queries.items()]


def _search_errors(zoho: Zoho) -> list[Answer]:
    sixteen = f"({'or'.join(['(Last_Name:equals:A)'] * 16)})"
    file = "module_search.json"
    return [
        Answer(file, "Mandatory_Param_Missing", zoho.search("Leads").json()),
        Answer(file, "queryname", zoho.search("Leads", criteria="(No:equals:A)").json()["details"]),
        Answer(file, "queryvalue", zoho.search("Leads", phone="abc").json()["details"]),
        Answer(file, "Max_records", zoho.search("Leads", phone=PHONE, page=11).json()),
        Answer(file, "Max_criteria", zoho.search("Leads", criteria=sixteen).json()),
    ]


def _composites(zoho: Zoho) -> list[Answer]:
    good = {"method": "GET", "uri": "/crm/v8/org"}
    parts = zoho.call("POST", "__composite_requests", {"__composite_requests": [good, {}]}).json()[
        "__composite_requests"
    ]
    return [
        Answer("composite_requests.json", "success", parts[0]),
        Answer("composite_requests.json", "error", parts[1]),
    ]


def faults(where: Path, deviations: tuple[Deviation, ...]) -> list[str]:
    files = Files(where, deviations)
    return [fault for each in answers() for fault in files.faults(each.body, each.file, each.schema)]


@pytest.fixture(scope="module")
def where() -> Path:
    found = folder()
    if found is None:
        pytest.skip("Zoho's OpenAPI files are not at hand: set ZOHO_OAS_DIR")
    return found


def test_answers_have_the_shapes_of_zohos_files(where: Path) -> None:
    """Every kind of answer fits its schema, and has nothing that the schema does not know."""
    assert faults(where, DEVIATIONS) == []


@pytest.mark.parametrize("number", range(len(DEVIATIONS)), ids=lambda number: DEVIATIONS[number].place)
def test_every_deviation_is_needed(where: Path, number: int) -> None:
    """A deviation that no answer needs any more has to go."""
    assert faults(where, (*DEVIATIONS[:number], *DEVIATIONS[number + 1 :])) != []
