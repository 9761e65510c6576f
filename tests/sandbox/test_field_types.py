"""Fields of every type: what they take, how they are shown, and how they are found."""

from __future__ import annotations

from typing import Any

import pytest

from tests.sandbox.harness import Zoho, codes, items, names

GOOD: list[tuple[str, Any]] = [
    ("boolean", True),
    ("integer", 5),
    ("integer", -999_999_999),
    ("bigint", 999_999_999_999_999_999),
    ("double", 1.5),
    ("double", 2),
    ("date", "2026-01-05"),
    ("website", "https://example.com"),
    ("email", "a@b.org"),
    ("text", "a"),
]
BAD: list[tuple[str, Any]] = [
    ("boolean", 1),
    ("boolean", "true"),
    ("integer", True),
    ("integer", 1.5),
    ("integer", "5"),
    ("integer", 1_000_000_000),
    ("bigint", 1_000_000_000_000_000_000),
    ("double", False),
    ("double", "1.5"),
    ("date", "2026-1-5"),
    ("date", "20260105"),
    ("date", "2026-02-30"),
    ("date", 20260105),
    ("website", "not a link"),
    ("email", "a@b"),
]


def with_field(data_type: str, **attributes: Any) -> Zoho:
    zoho = Zoho()
    zoho.engine.steps.set_field("Leads", "F", data_type=data_type, **attributes)
    return zoho


@pytest.mark.parametrize(("data_type", "value"), GOOD, ids=str)
def test_a_good_value_comes_back(data_type: str, value: Any) -> None:
    """What a field takes is shown as it was sent."""
    zoho = with_field(data_type)
    lead_id = zoho.lead(F=value)
    assert items(zoho.get(f"Leads/{lead_id}", fields="F"))[0]["F"] == value


@pytest.mark.parametrize(("data_type", "value"), BAD, ids=str)
def test_a_value_of_another_type_is_refused(data_type: str, value: Any) -> None:
    """What a field does not take is refused with the type that it expects."""
    item = items(with_field(data_type).insert("Leads", {"Last_Name": "A", "F": value}))[0]
    assert (item["code"], item["details"]["expected_data_type"]) == ("INVALID_DATA", data_type)


@pytest.mark.parametrize(
    ("where", "found"),
    [
        ("F = 2", ["L2"]),
        ("F != 2", ["L1", "L3"]),
        ("F > 2", ["L3"]),
        ("F >= 2", ["L2", "L3"]),
        ("F < 2", ["L1"]),
        ("F <= 2", ["L1", "L2"]),
        ("F in (1,3)", ["L1", "L3"]),
        ("F not in (1,3)", ["L2"]),
        ("F between 2 and 3", ["L2", "L3"]),
    ],
)
def test_numbers_are_compared_by_queries(where: str, found: list[str]) -> None:
    """A query compares numbers as numbers."""
    zoho = with_field("double")
    zoho.insert("Leads", *({"Last_Name": f"L{n}", "F": n} for n in (1, 2, 3)), {"Last_Name": "none"})
    assert names(zoho.coql(f"select Last_Name from Leads where {where}")) == found


@pytest.mark.parametrize(
    ("operator", "found"),
    [
        ("equals:2", ["L2"]),
        ("not_equal:2", ["L1", "L3", "none"]),
        ("greater_than:2", ["L3"]),
        ("greater_equal:2", ["L2", "L3"]),
        ("less_than:2", ["L1"]),
        ("less_equal:2", ["L1", "L2"]),
        ("in:1,3", ["L1", "L3"]),
        ("between:2,3", ["L2", "L3"]),
    ],
)
def test_numbers_are_compared_by_search(operator: str, found: list[str]) -> None:
    """Search compares numbers as numbers."""
    zoho = with_field("integer")
    zoho.insert("Leads", *({"Last_Name": f"L{n}", "F": n} for n in (1, 2, 3)), {"Last_Name": "none"})
    assert names(zoho.search("Leads", criteria=f"(F:{operator})")) == found
    assert zoho.search("Leads", criteria="(F:equals:two)").status == 400


@pytest.mark.parametrize("value", ["true", "'x'", "1.5"])
def test_a_query_takes_only_values_of_the_columns_type(value: str) -> None:
    """A boolean or a text is no number, and a number no boolean."""
    zoho = with_field("boolean")
    zoho.engine.steps.set_field("Leads", "N", data_type="integer")
    assert zoho.coql(f"select id from Leads where F = {value}").status == (204 if value == "true" else 400)
    assert zoho.coql(f"select id from Leads where N = {value}").status == (204 if value == "1.5" else 400)


def test_booleans_are_found_by_search() -> None:
    """A flag is compared with `true` or `false`."""
    zoho = with_field("boolean")
    zoho.insert("Leads", {"Last_Name": "yes", "F": True}, {"Last_Name": "no", "F": False})
    assert names(zoho.search("Leads", criteria="(F:equals:true)")) == ["yes"]
    assert names(zoho.search("Leads", criteria="(F:equals:false)")) == ["no"]


@pytest.mark.parametrize(
    "field", ["Created_By", "Modified_By", "Created_Time", "Modified_Time", "Full_Name", "Converted__s"]
)
def test_read_only_fields_are_left_alone(field: str) -> None:
    """What Zoho keeps itself is not written, and sending it is no error."""
    zoho = Zoho()
    lead_id = zoho.lead()
    before = items(zoho.get(f"Leads/{lead_id}"))[0]
    assert codes(zoho.update("Leads", {"id": lead_id, field: "anything"})) == ["SUCCESS"]
    assert items(zoho.get(f"Leads/{lead_id}"))[0] == before


def test_owner_can_be_chosen() -> None:
    """A record belongs to the token's user, or to the user named."""
    zoho = Zoho()
    user_id = zoho.engine.org.user.id
    assert items(zoho.get(f"Leads/{zoho.lead(Owner={'id': user_id})}"))[0]["Owner"]["id"] == user_id
    assert items(zoho.get(f"Leads/{zoho.lead()}"))[0]["Owner"]["id"] == user_id


@pytest.mark.parametrize("module", ["Leads", "Contacts"])
def test_people_need_a_last_name(module: str) -> None:
    """Leads and contacts cannot be without one."""
    assert codes(Zoho().insert(module, {"First_Name": "A"})) == ["MANDATORY_NOT_FOUND"]
