"""Points 9 to 11: credits, calls in flight, and the answer when there are too many."""

from __future__ import annotations

from typing import Any

import pytest

from tests.sandbox.harness import Zoho, code

ROW = {"Last_Name": "A"}


@pytest.mark.parametrize(
    ("edition", "users", "credits"),
    [
        ("free", 3, 5_000),
        ("standard", 10, 52_500),
        ("standard", 1_000, 100_000),
        ("professional", 10, 55_000),
        ("enterprise", 10, 60_000),
        ("enterprise", 10_000, 5_000_000),
        ("ultimate", 10_000, 20_050_000),
    ],
)
def test_point_09_edition_and_users_make_the_credits(edition: str, users: int, credits: int) -> None:
    """A day's credits are the edition's base, a share for each user, and its cap."""
    assert Zoho(edition=edition, users=users).engine.config.credit_limit == credits


@pytest.mark.parametrize(("rows", "credits"), [(1, 1), (10, 1), (11, 2), (100, 10)])
@pytest.mark.parametrize("path", ["Leads", "Leads/upsert"])
def test_point_09_writes_cost_a_credit_for_ten_rows(path: str, rows: int, credits: int) -> None:
    """A write costs one credit for every ten rows begun."""
    zoho = Zoho()
    zoho.call("POST", path, {"data": [ROW] * rows})
    assert zoho.engine.journal.calls[-1].credits == credits


@pytest.mark.parametrize(("limit", "credits"), [(200, 1), (201, 2), (1_000, 2), (1_001, 3), (2_000, 3)])
def test_point_09_a_query_costs_by_its_limit(limit: int, credits: int) -> None:
    """COQL costs 1, 2 or 3 credits by its LIMIT."""
    zoho = Zoho()
    zoho.coql(f"select id from Leads where id = 1 limit {limit}")
    assert zoho.engine.journal.calls[-1].credits == credits


@pytest.mark.parametrize(
    ("path", "params", "credits"),
    [
        ("Leads/search", {"phone": "14155550100"}, 1),
        ("settings/modules", {}, 1),
        ("org", {}, 1),
        ("Leads", {"fields": "Last_Name"}, 1),
        ("Leads", {"fields": "Last_Name", "cvid": "1"}, 3),
        ("Leads/deleted", {}, 2),
    ],
)
def test_point_09_reads_cost_what_the_price_list_says(path: str, params: dict[str, str], credits: int) -> None:
    """A read costs one credit, with a few exceptions."""
    zoho = Zoho()
    zoho.get(path, **params)
    assert zoho.engine.journal.calls[-1].credits == credits


@pytest.mark.parametrize(("rule", "credits"), [("per_10", 3), ("flat", 1)])
def test_point_09_price_of_notes_is_switchable(rule: str, credits: int) -> None:
    """Notes cost as other writes, or one credit for the call."""
    zoho = Zoho(note_credits=rule)
    zoho.insert("Notes", *[{"Note_Content": "C"}] * 25)
    assert zoho.engine.journal.calls[-1].credits == credits


def test_point_09_credits_come_back_after_a_rolling_day() -> None:
    """What was spent 24 hours ago is free again, and not before."""
    zoho = Zoho(daily_credits=3)
    assert [zoho.get("org").status for _ in range(4)] == [200, 200, 200, 429]
    zoho.clock.advance(86_399)
    zoho.token = zoho.engine.accounts.issue_access_token()
    assert zoho.get("org").status == 429
    zoho.clock.advance(1)
    assert zoho.get("org").status == 200


@pytest.mark.parametrize(("costs", "credits"), [(False, 0), (True, 1)])
def test_point_09_price_of_a_refused_call_is_switchable(costs: bool, credits: int) -> None:
    """A 429 costs nothing, or one credit."""
    zoho = Zoho(concurrency=1, throttled_call_costs_credit=costs)
    flight = zoho.engine.begin(zoho.request("GET", "org"))
    assert zoho.get("org").status == 429
    zoho.engine.finish(flight)
    assert zoho.engine.journal.calls[-1].credits == credits


