"""What an answer of Zoho means: the one table from code to what we do about it.

Zoho's status is no guide (a 200 may hide failures, a 400 may hold successes), so the code in the body decides and the
status only fills in where there is none.  docs/zoho.md lists the sources.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any, NamedTuple

from consumer.core.errors import HaltedError, RefusedError, SyncError, ThrottledError, TokenRefusedError, TransientError
from consumer.core.model import Deferred, Rejected, Stage


class Kind(Enum):
    """What we can do about a code."""

    TOKEN = auto()
    """Refresh once, then repeat."""
    THROTTLED = auto()
    """Fewer calls."""
    TRANSIENT = auto()
    """Again, with backoff."""
    HALTED = auto()
    """Not the record's fault: wait, and say so."""
    REFUSED = auto()
    """The record's own fault: dead letter."""
    UNKNOWN = auto()
    """Not in the table: tried a few times; dead-lettered only when it strikes few records of a batch."""


@dataclass(frozen=True, slots=True)
class _Meaning:
    kind: Kind
    advice: str = ""


_SCOPE = "Run `zoho-sync auth` again: the refresh token was made without a scope that this service needs."
_RIGHTS = "Give the Zoho user of the refresh token (its profile and role) the right to read and write this module."
_MODULE = (
    "Check ZOHO_MESSAGES_MODULE against Zoho: Setup > Modules and Fields; `zoho-sync setup` creates what is missing."
)
_LIMIT = "A limit of the organisation is reached (records, storage, licences): see Zoho under Setup > Developer Hub."
_HOST = "Check ZOHO_API_DOMAIN: another data centre, or a sandbox or developer organisation, has another host."

TABLE: dict[str, _Meaning] = {
    "INVALID_TOKEN": _Meaning(Kind.TOKEN),
    "AUTHENTICATION_FAILURE": _Meaning(Kind.TOKEN),
    "INVALID_OAUTHTOKEN": _Meaning(Kind.TOKEN),
    "TOO_MANY_REQUESTS": _Meaning(Kind.THROTTLED),
    "RATE_LIMIT_EXCEEDED": _Meaning(Kind.THROTTLED),
    "INTERNAL_ERROR": _Meaning(Kind.TRANSIENT),
    "INTERNAL_SERVER_ERROR": _Meaning(Kind.TRANSIENT),
    "SERVICE_UNAVAILABLE": _Meaning(Kind.TRANSIENT),
    "BAD_GATEWAY": _Meaning(Kind.TRANSIENT),
    "REQUEST_TIMEOUT": _Meaning(Kind.TRANSIENT),
    "RECORD_LOCKED": _Meaning(Kind.TRANSIENT),
    "ALREADY_MODIFIED": _Meaning(Kind.TRANSIENT),
    "RECORD_MODIFIED": _Meaning(Kind.TRANSIENT),
    "DEPENDENT_SERVICE_ERROR": _Meaning(Kind.TRANSIENT),
    "PROCESSING_STOPPED": _Meaning(Kind.TRANSIENT),
    "ROLLBACK_PERFORMED": _Meaning(Kind.TRANSIENT),
    "OAUTH_SCOPE_MISMATCH": _Meaning(Kind.HALTED, _SCOPE),
    "NO_PERMISSION": _Meaning(Kind.HALTED, _RIGHTS),
    "AUTHORIZATION_FAILED": _Meaning(Kind.HALTED, _RIGHTS),
    "CRM_PLUS_NOT_SUPPORTED": _Meaning(Kind.HALTED, _RIGHTS),
    "INVALID_MODULE": _Meaning(Kind.HALTED, _MODULE),
    "INVALID_URL_PATTERN": _Meaning(Kind.HALTED, _HOST),
    "INVALID_REQUEST_METHOD": _Meaning(Kind.HALTED, _HOST),
    "INVALID_REQUEST": _Meaning(Kind.HALTED, _HOST),
    "API_NOT_SUPPORTED": _Meaning(Kind.HALTED, _MODULE),
    "NOT_SUPPORTED": _Meaning(Kind.HALTED, _MODULE),
    "FEATURE_NOT_ENABLED": _Meaning(Kind.HALTED, _RIGHTS),
    "METHOD_NOT_ALLOWED": _Meaning(Kind.HALTED, _HOST),
    "UNSUPPORTED_MEDIA_TYPE": _Meaning(Kind.HALTED, _HOST),
    "REQUEST_ENTITY_TOO_LARGE": _Meaning(Kind.REFUSED),
    "INVALID_DATA": _Meaning(Kind.REFUSED),
    "DUPLICATE_DATA": _Meaning(Kind.REFUSED),
    "MULTIPLE_OR_MULTI_ERRORS": _Meaning(Kind.REFUSED),
    "MANDATORY_NOT_FOUND": _Meaning(Kind.REFUSED),
    "EXPECTED_FIELD_MISSING": _Meaning(Kind.REFUSED),
    "DEPENDENT_FIELD_MISSING": _Meaning(Kind.REFUSED),
    "DEPENDENT_MISMATCH": _Meaning(Kind.REFUSED),
    "NOT_APPROVED": _Meaning(Kind.REFUSED),
    "NOT_ALLOWED": _Meaning(Kind.REFUSED),
    "RECORD_IN_BLUEPRINT": _Meaning(Kind.REFUSED),
    "CONVERTED_RECORD": _Meaning(Kind.REFUSED),
    "ID_ALREADY_CONVERTED": _Meaning(Kind.REFUSED),
    "INVALID_QUERY": _Meaning(Kind.REFUSED),
    "SYNTAX_ERROR": _Meaning(Kind.REFUSED),
    "EXPECTED_PARAM_MISSING": _Meaning(Kind.REFUSED),
    "REQUIRED_PARAM_MISSING": _Meaning(Kind.REFUSED),
    "FIELD_TYPE_UNAVAILABLE": _Meaning(Kind.REFUSED),
    "LIMIT_EXCEEDED": _Meaning(Kind.HALTED, _LIMIT),
    "LICENSE_LIMIT_EXCEEDED": _Meaning(Kind.HALTED, _LIMIT),
    "STORAGE_LIMIT_EXCEEDED": _Meaning(Kind.HALTED, _LIMIT),
    "CRITERIA_LIMIT_EXCEEDED": _Meaning(Kind.REFUSED),
    "DISCRETE_PAGINATION_LIMIT_EXCEEDED": _Meaning(Kind.REFUSED),
    "LIMIT_REACHED": _Meaning(Kind.REFUSED),
}

