"""What an answer of Zoho means: the one table from code to what we do about it.

Zoho's status is no guide (a 200 may hide failures, a 400 may hold successes), so the code in the body decides and the
status only fills in where there is none.  docs/zoho.md lists the sources.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from enum import Enum, auto
from typing import Any

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
    "CRITERIA_LIMIT_EXCEEDED": _Meaning(Kind.REFUSED),
    "LIMIT_REACHED": _Meaning(Kind.REFUSED),
}

_BY_STATUS = {
    401: Kind.TOKEN,
    403: Kind.HALTED,
    404: Kind.HALTED,
    405: Kind.HALTED,
    408: Kind.TRANSIENT,
    413: Kind.REFUSED,
    429: Kind.THROTTLED,
}

_UNKNOWN = _Meaning(Kind.UNKNOWN)


@dataclass(frozen=True, slots=True)
class RowAnswer:
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

    @property
    def kind(self) -> Kind:
        """What can be done about a failure."""
        return TABLE.get(self.code, _UNKNOWN).kind


def error_of(status: int, code: str | None, *, is_write: bool, retry_after_s: float | None = None) -> SyncError:
    """The error of a whole call.  `code` is None when the body held none (HTML, empty, cut)."""
    meaning = TABLE.get(code or "")
    if status == 429 or (meaning and meaning.kind is Kind.THROTTLED):
        return ThrottledError(code or "HTTP_429", retry_after_s=retry_after_s)
    name = code or f"HTTP_{status}"
    kind = meaning.kind if meaning else _kind_of_status(status)
    if status == 401 and kind is Kind.REFUSED:
        kind = Kind.TOKEN
    if kind is Kind.TOKEN:
        return TokenRefusedError(name)
    if kind is Kind.TRANSIENT:
        return TransientError(name, wrote_maybe=is_write, retry_after_s=retry_after_s)
    if kind is Kind.HALTED:
        return HaltedError(name, advice=meaning.advice if meaning else _HOST, retry_after_s=retry_after_s)
    return RefusedError(name)


def _kind_of_status(status: int) -> Kind:
    if status >= 500 or status < 300:
        return Kind.TRANSIENT
    return Kind.HALTED if status < 400 else _BY_STATUS.get(status, Kind.UNKNOWN)


def code_of(body: object) -> str | None:
    """The code of an error envelope in either of its shapes: at the top, or alone in `data`.

    None when the body holds records or per-record answers that have to be read one by one.
    """
    if not isinstance(body, dict):
        return None
    if isinstance(body.get("code"), str):
        return str(body["code"])
    rows = body.get("data")
    if isinstance(rows, list) and len(rows) == 1 and isinstance(rows[0], dict):
        code = rows[0].get("code")
        if isinstance(code, str) and TABLE.get(code, _UNKNOWN).kind in (Kind.TOKEN, Kind.THROTTLED, Kind.HALTED):
            return code
    return None


def row_answers(rows: list[dict[str, Any]], *, expected: int) -> list[RowAnswer]:
    """One answer for each record, in the order of the request (Zoho keeps it).

    Raises TransientError when their number differs: nobody can tell then which was written.
    """
    if len(rows) != expected:
        raise TransientError("ANSWER_INCOMPLETE", f"{len(rows)} answers for {expected} records", wrote_maybe=True)
    return [_row_answer(row) for row in rows]


def _row_answer(row: dict[str, Any]) -> RowAnswer:
    given = row.get("details")
    details: dict[str, Any] = given if isinstance(given, dict) else {}
    code = str(row.get("code") or "NO_CODE")
    if row.get("status") == "success" or code == "SUCCESS":
        return RowAnswer(
            is_ok=True, code=code, id=_id(details), action=_text(row.get("action") or details.get("action"))
        )
    nested = details.get("errors")
    if isinstance(nested, list) and nested and isinstance(nested[0], dict):
        return _first_nested(code, nested)
    return _row_error(code, details)


def _first_nested(code: str, nested: list[Any]) -> RowAnswer:
    """Several errors in one record: judged by its first duplicate, else by its first error."""
    answers = [_row_answer(error) for error in nested if isinstance(error, dict)]
    duplicates = [answer for answer in answers if answer.code == "DUPLICATE_DATA"]
    first = (duplicates or answers)[0]
    return replace(first, code=first.code if duplicates else code)


def _row_error(code: str, details: dict[str, Any]) -> RowAnswer:
    other = details.get("duplicate_record")
    other = other if isinstance(other, dict) else {}
    module = other.get("module")
    hints = [f"{name}={details[name]}" for name in ("expected_data_type", "maximum_length") if name in details]
    return RowAnswer(
        is_ok=False,
        code=code,
        field=_field(details),
        duplicate_id=_id(other) or (_id(details) if code == "DUPLICATE_DATA" else None),
        duplicate_module=_text(module.get("api_name")) if isinstance(module, dict) else None,
        hint=" ".join(hints)[:100],
    )


def _field(details: dict[str, Any]) -> str | None:
    """Zoho names the field, or only the `id` inside a lookup; then its path (`$.data[0].Lead.id`) tells which."""
    name = _text(details.get("api_name"))
    path = re.match(r"\$\.data\[\d+\]\.(\w+)", str(details.get("json_path") or ""))
    return path[1] if path and name in (None, "id") else name


def _id(details: dict[str, Any]) -> str | None:
    return _text(details.get("id"))


def _text(value: object) -> str | None:
    return str(value) if isinstance(value, (str, int)) and not isinstance(value, bool) and value != "" else None


def outcome_of(answer: RowAnswer, stage: Stage, *, attempts: int, tries_of_unknown: int = 5) -> Rejected | Deferred:
    """What becomes of a message whose record Zoho did not take."""
    kind = answer.kind
    if kind is Kind.REFUSED or (kind is Kind.UNKNOWN and attempts >= tries_of_unknown):
        return Rejected(stage, f"zoho.{answer.code}", " ".join(filter(None, (answer.field, answer.hint))))
    return Deferred(answer.code, halted=kind is Kind.HALTED)


def is_fault_of_ours(answers: list[RowAnswer]) -> bool:
    """Most records of a batch failed with a code that is in no table: hold them, don't dead-letter them."""
    unknown = sum(not answer.is_ok and answer.kind is Kind.UNKNOWN for answer in answers)
    return len(answers) > 1 and unknown * 2 > len(answers)
