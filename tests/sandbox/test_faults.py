"""Points 34 to 38: planned trouble."""

from __future__ import annotations

from dataclasses import fields
from statistics import median
from typing import Any

import orjson
import pytest

from sandbox.zoho import (
    Answer,
    Chaos,
    Drop,
    DropKind,
    FailRow,
    Garble,
    LateEffect,
    Match,
    Meddle,
    Response,
    SandboxConfig,
    Slow,
    Throttle,
)
from tests.sandbox.harness import Json, Zoho, code, codes, ids, items

ROW = {"Last_Name": "A", "Phone": "+14155550100"}


def stored(zoho: Zoho) -> int:
    return len(zoho.dump("Leads"))


# 34: commit, then drop


@pytest.mark.parametrize("how", list(DropKind))
@pytest.mark.parametrize("commit", [True, False])
def test_point_34_connection_drops_after_or_before_the_effect(how: DropKind, commit: bool) -> None:
    """The record is stored although the caller gets no answer, or it is not."""
    zoho = Zoho()
    fault = zoho.plan(Drop(how=how, commit=commit))
    assert zoho.insert("Leads", ROW).drop is how
    assert (stored(zoho), fault.fired) == (int(commit), 1)


@pytest.mark.parametrize("status", [500, 502, 503])
@pytest.mark.parametrize("commit", [True, False])
def test_point_34_server_error_after_or_before_the_effect(status: int, commit: bool) -> None:
    """A gateway's page hides whether the record was stored."""
    zoho = Zoho()
    zoho.plan(Answer(status=status, body="<html>", headers={"content-type": "text/html"}, commit=commit))
    answer = zoho.insert("Leads", ROW)
    assert (answer.status, answer.body) == (status, b"<html>")
    assert stored(zoho) == int(commit)


def test_point_34_effect_comes_after_the_connection_is_gone() -> None:
    """The record appears some time after the connection dropped, with that time."""
    zoho = Zoho()
    zoho.plan(LateEffect(effect_after_s=30))
    assert zoho.insert("Leads", ROW).drop is DropKind.RESET
    dropped_at_s = zoho.clock.now_s
    assert stored(zoho) == 0
    zoho.clock.advance(29.9)
    assert stored(zoho) == 0
    zoho.clock.advance(500)
    assert stored(zoho) == 1
    assert zoho.engine.journal.effects[-1].at_s == dropped_at_s + 30


def test_point_34_late_effect_comes_before_what_happens_later() -> None:
    """A late insert takes part in what follows it: the second row with its key is a duplicate."""
    zoho = Zoho()
    zoho.plan(LateEffect(effect_after_s=5))
    zoho.insert("Messages", {"Name": "n", "Message_ID": "m1"})
    zoho.clock.advance(5)
    assert codes(zoho.insert("Messages", {"Name": "n", "Message_ID": "m1"})) == ["DUPLICATE_DATA"]


def test_point_34_late_effect_can_come_too_late() -> None:
    """A late insert of what has been written meanwhile fails by the unique field, and leaves one record."""
    zoho = Zoho()
    zoho.plan(LateEffect(effect_after_s=5))
    zoho.insert("Messages", {"Name": "n", "Message_ID": "m1"})
    assert codes(zoho.insert("Messages", {"Name": "n", "Message_ID": "m1"})) == ["SUCCESS"]
    zoho.clock.advance(5)
    assert len(zoho.dump("Messages")) == 1


def test_point_34_dropped_calls_have_no_status_in_the_log() -> None:
    """The call log tells which calls were never answered, and which fault befell them."""
    zoho = Zoho()
    zoho.plan(Drop(how=DropKind.RESET), name="lost")
    zoho.insert("Leads", ROW)
    entry = zoho.engine.journal.calls[-1]
    assert (entry.status, entry.drop, entry.fault, entry.succeeded) == (0, "reset", "lost", 1)


# 35: latency, hanging, broken bodies


def test_point_35_latency_is_04_to_09_s_with_a_tail() -> None:
    """Half of the calls take up to the median, nearly all up to 2.25 times of it, a few much longer."""
    zoho = Zoho(latency_median_s=SandboxConfig().latency_median_s, daily_credits=10**6)
    delays_s = sorted(zoho.get("org").delay_s for _ in range(2_000))
    assert median(delays_s) == pytest.approx(0.4, rel=0.05)
    assert delays_s[0] >= 0.36
    assert delays_s[1_920] <= 0.9
    assert delays_s[-1] > 1.5


