"""What the service counts on, checked on the sandbox and, with the environment set, on a real organisation.

Only what Zoho documents or people measured is expected here. Where sources differ, each of the known answers will do.
"""

from __future__ import annotations

import random

import pytest

from tests.sandbox.conformance.organisation import Organisation, eventually

NOWHERE = "5725767000099999999"


def new_phone() -> str:
    """A number that nobody has: country code 999 is not assigned."""
    return f"+999{random.randrange(10**8, 10**9)}"


# Access


def test_a_refresh_brings_an_access_token_and_its_api_domain(zoho: Organisation) -> None:
    """A good token answer names the token and where it works, and no new refresh token."""
    body = zoho.token_call().body
    assert body["access_token"].startswith("1000.")
    assert body["api_domain"].startswith("http")
    assert "refresh_token" not in body


def test_a_wrong_refresh_token_is_told_in_the_body(zoho: Organisation) -> None:
    """Under whatever status, there is an error and no token."""
    body = zoho.token_call(refresh_token="1000.x.y").body
    assert body["error"] in ("invalid_code", "invalid_client")
    assert "access_token" not in body


def test_a_wrong_access_token_is_refused(zoho: Organisation) -> None:
    """401, with one of two codes."""
    answer = zoho.call("GET", "org", token="1000.x.y")
    assert (answer.status, answer.code) in ((401, "INVALID_TOKEN"), (401, "AUTHENTICATION_FAILURE"))


# Metadata


def test_organisation_names_its_link_id(zoho: Organisation) -> None:
    """The organisation tells the number that stands in links."""
    (org,) = zoho.call("GET", "org").body["org"]
    assert org["domain_name"].startswith("org")
    assert org["zgid"].isdigit()


def test_current_user_is_one(zoho: Organisation) -> None:
    """The token has one user."""
    assert len(zoho.call("GET", "users", type="CurrentUser").body["users"]) == 1


def test_messages_is_a_custom_module_with_a_unique_key(zoho: Organisation) -> None:
    """The module has an internal name, and its key field is unique."""
    modules = {each["api_name"]: each for each in zoho.call("GET", "settings/modules").body["modules"]}
    assert modules[zoho.messages]["module_name"].startswith("CustomModule")
    assert modules[zoho.messages]["generated_type"] == "custom"
    fields = zoho.call("GET", "settings/fields", module=zoho.messages).body["fields"]
    by_name = {each["api_name"]: each for each in fields}
    assert by_name["Message_ID"]["unique"]
    assert not by_name["Phone"]["unique"]
    assert by_name["Lead"]["lookup"]["module"]["api_name"] == "Leads"


# Records


def test_a_record_lives_its_life(zoho: Organisation) -> None:
    """Insert, read, update, delete, and then it is gone."""
    answer = zoho.write("Leads", {"Last_Name": zoho.marker, "Phone": new_phone()})
    assert (answer.status, answer.item["status"]) == (201, "success")
    lead_id = answer.item["details"]["id"]
    assert lead_id.isdigit()
    assert zoho.call("GET", f"Leads/{lead_id}").item["Last_Name"] == zoho.marker
    change = {"data": [{"id": lead_id, "Company": "C"}], "trigger": []}
    assert zoho.call("PUT", "Leads", change).item["details"]["id"] == lead_id
    assert zoho.call("GET", f"Leads/{lead_id}", fields="Company").item["Company"] == "C"
    assert zoho.call("DELETE", "Leads", ids=lead_id).codes == ["SUCCESS"]
    assert zoho.call("GET", f"Leads/{lead_id}").status == 204
    assert zoho.call("PUT", "Leads", change).code == "INVALID_DATA"


