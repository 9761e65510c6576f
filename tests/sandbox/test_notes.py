"""Point 30: notes."""

from __future__ import annotations

from typing import Any

import pytest

from tests.sandbox.harness import Json, Zoho, code, codes, ids, items


def parent(module: str, record_id: str) -> Json:
    return {"module": {"api_name": module}, "id": record_id}


def test_point_30_one_call_holds_notes_of_different_parents() -> None:
    """Each note names its own parent, of any module."""
    zoho = Zoho()
    lead_id = zoho.lead()
    contact_id = ids(zoho.insert("Contacts", {"Last_Name": "A"}))[0]
    rows = [{"Note_Content": "C", "Parent_Id": parent(m, i)} for m, i in (("Leads", lead_id), ("Contacts", contact_id))]
    answer = zoho.insert("Notes", *rows)
    assert answer.status == 201
    assert {item["message"] for item in items(answer)} == {"record added"}
    for module, record_id in (("Leads", lead_id), ("Contacts", contact_id)):
        note = items(zoho.get(f"{module}/{record_id}/Notes", fields="Note_Content,Parent_Id"))[0]
        assert note["Parent_Id"]["id"] == record_id
        assert note["Parent_Id"]["module"]["api_name"] == module


def test_point_30_old_form_of_the_parent_works() -> None:
    """The parent may be a bare id beside `se_module`."""
    zoho = Zoho()
    lead_id = zoho.lead()
    assert zoho.insert("Notes", {"Note_Content": "C", "Parent_Id": lead_id, "se_module": "Leads"}).status == 201
    assert len(items(zoho.get(f"Leads/{lead_id}/Notes", fields="Note_Content"))) == 1


def test_point_30_note_in_the_path_of_its_parent() -> None:
    """A note can be made under its parent's path, and then needs no parent of its own."""
    zoho = Zoho()
    lead_id = zoho.lead()
    assert zoho.insert(f"Leads/{lead_id}/Notes", {"Note_Title": "T", "Note_Content": "C"}).status == 201
    assert items(zoho.get(f"Leads/{lead_id}/Notes", fields="Note_Title"))[0]["Note_Title"] == "T"


def test_point_30_a_repeated_note_is_a_second_note() -> None:
    """Nothing keeps notes apart: the same POST makes another note, and the report shows it."""
    zoho = Zoho()
    lead_id = zoho.lead()
    made = [*ids(zoho.note(lead_id)), *ids(zoho.note(lead_id))]
    assert len(set(made)) == 2
    assert [each.record_ids for each in zoho.engine.violations()] == [tuple(made)]
    assert [each.rule for each in zoho.engine.violations()] == ["notes_same_text"]


def test_point_30_there_is_no_upsert_of_notes() -> None:
    """The path does not exist."""
    answer = Zoho().upsert("Notes", {"Note_Content": "C"})
    assert (answer.status, code(answer)) == (404, "INVALID_URL_PATTERN")


@pytest.mark.parametrize(
    ("row", "expected", "details"),
    [
        ({"Note_Title": "x" * 121}, "INVALID_DATA", {"api_name": "Note_Title", "maximum_length": 120}),
        ({"Note_Content": "x" * 65_536}, "INVALID_DATA", {"api_name": "Note_Content", "maximum_length": 65_535}),
        ({"Note_Content": ""}, "EXPECTED_FIELD_MISSING", {}),
        ({"Parent_Id": None}, "MANDATORY_NOT_FOUND", {"api_name": "Parent_Id"}),
        ({"Parent_Id": parent("Leads", "1")}, "INVALID_DATA", {"api_name": "Parent_Id"}),
        ({"Parent_Id": parent("Nothing", "LEAD")}, "INVALID_MODULE", {"api_name": "Parent_Id"}),
        ({"Parent_Id": "LEAD"}, "INVALID_MODULE", {"api_name": "Parent_Id"}),
        ({"Parent_Id": {"id": "LEAD"}}, "INVALID_MODULE", {"api_name": "Parent_Id"}),
        ({"Parent_Id": parent("Contacts", "LEAD")}, "INVALID_DATA", {"api_name": "Parent_Id"}),
    ],
)
def test_point_30_bad_notes_are_refused_one_by_one(row: Json, expected: str, details: Json) -> None:
    """Length, text and parent are checked for each note."""
    zoho = Zoho()
    lead_id = zoho.lead()
    good: Json = {"Note_Content": "C", "Parent_Id": parent("Leads", lead_id)}
    bad = {name: with_lead(value, lead_id) for name, value in (good | row).items()}
    answer = zoho.insert("Notes", good, bad)
    assert (answer.status, codes(answer)) == (207, ["SUCCESS", expected])
    assert items(answer)[1]["details"].items() >= details.items()


