"""Points 12 to 25: writing and reading records."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox.zoho import Request
from tests.sandbox.harness import START_S, Json, Zoho, code, codes, ids, items

LEAD = {"Last_Name": "Doe"}
UNIX_FORM = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d-07:00")


# 12: the body


@pytest.mark.parametrize("path", ["Leads", "Leads/upsert", "Notes", "Messages"])
def test_point_12_a_hundred_rows_pass_and_one_more_does_not(path: str) -> None:
    """A write takes 100 rows; 101 are refused as a whole."""
    zoho = Zoho()
    row = {"Last_Name": "A", "Name": "A"}
    answer = zoho.call("POST", path, {"data": [row] * 101})
    assert (answer.status, code(answer)) == (400, "INVALID_DATA")
    assert answer.json()["details"] == {"maximum_length": 100, "api_name": "data", "json_path": "$.data"}
    assert len(items(zoho.call("POST", path, {"data": [row] * 100}))) == 100


def test_point_12_missing_data_is_named() -> None:
    """Without `data` Zoho says which part of the body is missing."""
    answer = Zoho().call("POST", "Leads", {"dta": []})
    assert (answer.status, code(answer)) == (400, "MANDATORY_NOT_FOUND")
    assert answer.json()["details"]["api_name"] == "data"


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"data": []}, "jsonarray"),
        ({"data": {}}, "jsonarray"),
        ({"data": None}, "jsonarray"),
        ([], "jsonobject"),
        ("text", "jsonobject"),
    ],
)
def test_point_12_body_of_another_shape_is_refused(body: Any, expected: str) -> None:
    """A body that is no object with a list of rows is refused with the type that was expected."""
    answer = Zoho().call("POST", "Leads", body)
    assert (answer.status, code(answer)) == (400, "INVALID_DATA")
    assert answer.json()["details"]["expected_data_type"] == expected


def test_point_12_body_must_be_json_and_say_so() -> None:
    """Broken JSON is a 400, another content type a 415, a body too large a 413."""
    zoho = Zoho(max_body_bytes=100)
    request = zoho.request("POST", "Leads", {"data": [LEAD]})

    def send(body: bytes, content_type: str) -> int:
        headers = {**request.headers, "content-type": content_type}
        return zoho.engine.handle(Request("POST", request.path, "", headers, body)).status

    assert send(request.body, "application/json; charset=utf-8") == 201
    assert send(request.body[:-1], "application/json") == 400
    assert send(request.body, "application/octet-stream") == 415
    padding = 100 - len(request.body)
    assert send(b" " * padding + request.body, "application/json") == 201
    assert send(b" " * (padding + 1) + request.body, "application/json") == 413


# 13, 14, 15: results


def test_point_13_one_result_for_each_row_in_order() -> None:
    """Results stand in the order of the rows, the failed between the others, each with its JSON path."""
    zoho = Zoho()
    rows: list[Json] = [{"Last_Name": f"L{number}"} if number % 3 else {} for number in range(10)]
    results = items(zoho.insert("Leads", *rows))
    assert len(results) == 10
    stored = {record["id"]: record["Last_Name"] for record in zoho.dump("Leads")}
    for number, item in enumerate(results):
        if number % 3:
            assert stored[item["details"]["id"]] == f"L{number}"
        else:
            assert item["details"]["json_path"] == f"$.data[{number}].Last_Name"


def test_point_13_result_has_the_exact_form() -> None:
    """A result has id, times and users, a message and a status; times stand in the organisation's offset."""
    item = items(Zoho().insert("Leads", LEAD))[0]
    assert (item["code"], item["message"], item["status"]) == ("SUCCESS", "record added", "success")
    details = item["details"]
    assert details.keys() == {"Modified_Time", "Modified_By", "Created_Time", "id", "Created_By", "$approval_state"}
    assert UNIX_FORM.fullmatch(details["Created_Time"])
    assert details["Created_By"].keys() == {"name", "id"}


def test_point_13_ids_are_long_digit_strings_in_rising_order() -> None:
    """Ids are strings of 18 or 19 digits that rise with each insert, over calls and modules."""
    zoho = Zoho()
    made = [*ids(zoho.insert("Leads", *[LEAD] * 20)), zoho.message("m"), zoho.lead()]
    assert all(re.fullmatch(r"\d{18,19}", each) for each in made)
    assert made == sorted(set(made), key=int)