@pytest.mark.parametrize(
    ("edition", "calls"), [("free", 5), ("standard", 10), ("professional", 15), ("enterprise", 20), ("ultimate", 25)]
)
def test_point_10_edition_makes_the_calls_in_flight(edition: str, calls: int) -> None:
    """Only so many calls may be in flight; one more is refused until one has ended."""
    zoho = Zoho(edition=edition)
    flights = [zoho.engine.begin(zoho.request("GET", "org")) for _ in range(calls)]
    assert zoho.get("org").status == 429
    assert all(zoho.engine.finish(flight).status == 200 for flight in flights)
    assert zoho.get("org").status == 200
    assert zoho.engine.journal.peak_in_flight == calls


HEAVY: list[tuple[str, str, Any, dict[str, str]]] = [
    ("POST", "coql", {"select_query": "select id from Leads where id = 1"}, {}),
    ("POST", "Leads", {"data": [ROW] * 11}, {}),
    ("POST", "Leads/upsert", {"data": [ROW] * 11}, {}),
    ("GET", "Leads", None, {"fields": "Last_Name", "sort_by": "id"}),
]
LIGHT: list[tuple[str, str, Any, dict[str, str]]] = [
    ("POST", "Leads", {"data": [ROW] * 10}, {}),
    ("GET", "Leads/search", None, {"phone": "14155550100"}),
    ("GET", "org", None, {}),
]


@pytest.mark.parametrize("heavy", HEAVY, ids=str)
def test_point_10_heavy_calls_share_ten_slots(heavy: tuple[str, str, Any, dict[str, str]]) -> None:
    """Queries, sorted lists and writes of more than ten rows have ten slots between them; light calls pass."""
    zoho = Zoho(edition="ultimate")
    method, path, body, params = heavy
    for _ in range(10):
        zoho.engine.begin(zoho.request(method, path, body, **params))
    assert zoho.call(method, path, body, **params).status == 429
    for light_method, light_path, light_body, light_params in LIGHT:
        assert zoho.call(light_method, light_path, light_body, **light_params).status in (200, 201, 204)


def test_point_10_search_can_be_heavy() -> None:
    """A switch puts search among the heavy calls."""
    zoho = Zoho(edition="ultimate", search_is_heavy=True)
    for _ in range(10):
        zoho.engine.begin(zoho.request("GET", "Leads/search", phone="14155550100"))
    assert zoho.search("Leads", phone="14155550100").status == 429


@pytest.mark.parametrize(
    ("form", "expected"),
    [
        ("too_many_requests", "TOO_MANY_REQUESTS"),
        ("rate_limit_exceeded", "RATE_LIMIT_EXCEEDED"),
        ("trace", "TOO_MANY_REQUESTS"),
    ],
)
def test_point_11_refusal_has_every_known_shape(form: str, expected: str) -> None:
    """The 429 comes in each shape that was found, without a `Retry-After`."""
    zoho = Zoho(daily_credits=0, throttle_form=form)
    answer = zoho.get("org")
    assert (answer.status, code(answer)) == (429, expected)
    assert "retry-after" not in answer.headers
    assert ("trace_id" in answer.json()["details"]) == (form == "trace")


def test_point_11_retry_after_can_be_switched_on() -> None:
    """A test can have Zoho send `Retry-After`."""
    assert Zoho(daily_credits=0, retry_after_s=7).get("org").headers["retry-after"] == "7"


def test_point_11_remaining_credits_are_told_from_half_used() -> None:
    """The header with the remaining credits appears only once half of the day's are used."""
    zoho = Zoho(daily_credits=4)
    remaining = [zoho.get("org").headers.get("X-API-CREDITS-REMAINING") for _ in range(4)]
    assert remaining == [None, "2", "1", "0"]
