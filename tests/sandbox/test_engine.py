"""Points 39 and 40: what tests can see, and that everything follows from the seed and the clock."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox.zoho import Drop, DropKind, Request, SandboxConfig, ZohoEngine
from sandbox.zoho.control import Control, OffsetClock, fault_from_json
from sandbox.zoho.inprocess import Wire
from sandbox.zoho.steps import StepError
from tests.sandbox.harness import START_S, Json, Zoho, ids

PHONE = "+14155550100"


class Remote:
    """The control API, as a test in another process uses it."""

    def __init__(self, zoho: Zoho) -> None:
        self.clock = OffsetClock(zoho.clock)
        self._control = Control(zoho.engine, self.clock)

    def ask(self, method: str, path: str, body: Any = None, query: str = "") -> tuple[int, Any]:
        raw = b"" if body is None else orjson.dumps(body)
        status, answer = self._control.handle(method, f"/_sandbox{path}", query, raw)
        return status, orjson.loads(answer)

    def get(self, path: str, query: str = "") -> Any:
        status, answer = self.ask("GET", path, query=query)
        assert status == 200
        return answer


# 39: what tests can see


def test_point_39_state_shows_calls_credits_tokens_and_concurrency() -> None:
    """One look shows batch sizes, credits, tokens, calls in flight, and records."""
    zoho = Zoho()
    zoho.insert("Leads", *[{"Last_Name": "A"}] * 20)
    zoho.insert("Leads", *[{"Last_Name": "A"}] * 10)
    flight = zoho.engine.begin(zoho.request("GET", "org"))
    state = Remote(zoho).get("/state")
    assert state["operations"]["records.insert"] == {
        "calls": 2,
        "rows": 30,
        "rows_per_call": 15.0,
        "credits": 3,
        "statuses": {"201": 2},
    }
    assert (state["credits_used"], state["credit_limit"]) == (4, 60_000)
    assert (state["tokens_issued"], state["in_flight"], state["peak_in_flight"]) == (1, 1, 1)
    assert state["records"] == {"Leads": 30, "Contacts": 0, "Notes": 0, "Messages": 0}
    zoho.engine.finish(flight)


def test_point_39_call_log_and_effects_can_be_read_from_a_point_on() -> None:
    """Calls and effects are listed in order, by operation, and from a number on."""
    zoho = Zoho()
    lead_id = zoho.lead()
    zoho.update("Leads", {"id": lead_id, "Company": "C"})
    zoho.call("DELETE", f"Leads/{lead_id}")
    remote = Remote(zoho)
    shown = [(call["operation"], call["rows"], call["status"]) for call in remote.get("/calls")]
    assert shown == [("records.insert", 1, 201), ("records.update", 1, 200), ("records.delete_one", 0, 200)]
    assert [call["number"] for call in remote.get("/calls", "since=2")] == [3]
    assert [call["number"] for call in remote.get("/calls", "operation=records.update")] == [2]
    effects = remote.get("/effects")
    assert [(each["kind"], each["call"], each["record_id"]) for each in effects] == [
        ("create", 1, lead_id),
        ("update", 2, lead_id),
        ("delete", 3, lead_id),
    ]
    assert effects[1]["values"]["Company"] == "C"
    assert len(remote.get("/effects", "since=2")) == 1


def duplicates(zoho: Zoho) -> list[tuple[str, str]]:
    return [(each["rule"], each["key"]) for each in Remote(zoho).get("/violations")]


@pytest.mark.parametrize("other", ["+1 (415) 555-0100", "0014155550100", "+14155550100"])
@pytest.mark.parametrize("field", ["Phone", "Mobile"])
def test_point_39_leads_with_one_number_are_duplicates(other: str, field: str) -> None:
    """Two leads with the same digits, in whatever field and spelling, are reported."""
    zoho = Zoho()
    zoho.insert("Leads", {"Last_Name": "A", "Phone": PHONE}, {"Last_Name": "B", field: other})
    assert duplicates(zoho) == [("leads_same_phone", "14155550100")]


def test_point_39_one_lead_with_its_number_twice_is_no_duplicate() -> None:
    """A lead may hold its number in two fields."""
    zoho = Zoho()
    zoho.lead(Phone=PHONE, Mobile=PHONE)
    assert duplicates(zoho) == []


def test_point_39_messages_with_one_id_are_duplicates() -> None:
    """Two messages with the same id are reported, where the field does not forbid them."""
    zoho = Zoho()
    zoho.engine.steps.set_field("Messages", "Message_ID", unique=None)
    zoho.message("m1", Name="a")
    zoho.message("m1", Name="b")
    assert duplicates(zoho) == [("messages_same_id", "m1")]


def test_point_39_a_lead_beside_a_contact_is_reported() -> None:
    """A lead made for a number that a contact has already is reported; a lead that was there first is not."""
    zoho = Zoho()
    zoho.lead(Phone="+14155550199")
    zoho.insert("Contacts", {"Last_Name": "A", "Mobile": PHONE}, {"Last_Name": "B", "Phone": "+14155550199"})
    assert duplicates(zoho) == []
    zoho.lead(Phone=PHONE)
    assert duplicates(zoho) == [("lead_beside_contact", "14155550100")]


def test_point_39_converted_leads_and_what_a_test_made_are_no_duplicates() -> None:
    """A converted lead is closed, and duplicates that were there before the client are not its fault."""
    zoho = Zoho()
    zoho.engine.steps.insert("Leads", [{"Last_Name": "A", "Phone": PHONE}] * 2)
    assert duplicates(zoho) == []
    zoho.engine.steps.convert(zoho.lead(Phone="+14155550199"))
    assert duplicates(zoho) == []


def test_point_39_records_can_be_seeded_and_dumped() -> None:
    """A test can put records in and take all of them out."""
    zoho = Zoho()
    remote = Remote(zoho)
    status, answer = remote.ask("POST", "/steps/insert", {"module": "Leads", "records": [{"Last_Name": "A"}]})
    assert status == 200
    assert [record["id"] for record in remote.get("/dump/Leads")] == answer["result"]
    assert zoho.engine.journal.effects[-1].call == 0


def test_point_39_records_can_be_changed_by_a_user() -> None:
    """A test can change a record as a user would; what Zoho would refuse is refused."""
    zoho = Zoho()
    lead_id = zoho.lead()
    remote = Remote(zoho)
    step = {"module": "Leads", "record_id": lead_id}
    assert remote.ask("POST", "/steps/update", {**step, "changes": {"Company": "C"}})[0] == 200
    assert zoho.dump("Leads")[0]["Company"] == "C"
    assert remote.ask("POST", "/steps/update", {**step, "changes": {"Phone": "?"}})[0] == 400


def test_point_39_call_log_tells_the_code_of_an_error() -> None:
    """An error's code stands in the log, for API and token calls."""
    zoho = Zoho()
    zoho.get("Nothing")
    zoho.token_call(refresh_token="x")
    zoho.get("org")
    assert [entry.code for entry in zoho.engine.journal.calls] == ["INVALID_MODULE", "invalid_code", None]


