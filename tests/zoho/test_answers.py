"""What an answer means: the one table, row by row, in every envelope and under every status."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict

from consumer.core.errors import (
    HaltedError,
    RefusedError,
    SyncError,
    ThrottledError,
    TokenRefusedError,
    TransientError,
)
from consumer.core.model import Deferred, Rejected, Stage
from consumer.zoho.answers import TABLE, TRIES_OF_UNKNOWN, Kind, RowAnswer, is_fault_of_ours, outcome_of, row_answers
from consumer.zoho.api import Call, Operation, Reply, write_call
from consumer.zoho.http import read_reply, reply_of

ERRORS: dict[Kind, type[SyncError]] = {
    Kind.TOKEN: TokenRefusedError,
    Kind.THROTTLED: ThrottledError,
    Kind.TRANSIENT: TransientError,
    Kind.HALTED: HaltedError,
    Kind.REFUSED: RefusedError,
}
READ = Call(Operation.FIND_PEOPLE, "POST", "/coql", body={"select_query": "…"})


def write(rows: int = 1) -> Call:
    return write_call(Operation.UPSERT_MESSAGES, "/Messages/upsert", [{}] * rows)


def error(code: str, message: str = "no", **details: Any) -> dict[str, Any]:
    return {"code": code, "details": details, "message": message, "status": "error"}


def success(record_id: str = "1", action: str | None = "insert") -> dict[str, Any]:
    return {"code": "SUCCESS", "action": action, "details": {"id": record_id}, "message": "ok", "status": "success"}


def failure(call: Call, status: int, body: Any) -> SyncError:
    with pytest.raises(SyncError) as caught:
        reply_of(call, status, body)
    return caught.value


@pytest.mark.parametrize("code", sorted(TABLE))
@pytest.mark.parametrize("status", [200, 202, 400, 403])
def test_every_code_of_the_table_as_the_answer_to_a_whole_call(code: str, status: int) -> None:
    """The code decides, at the top and for a read also within `data`; the status says nothing.

    LIMIT_EXCEEDED alone has two meanings: an organisation that is full, and a query that is too big.
    """
    kind = TABLE[code].kind
    of_read = RefusedError if code == "LIMIT_EXCEEDED" else ERRORS[kind]
    assert type(failure(READ, status, error(code))) is of_read
    assert type(failure(READ, status, {"data": [error(code)]})) is of_read
    assert type(failure(write(), status, error(code))) is ERRORS[kind]


@pytest.mark.parametrize("code", sorted(TABLE))
def test_every_code_of_the_table_as_the_answer_for_one_record(code: str) -> None:
    """Among records that were taken: refused is rejected, all else is tried again after a look."""
    reply = reply_of(write(3), 207, {"data": [success(), error(code, api_name="Body"), success()]})
    answers = row_answers(reply.rows(), expected=3)
    assert [answer.is_ok for answer in answers] == [True, False, True]
    outcome = outcome_of(answers[1], Stage.MESSAGE, attempts=99)
    if TABLE[code].kind is Kind.REFUSED:
        assert outcome == Rejected(Stage.MESSAGE, f"zoho.{code}", "Body")
    else:
        assert outcome == Deferred(code, wrote_maybe=True)


@pytest.mark.parametrize("code", sorted(code for code in TABLE if TABLE[code].kind is Kind.HALTED))
def test_a_halting_code_comes_with_advice(code: str) -> None:
    """Whoever reads it learns what to do."""
    assert TABLE[code].advice.endswith((".", "missing."))


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (301, HaltedError),
        (400, RefusedError),
        (401, TokenRefusedError),
        (403, HaltedError),
        (404, HaltedError),
        (405, HaltedError),
        (408, TransientError),
        (412, TransientError),
        (413, RefusedError),
        (415, HaltedError),
        (418, RefusedError),
        (429, ThrottledError),
        (500, TransientError),
        (502, TransientError),
        (503, TransientError),
        (504, TransientError),
    ],
)
@pytest.mark.parametrize("raw", [b"", b"<html><h1>Sorry</h1></html>", b'{"data":[{"co', b"null", b"[]", b'"x"'])
def test_without_a_code_the_status_fills_in(status: int, expected: type[SyncError], raw: bytes) -> None:
    """HTML, cut and empty bodies."""
    for call in (READ, write()):
        with pytest.raises(SyncError) as caught:
            read_reply(call, status, CIMultiDict(), raw)
        assert type(caught.value) is expected
        if isinstance(caught.value, TransientError):
            assert caught.value.wrote_maybe == (call.is_write and status != 429)


@pytest.mark.parametrize("status", [200, 201, 202, 207])
@pytest.mark.parametrize("raw", [b"", b"<html>", b'{"data":[{"co', b"[]", b"7"])
def test_a_success_that_cannot_be_read_is_a_lost_answer(status: int, raw: bytes) -> None:
    """A write may have happened."""
    with pytest.raises(TransientError) as caught:
        read_reply(write(), status, CIMultiDict(), raw)
    assert (caught.value.code, caught.value.wrote_maybe) == ("UNREADABLE_ANSWER", True)


def test_nothing_found_is_no_error() -> None:
    """204 has no body."""
    assert read_reply(READ, 204, CIMultiDict(), b"") == Reply(204, None)


@pytest.mark.parametrize("status", [200, 201, 202, 207, 400, 403, 412])
def test_records_are_read_one_by_one_under_any_status(status: int) -> None:
    """A 200 may hide failures, a 400 may hold successes."""
    rows = [success("7", "update"), error("INVALID_DATA", api_name="Body", maximum_length=100)]
    answers = row_answers(reply_of(write(2), status, {"data": rows}).rows(), expected=2)
    assert (answers[0].id, answers[0].action) == ("7", "update")
    assert (answers[1].code, answers[1].field, answers[1].maximum_length) == ("INVALID_DATA", "Body", 100)


def test_a_server_error_with_records_is_a_lost_answer() -> None:
    """A 500 says that something went wrong, whatever its body says."""
    found = failure(write(2), 500, {"data": [success(), success()]})
    assert isinstance(found, TransientError)
    assert found.wrote_maybe


@pytest.mark.parametrize("kind", [Kind.TOKEN, Kind.THROTTLED, Kind.HALTED])
@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize("status", [200, 207, 400, 401, 403])
def test_one_cause_for_all_records_is_the_calls_own(kind: Kind, rows: int, status: int) -> None:
    """An error envelope within `data`, once or for each record: nothing was written, and no record is at fault."""
    code = next(code for code in TABLE if TABLE[code].kind is kind)
    assert type(failure(write(3), status, {"data": [error(code)] * rows})) is ERRORS[kind]


def test_one_error_for_several_records_is_about_the_call() -> None:
    """An envelope within `data`: the call is refused, and can be split."""
    assert isinstance(failure(write(3), 400, {"data": [error("INVALID_DATA")]}), RefusedError)
    assert len(reply_of(write(1), 400, {"data": [error("INVALID_DATA")]}).rows()) == 1


def test_a_cause_that_strikes_some_records_stays_theirs() -> None:
    """Where others were taken, a missing right is tried again for those that it struck."""
    reply = reply_of(write(3), 207, {"data": [success(), error("NO_PERMISSION"), error("NO_PERMISSION")]})
    assert len(reply.rows()) == 3


@pytest.mark.parametrize("rows", [0, 1, 2, 4])
def test_another_number_of_answers_than_records_is_a_lost_answer(rows: int) -> None:
    """Nobody can tell then which was written."""
    with pytest.raises(TransientError) as caught:
        row_answers([success()] * rows, expected=3)
    assert caught.value.wrote_maybe


def test_answers_that_are_no_objects_are_missing() -> None:
    """A null in place of an answer is no answer."""
    reply = reply_of(write(2), 200, {"data": [success(), None]})
    with pytest.raises(TransientError):
        row_answers(reply.rows(), expected=2)


def test_a_status_that_contradicts_its_code_is_no_success() -> None:
    """`status: error` under SUCCESS is not believed."""
    [answer] = row_answers([success() | {"status": "error"}], expected=1)
    assert not answer.is_ok


def test_an_error_object_is_never_taken_for_a_record() -> None:
    """A read that is refused under `data` has no rows."""
    assert isinstance(failure(READ, 400, {"data": [error("INVALID_QUERY")]}), RefusedError)


@pytest.mark.parametrize(
    ("details", "field"),
    [
        ({"api_name": "Body", "json_path": "$.data[3].Body"}, "Body"),
        ({"api_name": "id", "json_path": "$.data[3].Lead.id"}, "Lead"),
        ({"json_path": "$.data[3].Parent_Id.id"}, "Parent_Id"),
        ({"api_name": "Body"}, "Body"),
        ({}, None),
        ({"api_name": "call +79161234567 now"}, None),
    ],
)
def test_the_field_that_zoho_complains_about(details: dict[str, Any], field: str | None) -> None:
    """By name or by path; anything that is no name is not told."""
    [answer] = row_answers([error("INVALID_DATA", **details)], expected=1)
    assert answer.field == field


@pytest.mark.parametrize(
    ("details", "expected"),
    [
        ({"id": "5"}, ("5", None, None)),
        ({"api_name": "Phone", "id": "5"}, ("5", None, "Phone")),
        (
            {"api_name": "Phone", "duplicate_record": {"id": "6", "module": {"api_name": "Contacts"}}},
            ("6", "Contacts", "Phone"),
        ),
        ({"api_name": "Phone"}, (None, None, "Phone")),
    ],
)
def test_the_duplicate_in_each_of_its_forms(details: dict[str, Any], expected: tuple[Any, ...]) -> None:
    """Zoho's new form, its older ones, and without an id."""
    [answer] = row_answers([error("DUPLICATE_DATA", **details)], expected=1)
    assert (answer.duplicate_id, answer.duplicate_module, answer.field) == expected


