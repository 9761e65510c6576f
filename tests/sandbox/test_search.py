"""Points 26 to 28: the search call."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox.zoho import Request
from sandbox.zoho.config import SandboxConfig
from sandbox.zoho.criteria import parse_criteria
from sandbox.zoho.errors import ApiError
from tests.sandbox.harness import Zoho, code, ids, items, names

PHONE = "+14155550100"


# 26: the index lags


def test_point_26_a_new_record_is_found_only_after_the_lag() -> None:
    """Search does not know a record until its delay has passed; GET by id and COQL know it at once."""
    zoho = Zoho(search_lag_s=(20.0, 20.0))
    lead_id = zoho.lead(Phone=PHONE)
    zoho.clock.advance(19.9)
    assert zoho.search("Leads", phone=PHONE).status == 204
    assert zoho.get(f"Leads/{lead_id}").status == 200
    assert names(zoho.coql(f"select Last_Name from Leads where Phone = '{PHONE}'")) == ["Doe"]
    zoho.clock.advance(0.1)
    assert names(zoho.search("Leads", phone=PHONE)) == ["Doe"]


def test_point_26_an_edit_is_seen_only_after_the_lag() -> None:
    """Until then search finds the record as it was, under its old number."""
    zoho = Zoho(search_lag_s=(20.0, 20.0))
    lead_id = zoho.lead(Phone=PHONE)
    zoho.clock.advance(20)
    zoho.update("Leads", {"id": lead_id, "Phone": "+14155550199", "Last_Name": "New"})
    assert names(zoho.search("Leads", phone=PHONE)) == ["Doe"]
    assert zoho.search("Leads", phone="+14155550199").status == 204
    zoho.clock.advance(20)
    assert zoho.search("Leads", phone=PHONE).status == 204
    assert names(zoho.search("Leads", phone="+14155550199")) == ["New"]


def test_point_26_a_deleted_record_is_found_until_the_lag_has_passed() -> None:
    """Search can still show what is gone."""
    zoho = Zoho(search_lag_s=(20.0, 20.0))
    lead_id = zoho.lead(Phone=PHONE)
    zoho.clock.advance(20)
    zoho.engine.steps.delete("Leads", lead_id)
    assert ids_found(zoho) == [lead_id]
    zoho.clock.advance(20)
    assert ids_found(zoho) == []


def ids_found(zoho: Zoho) -> list[str]:
    return names(zoho.search("Leads", phone=PHONE), "id")


def test_point_26_lag_is_random_within_bounds_and_20_to_120_s_by_default() -> None:
    """Each write has its own delay between the bounds."""
    low, high = SandboxConfig().search_lag_s
    assert (low, high) == (20.0, 120.0)
    zoho = Zoho(search_lag_s=(low, high))
    zoho.insert("Leads", *[{"Last_Name": "A", "Phone": PHONE}] * 100)
    found = []
    for second in range(121):
        found.append(len(ids_found(zoho)))
        zoho.clock.advance(1)
        assert second > low or found[-1] == 0
    assert found[-1] == 100
    assert len(set(found)) > 20


@given(st.lists(st.floats(0, 100), min_size=2, max_size=8))
def test_point_26_an_older_version_never_replaces_a_newer_one(lags_s: list[float]) -> None:
    """However the delays of two edits cross, search ends with the last one."""
    zoho = Zoho()
    lead_id = zoho.lead(Phone=PHONE)
    for number, lag_s in enumerate(lags_s):
        zoho.engine.configure(search_lag_s=(lag_s, lag_s))
        zoho.update("Leads", {"id": lead_id, "Last_Name": f"V{number}"})
    zoho.clock.advance(100)
    assert names(zoho.search("Leads", phone=PHONE)) == [f"V{len(lags_s) - 1}"]


def test_point_26_queries_lag_by_switch() -> None:
    """A test can have COQL lag as well, from a moment on."""
    zoho = Zoho()
    zoho.lead("Old", Phone=PHONE)
    zoho.engine.configure(coql_lag_s=(5.0, 5.0))
    zoho.lead("New", Phone=PHONE)
    query = f"select Last_Name from Leads where Phone = '{PHONE}'"
    assert names(zoho.coql(query)) == ["Old"]
    zoho.clock.advance(5)
    assert names(zoho.coql(query)) == ["Old", "New"]


# 27: loose matches


@pytest.mark.parametrize(
    ("stored", "wanted", "is_found"),
    [
        ("+14155550100", "4155550100", True),
        ("+1 (415) 555-0100", "+14155550100", True),
        ("0044 20 7946 0100", "2079460100", True),
        ("4155550100", "+14155550100", True),
        ("+524155550100", "4155550100", True),
        ("+14155550100", "415555010", False),
        ("+14155550100", "0100", True),
        ("+14155550100", "+14155550101", False),
    ],
)
def test_point_27_phone_matches_by_trailing_digits(stored: str, wanted: str, is_found: bool) -> None:
    """`phone` ignores punctuation and compares from the end, so that another country's number can be found."""
    zoho = Zoho()
    zoho.lead(Phone=stored)
    assert (zoho.search("Leads", phone=wanted).status == 200) == is_found