def test_point_39_faults_are_planned_and_counted() -> None:
    """A fault is planned as JSON and tells how often it fired."""
    zoho = Zoho()
    remote = Remote(zoho)
    plan = {"action": {"kind": "drop", "how": "reset"}, "match": {"operation": "org"}, "times": 2, "name": "lost"}
    assert remote.ask("POST", "/faults", plan)[0] == 200
    assert zoho.get("org").drop is DropKind.RESET
    assert remote.get("/faults") == [{"name": "lost", "action": "Drop", "times": 2, "seen": 1, "fired": 1}]
    assert remote.ask("DELETE", "/faults") == (200, [])
    assert zoho.get("org").drop is None


@pytest.mark.parametrize(
    "action",
    [
        {"kind": "answer", "status": 502, "body": "<html>", "commit": True},
        {"kind": "throttle", "form": "trace", "retry_after": "5"},
        {"kind": "drop", "how": "hang", "commit": False},
        {"kind": "late_effect", "effect_after_s": 5, "how": "cut"},
        {"kind": "garble"},
        {"kind": "fail_row", "code": "RECORD_LOCKED", "index": 0},
        {"kind": "slow", "extra_s": 3},
        {"kind": "meddle", "do": "expire_access_tokens", "when": "after"},
    ],
    ids=lambda action: action["kind"],
)
def test_point_39_every_action_has_a_json_form(action: Json) -> None:
    """Each action can be planned from another process."""
    zoho = Zoho()
    zoho.engine.faults.add(fault_from_json({"action": action}))
    zoho.insert("Leads", {"Last_Name": "A"})
    assert zoho.engine.faults.faults[0].fired == 1


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("GET", "/nothing", None, 404),
        ("POST", "/steps/nothing", {}, 400),
        ("POST", "/steps/_module", {"name": "Leads"}, 400),
        ("POST", "/steps/run", {"name": "x", "args": {}}, 400),
        ("POST", "/steps/insert", {"module": "Nothing", "records": []}, 400),
        ("POST", "/steps/insert", {"module": "Leads", "records": [{"Phone": "?"}]}, 400),
        ("POST", "/steps/delete", {"modul": "Leads"}, 400),
        ("POST", "/config", {"latency": 1}, 400),
        ("POST", "/faults", {"action": {"kind": "magic"}}, 400),
        ("POST", "/faults", {"action": {"kind": "drop", "how": "softly"}}, 400),
        ("POST", "/faults", {}, 400),
        ("GET", "/dump/Nothing", None, 400),
    ],
)
def test_point_39_wrong_use_of_the_control_api_is_told(method: str, path: str, body: Any, status: int) -> None:
    """A mistake in a test is an error with a reason, not a silent nothing."""
    answered, answer = Remote(Zoho()).ask(method, path, body)
    assert answered == status
    assert answer["error"]