def test_several_errors_of_one_record_are_judged_by_the_duplicate() -> None:
    """A record that exists is found, whatever else is wrong with it."""
    nested = [error("INVALID_DATA", api_name="Body"), error("DUPLICATE_DATA", api_name="Message_ID", id="9")]
    [answer] = row_answers([error("MULTIPLE_OR_MULTI_ERRORS", errors=nested)], expected=1)
    assert (answer.code, answer.duplicate_id, answer.field) == ("DUPLICATE_DATA", "9", "Message_ID")


@pytest.mark.parametrize(
    ("name", "word"),
    [("lar_id", "ZOHO_ASSIGNMENT_RULE_ID"), ("trigger", "ZOHO_TRIGGERS"), ("duplicate_check_fields", "setup")],
)
def test_a_refused_option_halts_and_names_the_setting(name: str, word: str) -> None:
    """An option beside the records is nobody's record."""
    found = failure(write(5), 400, error("INVALID_DATA", api_name=name, json_path=f"$.{name}[0]"))
    assert isinstance(found, HaltedError)
    assert word in found.advice


@pytest.mark.parametrize("code", ["BRAND_NEW", "INVALID_DATA"])
def test_a_401_is_about_the_token_whatever_its_code(code: str) -> None:
    """Unless the code says that it is a scope."""
    assert isinstance(failure(READ, 401, error(code)), TokenRefusedError)
    assert isinstance(failure(READ, 401, error("OAUTH_SCOPE_MISMATCH")), HaltedError)