def test_point_27_longer_query_than_number_by_switch() -> None:
    """By switch a number without country code is not found by one with it."""
    zoho = Zoho(phone_search="stored_suffix")
    zoho.lead(Phone="4155550100")
    assert zoho.search("Leads", phone="+14155550100").status == 204
    assert zoho.search("Leads", phone="4155550100").status == 200


def test_point_27_longest_phone_query() -> None:
    """Fifty characters are a phone number still."""
    assert Zoho().search("Leads", phone="1" * 50).status == 204


@pytest.mark.parametrize("field", ["Phone", "Mobile", "Home_Phone", "Other_Phone"])
def test_point_27_phone_looks_at_every_phone_field(field: str) -> None:
    """Each phone field of a module is searched."""
    zoho = Zoho()
    zoho.insert("Contacts", {"Last_Name": "A", field: PHONE})
    assert names(zoho.search("Contacts", phone=PHONE)) == ["A"]


@pytest.mark.parametrize(
    "query",
    ["phone=+14155550100", "phone=%2B14155550100,", "phone=1%2C2%2C3", "phone=12", "phone=abc", f"phone={'1' * 51}"],
)
def test_point_27_broken_phone_pattern_is_refused(query: str) -> None:
    """An unencoded plus, a comma, letters, or too few digits are a 400."""
    zoho = Zoho()
    request = zoho.request("GET", "Leads/search")
    answer = zoho.engine.handle(Request("GET", request.path, query, request.headers))
    assert (answer.status, code(answer)) == (400, "INVALID_QUERY")


@pytest.mark.parametrize(
    ("stored", "wanted", "is_found"),
    [
        ("Burns, Bob", r"Burns\, B", True),
        ("sales-team", "sales_team", True),
        ("Doe", "doe", True),
        ("Doe", "oe", True),
        ("Doe", "Doer", False),
        ("A (b)", r"A \(b\)", True),
    ],
)
def test_point_27_equals_behaves_like_contains(stored: str, wanted: str, is_found: bool) -> None:
    """On text `equals` finds parts of a value and look-alike characters."""
    zoho = Zoho()
    zoho.lead(stored)
    assert (zoho.search("Leads", criteria=f"(Last_Name:equals:{wanted})").status == 200) == is_found


def test_point_27_equals_is_exact_on_picklists() -> None:
    """A picklist value must be given whole."""
    zoho = Zoho()
    zoho.lead(Lead_Source="Cold Call")
    assert zoho.search("Leads", criteria="(Lead_Source:equals:Cold)").status == 204
    assert zoho.search("Leads", criteria="(Lead_Source:equals:Cold Call)").status == 200


@pytest.mark.parametrize(
    ("criteria", "found"),
    [
        ("(Last_Name:starts_with:A)", ["A1", "A2"]),
        ("(Last_Name:in:A1,B1)", ["A1", "B1"]),
        ("(Last_Name:not_equal:A)", ["B1"]),
        ("((Last_Name:starts_with:A)and(Company:equals:X))", ["A1"]),
        ("((Last_Name:equals:A2)or(Last_Name:equals:B1))", ["A2", "B1"]),
        ("(Last_Name:equals:A2)or(Last_Name:equals:B1)", ["A2", "B1"]),
        ("((Company:equals:X)and((Last_Name:equals:A2)or(Last_Name:equals:A1)))", ["A1"]),
        ("(Created_Time:greater_equal:2026-01-05T00:00:00-07:00)", ["A1", "A2", "B1"]),
        ("(Created_Time:between:2026-01-06T00:00:00-07:00,2026-01-07T00:00:00-07:00)", []),
        ("(Created_Time:less_than:2026-01-05T00:00:00-07:00)", []),
    ],
)
def test_point_27_operators(criteria: str, found: list[str]) -> None:
    """Criteria combine operators with `and` and `or`."""
    zoho = Zoho()
    zoho.insert("Leads", {"Last_Name": "A1", "Company": "X"}, {"Last_Name": "A2"}, {"Last_Name": "B1"})
    assert names(zoho.search("Leads", criteria=criteria)) == found


# 28: limits and escapes of criteria


@pytest.mark.parametrize("limit", [10, 15])
def test_point_28_number_of_criteria_is_limited(limit: int) -> None:
    """Ten criteria, or fifteen by switch, and not one more."""
    zoho = Zoho(search_criteria_limit=limit)
    each = "(Last_Name:equals:A)"
    assert zoho.search("Leads", criteria=f"({'or'.join([each] * limit)})").status == 204
    answer = zoho.search("Leads", criteria=f"({'or'.join([each] * (limit + 1))})")
    assert (answer.status, code(answer)) == (400, "CRITERIA_LIMIT_EXCEEDED")


