"""Every sentence that people read, in English and Russian."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable

LANGUAGES: Final = ("en", "ru")
_HERE: Final = Path(__file__).parent / "languages"


@cache
def catalogue(language: str) -> dict[str, str]:
    """All sentences of a language, by key."""
    entries: dict[str, str] = json.loads((_HERE / f"{language}.json").read_text("utf-8"))
    return entries


def teller(language: str) -> Callable[..., str]:
    """`t(key, name=value)`: the sentence, filled in.  `t(key, otherwise=text)` for keys that may have none."""
    sentences = catalogue(language)

    def tell(key: str, *, otherwise: str | None = None, **values: Any) -> str:
        sentence = sentences[key] if otherwise is None else sentences.get(key, otherwise)
        return sentence.format(**values) if values else sentence

    return tell