def test_point_39_configuration_can_be_changed_at_run_time() -> None:
    """Limits, lags and switches change from one call to the next."""
    zoho = Zoho()
    remote = Remote(zoho)
    remote.ask("POST", "/config", {"search_lag_s": [5, 6], "daily_credits": 0, "chaos": {"garbled": 0.5}})
    shown = remote.get("/config")
    assert (shown["search_lag_s"], shown["daily_credits"], shown["chaos"]["garbled"]) == ([5.0, 6.0], 0, 0.5)
    assert zoho.get("org").status == 429


def test_point_39_clock_can_be_advanced_and_everything_reset() -> None:
    """Time can be moved, and the organisation made new with the same credentials."""
    zoho = Zoho()
    remote = Remote(zoho)
    zoho.lead()
    credentials = zoho.engine.credentials
    assert remote.ask("POST", "/clock", {"advance_s": 30})[0] == 200
    assert remote.clock() == START_S + 30
    remote.ask("POST", "/reset", {})
    assert zoho.dump("Leads") == []
    assert zoho.engine.journal.calls == []
    assert zoho.engine.credentials == credentials
    assert "access_token" in zoho.token_call().json()


# 40: seed and clock


def whole_day(seed: int) -> tuple[list[Any], list[Json]]:
    """Some of everything; what was answered, and what is stored."""
    zoho = Zoho(seed=seed, latency_median_s=0.4, search_lag_s=(20.0, 120.0))
    answers = []
    for number in range(40):
        answers.append(zoho.upsert("Leads", {"Last_Name": f"L{number}", "Phone": f"+1415555{number:04}"}))
        answers.append(zoho.search("Leads", phone=f"+1415555{max(0, number - 3):04}"))
        answers.append(zoho.token_call())
        zoho.clock.advance(20)
    return answers, zoho.dump("Leads")


def test_point_40_same_seed_same_run() -> None:
    """Ids, tokens, latencies and lags follow from the seed alone."""
    assert whole_day(5) == whole_day(5)
    assert whole_day(5) != whole_day(6)


def test_point_40_only_the_given_clock_counts() -> None:
    """A day, an hour and ten minutes pass as fast as the test moves the clock."""
    zoho = Zoho(daily_credits=1, search_lag_s=(60.0, 60.0))
    zoho.lead(Phone=PHONE)
    zoho.clock.advance(86_400)
    assert zoho.get("org").status == 401
    zoho.token = zoho.token_call().json()["access_token"]
    assert zoho.search("Leads", phone=PHONE).status == 200