def test_results_stand_in_order_and_good_rows_stay(zoho: Organisation) -> None:
    """Each row has its result at its place; a bad one does not undo the others."""
    rows = [{"Last_Name": f"{zoho.marker}-1"}, {"Company": "C"}, {"Last_Name": f"{zoho.marker}-3"}]
    answer = zoho.write("Leads", *rows)
    assert answer.status in (207, 200)
    assert answer.codes == ["SUCCESS", "MANDATORY_NOT_FOUND", "SUCCESS"]
    first, _, third = (item["details"].get("id") for item in answer.items)
    assert zoho.call("GET", f"Leads/{first}").item["Last_Name"] == rows[0]["Last_Name"]
    assert zoho.call("GET", f"Leads/{third}").item["Last_Name"] == rows[2]["Last_Name"]


def test_all_rows_failed_has_a_result_for_each(zoho: Organisation) -> None:
    """The body tells, under either status."""
    answer = zoho.write("Leads", {"Company": "A"}, {"Company": "B"})
    assert answer.status in (400, 202)
    assert answer.codes == ["MANDATORY_NOT_FOUND"] * 2


def test_more_than_a_hundred_rows_are_refused(zoho: Organisation) -> None:
    """Nothing of such a call is stored."""
    answer = zoho.write("Leads", *[{"Last_Name": zoho.marker}] * 101)
    assert answer.status == 400
    assert zoho.coql(f"select id from Leads where Last_Name = '{zoho.marker}'").status == 204


@pytest.mark.parametrize(
    "sent_at", ["2026-01-05T10:12:30.761Z", "2026-01-05T10:12:30.761+00:00"], ids=["milliseconds, Z", "milliseconds"]
)
def test_datetimes_take_no_milliseconds(zoho: Organisation, sent_at: str) -> None:
    """Such a date-time is refused with the type that was expected."""
    answer = zoho.write(zoho.messages, {"Name": zoho.marker, "Message_ID": zoho.marker, "Sent_At": sent_at})
    assert answer.codes == ["INVALID_DATA"]
    assert answer.item["details"]["api_name"] == "Sent_At"


@pytest.mark.parametrize(
    ("field", "value"), [("Direction", "sideways"), ("Message_ID", "x" * 256), ("Lead", {"id": NOWHERE})]
)
def test_bad_values_are_refused(zoho: Organisation, field: str, value: object) -> None:
    """A value outside the list, too long, or without its record is INVALID_DATA."""
    assert zoho.write(zoho.messages, {"Name": zoho.marker, field: value}).codes == ["INVALID_DATA"]


def test_upsert_inserts_once_then_updates(zoho: Organisation) -> None:
    """The same key is the same record, whatever else changes."""
    row = {"Name": zoho.marker, "Message_ID": zoho.marker, "Channel": "a", "Agent": "x"}
    check = {"duplicate_check_fields": ["Message_ID"]}
    first = zoho.write(f"{zoho.messages}/upsert", row, **check).item
    second = zoho.write(f"{zoho.messages}/upsert", {**row, "Channel": "b", "Agent": "x"}, **check).item
    assert (first["action"], second["action"]) == ("insert", "update")
    assert first["details"]["id"] == second["details"]["id"]


def test_a_unique_value_is_refused_and_names_its_record(zoho: Organisation) -> None:
    """A second insert fails at once, and tells which record has the value."""
    row = {"Name": zoho.marker, "Message_ID": zoho.marker}
    record_id = zoho.write(zoho.messages, row).item["details"]["id"]
    answer = zoho.write(zoho.messages, row)
    assert answer.codes == ["DUPLICATE_DATA"]
    details = answer.item["details"]
    assert record_id in (details.get("id"), details.get("duplicate_record", {}).get("id"))


def test_unknown_module_and_missing_fields_are_errors(zoho: Organisation) -> None:
    """A module that is not there, and a list without `fields`."""
    nothing = zoho.call("GET", "No_Such_Module", fields="id")
    assert (nothing.status, nothing.code) == (400, "INVALID_MODULE")
    unnamed = zoho.call("GET", "Leads")
    assert (unnamed.status, unnamed.code) == (400, "REQUIRED_PARAM_MISSING")


# Finding