@pytest.mark.parametrize(("path", "all_ok"), [("Leads", 201), ("Leads/upsert", 200), ("Notes", 201)])
@pytest.mark.parametrize(("mixed", "none_ok"), [(207, 400), (200, 202)])
def test_point_14_status_tells_all_some_or_none(path: str, all_ok: int, mixed: int, none_ok: int) -> None:
    """All rows good, some, or none have their own status, with the older ones as a switch."""
    zoho = Zoho(mixed_status=mixed, all_failed_status=none_ok)
    parent = {"module": {"api_name": "Leads"}, "id": zoho.lead()}
    good, bad = {"Last_Name": "A", "Note_Content": "C", "Parent_Id": parent}, {"Company": "C"}
    rows = [[good], [good, bad], [bad]]
    assert [zoho.call("POST", path, {"data": each}).status for each in rows] == [all_ok, mixed, none_ok]


@pytest.mark.parametrize(("mixed", "none_ok"), [(207, 400), (200, 202)])
def test_point_14_status_of_an_update(mixed: int, none_ok: int) -> None:
    """An update answers 200, mixed, or failed."""
    zoho = Zoho(mixed_status=mixed, all_failed_status=none_ok)
    good = {"id": zoho.lead(), "Company": "C"}
    bad = {"id": "1", "Company": "C"}
    rows = [[good], [good, bad], [bad]]
    assert [zoho.update("Leads", *each).status for each in rows] == [200, mixed, none_ok]


def test_point_15_good_rows_stay_although_others_fail() -> None:
    """Nothing is rolled back: what was good is stored."""
    zoho = Zoho()
    answer = zoho.insert("Leads", {"Last_Name": "A"}, {"Phone": "?"}, {"Last_Name": "B"})
    assert codes(answer) == ["SUCCESS", "INVALID_DATA", "SUCCESS"]
    assert [record["Last_Name"] for record in zoho.dump("Leads")] == ["A", "B"]


# 16: upsert


def test_point_16_upsert_inserts_then_updates_only_what_is_sent() -> None:
    """The first upsert inserts, the second finds the record and changes only the fields that it carries."""
    zoho = Zoho()
    first = items(zoho.upsert("Messages", {"Name": "n", "Message_ID": "m1", "Body": "b"}, fields=["Message_ID"]))[0]
    assert (first["action"], first["duplicate_field"], first["message"]) == ("insert", None, "record added")
    second = items(zoho.upsert("Messages", {"Message_ID": "m1", "Channel": "sms"}, fields=["Message_ID"]))[0]
    assert (second["action"], second["duplicate_field"]) == ("update", "Message_ID")
    assert second["message"] == "record updated"
    assert second["details"]["id"] == first["details"]["id"]
    record = zoho.dump("Messages")[0]
    assert (record["Name"], record["Body"], record["Channel"]) == ("n", "b", "sms")


UNIQUES = {"Email": "e@x.org", "Phone": "+1", "Mobile": "+2"}


@pytest.mark.parametrize(
    ("listed", "order"),
    [
        (["Phone"], ["Phone", "Mobile"]),
        (["Mobile"], ["Mobile", "Phone"]),
        (["Phone", "Mobile"], ["Phone", "Mobile"]),
        (["Email"], ["Email", "Phone", "Mobile"]),
        (None, ["Email", "Phone", "Mobile"]),
        ([], ["Email", "Phone", "Mobile"]),
    ],
)
def test_point_16_order_of_the_duplicate_check(listed: list[str] | None, order: list[str]) -> None:
    """Listed fields come first, unlisted unique ones follow, an unlisted system field is left out."""
    for position, field in enumerate(order):
        zoho = Zoho()
        for name in ("Phone", "Mobile"):
            zoho.engine.steps.run("set_field", {"module": "Leads", "api_name": name, "unique": False})
        zoho.lead(**{field: UNIQUES[field]})
        row = {"Last_Name": "N"} | {name: UNIQUES[name] for name in order[position:]}
        item = items(zoho.upsert("Leads", row, fields=listed))[0]
        assert (item["action"], item["duplicate_field"]) == ("update", field)


def test_point_16_unlisted_system_field_is_dropped() -> None:
    """With a unique field listed, the same e-mail does not make two rows one record."""
    zoho = Zoho()
    zoho.engine.steps.run("set_field", {"module": "Leads", "api_name": "Phone", "unique": False})
    zoho.lead(Email="e@x.org")
    row = {"Last_Name": "N", "Email": "e@x.org", "Phone": "+1"}
    assert items(zoho.upsert("Leads", row, fields=["Phone"]))[0]["action"] == "insert"
    row["Phone"] = "+2"
    assert items(zoho.upsert("Leads", row))[0]["action"] == "update"


def test_point_16_only_system_and_unique_fields_may_be_listed() -> None:
    """A field that is neither is refused as a whole, and so are more than ten."""
    zoho = Zoho()
    answer = zoho.upsert("Leads", LEAD, fields=["Email", "Phone"])
    assert (answer.status, code(answer)) == (400, "INVALID_DATA")
    assert answer.json()["details"]["json_path"] == "$.duplicate_check_fields[1]"
    assert code(zoho.upsert("Leads", LEAD, fields=["Email"] * 11)) == "INVALID_DATA"
    assert zoho.dump("Leads") == []