def test_point_35_latency_can_be_off_and_a_call_slower() -> None:
    """Without latency a call takes no time, but for a fault that slows it."""
    zoho = Zoho()
    zoho.plan(Slow(extra_s=12))
    assert [zoho.get("org").delay_s for _ in range(2)] == [12, 0]


def test_point_35_body_is_cut() -> None:
    """The answer promises more than it sends."""
    zoho = Zoho()
    zoho.plan(Drop(how=DropKind.CUT))
    answer = zoho.insert("Leads", ROW)
    assert answer.full_length_bytes is not None
    assert 0 < len(answer.body) < answer.full_length_bytes
    assert stored(zoho) == 1


def test_point_35_invalid_json_under_200() -> None:
    """A 200 whose body is no JSON hides a stored record."""
    zoho = Zoho()
    zoho.plan(Garble())
    answer = zoho.insert("Leads", ROW)
    with pytest.raises(orjson.JSONDecodeError):
        answer.json()
    assert (answer.status, stored(zoho)) == (200, 1)


# 36: rows


@pytest.mark.parametrize(
    "failure", ["RECORD_LOCKED", "INVALID_DATA", "DUPLICATE_DATA", "MANDATORY_NOT_FOUND", "INTERNAL_ERROR"]
)
@pytest.mark.parametrize("commit", [False, True])
def test_point_36_row_k_fails_with_a_chosen_code(failure: str, commit: bool) -> None:
    """One row of a batch fails while the others are stored; it may be stored all the same."""
    zoho = Zoho()
    fault = zoho.plan(FailRow(code=failure, index=1, commit=commit))
    answer = zoho.insert("Leads", ROW, ROW, ROW)
    assert (answer.status, codes(answer)) == (207, ["SUCCESS", failure, "SUCCESS"])
    assert (stored(zoho), fault.fired) == (3 if commit else 2, 1)


def test_point_36_details_point_at_the_row_unless_given() -> None:
    """The row's error names its place, or whatever the plan says."""
    zoho = Zoho()
    zoho.plan(FailRow(code="RECORD_LOCKED", index=1))
    zoho.plan(FailRow(code="DUPLICATE_DATA", index=1, details={"id": "7"}), match=Match(nth=2))
    shown = [items(zoho.insert("Leads", ROW, ROW))[1]["details"] for _ in range(2)]
    assert shown == [{"api_name": "id", "json_path": "$.data[1].id"}, {"id": "7"}]


def test_point_36_row_can_be_chosen_by_a_value() -> None:
    """The row may be chosen by what it holds, wherever it stands, as often as it comes."""
    zoho = Zoho()
    zoho.plan(FailRow(code="RECORD_LOCKED", key="Last_Name", value="B"), times=None)
    for rows in (("A", "B"), ("B", "C", "D")):
        answer = zoho.upsert("Leads", *({"Last_Name": name} for name in rows))
        assert codes(answer) == ["RECORD_LOCKED" if name == "B" else "SUCCESS" for name in rows]


# 37: behind the client's back


def linked(zoho: Zoho, lead_id: str) -> list[Response]:
    """An update, a note, and a link that all need the lead."""
    return [
        zoho.update("Leads", {"id": lead_id, "Company": "C"}),
        zoho.note(lead_id),
        zoho.insert("Messages", {"Name": "n", "Lead": {"id": lead_id}}),
    ]


@pytest.mark.parametrize("how", ["delete", "merge", "convert"])
def test_point_37_a_lead_that_went_away_is_invalid_data(how: str) -> None:
    """A deleted, merged or converted lead can no longer be updated, noted or linked."""
    zoho = Zoho()
    lead_id, other = zoho.lead(), zoho.lead()
    args = {
        "delete": {"module": "Leads", "record_id": lead_id},
        "merge": {"lead_id": lead_id, "into": other},
        "convert": {"lead_id": lead_id},
    }
    zoho.engine.steps.run(how, args[how])
    assert [codes(answer) for answer in linked(zoho, lead_id)] == [["INVALID_DATA"]] * 3


def test_point_37_converted_lead_has_its_own_code_by_switch() -> None:
    """An update of a converted lead may be told by CONVERTED_RECORD."""
    zoho = Zoho(stale_lead_code="CONVERTED_RECORD")
    lead_id = zoho.lead()
    zoho.engine.steps.convert(lead_id)
    assert codes(zoho.update("Leads", {"id": lead_id, "Company": "C"})) == ["CONVERTED_RECORD"]