_BY_STATUS = {
    401: Kind.TOKEN,
    403: Kind.HALTED,
    404: Kind.HALTED,
    405: Kind.HALTED,
    408: Kind.TRANSIENT,
    412: Kind.TRANSIENT,
    413: Kind.REFUSED,
    415: Kind.HALTED,
    429: Kind.THROTTLED,
}

UNKNOWN_ADVICE = "Zoho answers with a code that this version does not know; look it up in Zoho's documentation."
_UNKNOWN = _Meaning(Kind.UNKNOWN)
_CODE = re.compile(r"[A-Z][A-Z0-9_]{1,59}")
_NAME = re.compile(r"[A-Za-z_]\w{0,49}", re.ASCII)
_PATH = re.compile(r"\$\.(?P<option>[A-Za-z_]\w{0,49})(\[\d+\])?(\.(?P<field>[A-Za-z_]\w{0,49}))?[\w.\[\]]*", re.ASCII)
_MAX_BODY_WAIT_S = 600.0


class RowAnswer(NamedTuple):
    """Zoho's answer for one record of a write."""

    is_ok: bool
    code: str
    id: str | None = None
    action: str | None = None
    """`insert` or `update`, of an upsert."""
    field: str | None = None
    """API name of the field that Zoho complains about."""
    duplicate_id: str | None = None
    duplicate_module: str | None = None
    hint: str = ""
    """Short and without the value: expected type or length."""
    maximum_length: int | None = None
    """How long the field's text may be, when it was too long."""
    is_lost_link: bool = False
    """The record that this one is to hang on is not there (any more)."""

    @property
    def kind(self) -> Kind:
        """What can be done about a failure."""
        return TABLE.get(self.code, _UNKNOWN).kind


@dataclass(frozen=True, slots=True)
class Fault:
    """The error object that stands for a whole call, in either of its envelopes: at the top, or alone in `data`."""

    code: str
    field: str | None = None
    is_of_record: bool = True
    """False when it names a part of the call that belongs to no record: an option beside `data`, a parameter."""
    wait_s: float | None = None


