"""Points 31 to 33: metadata, what does not exist, and composite calls."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.sandbox.harness import Json, Zoho, code, codes, ids, items


def fields_of(zoho: Zoho, module: str = "Messages") -> dict[str, Json]:
    return {each["api_name"]: each for each in zoho.get("settings/fields", module=module).json()["fields"]}


def modules_of(zoho: Zoho) -> dict[str, Json]:
    return {each["api_name"]: each for each in zoho.get("settings/modules").json()["modules"]}


def test_point_31_messages_is_a_custom_module() -> None:
    """The module list shows API name, internal name and what may be done."""
    row = modules_of(Zoho())["Messages"]
    assert (row["module_name"], row["generated_type"]) == ("CustomModule1", "custom")
    assert (row["singular_label"], row["plural_label"]) == ("Message", "Messages")
    assert all(row[flag] for flag in ("api_supported", "creatable", "editable", "viewable", "deletable"))


def test_point_31_fields_tell_type_length_and_uniqueness() -> None:
    """The field list shows what a client must know before it writes."""
    fields = fields_of(Zoho())
    shown = {name: (each["data_type"], each["length"]) for name, each in fields.items() if each["custom_field"]}
    assert shown == {
        "Message_ID": ("text", 255),
        "Lead": ("lookup", 255),
        "Contact": ("lookup", 255),
        "Phone": ("phone", 30),
        "Direction": ("picklist", 120),
        "Channel": ("text", 255),
        "Origin": ("picklist", 120),
        "Campaign": ("text", 255),
        "Body": ("textarea", 32_000),
        "Sent_At": ("datetime", 255),
        "Media_URLs": ("textarea", 2_000),
        "Dialog_ID": ("text", 255),
        "Agent": ("text", 255),
    }
    assert fields["Name"]["system_mandatory"] is True
    assert fields["Message_ID"]["unique"] == {"case_sensitive": True}
    assert fields["Phone"]["unique"] == {}
    assert fields["Lead"]["lookup"]["module"]["api_name"] == "Leads"
    assert [value["actual_value"] for value in fields["Origin"]["pick_list_values"]] == ["campaign", "webhook", "chat"]
    assert fields["Created_Time"]["operation_type"]["api_create"] is False


def test_point_31_uniqueness_is_told_in_either_spelling() -> None:
    """The older files spell the flag differently, and as text."""
    assert fields_of(Zoho(unique_as="casesensitive"))["Message_ID"]["unique"] == {"casesensitive": "true"}


def test_point_31_field_may_be_missing_or_not_unique() -> None:
    """A test can remove a field or its uniqueness; writes follow at once."""
    zoho = Zoho()
    zoho.engine.steps.run("set_field", {"module": "Messages", "api_name": "Message_ID", "unique": None})
    assert fields_of(zoho)["Message_ID"]["unique"] == {}
    row = {"Name": "n", "Message_ID": "m1"}
    assert zoho.insert("Messages", row, row).status == 201
    assert code(zoho.upsert("Messages", row, fields=["Message_ID"])) == "INVALID_DATA"
    zoho.engine.steps.run("remove_field", {"module": "Messages", "api_name": "Message_ID"})
    assert "Message_ID" not in fields_of(zoho)
    zoho.insert("Messages", row)
    assert zoho.engine.journal.calls[-1].unknown_keys == ["Message_ID"]


def test_point_31_module_may_be_absent_or_have_another_name() -> None:
    """A test can take the module away, bring it back, and rename it."""
    zoho = Zoho()
    zoho.engine.steps.run("remove_module", {"module": "Messages"})
    assert "Messages" not in modules_of(zoho)
    assert code(zoho.insert("Messages", {"Name": "n"})) == "INVALID_MODULE"
    assert code(zoho.get("settings/fields", module="Messages")) == "INVALID_MODULE"
    assert zoho.engine.violations() == []
    zoho.engine.steps.run("add_messages_module", {})
    zoho.engine.steps.run("rename_module", {"module": "Messages", "api_name": "Chat_Messages"})
    assert modules_of(zoho)["Chat_Messages"]["module_name"] == "CustomModule1"
    assert zoho.insert("Chat_Messages", {"Name": "n"}).status == 201


@pytest.mark.parametrize(
    ("attributes", "row"),
    [
        ({"api_name": "Phone", "mandatory": True}, {"Last_Name": "A"}),
        ({"api_name": "Last_Name", "length": 5}, {"Last_Name": "longer"}),
        ({"api_name": "Lead_Source", "restricted": True}, {"Last_Name": "A", "Lead_Source": "x"}),
        ({"api_name": "Flag", "data_type": "boolean", "mandatory": True}, {"Last_Name": "A"}),
    ],
)
def test_point_31_fields_can_be_changed(attributes: Json, row: Json) -> None:
    """A field that becomes mandatory, shorter or restricted refuses what passed before."""
    zoho = Zoho()
    assert zoho.insert("Leads", row).status == 201
    zoho.engine.steps.run("set_field", {"module": "Leads", **attributes})
    assert zoho.insert("Leads", row).status == 400


def test_point_31_org_and_current_user() -> None:
    """The organisation names its link id and type; the current user is the token's."""
    zoho = Zoho(org_type="developer")
    org = zoho.get("org").json()["org"][0]
    assert (org["domain_name"], org["type"]) == (f"org{org['zgid']}", "developer")
    users = zoho.get("users", type="CurrentUser").json()
    assert [user["id"] for user in users["users"]] == [zoho.engine.org.user.id]
    assert users["info"]["count"] == 1
    assert code(zoho.get("users", type="Everyone")) == "PATTERN_NOT_MATCHED"


