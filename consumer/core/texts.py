"""Texts as a CRM field can take them: no control characters, no half characters, cut with a mark."""

from __future__ import annotations

import re
import unicodedata

MARK = "…"
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")
_JOINER = "\u200d"


def clean(text: str) -> str:
    """Without control characters and lone surrogates; line breaks and tabs stay."""
    if text.isprintable():
        return text
    return _CONTROL.sub("", text.replace("\r\n", "\n").replace("\r", "\n"))


def one_line(text: str) -> str:
    """Clean, and with every run of white space made one blank."""
    return " ".join(clean(text).split())


def fit(text: str, length: int) -> str:
    """At most `length` UTF-16 units (a safe reading of Zoho's "characters"), cut between characters, with a mark."""
    if len(text) * 2 <= length or units(text) <= length:
        return text
    room = length - units(MARK)
    end = 0
    for char in text:
        room -= units(char)
        if room < 0:
            break
        end += 1
    while end > 0 and _is_inside(text, end):
        end -= 1
    return text[:end].rstrip() + MARK if length >= 1 else ""


def fit_lines(lines: list[str], length: int) -> str:
    """As many whole lines as fit, with the mark when some did not: half an address leads nowhere."""
    text = "\n".join(lines)
    kept = list(lines)
    while kept and units(text) > length:
        kept.pop()
        text = "\n".join([*kept, MARK])
    return text if kept or not lines else fit(lines[0], length)


def units(text: str) -> int:
    """Length in UTF-16 units."""
    return len(text.encode("utf-16-le", "surrogatepass")) // 2


def _is_inside(text: str, index: int) -> bool:
    """Would a cut before `index` tear a character from its marks (accents, emoji joins, skin tones, flags)?"""
    after, before = text[index], text[index - 1]
    return _JOINER in (before, after) or _is_mark(after) or _is_inside_flag(text, index)


def _is_mark(char: str) -> bool:
    is_tone_or_tag = "\U0001f3fb" <= char <= "\U0001f3ff" or "\U000e0020" <= char <= "\U000e007f"
    return is_tone_or_tag or unicodedata.category(char) in ("Mn", "Me", "Mc")


def _is_inside_flag(text: str, index: int) -> bool:
    """A flag is two regional letters: an odd number of them before the cut leaves half a flag."""
    start = index
    while start > 0 and _is_regional(text[start - 1]):
        start -= 1
    return _is_regional(text[index]) and (index - start) % 2 == 1


def _is_regional(char: str) -> bool:
    return "\U0001f1e6" <= char <= "\U0001f1ff"