@pytest.mark.parametrize(("effect_at", "stored"), [("begin", 1), ("finish", 0)])
def test_point_40_moment_of_the_effect_is_documented(effect_at: str, stored: int) -> None:
    """A call takes effect when it begins, or by switch when it ends."""
    zoho = Zoho(effect_at=effect_at)
    flight = zoho.engine.begin(zoho.request("POST", "Leads", {"data": [{"Last_Name": "A"}]}))
    assert len(zoho.dump("Leads")) == stored
    assert zoho.engine.finish(flight).status == 201
    assert len(zoho.dump("Leads")) == 1


# The wire without sockets


async def test_wire_lets_latency_pass() -> None:
    """Calls overlap while their latency passes."""
    zoho = Zoho(latency_median_s=0.001)
    wire = Wire(zoho.engine)
    answers = await asyncio.gather(*(wire.send(zoho.request("GET", "org")) for _ in range(5)))
    assert [answer.status for answer in answers] == [200] * 5
    assert zoho.engine.journal.peak_in_flight == 5


@pytest.mark.parametrize(
    ("how", "raised"), [(DropKind.RESET, ConnectionResetError), (DropKind.CUT, asyncio.IncompleteReadError)]
)
async def test_wire_breaks_as_a_connection_does(how: DropKind, raised: type[Exception]) -> None:
    """A dropped connection is the exception that sockets would raise."""
    zoho = Zoho()
    zoho.plan(Drop(how=how))
    with pytest.raises(raised):
        await Wire(zoho.engine).send(zoho.request("GET", "org"))


async def test_wire_hangs_until_the_caller_gives_up() -> None:
    """A hanging call never answers, but has given its slot back."""
    zoho = Zoho()
    zoho.plan(Drop(how=DropKind.HANG))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await Wire(zoho.engine).send(zoho.request("GET", "org"))
    assert zoho.engine.gate.concurrency.in_flight == 0


async def test_wire_finishes_a_call_that_nobody_waits_for() -> None:
    """A caller that gives up leaves its call running; it holds its slot to the end, and has its effect."""
    zoho = Zoho(latency_median_s=0.05, effect_at="finish")
    wire = Wire(zoho.engine)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.001):
            await wire.send(zoho.request("POST", "Leads", {"data": [{"Last_Name": "A"}]}))
    assert zoho.engine.gate.concurrency.in_flight == 1
    await wire.drain()
    assert zoho.engine.gate.concurrency.in_flight == 0
    assert len(zoho.dump("Leads")) == 1


# Whatever comes

ODD = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.text(max_size=8) | st.floats(allow_nan=False),
    lambda each: st.lists(each, max_size=3) | st.dictionaries(st.text(max_size=4), each, max_size=3),
    max_leaves=4,
)
PARENT = {"module": {"api_name": "Leads"}, "id": "LEAD"}
FIELD: Json = {
    "field_label": "F",
    "data_type": "text",
    "length": 5,
    "unique": {"case_sensitive": True},
    "pick_list_values": [{"actual_value": "a"}],
    "lookup": {"module": {"api_name": "Leads"}},
    "textarea": {"type": "small"},
}
MODULE: Json = {
    "singular_label": "Chat",
    "plural_label": "Chats",
    "api_name": "Chats",
    "profiles": [{"id": "1"}],
    "display_field": {"field_label": "N", "data_type": "text"},
}
ROWS: Json = {
    "data": [{"id": "LEAD", "Last_Name": "A", "Name": "A", "Owner": {"id": "1"}, "Lead": {"id": "LEAD"}}],
    "trigger": ["workflow"],
    "lar_id": "1",
    "duplicate_check_fields": ["Email"],
}
SUB = {"sub_request_id": "s", "method": "POST", "uri": "/crm/v8/Leads?a=b", "params": {"a": "b"}, "body": ROWS}
SOUND: list[tuple[str, str, Json]] = [
    ("POST", "Leads", ROWS),
    ("PUT", "Leads", ROWS),
    ("PUT", "Leads/LEAD", ROWS),
    ("POST", "Leads/upsert", ROWS),
    ("POST", "Messages/upsert", ROWS),
    ("POST", "Leads/LEAD/actions/convert", {"data": [{"Contacts": {"id": "1"}}]}),
    ("POST", "Notes", {"data": [{"Note_Title": "T", "Note_Content": "C", "Parent_Id": PARENT, "se_module": "Leads"}]}),
    ("POST", "Leads/LEAD/Notes", {"data": [{"Note_Title": "T", "Note_Content": "C"}]}),
    ("POST", "coql", {"select_query": "select id from Leads where id = 1"}),
    ("POST", "settings/modules", {"modules": [MODULE]}),
    ("POST", "settings/fields", {"fields": [FIELD]}),
    ("PATCH", "settings/fields", {"fields": [{"id": "1", **FIELD}]}),
    ("POST", "__composite_requests", {"rollback_on_fail": True, "__composite_requests": [SUB]}),
]