def test_a_query_sees_a_write_at_once(zoho: Organisation) -> None:
    """COQL finds a new record, by literal value, and an edit; lookups come as objects with an id."""
    phone = new_phone()
    lead_id = zoho.lead(Phone=phone)
    assert zoho.coql(f"select id from Leads where Phone in ('{phone}','+1') limit 0, 200").item["id"] == lead_id
    zoho.write(zoho.messages, {"Name": zoho.marker, "Message_ID": zoho.marker, "Lead": {"id": lead_id}})
    message = zoho.coql(f"select Lead, Message_ID from {zoho.messages} where Message_ID = '{zoho.marker}'").item
    assert message["Lead"]["id"] == lead_id
    other = new_phone()
    zoho.call("PUT", "Leads", {"data": [{"id": lead_id, "Phone": other}], "trigger": []})
    assert zoho.coql(f"select id from Leads where Phone = '{phone}'").status == 204
    assert zoho.coql(f"select id from Leads where Phone = '{other}'").item["id"] == lead_id


@pytest.mark.parametrize(
    "query",
    [
        "select id from Leads",
        "select id from Leads where Last_Name = 'A' and Phone = 'B' and Company = 'C'",
        "select No_Such_Field from Leads where id is not null",
        f"select id from Leads where id in ({','.join([NOWHERE] * 101)})",
        "select id from Leads where id is not null limit 2001",
    ],
    ids=["no where", "three without brackets", "unknown field", "101 values", "limit 2001"],
)
def test_a_broken_query_is_refused(zoho: Organisation, query: str) -> None:
    """Zoho's rules for queries hold."""
    answer = zoho.coql(query)
    assert answer.status == 400
    assert answer.code in ("SYNTAX_ERROR", "INVALID_QUERY", "LIMIT_EXCEEDED")


def test_search_finds_a_number_in_time(zoho: Organisation) -> None:
    """Search by phone finds a new lead once its index has caught up, and nothing is a 204 without a body."""
    phone = new_phone()
    nothing = zoho.call("GET", "Leads/search", phone=phone)
    assert (nothing.status, nothing.body) == (204, None)
    lead_id = zoho.lead(Phone=phone)

    def is_found() -> bool:
        answer = zoho.call("GET", "Leads/search", phone=phone)
        return answer.status == 200 and lead_id in [row["id"] for row in answer.items]

    assert eventually(is_found)


def test_search_needs_a_selector(zoho: Organisation) -> None:
    """Search for nothing is an error."""
    assert zoho.call("GET", "Leads/search").status == 400


# Notes


def test_notes_of_several_leads_in_one_call(zoho: Organisation) -> None:
    """Each note goes to its own parent, and the same note twice is two notes."""
    first, second = zoho.lead(), zoho.lead()
    notes = [
        {"Note_Title": "T", "Note_Content": "C", "Parent_Id": {"module": {"api_name": "Leads"}, "id": lead_id}}
        for lead_id in (first, second, second)
    ]
    answer = zoho.call("POST", "Notes", {"data": notes})
    assert (answer.status, answer.codes) == (201, ["SUCCESS"] * 3)
    counts = [len(zoho.call("GET", f"Leads/{each}/Notes", fields="Note_Title").items) for each in (first, second)]
    assert counts == [1, 2]


def test_a_note_without_its_parent_is_refused(zoho: Organisation) -> None:
    """A parent that is not there is INVALID_DATA, and the notes of a lead without notes are a 204."""
    parent = {"module": {"api_name": "Leads"}, "id": NOWHERE}
    answer = zoho.call("POST", "Notes", {"data": [{"Note_Content": "C", "Parent_Id": parent}]})
    assert answer.code == "INVALID_DATA"
    assert zoho.call("GET", f"Leads/{zoho.lead()}/Notes", fields="Note_Title").status == 204


# The suite itself


def test_nothing_is_left_behind(zoho: Organisation) -> None:
    """What a test made is gone after it."""
    lead_id = zoho.lead()
    zoho.write(zoho.messages, {"Name": zoho.marker, "Message_ID": zoho.marker})
    zoho.clean_up()
    assert zoho.call("GET", f"Leads/{lead_id}").status == 204
    assert zoho.coql(f"select id from {zoho.messages} where Message_ID = '{zoho.marker}'").status == 204