def test_point_37_merge_moves_what_hangs_on_the_lead() -> None:
    """Notes, links and missing values go over to the lead that stays."""
    zoho = Zoho()
    lost, kept = zoho.lead("Lost", Mobile="+2"), zoho.lead("Kept", Phone="+1")
    note_id = ids(zoho.note(lost))[0]
    message_id = zoho.message("m1", Lead={"id": lost})
    zoho.engine.steps.merge(lost, into=kept)
    lead = items(zoho.get(f"Leads/{kept}"))[0]
    assert (lead["Last_Name"], lead["Phone"], lead["Mobile"]) == ("Kept", "+1", "+2")
    assert items(zoho.get(f"Leads/{kept}/Notes", fields="Note_Title"))[0]["id"] == note_id
    assert items(zoho.get(f"Messages/{message_id}"))[0]["Lead"]["id"] == kept


def test_point_37_deletion_takes_notes_and_unlinks_messages() -> None:
    """A deleted lead's notes are gone, its messages link to nothing."""
    zoho = Zoho()
    lead_id = zoho.lead()
    zoho.note(lead_id)
    message_id = zoho.message("m1", Lead={"id": lead_id})
    zoho.call("DELETE", f"Leads/{lead_id}")
    assert zoho.get("Notes", fields="Note_Title").status == 204
    assert items(zoho.get(f"Messages/{message_id}"))[0]["Lead"] is None


@pytest.mark.parametrize(("when", "expected"), [("before", "INVALID_DATA"), ("after", "SUCCESS")])
def test_point_37_it_can_happen_at_a_chosen_call(when: str, expected: str) -> None:
    """A step can be planned for the moment before or after a call's effect."""
    zoho = Zoho()
    lead_id = zoho.lead()
    step = Meddle(do="delete", args={"module": "Leads", "record_id": lead_id}, when=when)  # type: ignore[arg-type]
    zoho.plan(step, match=Match(operation="notes.create"))
    assert codes(zoho.note(lead_id)) == [expected]
    assert stored(zoho) == 0


def test_point_37_a_function_can_be_called_at_a_chosen_call() -> None:
    """A test in the same process can plan any function."""
    zoho = Zoho()
    seen: list[int] = []
    zoho.plan(Meddle(function=lambda: seen.append(stored(zoho)), when="after"), match=Match(operation="records.insert"))
    zoho.insert("Leads", ROW)
    assert seen == [1]


# 38: access


def test_point_38_scope_can_be_revoked_and_given_back() -> None:
    """A scope goes and comes while the token lives."""
    zoho = Zoho()
    zoho.engine.steps.run("revoke_scope", {"scope": "ZohoCRM.coql.READ"})
    answer = zoho.coql("select id from Leads where id = 1")
    assert (answer.status, code(answer)) == (401, "OAUTH_SCOPE_MISMATCH")
    zoho.token = zoho.token_call().json()["access_token"]
    assert code(zoho.coql("select id from Leads where id = 1")) == "OAUTH_SCOPE_MISMATCH"
    zoho.engine.steps.run("grant_scope", {"scope": "ZohoCRM.coql.READ"})
    assert zoho.coql("select id from Leads where id = 1").status == 204


def test_point_38_scope_mismatch_has_either_status() -> None:
    """Sources differ between 401 and 403."""
    zoho = Zoho(scope_mismatch_status=403)
    zoho.use_scopes("ZohoCRM.org.READ")
    answer = zoho.get("Leads", fields="Last_Name")
    assert (answer.status, code(answer)) == (403, "OAUTH_SCOPE_MISMATCH")


@pytest.mark.parametrize(
    ("form", "expected"),
    [("authentication_failure", (401, "AUTHENTICATION_FAILURE")), ("no_permission", (403, "NO_PERMISSION"))],
)
def test_point_38_user_can_be_deactivated(form: str, expected: tuple[int, str]) -> None:
    """An inactive user's calls are refused, until it is active again."""
    zoho = Zoho(inactive_user=form)
    zoho.engine.steps.run("deactivate_user", {})
    answer = zoho.get("org")
    assert (answer.status, code(answer)) == expected
    zoho.engine.steps.run("activate_user", {})
    assert zoho.get("org").status == 200


# Which calls