def error_of(
    status: int, code: str | None, *, is_write: bool, retry_after_s: float | None = None, fault: Fault | None = None
) -> SyncError:
    """The error of a whole call.  `code` is None when the body held none (HTML, empty, cut)."""
    meaning = TABLE.get(code or "")
    if status == 429 or (meaning and meaning.kind is Kind.THROTTLED):
        return ThrottledError(code or "HTTP_429", retry_after_s=retry_after_s)
    name = code or f"HTTP_{status}"
    kind = meaning.kind if meaning else _kind_of_status(status)
    if code == "LIMIT_EXCEEDED" and not is_write:
        kind = Kind.REFUSED  # a query that is too big, not a limit of the organisation: it is halved
    if status == 401 and kind in (Kind.REFUSED, Kind.UNKNOWN):
        kind = Kind.TOKEN
    if kind is Kind.TOKEN:
        return TokenRefusedError(name)
    if kind is Kind.TRANSIENT:
        late_s = None if status in _STILL_AT_IT else 0.0
        return TransientError(name, wrote_maybe=is_write, retry_after_s=retry_after_s, late_s=late_s)
    if kind is Kind.HALTED:
        return HaltedError(name, advice=meaning.advice if meaning else _HOST, retry_after_s=retry_after_s)
    field = fault.field if fault else None
    if is_write and fault is not None and not fault.is_of_record:
        return HaltedError(name, field or "", advice=_advice_on_option(field))
    return RefusedError(name, field or "", field=field, is_unknown=kind is Kind.UNKNOWN)


_STILL_AT_IT = (408, 504)
"""A gateway gave up waiting: what is behind it may go on."""


def _kind_of_status(status: int) -> Kind:
    if status >= 500 or status < 300:
        return Kind.TRANSIENT
    return Kind.HALTED if status < 400 else _BY_STATUS.get(status, Kind.UNKNOWN)


def _advice_on_option(name: str | None) -> str:
    known = {
        "duplicate_check_fields": "The field Message_ID must exist and be unique: run `zoho-sync setup`.",
        "lar_id": "Zoho does not know this assignment rule: check ZOHO_ASSIGNMENT_RULE_ID.",
        "trigger": "Zoho does not take these automations: check ZOHO_TRIGGERS.",
    }
    return known.get(name or "", "Zoho does not take the form of this call: see `zoho-sync doctor`.")


def fault_of(body: object, *, sent: int | None) -> Fault | None:
    """The fault of the whole call; None when the answer has to be read record by record.

    `sent` is the number of records that a write sent, None for a read: there an error in `data` is never a record.
    """
    if not isinstance(body, dict):
        return None
    if isinstance(body.get("code"), str):
        return None if body["code"] == "SUCCESS" else _fault(body)
    rows = body.get("data")
    errors = [row for row in rows if _is_error(row)] if isinstance(rows, list) else []
    if not errors or not isinstance(rows, list):
        return None
    if sent is None or (len(rows) == 1 and sent > 1):
        return _fault(errors[0])
    return _common_fault(errors) if len(errors) == len(rows) else None


def _is_error(row: object) -> bool:
    return isinstance(row, dict) and isinstance(row.get("code"), str) and row.get("status") == "error"


def _common_fault(errors: list[dict[str, Any]]) -> Fault | None:
    """Nothing was written, and most records name one cause that has nothing to do with records."""
    common = [row for row in errors if _kind_of(row) in (Kind.TOKEN, Kind.THROTTLED, Kind.HALTED)]
    return _fault(common[0]) if len(common) * 2 > len(errors) else None


def _kind_of(row: dict[str, Any]) -> Kind:
    return TABLE.get(_code(row["code"]), _UNKNOWN).kind


def _fault(error: dict[str, Any]) -> Fault:
    details = _details(error)
    path = _PATH.fullmatch(str(details.get("json_path") or ""))
    name = _name(details.get("api_name"))
    is_of_record = path is None or path["option"] == "data"
    wait_s = details.get("retry_after")
    return Fault(
        code=_code(error.get("code")),
        field=path["option"] if path and not is_of_record else _field(details),
        is_of_record=is_of_record and name not in ("lar_id", "trigger", "duplicate_check_fields"),
        wait_s=float(wait_s) if isinstance(wait_s, int) and 0 < wait_s <= _MAX_BODY_WAIT_S else None,
    )


def _details(error: dict[str, Any]) -> dict[str, Any]:
    details = error.get("details")
    return details if isinstance(details, dict) else {}


def _code(value: object) -> str:
    """Codes go into logs and metrics, so nothing but a code may pass."""
    return value if isinstance(value, str) and _CODE.fullmatch(value) else "UNREADABLE_CODE"