def with_lead(value: Any, lead_id: str) -> Any:
    if isinstance(value, dict):
        return {key: with_lead(each, lead_id) for key, each in value.items()}
    return lead_id if value == "LEAD" else value


def test_point_30_bad_parent_says_so() -> None:
    """A parent that is not there is named in the message."""
    zoho = Zoho()
    message = "the related id given seems to be invalid"
    assert items(zoho.note("1"))[0]["message"] == message
    answer = zoho.insert("Leads/1/Notes", {"Note_Content": "C"})
    assert (answer.status, answer.json()["message"]) == (400, message)


def test_point_30_limits_are_inclusive() -> None:
    """A title of 120 and a content of 65,535 characters pass."""
    zoho = Zoho()
    assert zoho.note(zoho.lead(), title="x" * 120, content="x" * 65_535).status == 201


@pytest.mark.parametrize(
    ("rule", "row", "expected"),
    [
        ("content_or_title", {"Note_Title": "T"}, "SUCCESS"),
        ("content_or_title", {}, "EXPECTED_FIELD_MISSING"),
        ("content", {"Note_Title": "T"}, "MANDATORY_NOT_FOUND"),
    ],
)
def test_point_30_needed_text_is_switchable(rule: str, row: Json, expected: str) -> None:
    """Title or content, or always content: the sources differ."""
    zoho = Zoho(note_needs=rule)
    assert codes(zoho.insert("Notes", row | {"Parent_Id": parent("Leads", zoho.lead())})) == [expected]


def test_point_30_list_needs_fields_and_an_existing_parent() -> None:
    """The notes of a record are listed only with `fields`, and only where there is a record."""
    zoho = Zoho()
    lead_id = zoho.lead()
    assert code(zoho.get(f"Leads/{lead_id}/Notes")) == "REQUIRED_PARAM_MISSING"
    assert code(zoho.get("Leads/1/Notes", fields="Note_Title")) == "INVALID_DATA"


def test_point_30_list_has_pages() -> None:
    """At most 200 notes stand on a page, the newest first."""
    zoho = Zoho()
    lead_id = zoho.lead()
    records = [{"Note_Title": str(n), "Parent_Id": parent("Leads", lead_id)} for n in range(250)]
    zoho.engine.steps.insert("Notes", records)
    pages = [zoho.get(f"Leads/{lead_id}/Notes", fields="Note_Title", page=page).json() for page in (1, 2)]
    assert [len(page["data"]) for page in pages] == [200, 50]
    assert [page["info"]["more_records"] for page in pages] == [True, False]
    assert pages[0]["data"][0]["Note_Title"] == "249"


def test_a_note_can_be_read_changed_and_deleted() -> None:
    """A single note is shown with its flags, and can be changed and deleted."""
    zoho = Zoho()
    note_id = ids(zoho.note(zoho.lead()))[0]
    assert zoho.call("PUT", f"Notes/{note_id}", {"data": [{"Note_Content": "new"}]}).status == 200
    note = items(zoho.get(f"Notes/{note_id}"))[0]
    assert (note["Note_Content"], note["$editable"]) == ("new", True)
    assert items(zoho.get("Notes", fields="Note_Content"))[0]["Note_Content"] == "new"
    assert zoho.call("DELETE", f"Notes/{note_id}").status == 200
    assert zoho.get(f"Notes/{note_id}").status == 204