@pytest.mark.parametrize(
    "criteria",
    [
        "Last_Name:equals:A",
        "(Last_Name:equals:A",
        "(Last_Name:equals)",
        "(Last_Name:is:A)",
        "(Last_Name:equals:A,B)",
        "(Last_Name:equals:A(B)",
        "(Last_Name:equals:A)x",
        "((Last_Name:equals:A)and(Last_Name:equals:B)or(Last_Name:equals:C))",
        "(Created_Time:between:2026-01-06T00:00:00-07:00)",
        "(Created_Time:equals:yesterday)",
        "(Nothing:equals:A)",
        "(Last_Name:in:" + ",".join(["A"] * 101) + ")",
        "(Last_Name:equals:" + "A" * 3_000 + ")",
    ],
)
def test_point_28_broken_criteria_are_refused(criteria: str) -> None:
    """Missing brackets, unknown operators or fields, unescaped characters and too many values are a 400."""
    answer = Zoho().search("Leads", criteria=criteria)
    assert (answer.status, code(answer)) == (400, "INVALID_QUERY")


@given(st.text(max_size=60))
def test_point_28_any_text_is_criteria_or_an_error(text: str) -> None:
    """No text makes the parser fail in another way than Zoho's."""
    with suppress(ApiError):
        parse_criteria(text, max_criteria=10)


def escaped(text: str) -> str:
    return "".join(f"\\{char}" if char in "(),\\" else char for char in text)


@given(st.text(min_size=1, max_size=20))
def test_point_28_escaped_values_come_through(value: str) -> None:
    """A value with its special characters escaped means exactly that value."""
    node = parse_criteria(f"(Last_Name:equals:{escaped(value)})", max_criteria=10)
    assert node.values == (value,)  # type: ignore[union-attr]


# Beside the points


def test_selectors_have_a_precedence() -> None:
    """Of several selectors criteria win over email, email over phone, phone over word."""
    zoho = Zoho()
    zoho.insert(
        "Leads",
        {"Last_Name": "Anna"},
        {"Last_Name": "Berta", "Email": "b@x.org"},
        {"Last_Name": "Carla", "Phone": PHONE},
    )
    selectors = {"criteria": "(Last_Name:equals:Anna)", "email": "b@x.org", "phone": PHONE, "word": "carla"}
    found = []
    for name in list(selectors):
        found.append(names(zoho.search("Leads", **selectors)))
        del selectors[name]
    assert found == [["Anna"], ["Berta"], ["Carla"], ["Carla"]]


def test_a_selector_is_needed() -> None:
    """Search without a selector is an error."""
    assert code(Zoho().search("Leads")) == "EXPECTED_PARAM_MISSING"


@pytest.mark.parametrize("word", ["x", "x" * 101])
def test_word_has_two_to_a_hundred_letters(word: str) -> None:
    """A word too short or too long is refused."""
    assert code(Zoho().search("Leads", word=word)) == "INVALID_DATA"


def test_search_reaches_2000_records_in_pages_of_200() -> None:
    """A page has at most 200 records, and there are ten pages."""
    zoho = Zoho()
    records = [{"Last_Name": f"A{number}", "Phone": PHONE} for number in range(2_100)]
    zoho.engine.steps.insert("Leads", records)
    answer = zoho.search("Leads", phone=PHONE, page=10)
    assert answer.json()["info"] == {"per_page": 200, "count": 200, "page": 10, "more_records": True}
    assert code(zoho.search("Leads", phone=PHONE, page=11)) == "LIMIT_REACHED"
    assert len(items(zoho.search("Leads", phone=PHONE, per_page=3))) == 3


@pytest.mark.parametrize(
    ("converted", "found"), [(None, ["Open"]), ("false", ["Open"]), ("true", ["Won"]), ("both", ["Open", "Won"])]
)
def test_converted_leads_are_found_on_request(converted: str | None, found: list[str]) -> None:
    """Converted leads are left out unless they are asked for."""
    zoho = Zoho()
    zoho.lead("Open", Phone=PHONE)
    zoho.engine.steps.convert(zoho.lead("Won", Phone=PHONE))
    params = {} if converted is None else {"converted": converted}
    assert names(zoho.search("Leads", phone=PHONE, **params)) == found


def test_module_without_phone_fields() -> None:
    """Where no field can match there is an error."""
    assert code(Zoho().search("Notes", phone=PHONE)) == "FIELD_TYPE_UNAVAILABLE"


def test_notes_can_be_searched() -> None:
    """Notes are found by word, with their parent."""
    zoho = Zoho()
    lead_id = zoho.lead()
    note_id = ids(zoho.note(lead_id, content="hello world"))[0]
    found = items(zoho.search("Notes", word="world"))
    assert [(note["id"], note["Parent_Id"]["id"], note["Parent_Id"]["module"]["api_name"]) for note in found] == [
        (note_id, lead_id, "Leads")
    ]
