"""Point 29: COQL."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox.zoho.coql import parse
from sandbox.zoho.errors import ApiError
from tests.sandbox.harness import Zoho, code, items, names


def nested(count: int, each: str = "Last_Name = 'A'") -> str:
    """So many conditions, bracketed in pairs."""
    text = each
    for _ in range(count - 1):
        text = f"({text} or {each})"
    return text


@pytest.fixture
def zoho() -> Zoho:
    zoho = Zoho()
    zoho.insert(
        "Leads",
        {"Last_Name": "A", "Phone": "+1", "Email": "a@x.org", "Company": "O'Neill"},
        {"Last_Name": "B", "Phone": "+2", "Email": "b@x.org"},
        {"Last_Name": "C", "Phone": "+3"},
        {"Last_Name": "D"},
    )
    return zoho


@pytest.mark.parametrize(
    ("where", "found"),
    [
        ("Phone in ('+1','+3')", "AC"),
        ("(Phone in ('+1','+3'))", "AC"),
        ("Phone not in ('+1')", "BC"),
        ("Phone = '+2'", "B"),
        ("Phone != '+2'", "AC"),
        ("Phone is null", "D"),
        ("Phone is not null", "ABC"),
        ("Email like '%x.org'", "AB"),
        ("Email like 'A@%'", "A"),
        ("Email not like 'a%'", "B"),
        ("Company = 'O''Neill'", "A"),
        ("Last_Name = 'A' or Last_Name = 'B'", "AB"),
        ("(Last_Name = 'A' or Last_Name = 'B') and Phone = '+2'", "B"),
        ("((Last_Name = 'A' or Last_Name = 'B') or Last_Name = 'D')", "ABD"),
        ("Created_Time > '2026-01-01T00:00:00+00:00'", "ABCD"),
        ("Created_Time between '2025-01-01T00:00:00+00:00' and '2025-12-31T00:00:00+00:00'", ""),
        ("Converted__s = false", "ABCD"),
        ("Converted__s = true", ""),
        ("last_name = 'A'", None),
        ("Last_Name = 'a'", ""),
        ("Full_Name = 'A'", "A"),
    ],
)
def test_point_29_operators(zoho: Zoho, where: str, found: str | None) -> None:
    """Each operator finds what SQL would; null is found only by `is null`."""
    answer = zoho.coql(f"select Last_Name from Leads where {where}")
    assert (None if answer.status == 400 else "".join(names(answer))) == found


@pytest.mark.parametrize("word", [str.lower, str.upper, str.title])
def test_point_29_keywords_have_no_case(zoho: Zoho, word: object) -> None:
    """Keywords may be written in any case."""
    text = "select Last_Name from Leads where Phone is not null order by Last_Name desc limit 2"
    for keyword in ("select", "from", "where", "is not null", "order by", "desc", "limit"):
        text = text.replace(keyword, word(keyword))  # type: ignore[operator]
    assert names(zoho.coql(text)) == ["C", "B"]


@pytest.mark.parametrize(
    ("tail", "found", "more"),
    [
        ("limit 2", "AB", True),
        ("limit 1, 2", "BC", True),
        ("limit 2 offset 1", "BC", True),
        ("limit 2 offset 2", "CD", False),
        ("order by Last_Name desc limit 0, 3", "DCB", True),
        ("order by Phone asc, Last_Name desc", "DABC", False),
        ("offset 3", "D", False),
        ("", "ABCD", False),
    ],
)
def test_point_29_order_limit_and_offset(zoho: Zoho, tail: str, found: str, more: bool) -> None:
    """Both forms of LIMIT work; `more_records` tells whether something is left."""
    answer = zoho.coql(f"select Last_Name from Leads where id is not null {tail}")
    assert "".join(names(answer)) == found
    assert answer.json()["info"] == {"count": len(found), "more_records": more}


def test_point_29_limit_is_200_unless_told(zoho: Zoho) -> None:
    """Without LIMIT there are 200 records."""
    zoho.engine.steps.insert("Leads", [{"Last_Name": "Z"}] * 300)
    query = "select id from Leads where Last_Name = 'Z'"
    assert [len(items(zoho.coql(query + tail))) for tail in ("", " limit 300")] == [200, 300]


def test_point_29_answers_show_lookups_by_id(zoho: Zoho) -> None:
    """A lookup is an object with the id alone; its fields can be selected and compared."""
    lead_id = names(zoho.coql("select id from Leads where Last_Name = 'A'"), "id")[0]
    zoho.message("m1", Lead={"id": lead_id}, Sent_At="2026-01-05T10:12:30+00:00")
    for where in (f"Lead = '{lead_id}'", f"Lead.id = {lead_id}", f"Lead in ({lead_id})", "Lead.Last_Name = 'A'"):
        record = items(zoho.coql(f"select Name, Lead, Lead.Last_Name, Sent_At from Messages where {where}"))[0]
        assert record["Lead"] == {"id": lead_id}
        assert record["Lead.Last_Name"] == "A"
        assert record["Sent_At"] == "2026-01-05T03:12:30-07:00"
        assert record["id"].isdigit()


def test_point_29_converted_leads_show_their_contact(zoho: Zoho) -> None:
    """A converted lead is found, with its flag and its contact; a switch leaves it out."""
    lead_id = names(zoho.coql("select id from Leads where Last_Name = 'A'"), "id")[0]
    contact_id = zoho.engine.steps.convert(lead_id)
    query = "select Converted__s, Converted_Contact from Leads where Phone = '+1'"
    assert items(zoho.coql(query)) == [{"Converted__s": True, "Converted_Contact": {"id": contact_id}, "id": lead_id}]
    zoho.engine.configure(coql_finds_converted=False)
    assert zoho.coql(query).status == 204


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("select id from Leads", "SYNTAX_ERROR"),
        ("select id Leads where id = 1", "SYNTAX_ERROR"),
        ("id from Leads where id = 1", "SYNTAX_ERROR"),
        ("select id from Leads where", "SYNTAX_ERROR"),
        ("select id from Leads where Last_Name = A", "SYNTAX_ERROR"),
        ("select id from Leads where Last_Name = 'O'Neill'", "SYNTAX_ERROR"),
        ("select id from Leads where Last_Name = 'O\\'Neill'", "SYNTAX_ERROR"),
        ('select id from Leads where Last_Name = "A"', "SYNTAX_ERROR"),
        ("select id from Leads where Last_Name = 'A", "SYNTAX_ERROR"),
        ("select id from Leads where Last_Name in ()", "SYNTAX_ERROR"),
        ("select id from Leads where (Last_Name = 'A'", "SYNTAX_ERROR"),
        ("select id from Leads where Last_Name = 'A' and Phone = '1' and Email = 'e'", "SYNTAX_ERROR"),
        ("select id from Leads where (Last_Name = 'A' or Phone = '1' or Email = 'e')", "SYNTAX_ERROR"),
        ("select id from Leads where id = 1 limit x", "SYNTAX_ERROR"),
        ("select id from Leads where id = 1 limit 5 5", "SYNTAX_ERROR"),
        ("", "SYNTAX_ERROR"),
        ("select Nothing from Leads where id = 1", "INVALID_QUERY"),
        ("select id from Leads where Nothing = 1", "INVALID_QUERY"),
        ("select Owner.Last_Name from Leads where id = 1", "INVALID_QUERY"),
        ("select id from Leads where Last_Name = 5", "INVALID_QUERY"),
        ("select id from Leads where Created_Time > 'now'", "INVALID_QUERY"),
        ("select id from Leads where Last_Name > 'A'", "INVALID_QUERY"),
        ("select id from Leads where Created_Time like 'A%'", "INVALID_QUERY"),
        ("select id from Leads where id = 'abc'", "INVALID_QUERY"),
        ("select id from Leads where Description = 'long'", "INVALID_QUERY"),
        ("select id from Messages where Body like 'a%'", "INVALID_QUERY"),
        ("select id from Leads where id = 1 order by Description", "INVALID_QUERY"),
        ("select id from Notes where id = 1", "INVALID_QUERY"),
        ("select id from Nothing where id = 1", "INVALID_MODULE"),
        ("select id from Leads where id = 1 limit 2001", "LIMIT_EXCEEDED"),
        ("select id from Leads where id = 1 limit 100001, 200", "LIMIT_EXCEEDED"),
    ],
)
def test_point_29_broken_queries_are_refused(zoho: Zoho, query: str, expected: str) -> None:
    """What is no query, asks for what is not there, or for too much, is a 400 with its code."""
    answer = zoho.coql(query)
    assert (answer.status, code(answer)) == (400, expected)


@pytest.mark.parametrize(
    ("make", "most"),
    [
        (lambda n: f"select id from Leads where id in ({','.join(['1'] * n)})", 100),
        (lambda n: f"select id from Leads where {nested(n)}", 25),
        (lambda n: f"select id from Leads where id is null order by {','.join(['Phone'] * n)}", 10),
        (lambda n: f"select {','.join(['Phone'] * n)} from Leads where id is null", 500),
    ],
    ids=["in", "criteria", "order by", "columns"],
)
def test_point_29_numbers_are_limited(zoho: Zoho, make: object, most: int) -> None:
    """As many values, conditions, sort keys and columns as documented, and not one more."""
    assert zoho.coql(make(most)).status in (200, 204)  # type: ignore[operator]
    assert zoho.coql(make(most + 1)).status == 400  # type: ignore[operator]


def test_point_29_notes_can_be_queried_by_switch() -> None:
    """A test can have notes answer to queries."""
    zoho = Zoho(coql_notes=True)
    lead_id = zoho.lead()
    zoho.note(lead_id, title="T1")
    assert names(zoho.coql(f"select Note_Title from Notes where Parent_Id = {lead_id}"), "Note_Title") == ["T1"]


@pytest.mark.parametrize("body", [{}, {"select_query": 5}, {"query": "select id from Leads where id = 1"}])
def test_point_29_body_must_hold_the_query(body: object) -> None:
    """A body without a query is an error at the top."""
    answer = Zoho().call("POST", "coql", body)
    assert (answer.status, code(answer)) in ((400, "MANDATORY_NOT_FOUND"), (400, "INVALID_DATA"))


@given(st.text(max_size=60) | st.text("select from where id='(),and or in not null like 01", max_size=80))
def test_point_29_any_text_is_a_query_or_an_error(text: str) -> None:
    """No text makes the parser fail in another way than Zoho's."""
    with suppress(ApiError):
        parse(text)


@given(st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), min_size=1, max_size=80))
def test_point_29_doubled_quotes_bring_any_value_through(value: str) -> None:
    """A value with its quotes doubled finds exactly its record."""
    zoho = Zoho()
    zoho.lead(value)
    quoted = value.replace("'", "''")
    assert names(zoho.coql(f"select Last_Name from Leads where Last_Name = '{quoted}'")) == [value]
