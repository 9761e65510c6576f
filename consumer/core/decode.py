"""Bytes and headers of a record → its event, or a named reason why there is none."""

from __future__ import annotations

import re
from base64 import b64decode
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypeVar

from pydantic import BaseModel, ValidationError

from schemas.message_event import MESSAGE_CREATED, CloudEvent, MessageCreated, MessageEvent

MAX_VALUE_BYTES: Final = 1024 * 1024
"""What a broker takes by default (`message.max.bytes`).  Bounds how long a value can hold up the loop."""

_MAX_DETAIL_CHARS: Final = 200
_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"
_DIGIT = re.compile(r"\d")
_ESCAPE = re.compile(
    rb"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"  # a surrogate pair: one character
    rb"|(?P<lone>u[dD][89a-fA-F][0-9a-fA-F]{2})"
    rb"|.)",
    re.DOTALL,
)

SkipReason = Literal["no_phone", "other_event_type", "tombstone"]
PoisonReason = Literal["invalid_json", "invalid_encoding", "schema_violation", "empty_value", "too_large"]


@dataclass(frozen=True, slots=True)
class Skip:
    """A record that is in order and asks for nothing to be written."""

    reason: SkipReason


@dataclass(frozen=True, slots=True)
class Poison:
    """A record that no attempt can read.  `detail` names fields and errors, never a value from the record."""

    reason: PoisonReason
    detail: str = ""


Decoded = MessageEvent | Skip | Poison
_Model = TypeVar("_Model", bound=BaseModel)


def decode(value: bytes | None, headers: Sequence[tuple[str, bytes]]) -> Decoded:
    """The event of a record: plain JSON, or a CloudEvent in structured or binary mode.  Never raises.

    The event has at least one digit in `phone`; whether that is a number is for others to say.
    Modes are told apart as in CloudEvents' Kafka protocol binding 1.0.2, section 3.
    """
    named = {name.lower(): content for name, content in headers}
    is_envelope = _text(named.get("content-type")).lower().startswith("application/cloudevents")
    event_type = named.get("ce_type", named.get("ce-type"))
    if not is_envelope and event_type is not None and _text(event_type) != MESSAGE_CREATED:
        return Skip("other_event_type")
    return _unreadable(value) or _with_number(_event(value or b"", is_envelope=is_envelope))


def _text(header: bytes | None) -> str:
    return (header or b"").decode(errors="replace").strip()


def _unreadable(value: bytes | None) -> Skip | Poison | None:
    if value is None:
        return Skip("tombstone")
    if not value:
        return Poison("empty_value")
    if len(value) > MAX_VALUE_BYTES:
        return Poison("too_large", f"{len(value)} bytes, at most {MAX_VALUE_BYTES}")
    return None


def _with_number(decoded: Decoded) -> Decoded:
    if isinstance(decoded, MessageEvent) and not _DIGIT.search(decoded.phone or ""):
        return Skip("no_phone")
    return decoded


def _event(value: bytes, *, is_envelope: bool) -> Decoded:
    """Producers forget the content type, so what is no event may still be an envelope."""
    if is_envelope:
        return _inside(value)
    event = _parse(MessageEvent, value)
    if isinstance(event, MessageEvent) or isinstance(_parse(CloudEvent, value), Poison):
        return event
    return _inside(value)


def _inside(envelope: bytes) -> Decoded:
    """The event in a structured CloudEvent.  Its type comes first: data of another type has another shape."""
    kind = _parse(CloudEvent, envelope)
    if isinstance(kind, Poison):
        return kind
    if kind.type != MESSAGE_CREATED:
        return Skip("other_event_type")
    created = _parse(MessageCreated, envelope)
    if isinstance(created, Poison):
        return created
    return created.data or _from_base64(created.data_base64)


def _from_base64(text: str | None) -> Decoded:
    if text is None:
        return Poison("schema_violation", "data: missing")
    try:
        return _parse(MessageEvent, b64decode(text, validate=True))
    except ValueError:
        return Poison("schema_violation", "data_base64: not_base64")


def _parse(model: type[_Model], value: bytes, *, may_mend: bool = True) -> _Model | Poison:
    try:
        return model.model_validate_json(value)
    except ValidationError as error:
        if may_mend and _syntax_error(error):
            return _parse(model, _mended(value), may_mend=False)
        return _poison(error, value)


def _syntax_error(error: ValidationError) -> str:
    """What is wrong with the JSON as such, or nothing."""
    first = error.errors(include_url=False, include_input=False)[0]
    return str(first["ctx"]["error"]) if first["type"] == "json_invalid" else ""


def _mended(value: bytes) -> bytes:
    """Without what serializers do write and parsers refuse: a byte order mark, and halves of characters.

    .NET writes the mark; JavaScript cuts a string within an emoji and escapes the half (a lone surrogate).
    """
    return _ESCAPE.sub(_without_lone_surrogate, value.removeprefix(_BYTE_ORDER_MARK))


def _without_lone_surrogate(escape: re.Match[bytes]) -> bytes:
    return rb"\ufffd" if escape["lone"] else escape[0]


def _poison(error: ValidationError, value: bytes) -> Poison:
    syntax_error = _syntax_error(error)
    if not syntax_error:
        return Poison("schema_violation", _violations(error))
    if (position := _first_byte_not_utf8(value)) is not None:
        return Poison("invalid_encoding", f"not UTF-8 at byte {position}")
    if syntax_error.startswith("recursion limit"):
        return Poison("too_large", "nested too deep")
    return Poison("invalid_json", syntax_error)


def _violations(error: ValidationError) -> str:
    """Paths hold names of our own fields and positions only: the models ignore every other field."""
    each = (
        f"{'.'.join(map(str, one['loc'])) or 'value'}: {one['type']}"
        for one in error.errors(include_url=False, include_input=False, include_context=False)
    )
    return "; ".join(each)[:_MAX_DETAIL_CHARS]


def _first_byte_not_utf8(value: bytes) -> int | None:
    try:
        value.decode()
    except UnicodeDecodeError as error:
        return error.start
    return None
