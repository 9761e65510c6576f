"""What may be shown of a record to somebody who only wants to know why it is here."""

from __future__ import annotations

import re
from typing import Any

import orjson

_HARMLESS = frozenset(
    {"message_id", "occurred_at", "direction", "origin", "channel", "specversion", "type", "time", "datacontenttype"}
)
_DIGITS = re.compile(r"\d{5,}")


def masked_value(value: bytes | None) -> Any:
    """The value's shape: names, numbers' sizes and texts' lengths; contents only of fields that are about nobody."""
    if value is None:
        return None
    try:
        return _masked(orjson.loads(value), name="")
    except orjson.JSONDecodeError:
        return f"({len(value)} bytes that are not JSON)"


def _masked(item: Any, *, name: str) -> Any:
    if isinstance(item, dict):
        return {key: _masked(inner, name=key) for key, inner in item.items()}
    if isinstance(item, list):
        return [_masked(inner, name=name) for inner in item]
    if item is None or isinstance(item, bool) or name in _HARMLESS:
        return item
    if isinstance(item, str):
        return _masked_phone(item) if name == "phone" else f"({len(item)} characters)"
    return "(a number)"


def _masked_phone(text: str) -> str:
    digits = sum(map(str.isdigit, text))
    return f"***{text[-2:]}" if digits > 6 else "***"


def masked_text(text: str) -> str:
    """A key or header without long runs of digits."""
    return _DIGITS.sub(lambda run: f"***{run[0][-2:]}", text)


def shown_value(value: bytes | None) -> Any:
    """The value in clear: as JSON where it is JSON, else as text."""
    if value is None:
        return None
    try:
        return orjson.loads(value)
    except orjson.JSONDecodeError:
        return value.decode("utf-8", "backslashreplace")
