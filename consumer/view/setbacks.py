"""A short memory of records that were skipped or dead-lettered, so that a page can say why somebody is not in Zoho."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson

if TYPE_CHECKING:
    from collections.abc import Callable

    from consumer.core.model import Record, Rejected

_REMEMBERED = 1000
_LARGEST_BYTES = 16 * 1024


@dataclass(frozen=True, slots=True)
class Setback:
    """One record without a place in Zoho; `rejected` is None when it was skipped."""

    record: Record
    rejected: Rejected | None
    reason: str


class Setbacks:
    """The latest ones.  A record is read again only when somebody asks."""

    def __init__(self) -> None:
        self._latest: deque[Setback] = deque(maxlen=_REMEMBERED)

    def note(self, record: Record, rejected: Rejected | None, reason: str) -> None:
        """Remember one."""
        if record.size_bytes() <= _LARGEST_BYTES:
            self._latest.append(Setback(record, rejected, reason))

    def find(self, is_meant: Callable[[dict[str, Any]], bool]) -> Setback | None:
        """The latest one whose event is meant.  Dead letters before skips: they can be mended."""
        found = [setback for setback in reversed(self._latest) if is_meant(fields_of(setback.record.value))]
        return next((setback for setback in found if setback.rejected), found[0] if found else None)


def fields_of(value: bytes | None) -> dict[str, Any]:
    """The fields of an event, plain or in a CloudEvent, whether they are valid or not."""
    try:
        outer = orjson.loads(value or b"")
    except orjson.JSONDecodeError:
        return {}
    inner = outer.get("data") if isinstance(outer, dict) else None
    fields = inner if isinstance(inner, dict) else outer
    return fields if isinstance(fields, dict) else {}