@pytest.mark.parametrize(
    ("match", "struck"),
    [
        (Match(operation="records.insert"), [2, 4]),
        (Match(operation="records."), [2, 3, 4]),
        (Match(method="GET"), [1, 3]),
        (Match(path="Last_Name"), [3]),
        (Match(module="Contacts"), [4]),
        (Match(min_rows=2), [4]),
        (Match(nth=2), [2]),
        (Match(operation="records.insert", nth=2), [4]),
        (Match(predicate=lambda call: "Zed" in str(call.payload)), [4]),
        (Match(), [1, 2, 3, 4]),
    ],
    ids=[
        "operation",
        "operation prefix",
        "method",
        "path",
        "module",
        "size",
        "position",
        "position of an operation",
        "condition",
        "all",
    ],
)
def test_a_fault_strikes_the_calls_that_match(match: Match, struck: list[int]) -> None:
    """A plan names operation, method, path, module, size, position, or any condition."""
    zoho = Zoho()
    fault = zoho.plan(Answer(status=599), match=match, times=None)
    answers = [
        zoho.get("org"),
        zoho.insert("Leads", ROW),
        zoho.get("Leads", fields="Last_Name"),
        zoho.insert("Contacts", ROW, {"Last_Name": "Zed"}),
    ]
    assert [number for number, answer in enumerate(answers, 1) if answer.status == 599] == struck
    assert fault.fired == len(struck)


@pytest.mark.parametrize(("times", "struck"), [(1, 1), (2, 2), (None, 3)])
def test_a_fault_strikes_as_often_as_planned(times: int | None, struck: int) -> None:
    """Once unless told, and always with None."""
    zoho = Zoho()
    fault = zoho.plan(Answer(status=599), times=times)
    assert [zoho.get("org").status for _ in range(3)] == [599] * struck + [200] * (3 - struck)
    assert fault.fired == struck


@pytest.mark.parametrize("form", ["too_many_requests", "rate_limit_exceeded", "trace", "html", "empty"])
def test_a_429_can_have_any_body_and_header(form: Any) -> None:
    """A planned 429 comes in each shape, with any Retry-After, without effect or credit."""
    zoho = Zoho()
    zoho.plan(Throttle(form=form, retry_after="3"))
    answer = zoho.insert("Leads", ROW)
    assert (answer.status, answer.headers["retry-after"], stored(zoho)) == (429, "3", 0)
    assert zoho.engine.journal.calls[-1].credits == 0
    assert (answer.body == b"") == (form == "empty")


@pytest.mark.parametrize("body", [{"error": "Access Denied"}, "<html>", None])
def test_a_token_call_can_fail_in_any_way(body: Any) -> None:
    """Faults befall token calls like others; no token is issued."""
    zoho = Zoho()
    before = len(zoho.engine.accounts.tokens_issued)
    zoho.plan(Answer(status=200, body=body), match=Match(operation="oauth.token"))
    assert b"access_token" not in zoho.token_call().body
    assert len(zoho.engine.accounts.tokens_issued) == before
    assert "access_token" in zoho.token_call().json()


def test_plans_can_be_cleared() -> None:
    """After that nothing strikes."""
    zoho = Zoho()
    zoho.plan(Answer(status=599), times=None)
    zoho.engine.faults.clear()
    assert zoho.get("org").status == 200


# Random trouble

ALL_CHAOS = Chaos(
    commit_then_drop=0.08,
    drop_before_commit=0.08,
    late_effect=0.08,
    server_error=0.08,
    throttled=0.08,
    garbled=0.08,
    row_fault=0.08,
    token_fault=0.08,
)


def chaotic_run(seed: int) -> tuple[list[Json], Json]:
    zoho = Zoho(seed=seed, chaos=ALL_CHAOS)
    for number in range(300):
        zoho.insert("Leads", *[{"Last_Name": f"L{number}"}] * 3)
        if number % 10 == 0:
            zoho.token_call()
        zoho.clock.advance(1)
    return [entry.as_json() for entry in zoho.engine.journal.calls], zoho.engine.faults.chaos_fired


def test_chaos_brings_every_kind_of_trouble_and_counts_it() -> None:
    """With probabilities set, every kind of trouble comes, and is counted."""
    calls, fired = chaotic_run(1)
    assert fired.keys() == {each.name for each in fields(Chaos)} - {"late_effect_s"}
    assert sum(fired.values()) == sum(1 for call in calls if (call["fault"] or "").startswith("chaos."))


def test_chaos_follows_from_the_seed() -> None:
    """The same seed brings the same trouble, another seed another."""
    assert chaotic_run(1) == chaotic_run(1)
    assert chaotic_run(1) != chaotic_run(2)
