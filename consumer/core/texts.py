"""Texts as a CRM field can take them: no control characters, no half characters, cut with a mark."""

from __future__ import annotations

import re
import unicodedata

MARK = "…"
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")
_JOINER = "\u200d"


def clean(text: str) -> str:
    """Without control characters and lone surrogates; line breaks and tabs stay."""
    return _CONTROL.sub("", text.replace("\r\n", "\n").replace("\r", "\n"))


def one_line(text: str) -> str:
    """Clean, and with every run of white space made one blank."""
    return " ".join(clean(text).split())


def fit(text: str, length: int) -> str:
    """At most `length` UTF-16 units (a safe reading of Zoho's "characters"), cut between characters, with a mark."""
    if len(text) * 2 <= length or _units(text) <= length:
        return text
    room = length - _units(MARK)
    end = 0
    for char in text:
        room -= _units(char)
        if room < 0:
            break
        end += 1
    while end > 0 and _is_inside(text, end):
        end -= 1
    return text[:end].rstrip() + MARK if length >= 1 else ""


def _units(text: str) -> int:
    return len(text.encode("utf-16-le", "surrogatepass")) // 2


def _is_inside(text: str, index: int) -> bool:
    """Would a cut before `index` tear a character from its marks (accents, emoji joins, skin tones)?"""
    after, before = text[index], text[index - 1]
    return _JOINER in (before, after) or _is_mark(after)


def _is_mark(char: str) -> bool:
    return unicodedata.category(char) in ("Mn", "Me", "Mc") or "\U0001f3fb" <= char <= "\U0001f3ff"