def test_point_16_without_a_list_a_custom_module_matches_by_name() -> None:
    """A custom module's own duplicate field is `Name`."""
    zoho = Zoho()
    record_id = zoho.message("m1")
    item = items(zoho.upsert("Messages", {"Name": "m1"}))[0]
    assert (item["duplicate_field"], item["details"]["id"]) == ("Name", record_id)


def test_point_16_two_rows_for_one_existing_record_update_it_twice() -> None:
    """Both rows answer with an update of the same record."""
    zoho = Zoho()
    record_id = zoho.message("m1")
    rows = [{"Message_ID": "m1", "Channel": "a"}, {"Message_ID": "m1", "Channel": "b"}]
    answer = zoho.upsert("Messages", *rows, fields=["Message_ID"])
    assert [item["action"] for item in items(answer)] == ["update", "update"]
    assert ids(answer) == [record_id, record_id]


@pytest.mark.parametrize(("rule", "expected"), [("update", "SUCCESS"), ("duplicate", "DUPLICATE_DATA")])
def test_point_16_two_new_rows_with_one_key(rule: str, expected: str) -> None:
    """Of two new rows with one key the second updates the first, or fails, by a switch; there is one record."""
    zoho = Zoho(same_key_in_one_batch=rule)
    row = {"Name": "n", "Message_ID": "m1"}
    answer = zoho.upsert("Messages", row, row, fields=["Message_ID"])
    assert codes(answer) == ["SUCCESS", expected]
    assert len(zoho.dump("Messages")) == 1


def test_point_16_upsert_needs_mandatory_fields_only_to_insert() -> None:
    """A row without a mandatory field can update, but not insert; and it cannot empty the field."""
    zoho = Zoho()
    zoho.message("m1")
    rows = [{"Message_ID": "m1"}, {"Message_ID": "m2"}, {"Message_ID": "m1", "Name": ""}]
    answer = zoho.upsert("Messages", *rows, fields=["Message_ID"])
    assert codes(answer) == ["SUCCESS", "MANDATORY_NOT_FOUND", "MANDATORY_NOT_FOUND"]


def test_point_16_a_converted_lead_is_not_matched() -> None:
    """The e-mail of a lead that is closed makes a new lead."""
    zoho = Zoho()
    zoho.engine.steps.convert(zoho.lead(Email="e@x.org"))
    assert items(zoho.upsert("Leads", {"Last_Name": "N", "Email": "e@x.org"}))[0]["action"] == "insert"


def test_point_16_a_row_may_name_its_record() -> None:
    """A row with `id` updates that record."""
    zoho = Zoho()
    lead_id = zoho.lead()
    item = items(zoho.upsert("Leads", {"id": lead_id, "Company": "C"}))[0]
    assert (item["action"], item["details"]["id"]) == ("update", lead_id)


# 17, 18, 19: unique fields


def test_point_17_unique_holds_on_insert_update_and_upsert() -> None:
    """No way of writing makes a second record with a unique value."""
    zoho = Zoho()
    zoho.message("m1")
    second = zoho.message("m2", Name="other")
    assert codes(zoho.insert("Messages", {"Name": "n", "Message_ID": "m1"})) == ["DUPLICATE_DATA"]
    assert codes(zoho.update("Messages", {"id": second, "Message_ID": "m1"})) == ["DUPLICATE_DATA"]
    zoho.engine.steps.run("set_field", {"module": "Messages", "api_name": "Dialog_ID", "unique": True})
    zoho.update("Messages", {"id": second, "Dialog_ID": "d"})
    row = {"Message_ID": "m1", "Dialog_ID": "d"}
    assert codes(zoho.upsert("Messages", row, fields=["Message_ID"])) == ["DUPLICATE_DATA"]
    assert [record["Message_ID"] for record in zoho.dump("Messages")] == ["m1", "m2"]


@pytest.mark.parametrize(
    ("case_sensitive", "other", "status"), [(True, "M1", 201), (False, "M1", 400), (False, "m1", 400)]
)
def test_point_17_case_matters_as_the_field_says(case_sensitive: bool, other: str, status: int) -> None:
    """The comparison is literal, with or without case."""
    zoho = Zoho()
    zoho.engine.steps.run("set_field", {"module": "Messages", "api_name": "Message_ID", "unique": case_sensitive})
    zoho.message("m1")
    assert zoho.insert("Messages", {"Name": "n", "Message_ID": other}).status == status


def test_point_17_unique_phone_is_literal() -> None:
    """Two spellings of one number are two values."""
    zoho = Zoho()
    zoho.engine.steps.run("set_field", {"module": "Leads", "api_name": "Phone", "unique": False})
    rows = [{"Last_Name": "A", "Phone": number} for number in ("+919000000000", "0919000000000", "+919000000000")]
    assert codes(zoho.insert("Leads", *rows)) == ["SUCCESS", "SUCCESS", "DUPLICATE_DATA"]


