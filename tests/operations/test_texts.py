"""The catalogue: what commands say, in both languages."""

from __future__ import annotations

import re
from pathlib import Path
from string import Formatter

import pytest

from consumer import operations
from consumer.operations.scopes import SETUP_SCOPES, needed_scopes
from consumer.operations.texts import chosen_lang, codes
from consumer.settings import load_settings

SOURCES = [path for path in Path(operations.__path__[0]).rglob("*.py") if path.parent.name != "texts"]


def gaps(template: str) -> set[str]:
    """Names between braces."""
    return {name for _, name, _, _ in Formatter().parse(template) if name is not None}


def used_codes() -> set[str]:
    """Codes that stand in the sources in full."""
    found: set[str] = set()
    for path in SOURCES:
        text = path.read_text("utf-8")
        found |= set(re.findall(r'OperationError\(\s*"([\w.]+)"', text))
        found |= set(re.findall(r'phrase\((?:terminal\.)?lang, "([\w.]+)"', text))
        pairs = re.findall(r'\b(?:warning|failed|fail|ok)\(\s*"([\w.]+)", "(\w+)"', text)
        found |= {f"{check}.{code}" for check, code in pairs}
    return found


def test_both_languages_say_everything() -> None:
    """What is said in one language is said in the other, with the same facts and the same advice."""
    english, russian = codes("en"), codes("ru")
    assert english.keys() == russian.keys()
    for code in english:
        for part, other in zip(english[code], russian[code], strict=True):
            assert gaps(part) == gaps(other), code
            assert bool(part) == bool(other), code


def test_russian_is_russian() -> None:
    """No sentence was left in English."""
    english = [
        code
        for code, text in codes("ru").items()
        for part in text
        if len(re.sub(r"\{\w+\}|`[^`]+`", "", part).split()) > 3 and not re.search("[\u0430-\u044f]", part)
    ]
    assert english == []


def test_every_code_has_words() -> None:
    """No command falls over its own words."""
    assert used_codes() - codes("en").keys() == set()


def test_every_trouble_has_a_next_step() -> None:
    """Whoever reads what is wrong also reads what to do."""
    helpless = [code for code, text in codes("en").items() if text.why and not text.fix]
    assert helpless == []


def test_every_scope_has_a_reason() -> None:
    """Whoever is asked to consent reads what each right is for."""
    scopes = needed_scopes(load_settings(_env_file=None, zoho_assignment_rule_id="1", zoho_composite=True))
    for name in [*(scope.name for scope in scopes), *SETUP_SCOPES]:
        assert f"scope.{name}" in codes("ru")


@pytest.mark.parametrize(
    ("given", "environ", "lang"),
    [
        (None, {}, "en"),
        (None, {"LANG": "ru_RU.UTF-8"}, "ru"),
        (None, {"LANG": "ru_RU.UTF-8", "LC_ALL": "C"}, "en"),
        ("en", {"LANG": "ru_RU.UTF-8"}, "en"),
        ("ru", {}, "ru"),
        ("de", {}, "en"),
    ],
)
def test_chooses_the_language(given: str | None, environ: dict[str, str], lang: str) -> None:
    """The option goes before the locale, and English is for everybody else."""
    assert chosen_lang(given, environ) == lang
