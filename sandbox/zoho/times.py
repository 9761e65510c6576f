"""Zoho's date-times: ISO 8601 in the organisation's offset, without milliseconds."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta, timezone
from functools import lru_cache

_DATETIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d([+-]\d\d:\d\d)?", re.ASCII)


@lru_cache(maxsize=4096)
def format_time(epoch_s: int, offset_min: int) -> str:
    """`2026-01-05T03:12:30-07:00`"""
    zone = timezone(timedelta(minutes=offset_min))
    return datetime.fromtimestamp(epoch_s, zone).isoformat(timespec="seconds")


def parse_time(text: str, *, naive_offset_min: int | None = None) -> int | None:
    """Epoch seconds, or None when Zoho refuses the text: milliseconds, `Z`, or no offset (unless allowed)."""
    match = _DATETIME.fullmatch(text)
    if match is None or (match[1] is None and naive_offset_min is None):
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=timezone(timedelta(minutes=naive_offset_min or 0)))
    return int(moment.timestamp())


def is_date(text: str) -> bool:
    """Is this `2026-01-05`?"""
    try:
        return date.fromisoformat(text).isoformat() == text
    except ValueError:
        return False


def utc_text(epoch_s: float) -> str:
    """For logs and reports."""
    return datetime.fromtimestamp(epoch_s, UTC).isoformat(timespec="milliseconds")