def test_point_17_unique_cannot_be_switched_on_over_duplicates() -> None:
    """The field stays as it was while two records share a value."""
    zoho = Zoho()
    zoho.engine.steps.run("set_field", {"module": "Messages", "api_name": "Message_ID", "unique": None})
    zoho.message("m1", Name="a")
    zoho.message("m1", Name="b")
    field = items_of_fields(zoho, "Messages")["Message_ID"]
    answer = zoho.call(
        "PATCH", f"settings/fields/{field['id']}", {"fields": [{"unique": {"case_sensitive": True}}]}, module="Messages"
    )
    assert (answer.status, answer.json()["fields"][0]["code"]) == (400, "INVALID_DATA")
    assert items_of_fields(zoho, "Messages")["Message_ID"]["unique"] == {}


def items_of_fields(zoho: Zoho, module: str) -> dict[str, Json]:
    return {each["api_name"]: each for each in zoho.get("settings/fields", module=module).json()["fields"]}


@pytest.mark.parametrize(
    ("form", "keys"),
    [
        ("v8", {"api_name", "json_path", "id", "duplicate_record", "more_records"}),
        ("id_only", {"id"}),
        ("api_name_and_id", {"api_name", "id"}),
        ("no_id", {"api_name", "json_path"}),
    ],
)
def test_point_17_duplicate_is_told_in_every_known_form(form: str, keys: set[str]) -> None:
    """The error names the other record in the new form, an old one, or not at all."""
    zoho = Zoho(duplicate_form=form)
    record_id = zoho.message("m1")
    details = items(zoho.insert("Messages", {"Name": "n", "Message_ID": "m1"}))[0]["details"]
    assert details.keys() == keys
    if form == "v8":
        assert details["duplicate_record"]["id"] == record_id
        assert details["duplicate_record"]["module"]["api_name"] == "Messages"


def test_point_18_clashes_with_two_records_come_together() -> None:
    """A row that clashes with two records fails with both errors nested."""
    zoho = Zoho()
    for name in ("Phone", "Mobile"):
        zoho.engine.steps.run("set_field", {"module": "Leads", "api_name": name, "unique": False})
    first, second = zoho.lead(Phone="+1"), zoho.lead(Mobile="+2")
    item = items(zoho.insert("Leads", {"Last_Name": "N", "Phone": "+1", "Mobile": "+2"}))[0]
    assert item["code"] == "MULTIPLE_OR_MULTI_ERRORS"
    nested = item["details"]["errors"]
    assert [each["code"] for each in nested] == ["DUPLICATE_DATA", "DUPLICATE_DATA"]
    assert [each["details"]["duplicate_record"]["id"] for each in nested] == [first, second]


def test_point_18_two_clashes_with_one_record_are_one_error() -> None:
    """A row that clashes twice with one record fails once."""
    zoho = Zoho()
    for name in ("Phone", "Mobile"):
        zoho.engine.steps.run("set_field", {"module": "Leads", "api_name": name, "unique": False})
    zoho.lead(Phone="+1", Mobile="+2")
    assert codes(zoho.insert("Leads", {"Last_Name": "N", "Phone": "+1", "Mobile": "+2"})) == ["DUPLICATE_DATA"]


def test_point_19_unique_is_checked_at_once_although_search_lags() -> None:
    """A second insert is refused while search does not know the first."""
    zoho = Zoho(search_lag_s=(60.0, 60.0))
    zoho.message("m1")
    assert zoho.search("Messages", criteria="(Message_ID:equals:m1)").status == 204
    assert codes(zoho.insert("Messages", {"Name": "n", "Message_ID": "m1"})) == ["DUPLICATE_DATA"]


def test_point_19_a_deleted_record_frees_its_value() -> None:
    """After a deletion the value can be used again."""
    zoho = Zoho()
    record_id = zoho.message("m1")
    assert zoho.call("DELETE", f"Messages/{record_id}").status == 200
    assert zoho.insert("Messages", {"Name": "n", "Message_ID": "m1"}).status == 201


# 20: validation


