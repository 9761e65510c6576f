"""Golden records: what a producer may send, and what must become of it.

`valid/` holds values that are events, `skipped/` those that ask for nothing, `invalid/` those that are
dead-lettered.  `index.json` lists them with their headers and what is expected.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

HERE: Final = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class Sample:
    """One record: `reason` is that of the skip or of the dead letter, empty for an event."""

    name: str
    about: str
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...]
    expected: Literal["event", "skip", "poison"]
    reason: str


def load() -> tuple[Sample, ...]:
    """All samples, in the order of the index."""
    return tuple(_sample(entry) for entry in json.loads((HERE / "index.json").read_text("utf-8")))


def _sample(entry: dict[str, Any]) -> Sample:
    return Sample(
        name=entry["name"],
        about=entry["about"],
        value=(HERE / entry["file"]).read_bytes() if entry["file"] else None,
        headers=tuple((name, content.encode()) for name, content in entry.get("headers", {}).items()),
        expected=entry["expected"],
        reason=entry.get("reason", ""),
    )