def test_point_31_active_users_are_a_part_of_all_users() -> None:
    """An inactive user is among all users only."""
    zoho = Zoho()
    colleague = replace(zoho.engine.org.user, id="1", is_active=False)
    zoho.engine.org.users["1"] = colleague
    shown = {
        kind: len(zoho.get("users", type=kind).json()["users"]) for kind in ("AllUsers", "ActiveUsers", "CurrentUser")
    }
    assert shown == {"AllUsers": 2, "ActiveUsers": 1, "CurrentUser": 1}


def test_point_31_one_module_by_name_or_id() -> None:
    """A single module is found by its API name or id."""
    zoho = Zoho()
    module_id = modules_of(zoho)["Messages"]["id"]
    for key in ("Messages", module_id):
        module = zoho.get(f"settings/modules/{key}").json()["modules"][0]
        assert (module["id"], module["display_field"]["api_name"]) == (module_id, "Name")
    assert code(zoho.get("settings/modules/Nothing")) == "INVALID_MODULE"


def test_point_31_fields_need_the_module() -> None:
    """The field list is one module's."""
    assert code(Zoho().get("settings/fields")) == "REQUIRED_PARAM_MISSING"


# Creating


def new_module(zoho: Zoho, **more: Any) -> Any:
    profile = zoho.get("settings/profiles").json()["profiles"][0]["id"]
    given = {
        "singular_label": "Chat",
        "plural_label": "Chats",
        "profiles": [{"id": profile}],
        "display_field": {"field_label": "Chat Name", "data_type": "text"},
    }
    return zoho.call("POST", "settings/modules", {"modules": [given | more]})