@pytest.mark.parametrize(
    ("module", "row", "expected", "details"),
    [
        ("Leads", {}, "MANDATORY_NOT_FOUND", {"api_name": "Last_Name"}),
        ("Leads", {"Last_Name": ""}, "MANDATORY_NOT_FOUND", {"api_name": "Last_Name"}),
        ("Leads", {"Last_Name": None}, "MANDATORY_NOT_FOUND", {"api_name": "Last_Name"}),
        ("Messages", {"Message_ID": "m"}, "MANDATORY_NOT_FOUND", {"api_name": "Name"}),
        ("Leads", {"Last_Name": "x" * 81}, "INVALID_DATA", {"api_name": "Last_Name", "maximum_length": 80}),
        ("Leads", {"Last_Name": 5}, "INVALID_DATA", {"api_name": "Last_Name", "expected_data_type": "string"}),
        ("Leads", {"Phone": "call me?"}, "INVALID_DATA", {"api_name": "Phone", "expected_data_type": "phone"}),
        ("Leads", {"Phone": "1" * 31}, "INVALID_DATA", {"api_name": "Phone", "maximum_length": 30}),
        ("Leads", {"Email": "nobody"}, "INVALID_DATA", {"api_name": "Email", "expected_data_type": "email"}),
        ("Leads", {"Owner": {"id": "1"}}, "INVALID_DATA", {"api_name": "Owner"}),
        ("Messages", {"Message_ID": "x" * 256}, "INVALID_DATA", {"api_name": "Message_ID", "maximum_length": 255}),
        ("Messages", {"Body": "x" * 32_001}, "INVALID_DATA", {"api_name": "Body", "maximum_length": 32_000}),
        ("Messages", {"Media_URLs": "x" * 2_001}, "INVALID_DATA", {"maximum_length": 2_000}),
        ("Messages", {"Direction": "up"}, "INVALID_DATA", {"supported_values": ["inbound", "outbound"]}),
        ("Messages", {"Lead": {"id": "1"}}, "INVALID_DATA", {"api_name": "Lead"}),
        ("Messages", {"Lead": "1"}, "INVALID_DATA", {"api_name": "Lead", "expected_data_type": "jsonobject"}),
        ("Messages", {"Sent_At": "2026-01-05T10:12:30.761Z"}, "INVALID_DATA", {"expected_data_type": "datetime"}),
        ("Messages", {"Sent_At": "2026-01-05T10:12:30Z"}, "INVALID_DATA", {"expected_data_type": "datetime"}),
        ("Messages", {"Sent_At": "2026-01-05T10:12:30.5+00:00"}, "INVALID_DATA", {"expected_data_type": "datetime"}),
        ("Messages", {"Sent_At": "2026-01-05T10:12:30"}, "INVALID_DATA", {"expected_data_type": "datetime"}),
        ("Messages", {"Sent_At": "2026-13-05T10:12:30+00:00"}, "INVALID_DATA", {"expected_data_type": "datetime"}),
        ("Messages", {"Sent_At": 1767600000}, "INVALID_DATA", {"expected_data_type": "datetime"}),
        ("Leads", "text", "INVALID_DATA", {"expected_data_type": "jsonobject"}),
    ],
)
def test_point_20_a_bad_value_is_refused_with_its_reason(module: str, row: Any, expected: str, details: Json) -> None:
    """Mandatory fields, types, lengths, picklists, lookups and patterns are checked; the error says where and why."""
    good = {"Last_Name": "A"} if module == "Leads" else {"Name": "A"}
    filled = row if not isinstance(row, dict) or expected == "MANDATORY_NOT_FOUND" else good | row
    item = items(Zoho().insert(module, filled))[0]
    assert (item["code"], item["status"]) == (expected, "error")
    assert item["details"].items() >= details.items()
    assert item["details"]["json_path"].startswith("$.data[0]")


@pytest.mark.parametrize(
    "row",
    [
        {"Phone": "+14155550100"},
        {"Phone": "(415) 555-0100"},
        {"Phone": "+1 415.555.0100"},
        {"Phone": "415-555-0100 ext 5"},
        {"Lead_Source": "A source of one's own"},
        {"Email": "a.b+c@mail.example.org"},
        {"Company": None},
        {"Company": ""},
        {"Last_Name": "x" * 80},
    ],
)
def test_point_20_good_values_pass(row: Json) -> None:
    """What Zoho takes is taken; an open picklist takes any value."""
    assert Zoho().insert("Leads", {"Last_Name": "A"} | row).status == 201


def test_point_20_datetime_comes_back_in_the_organisations_offset() -> None:
    """A date-time is one moment, shown in the organisation's offset."""
    zoho = Zoho()
    zoho.message("m1", Sent_At="2026-01-05T10:12:30+00:00")
    assert zoho.dump("Messages")[0]["Sent_At"] == "2026-01-05T03:12:30-07:00"


def test_point_20_naive_datetime_by_switch() -> None:
    """A switch lets a date-time without offset pass, in the organisation's offset."""
    zoho = Zoho(naive_datetimes=True)
    zoho.message("m1", Sent_At="2026-01-05T10:12:30")
    assert zoho.dump("Messages")[0]["Sent_At"] == "2026-01-05T10:12:30-07:00"


