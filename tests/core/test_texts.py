"""Texts as a CRM field takes them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.core.texts import MARK, clean, fit, fit_lines, one_line, units

FAMILY = "👩\u200d👩\u200d👧"
FLAGS = "🇷🇺🇧🇷"
CHARACTERS = [*"ab \n", "é", "e\u0301", "😀", FAMILY, FLAGS, "👍🏽", "की", "\u200d", "\ufe0f"]
TEXT = st.lists(st.sampled_from(CHARACTERS), max_size=60).map("".join)
LENGTH = st.integers(0, 80)


@given(TEXT, LENGTH)
def test_a_text_fits_and_begins_as_it_did(text: str, length: int) -> None:
    """Never longer than its field; what is cut has the mark, what is not cut is the same."""
    fitted = fit(text, length)
    assert units(fitted) <= length
    if units(text) <= length:
        assert fitted == text
    elif length:
        assert fitted.endswith(MARK)
        assert text.startswith(fitted.removesuffix(MARK))


@pytest.mark.parametrize(
    ("text", "whole"),
    [
        ("a😀", "a"),
        (f"a{FAMILY}", "a"),
        ("ae\u0301", "a"),
        ("a👍🏽", "a"),
        ("a🇷🇺", "a"),
        ("aकी", "a"),
        ("a❤\ufe0f", "a"),
        ("a1\ufe0f\u20e3", "a"),
        ("a🏴\U000e0067\U000e0062\U000e007f", "a"),
    ],
)
def test_no_cut_goes_through_a_character(text: str, whole: str) -> None:
    """Whatever the length, either all of a character is there or none of it."""
    for length in range(2, units(text)):
        assert fit(text, length) == whole + MARK


def test_flags_are_cut_between_flags() -> None:
    """Two letters make one flag."""
    assert fit("🇷🇺🇧🇷🇩🇪", 9) == "🇷🇺🇧🇷…"
    assert fit("🇷🇺🇧🇷🇩🇪", 7) == "🇷🇺…"


@given(st.text(max_size=40))
def test_clean_text_can_be_sent(text: str) -> None:
    """No control characters, no lone surrogates; line breaks stay."""
    cleaned = clean(text)
    cleaned.encode("utf-8")
    assert not [char for char in cleaned if ord(char) < 32 and char not in "\n\t"]
    assert "\n" not in one_line(text)
    assert one_line(text) == one_line(one_line(text))


@pytest.mark.parametrize(
    ("given_", "cleaned"),
    [("a\r\nb\rc", "a\nb\nc"), ("a\x00b\x07", "ab"), ("\ud83d", ""), ("tab\tstays", "tab\tstays"), ("ok", "ok")],
)
def test_what_clean_means(given_: str, cleaned: str) -> None:
    """Windows and old Mac line ends, control characters, half characters."""
    assert clean(given_) == cleaned


@given(st.lists(st.text("ab/", min_size=1, max_size=12), max_size=8), st.integers(3, 60))
def test_lines_stay_whole(lines: list[str], length: int) -> None:
    """As many as fit, and the mark for the rest; only a first line that is too long by itself is cut."""
    text = fit_lines(lines, length)
    assert units(text) <= length
    if units("\n".join(lines)) <= length:
        assert text == "\n".join(lines)
    elif "\n" in text:
        *kept, mark = text.split("\n")
        assert kept == lines[: len(kept)]
        assert mark == MARK