def test_a_custom_module_can_be_created() -> None:
    """A new module has its name field, takes records, and costs 500 credits."""
    zoho = Zoho()
    answer = new_module(zoho, api_name="Chats")
    assert answer.json()["modules"][0]["message"] == "module created"
    assert zoho.engine.journal.calls[-1].credits == 500
    assert modules_of(zoho)["Chats"]["module_name"] == "CustomModule2"
    assert zoho.insert("Chats", {"Name": "n"}).status == 201
    assert codes(zoho.insert("Chats", {})) == ["MANDATORY_NOT_FOUND"]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"singular_label": ""}, "MANDATORY_NOT_FOUND"),
        ({"plural_label": "x" * 26}, "INVALID_DATA"),
        ({"api_name": "x" * 51}, "INVALID_DATA"),
        ({"api_name": "Messages"}, "DUPLICATE_DATA"),
        ({"profiles": []}, "MANDATORY_NOT_FOUND"),
        ({"profiles": [{"id": "1"}]}, "INVALID_DATA"),
        ({"display_field": {}}, "MANDATORY_NOT_FOUND"),
        ({"display_field": {"field_label": "N", "data_type": "date"}}, "INVALID_DATA"),
    ],
)
def test_a_module_that_cannot_be_created_is_refused(change: Json, expected: str) -> None:
    """Labels, name, profiles and name field are checked."""
    answer = new_module(Zoho(), **change)
    assert (answer.status, answer.json()["modules"][0]["code"]) == (400, expected)


def test_only_one_module_in_a_call() -> None:
    """Two modules in one call are too many."""
    assert code(Zoho().call("POST", "settings/modules", {"modules": [{}, {}]})) == "INVALID_DATA"


def test_free_edition_has_no_custom_modules() -> None:
    """The free edition refuses."""
    assert code(new_module(Zoho(edition="free"))) == "FEATURE_NOT_SUPPORTED"


def test_fields_can_be_created_and_used() -> None:
    """New fields of every kind appear in the field list and hold what they promise."""
    zoho = Zoho()
    given = [
        {"field_label": "External Key", "data_type": "text", "length": 50, "unique": {"case_sensitive": False}},
        {
            "field_label": "Mood",
            "data_type": "picklist",
            "pick_list_values": [{"display_value": "Good", "actual_value": "good"}],
        },
        {"field_label": "Text", "data_type": "textarea", "textarea": {"type": "large"}},
        {"field_label": "Person", "data_type": "lookup", "lookup": {"module": {"api_name": "Contacts"}}},
        {"field_label": "At", "data_type": "datetime"},
    ]
    answer = zoho.call("POST", "settings/fields", {"fields": given}, module="Messages")
    assert (answer.status, {each["code"] for each in answer.json()["fields"]}) == (201, {"SUCCESS"})
    fields = fields_of(zoho)
    assert (fields["External_Key"]["length"], fields["External_Key"]["unique"]) == (50, {"case_sensitive": False})
    assert fields["Text"]["length"] == 32_000
    assert fields["Person"]["lookup"]["module"]["api_name"] == "Contacts"
    row = {"Name": "n", "External_Key": "k", "Mood": "good", "At": "2026-01-05T10:12:30+00:00"}
    assert codes(zoho.insert("Messages", row, row | {"External_Key": "K"})) == ["SUCCESS", "DUPLICATE_DATA"]
    assert codes(zoho.insert("Messages", {"Name": "n", "Mood": "bad"})) == ["INVALID_DATA"]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"data_type": "text"}, "MANDATORY_NOT_FOUND"),
        ({"field_label": "A"}, "MANDATORY_NOT_FOUND"),
        ({"field_label": "A", "data_type": "wish"}, "INVALID_DATA"),
        ({"field_label": "Channel", "data_type": "text"}, "DUPLICATE_DATA"),
        ({"field_label": "A", "data_type": "text", "length": 256}, "INVALID_DATA"),
        ({"field_label": "A", "data_type": "picklist"}, "MANDATORY_NOT_FOUND"),
        ({"field_label": "A", "data_type": "textarea", "textarea": {"type": "huge"}}, "INVALID_DATA"),
        ({"field_label": "A", "data_type": "datetime", "unique": {"case_sensitive": True}}, "INVALID_DATA"),
        ({"field_label": "A", "data_type": "lookup", "lookup": {"module": {"api_name": "No"}}}, "INVALID_DATA"),
    ],
)
def test_a_field_that_cannot_be_created_is_refused(given: Json, expected: str) -> None:
    """Label, type, length, values and target are checked, and nothing of the call is made."""
    zoho = Zoho()
    good = {"field_label": "Good", "data_type": "text"}
    answer = zoho.call("POST", "settings/fields", {"fields": [good, given]}, module="Messages")
    assert (answer.status, answer.json()["fields"][0]["code"]) == (400, expected)
    assert "Good" not in fields_of(zoho)