@pytest.mark.parametrize(("form", "path"), [("field", "$.data[0].Lead"), ("id", "$.data[0].Lead.id")])
def test_point_20_dead_lookup_is_told_in_either_form(form: str, path: str) -> None:
    """The error of a lookup that leads nowhere points at the field or at its id."""
    item = items(Zoho(lookup_fault_form=form).insert("Messages", {"Name": "n", "Lead": {"id": "1"}}))[0]
    assert item["details"]["json_path"] == path
    assert item["message"] == "the related id given seems to be invalid"


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda each: st.lists(each) | st.dictionaries(st.text(), each),
        max_leaves=8,
    )
)
def test_point_20_no_value_breaks_the_engine(value: Any) -> None:
    """Whatever JSON value a field is given, there is a result for its row."""
    zoho = Zoho()
    module_fields = zoho.engine.org.schema.named("Messages").fields
    rows = [{"Name": "n", name: value} for name in module_fields]
    try:
        answer = zoho.insert("Messages", *rows)
    except TypeError:  # beyond what JSON can carry
        return
    assert len(items(answer)) == len(rows)


# 21 to 25


def test_point_21_unknown_keys_are_ignored_and_noted() -> None:
    """A key that names no field is dropped without an error, and stands in the call log."""
    zoho = Zoho()
    assert zoho.insert("Leads", {"Last_Name": "A", "Phnoe": "1", "$x": 1}).status == 201
    assert zoho.engine.journal.calls[-1].unknown_keys == ["Phnoe"]
    assert "Phnoe" not in zoho.dump("Leads")[0]


def test_point_21_unknown_keys_are_a_fault_by_switch() -> None:
    """A test can have unknown keys refused."""
    item = items(Zoho(unknown_keys="reject").insert("Leads", {"Last_Name": "A", "Phnoe": "1"}))[0]
    assert (item["code"], item["details"]["api_name"]) == ("INVALID_DATA", "Phnoe")


@pytest.mark.parametrize(
    ("method", "path", "status", "expected"),
    [
        ("GET", "/crm/v8/Nothing", 400, "INVALID_MODULE"),
        ("POST", "/crm/v8/Nothing/upsert", 400, "INVALID_MODULE"),
        ("GET", "/crm/v8/Leads/search/more", 404, "INVALID_URL_PATTERN"),
        ("GET", "/crm/v8/Leads/abc", 404, "INVALID_URL_PATTERN"),
        ("GET", "/crm/v7/Leads", 404, "INVALID_URL_PATTERN"),
        ("GET", "/crm/v8/", 404, "INVALID_URL_PATTERN"),
        ("GET", "/crm/v8//Leads", 404, "INVALID_URL_PATTERN"),
        ("GET", "/elsewhere", 404, "INVALID_URL_PATTERN"),
        ("PATCH", "/crm/v8/Leads", 400, "INVALID_REQUEST_METHOD"),
        ("GET", "/crm/v8/coql", 400, "INVALID_REQUEST_METHOD"),
        ("DELETE", "/crm/v8/org", 400, "INVALID_REQUEST_METHOD"),
    ],
)
def test_point_22_wrong_module_url_or_method(method: str, path: str, status: int, expected: str) -> None:
    """A wrong module, path or method is one error at the top."""
    zoho = Zoho()
    answer = zoho.engine.handle(Request.build(method, path, token=zoho.token, json={}, params={}))
    assert (answer.status, code(answer)) == (status, expected)


def test_point_22_module_without_api() -> None:
    """A module that the API does not serve says so."""
    zoho = Zoho()
    zoho.engine.org.schema.named("Messages").api_supported = False
    assert code(zoho.get("Messages", fields="Name")) == "NOT_SUPPORTED"
    assert code(zoho.coql("select id from Messages where id = 1")) == "INVALID_MODULE"


def test_point_22_external_ids_are_not_supported() -> None:
    """A record cannot be addressed by an external id; saying so is better than ignoring it."""
    zoho = Zoho()
    request = zoho.request("GET", "Leads", fields="Last_Name")
    headers = {**request.headers, "X-EXTERNAL": "Leads.Key"}
    assert code(zoho.engine.handle(Request("GET", request.path, request.query, headers))) == "NOT_SUPPORTED"


def test_point_22_unknown_parameter() -> None:
    """A query parameter that the call does not know is refused, or ignored by switch."""
    assert code(Zoho().get("Leads", fields="Last_Name", field="x")) == "INVALID_DATA"
    assert Zoho(unknown_params="ignore").get("Leads", fields="Last_Name", field="x").status == 204


@pytest.mark.parametrize(
    ("path", "params"),
    [
        ("Leads", {"fields": "Last_Name"}),
        ("Leads/5725767000000999999", {}),
        ("Leads/search", {"phone": "14155550100"}),
        ("Leads/search", {"criteria": "(Last_Name:equals:A)"}),
        ("Notes", {"fields": "Note_Title"}),
        ("Notes/5725767000000999999", {}),
        ("Leads/deleted", {}),
        ("settings/automation/assignment_rules", {}),
    ],
)
def test_point_23_nothing_found_is_204_without_body(path: str, params: dict[str, str]) -> None:
    """An empty result has no body at all."""
    answer = Zoho().get(path, **params)
    assert (answer.status, answer.body) == (204, b"")