def row_answers(rows: list[dict[str, Any]], *, expected: int) -> list[RowAnswer]:
    """One answer for each record, in the order of the request (Zoho keeps it).

    Raises TransientError when their number differs: nobody can tell then which was written.
    """
    if len(rows) != expected:
        text = f"{len(rows)} answers for {expected} records"
        raise TransientError("ANSWER_INCOMPLETE", text, wrote_maybe=True, late_s=0.0)
    return [_row_answer(row) for row in rows]


def _row_answer(row: dict[str, Any]) -> RowAnswer:
    details = _details(row)
    code = _code(row.get("code"))
    if row.get("status") != "error" and (row.get("status") == "success" or code == "SUCCESS"):
        action = _text(row.get("action") or details.get("action"))
        return RowAnswer(is_ok=True, code="SUCCESS", id=_id(details), action=action)
    nested = details.get("errors")
    if isinstance(nested, list) and nested and isinstance(nested[0], dict):
        return _first_nested(code, nested)
    message = str(row.get("message") or "").lower()
    return _row_error(code, details)._replace(is_lost_link="related id" in message)


def _first_nested(code: str, nested: list[Any]) -> RowAnswer:
    """Several errors in one record: judged by its first duplicate, else by its first error."""
    answers = [_row_answer(error) for error in nested if isinstance(error, dict)]
    duplicates = [answer for answer in answers if answer.code == "DUPLICATE_DATA"]
    first = (duplicates or answers)[0]
    return first._replace(code=first.code if duplicates else code)


def _row_error(code: str, details: dict[str, Any]) -> RowAnswer:
    other = details.get("duplicate_record")
    other = other if isinstance(other, dict) else {}
    module = other.get("module")
    longest = details.get("maximum_length")
    is_length = isinstance(longest, int) and 0 < longest < 10**6
    kind = _name(details.get("expected_data_type"))
    hints = [f"expected_data_type={kind}"] if kind else []
    hints += [f"maximum_length={longest}"] if is_length else []
    return RowAnswer(
        is_ok=False,
        code=code,
        field=_field(details),
        duplicate_id=_id(other) or (_id(details) if code == "DUPLICATE_DATA" else None),
        duplicate_module=_text(module.get("api_name")) if isinstance(module, dict) else None,
        hint=" ".join(hints),
        maximum_length=longest if is_length else None,
    )


def _field(details: dict[str, Any]) -> str | None:
    """Zoho names the field, or only the `id` inside a lookup; then its path (`$.data[0].Lead.id`) tells which."""
    name = _name(details.get("api_name"))
    path = _PATH.fullmatch(str(details.get("json_path") or ""))
    return path["field"] if path and path["field"] and name in (None, "id") else name


def _name(value: object) -> str | None:
    """Only what looks like a name of the schema may be told; anything else may be somebody's number or text."""
    return value if isinstance(value, str) and _NAME.fullmatch(value) else None


def _id(details: dict[str, Any]) -> str | None:
    return _text(details.get("id"))


def _text(value: object) -> str | None:
    return str(value) if isinstance(value, (str, int)) and not isinstance(value, bool) and value != "" else None


TRIES_OF_UNKNOWN = 5


def outcome_of(answer: RowAnswer, stage: Stage, *, attempts: int) -> Rejected | Deferred:
    """What becomes of a message whose record Zoho did not take.

    After anything but a clear refusal the next attempt looks first: a record that "failed" has been seen to stand.
    """
    kind = answer.kind
    if kind is Kind.REFUSED or (kind is Kind.UNKNOWN and attempts >= TRIES_OF_UNKNOWN):
        return Rejected(stage, f"zoho.{answer.code}", " ".join(filter(None, (answer.field, answer.hint))))
    return Deferred(answer.code, wrote_maybe=True)


def outcome_of_refusal(error: RefusedError, stage: Stage, *, attempts: int) -> Rejected | Deferred:
    """What becomes of the one message of a call that was refused as a whole."""
    if error.is_unknown and attempts < TRIES_OF_UNKNOWN:
        return Deferred(error.code)
    return Rejected(stage, f"zoho.{error.code}", error.field or "")


def is_fault_of_ours(answers: list[RowAnswer]) -> bool:
    """Most records of a batch failed with a code that is in no table: hold them, don't dead-letter them."""
    unknown = sum(not answer.is_ok and answer.kind is Kind.UNKNOWN for answer in answers)
    return len(answers) > 1 and unknown * 2 > len(answers)
