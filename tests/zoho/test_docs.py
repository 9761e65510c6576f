"""The table of answers in docs/zoho.md is the one in the code."""

from __future__ import annotations

import re
from pathlib import Path

from consumer.zoho.answers import _BY_STATUS, TABLE, Kind

WORDS = {
    Kind.TOKEN: "refresh once, then repeat",
    Kind.THROTTLED: "fewer calls, then repeat",
    Kind.TRANSIENT: "again, with backoff; a write only after a look",
    Kind.HALTED: "wait, say so, go on by itself",
    Kind.REFUSED: "dead letter for that record",
}


def test_every_code_and_status_is_documented_as_it_is() -> None:
    """No row too many, none too few, none that says something else."""
    text = (Path(__file__).parents[2] / "docs" / "zoho.md").read_text("utf-8")
    rows = dict(re.findall(r"^\| ([A-Z][A-Z_]+|\d{3}) \| (.+) \|$", text, re.MULTILINE))
    expected = {code: WORDS[meaning.kind] for code, meaning in TABLE.items()}
    expected |= {str(status): WORDS[kind] for status, kind in _BY_STATUS.items()}
    assert rows == expected