def test_point_23_empty_query_and_empty_list_of_notes() -> None:
    """The same holds for queries and for the notes of a lead."""
    zoho = Zoho()
    assert zoho.coql("select id from Leads where id = 1").status == 204
    answer = zoho.get(f"Leads/{zoho.lead()}/Notes", fields="Note_Title")
    assert (answer.status, answer.body) == (204, b"")


def test_point_24_list_needs_fields_at_most_fifty() -> None:
    """Without `fields` there is no list, and with more than fifty names neither."""
    zoho = Zoho()
    assert code(zoho.get("Leads")) == "REQUIRED_PARAM_MISSING"
    assert code(zoho.get("Leads", fields=",".join(["Phone"] * 51))) == "LIMIT_EXCEEDED"
    assert zoho.get("Leads", fields=",".join(["Phone"] * 50)).status == 204


def test_point_24_pages_of_200_up_to_2000_then_by_token() -> None:
    """Pages by number reach 2,000 records; the rest comes by token, which lives a day and fits one query."""
    zoho = Zoho()
    zoho.engine.steps.run("insert", {"module": "Leads", "records": [{"Last_Name": str(n)} for n in range(2_100)]})
    params = {"fields": "Last_Name", "sort_order": "asc"}
    last = zoho.get("Leads", **params, page=10).json()
    assert (len(last["data"]), last["info"]["more_records"], last["data"][-1]["Last_Name"]) == (200, True, "1999")
    assert code(zoho.get("Leads", **params, page=11)) == "DISCRETE_PAGINATION_LIMIT_EXCEEDED"
    token = last["info"]["next_page_token"]
    rest = zoho.get("Leads", **params, page_token=token).json()
    assert [record["Last_Name"] for record in rest["data"]] == [str(n) for n in range(2_000, 2_100)]
    assert rest["info"]["more_records"] is False
    assert code(zoho.get("Leads", fields="Phone", page_token=token)) == "TOKEN_BOUND_DATA_MISMATCH"
    zoho.clock.advance(86_400)
    zoho.token = zoho.engine.accounts.issue_access_token()
    assert code(zoho.get("Leads", **params, page_token=token)) == "EXPIRED_VALUE"
    assert code(zoho.get("Leads", **params, page_token="x")) == "INVALID_DATA"


@pytest.mark.parametrize("name", ["page", "per_page"])
@pytest.mark.parametrize("value", ["0", "-1", "x", "1.5"])
def test_point_24_paging_takes_whole_numbers(name: str, value: str) -> None:
    """A page or page size that is no number from 1 on is refused."""
    assert code(Zoho().get("Leads", fields="Last_Name", **{name: value})) == "INVALID_DATA"


def test_point_24_per_page_is_at_most_200() -> None:
    """A page of 201 is refused."""
    assert code(Zoho().get("Leads", fields="Last_Name", per_page=201)) == "INVALID_DATA"


def test_point_24_newest_come_first_unless_asked() -> None:
    """The list starts with the newest record; order and field can be chosen."""
    zoho = Zoho()
    made = ids(zoho.insert("Leads", {"Last_Name": "A"}, {"Last_Name": "B"}))
    shown = [record["id"] for record in items(zoho.get("Leads", fields="Last_Name"))]
    assert shown == made[::-1]
    zoho.clock.advance(5)
    zoho.update("Leads", {"id": made[0], "Company": "C"})
    by_time = items(zoho.get("Leads", fields="Last_Name", sort_by="Modified_Time", sort_order="desc"))
    assert by_time[0]["id"] == made[0]
    assert code(zoho.get("Leads", fields="Last_Name", sort_by="Phone")) == "INVALID_DATA"


def test_point_24_if_modified_since_gives_304() -> None:
    """A list or a record that has not changed since is not sent again."""
    zoho = Zoho()
    lead_id = zoho.lead()
    later = zoho.engine.org.time_text(START_S + 1)
    for path, params in (("Leads", {"fields": "Last_Name"}), (f"Leads/{lead_id}", {})):
        request = zoho.request("GET", path, **params)
        headers = {**request.headers, "If-Modified-Since": later}
        answer = zoho.engine.handle(Request("GET", request.path, request.query, headers))
        assert (answer.status, answer.body) == (304, b"")