def spots(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path of every value within a JSON value."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(spot for key, each in inner for spot in spots(each, (*path, key)))]


def with_change(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    if not path:
        return new
    copy = value.copy()
    copy[path[0]] = with_change(value[path[0]], path[1:], new)
    return copy


@st.composite
def almost_sound(draw: st.DrawFn) -> tuple[str, str, Any]:
    """A request in which one value has been replaced by something odd."""
    method, path, body = draw(st.sampled_from(SOUND))
    return method, path, with_change(body, draw(st.sampled_from(spots(body))), draw(ODD))


@given(almost_sound())
def test_no_body_breaks_the_engine(request: tuple[str, str, Any]) -> None:
    """A body that is wrong in one place gets an answer in Zoho's form."""
    zoho = Zoho()
    method, path, body = request
    lead_id = zoho.lead()
    sent = orjson.loads(orjson.dumps(body).replace(b"LEAD", lead_id.encode()))
    params = {"module": "Messages"} if path == "settings/fields" else {}
    answer = zoho.call(method, path.replace("LEAD", lead_id), sent, **params)
    assert 200 <= answer.status < 500
    assert isinstance(answer.json(), dict)


PARAMS = ["fields", "page", "per_page", "page_token", "phone", "criteria", "word", "email", "ids", "module", "type"]
SEGMENTS = ["Leads", "Notes", "coql", "org", "users", "settings", "search", "deleted", "1"]


@given(
    st.sampled_from(["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD"]),
    st.lists(st.sampled_from(SEGMENTS) | st.text(max_size=4), max_size=4),
    st.dictionaries(st.sampled_from([*PARAMS, "sort_by", "converted"]), st.text(max_size=6)),
)
def test_no_path_breaks_the_engine(method: str, segments: list[str], params: dict[str, str]) -> None:
    """Whatever path and parameters come, there is an answer in Zoho's form, and no slot is lost."""
    zoho = Zoho(unknown_params="ignore")
    path = "/crm/v8/" + "/".join(segments)
    answer = zoho.engine.handle(Request.build(method, path, token=zoho.token, params=params, json={}))
    assert 200 <= answer.status < 500
    assert answer.body == b"" or isinstance(answer.json(), dict)
    assert zoho.engine.gate.concurrency.in_flight == 0


def test_header_names_have_no_case() -> None:
    """Headers are found in any case."""
    zoho = Zoho()
    headers = {"AUTHORIZATION": f"Zoho-oauthtoken {zoho.token}"}
    assert zoho.engine.handle(Request("GET", "/crm/v8/org", headers=headers)).status == 200


def test_engine_has_a_default_configuration() -> None:
    """Without a configuration the defaults hold."""
    engine = ZohoEngine(now=lambda: START_S)
    assert engine.config == SandboxConfig()
    with pytest.raises(StepError):
        engine.steps.run("nothing", {})


def test_ids_of_deleted_records_never_come_back() -> None:
    """A new record gets a new id."""
    zoho = Zoho()
    first = zoho.lead()
    zoho.call("DELETE", f"Leads/{first}")
    assert ids(zoho.insert("Leads", {"Last_Name": "A"}))[0] > first