def test_an_unknown_code_is_refused_and_marked() -> None:
    """For a whole call and for a record; tried a few times before it is rejected."""
    found = failure(write(), 400, error("BRAND_NEW"))
    assert isinstance(found, RefusedError)
    assert found.is_unknown
    answer = RowAnswer(is_ok=False, code="BRAND_NEW")
    assert isinstance(outcome_of(answer, Stage.NOTE, attempts=TRIES_OF_UNKNOWN - 1), Deferred)
    assert isinstance(outcome_of(answer, Stage.NOTE, attempts=TRIES_OF_UNKNOWN), Rejected)


@pytest.mark.parametrize(
    ("unknown", "known", "taken", "ours"),
    [(1, 0, 0, False), (2, 0, 0, True), (6, 0, 4, True), (5, 0, 5, False), (1, 9, 0, False)],
)
def test_an_unknown_code_for_most_of_a_batch_is_not_the_records_fault(
    unknown: int, known: int, taken: int, ours: bool
) -> None:
    """One alone may be at fault itself; most of a batch is not."""
    answers = [RowAnswer(is_ok=False, code="BRAND_NEW")] * unknown
    answers += [RowAnswer(is_ok=False, code="INVALID_DATA")] * known + [RowAnswer(is_ok=True, code="SUCCESS")] * taken
    assert is_fault_of_ours(answers) == ours


@pytest.mark.parametrize(
    ("headers", "details", "expected"),
    [
        ({"Retry-After": "17"}, {}, 17.0),
        ({"retry-after": "17"}, {"retry_after": 60}, 17.0),
        ({}, {"retry_after": 60}, 60.0),
        ({}, {"retry_after": 10**9}, None),
        ({}, {"retry_after": "soon"}, None),
        ({"Retry-After": "soon"}, {}, None),
        ({"Retry-After": "²"}, {}, None),
        ({"Retry-After": "999999999"}, {}, 86_400.0),
        ({"Retry-After": "Thu, 01 Jan 1970 00:00:00 GMT"}, {}, 0.0),
        ({}, {}, None),
    ],
)
def test_how_long_zoho_asks_to_wait(headers: dict[str, str], details: dict[str, Any], expected: float | None) -> None:
    """By header in both of its forms, by the body where there is no header; nonsense is no wait."""
    import orjson

    with pytest.raises(ThrottledError) as caught:
        read_reply(READ, 429, CIMultiDict(headers), orjson.dumps(error("TOO_MANY_REQUESTS", **details)))
    assert caught.value.retry_after_s == expected


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=8), st.sampled_from(sorted(TABLE))),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.sampled_from(["code", "data", "status", "details", "errors", "id", "api_name", "info"]), inner
        ),
    ),
    max_leaves=12,
)


@given(JSON, st.integers(200, 599), st.booleans())
def test_no_answer_whatsoever_surprises(body: Any, status: int, is_write: bool) -> None:
    """Any JSON under any status is a reply or one of our errors, and each error's code can stand in a metric."""
    call = write(2) if is_write else READ
    code = "OK"
    try:
        reply = reply_of(call, status, body)
        if is_write:
            row_answers(reply.rows(), expected=2)
        reply.has_more()
        reply.next_page_token()
    except SyncError as found:
        code = found.code
    assert re.fullmatch(r"[A-Z0-9_]{2,60}", code)