def test_if_unmodified_since_protects_an_update() -> None:
    """A record that has changed since is not updated."""
    zoho = Zoho()
    lead_id = zoho.lead()
    zoho.clock.advance(10)
    zoho.update("Leads", {"id": lead_id, "Company": "theirs"})
    request = zoho.request("PUT", f"Leads/{lead_id}", {"data": [{"Company": "mine"}]})
    headers = {**request.headers, "If-Unmodified-Since": zoho.engine.org.time_text(START_S)}
    answer = zoho.engine.handle(Request("PUT", request.path, "", headers, request.body))
    assert (answer.status, code(answer)) == (412, "ALREADY_MODIFIED")
    assert zoho.dump("Leads")[0]["Company"] == "theirs"
    current = {**request.headers, "If-Unmodified-Since": zoho.engine.org.time_text(START_S + 10)}
    assert zoho.engine.handle(Request("PUT", request.path, "", current, request.body)).status == 200


@pytest.mark.parametrize(
    ("more", "sent", "ran"),
    [
        ({}, None, ["workflow", "approval", "blueprint", "pathfinder", "orchestration"]),
        ({"trigger": []}, [], []),
        ({"trigger": ["workflow"]}, ["workflow"], ["workflow"]),
    ],
)
def test_point_25_triggers_are_recorded(more: Json, sent: Any, ran: list[str]) -> None:
    """Without `trigger` all automations run, with an empty list none; the call log tells."""
    zoho = Zoho()
    zoho.insert("Leads", LEAD, **more)
    entry = zoho.engine.journal.calls[-1]
    assert (entry.trigger, entry.ran) == (sent, ran)


def test_point_25_unknown_trigger_is_refused() -> None:
    """A trigger that does not exist is an error."""
    answer = Zoho().insert("Leads", LEAD, trigger=["workflows"])
    assert (answer.status, code(answer)) == (400, "INVALID_DATA")


# Beside the points


def test_assignment_rule_must_exist() -> None:
    """`lar_id` names an assignment rule of the organisation, and stands in the call log."""
    zoho = Zoho()
    assert code(zoho.insert("Leads", LEAD, lar_id="1")) == "INVALID_DATA"
    rule_id = zoho.engine.steps.add_assignment_rule()
    assert zoho.insert("Leads", LEAD, lar_id=rule_id).status == 201
    assert zoho.engine.journal.calls[-1].lar_id == rule_id
    assert (
        zoho.get("settings/automation/assignment_rules", module="Leads").json()["assignment_rules"][0]["id"] == rule_id
    )


def test_update_by_path() -> None:
    """PUT with the id in the path updates one record, and takes one row."""
    zoho = Zoho()
    lead_id = zoho.lead()
    assert ids(zoho.call("PUT", f"Leads/{lead_id}", {"data": [{"Company": "C"}]})) == [lead_id]
    assert zoho.dump("Leads")[0]["Company"] == "C"
    assert code(zoho.call("PUT", f"Leads/{lead_id}", {"data": [{}, {}]})) == "INVALID_DATA"
    missing = zoho.call("PUT", "Leads/5725767000000999999", {"data": [{"Company": "C"}]})
    assert items(missing)[0]["details"] == {"resource_path_index": 1}


def test_update_needs_an_id() -> None:
    """A row without `id` names no record."""
    assert codes(Zoho().update("Leads", {"Company": "C"})) == ["MANDATORY_NOT_FOUND"]


def test_get_shows_one_record() -> None:
    """GET by id shows every field, or those asked for, and lookups with the other record's name."""
    zoho = Zoho()
    lead_id = zoho.lead("Doe", First_Name="Jo")
    message_id = zoho.message("m1", Lead={"id": lead_id})
    whole = items(zoho.get(f"Messages/{message_id}"))[0]
    assert whole["Lead"] == {"name": "Jo Doe", "id": lead_id}
    assert items(zoho.get(f"Messages/{message_id}", fields="Name"))[0] == {"Name": "m1", "id": message_id}


def test_delete_by_ids_answers_for_each() -> None:
    """DELETE takes up to 100 ids and answers for each; what is gone is listed as deleted."""
    zoho = Zoho()
    lead_id = zoho.lead()
    answer = zoho.call("DELETE", "Leads", ids=f"{lead_id},5725767000000999999")
    assert (answer.status, codes(answer)) == (207, ["SUCCESS", "INVALID_DATA"])
    assert [item["message"] for item in items(answer)] == ["record deleted", "record not deleted"]
    assert zoho.get(f"Leads/{lead_id}").status == 204
    assert [record["id"] for record in items(zoho.get("Leads/deleted"))] == [lead_id]
    assert code(zoho.call("DELETE", "Leads")) == "REQUIRED_PARAM_MISSING"
    assert code(zoho.call("DELETE", "Leads", ids=",".join(["1"] * 101))) == "INVALID_DATA"


def test_count() -> None:
    """The number of records can be asked for."""
    zoho = Zoho()
    zoho.insert("Leads", LEAD, LEAD)
    assert zoho.get("Leads/actions/count").json() == {"count": 2}