def test_at_most_five_fields_in_a_call() -> None:
    """Six fields in one call are too many."""
    given = [{"field_label": f"F{n}", "data_type": "text"} for n in range(6)]
    assert code(Zoho().call("POST", "settings/fields", {"fields": given}, module="Messages")) == "INVALID_DATA"


def test_a_field_can_be_made_unique() -> None:
    """PATCH changes a field, alone or among others."""
    zoho = Zoho()
    field_id = fields_of(zoho)["Dialog_ID"]["id"]
    change = {"id": field_id, "unique": {"case_sensitive": True}, "field_label": "Dialog"}
    assert zoho.call("PATCH", "settings/fields", {"fields": [change]}, module="Messages").status == 200
    assert fields_of(zoho)["Dialog_ID"]["unique"] == {"case_sensitive": True}
    assert fields_of(zoho)["Dialog_ID"]["field_label"] == "Dialog"
    assert zoho.call("PATCH", "settings/fields/1", {"fields": [{}]}, module="Messages").status == 400


# 32, 33


@pytest.mark.parametrize(
    "path", ["messages/send", "Leads/1/Messages", "settings/business_messaging", "Leads/1/messages/2"]
)
def test_point_32_there_is_no_native_messages_endpoint(path: str) -> None:
    """Zoho's own messaging cannot be written through the API."""
    answer = Zoho().call("POST", path, {"data": [{}]})
    assert (answer.status, code(answer)) == (404, "INVALID_URL_PATTERN")


def composite(zoho: Zoho, *subs: Json, **more: Any) -> Any:
    return zoho.call("POST", "__composite_requests", {"__composite_requests": list(subs), **more})


def sub(method: str, path: str, body: Any = None) -> Json:
    return {
        "sub_request_id": "s1",
        "method": method,
        "uri": f"/crm/v8/{path}",
        "headers": {},
        "params": {},
        "body": body,
    }


def test_point_33_each_part_has_its_own_status() -> None:
    """Up to five calls in one, for one credit; each answers with status and body."""
    zoho = Zoho()
    good: Json = {"data": [{"Last_Name": "A"}]}
    bad: Json = {"data": [{}]}
    answer = composite(zoho, sub("POST", "Leads", good), sub("POST", "Leads", bad), sub("GET", "Nothing"))
    parts = [part["details"]["response"] for part in answer.json()["__composite_requests"]]
    assert (answer.status, [part["status_code"] for part in parts]) == (200, [201, 400, 400])
    assert parts[0]["body"]["data"][0]["code"] == "SUCCESS"
    assert sum(entry.credits for entry in zoho.engine.journal.calls) == 1


def test_point_33_at_most_five_parts() -> None:
    """Five parts pass, six are too many, and none is too few."""
    zoho = Zoho()
    assert len(composite(zoho, *[sub("GET", "org")] * 5).json()["__composite_requests"]) == 5
    assert code(composite(zoho, *[sub("GET", "org")] * 6)) == "INVALID_DATA"
    assert code(composite(zoho)) == "MANDATORY_NOT_FOUND"


def test_point_33_parts_need_their_scopes() -> None:
    """A part is refused without its scope, the whole without its own."""
    zoho = Zoho()
    zoho.use_scopes("ZohoCRM.composite_requests.CUSTOM")
    part = composite(zoho, sub("GET", "org")).json()["__composite_requests"][0]
    assert part["details"]["response"]["body"]["code"] == "OAUTH_SCOPE_MISMATCH"
    zoho.use_scopes("ZohoCRM.org.READ")
    assert code(composite(zoho, sub("GET", "org"))) == "OAUTH_SCOPE_MISMATCH"


