"""Everything that commands say to people, in one place: a code, and what it means in English and Russian."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

Lang = Literal["en", "ru"]
LANGS: tuple[Lang, ...] = ("en", "ru")


class Text(NamedTuple):
    """What is so, why it hurts, and how to mend it."""

    what: str
    why: str = ""
    fix: str = ""


def text_of(lang: Lang, code: str, facts: Mapping[str, Any] | None = None) -> Text:
    """The words for a code, gaps filled.  A code without words is a mistake of ours: KeyError."""
    template = _catalogue(lang)[code]
    return Text(*(part.format_map(facts or {}) for part in template))


def phrase(lang: Lang, code: str, /, **facts: Any) -> str:
    """One phrase: the first part of a text."""
    return text_of(lang, code, facts).what


def codes(lang: Lang) -> Mapping[str, Text]:
    """The whole catalogue, for those who check it."""
    return _catalogue(lang)


def _catalogue(lang: Lang) -> Mapping[str, Text]:
    from consumer.operations.texts import en, ru  # noqa: PLC0415 - they need the name `Text` of this module

    return en.TEXTS if lang == "en" else ru.TEXTS


def chosen_lang(given: str | None, environ: Mapping[str, str] | None = None) -> Lang:
    """`--lang`, or what the locale says, or English."""
    environ = os.environ if environ is None else environ
    locale = next((environ[name] for name in ("LC_ALL", "LC_MESSAGES", "LANG") if environ.get(name)), "")
    lang = (given or locale).lower()[:2]
    return lang if lang in LANGS else "en"