def test_point_33_rollback_takes_everything_back() -> None:
    """With `rollback_on_fail` one failed part undoes those before it, in the store and for search."""
    zoho = Zoho()
    lead_id = zoho.lead("Before", Phone="+14155550100")
    subs = (
        sub("POST", "Leads", {"data": [{"Last_Name": "New", "Phone": "+14155550100"}]}),
        sub("PUT", "Leads", {"data": [{"id": lead_id, "Last_Name": "After"}]}),
        sub("POST", "Leads", {"data": [{}]}),
        sub("GET", "org"),
    )
    answer = composite(zoho, *subs, rollback_on_fail=True)
    shown = [part["code"] for part in answer.json()["__composite_requests"]]
    assert (answer.status, shown) == (
        400,
        ["ROLLBACK_PERFORMED", "ROLLBACK_PERFORMED", "SUCCESS", "PROCESSING_STOPPED"],
    )
    assert [(record["id"], record["Last_Name"]) for record in zoho.dump("Leads")] == [(lead_id, "Before")]
    assert [record["Last_Name"] for record in items(zoho.search("Leads", phone="4155550100"))] == ["Before"]


def test_point_33_rollback_and_parallel_exclude_each_other() -> None:
    """Both at once are a contradiction."""
    answer = composite(Zoho(), sub("GET", "org"), rollback_on_fail=True, parallel_execution=True)
    assert code(answer) == "AMBIGUITY_DURING_PROCESSING"


@pytest.mark.parametrize(
    "broken", [{}, {"method": "GET"}, {"method": "GET", "uri": "/crm/v8/org", "sub_request_id": "-"}, "text"]
)
def test_point_33_a_broken_part_fails_alone(broken: Any) -> None:
    """A part that is no request has an error of its own."""
    parts = composite(Zoho(), broken, sub("GET", "org")).json()["__composite_requests"]
    assert [part["status"] for part in parts] == ["error", "success"]


# Conversion


def test_a_lead_can_be_converted() -> None:
    """Conversion makes a contact with the lead's data, moves its notes, and closes the lead."""
    zoho = Zoho()
    lead_id = zoho.lead("Doe", First_Name="Jo", Phone="+14155550100")
    zoho.note(lead_id)
    answer = zoho.call("POST", f"Leads/{lead_id}/actions/convert", {"data": [{}]})
    contact = items(answer)[0]["details"]["Contacts"]
    assert contact["name"] == "Jo Doe"
    assert zoho.engine.journal.calls[-1].credits == 5
    assert len(items(zoho.get(f"Contacts/{contact['id']}/Notes", fields="Note_Title"))) == 1
    assert items(zoho.get(f"Leads/{lead_id}"))[0]["$converted"] is True
    assert zoho.get("Leads", fields="Last_Name").status == 204
    assert code(zoho.call("POST", f"Leads/{lead_id}/actions/convert", {"data": [{}]})) == "ID_ALREADY_CONVERTED"


def test_a_lead_can_be_joined_with_a_contact() -> None:
    """Conversion may name the contact; it must exist."""
    zoho = Zoho()
    contact_id = ids(zoho.insert("Contacts", {"Last_Name": "A"}))[0]
    path = f"Leads/{zoho.lead()}/actions/convert"
    assert code(zoho.call("POST", path, {"data": [{"Contacts": {"id": "1"}}]})) == "INVALID_DATA"
    answer = zoho.call("POST", path, {"data": [{"Contacts": {"id": contact_id}}]})
    assert items(answer)[0]["details"]["Contacts"]["id"] == contact_id
    assert code(zoho.call("POST", "Leads/1/actions/convert", {"data": [{}]})) == "INVALID_DATA"
