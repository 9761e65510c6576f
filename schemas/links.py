"""Signed links to "Open in Zoho": made by the admin panel, checked by the service.

The recipe, for any language (docs/open-in-zoho.md shows it in five):

1. `kind` is `phone` or `dialog`, `value` is the number or dialog id, `exp` the Unix time at which the link ends.
2. text = "open-in-zoho.v1" + "\\n" + kind + "\\n" + value + "\\n" + exp (decimal)
3. sig = lower-case hexadecimal HMAC-SHA-256 of the text, both text and key in UTF-8
4. link = /open-in-zoho?{kind}={value}&exp={exp}&sig={sig}, each part percent-encoded ("+" as %2B)
"""

from __future__ import annotations

import hmac
from enum import Enum, auto
from typing import Final
from urllib.parse import urlencode

LONGEST_LIFE_S: Final = 7 * 24 * 3600
"""A link that ends later than this is refused, whoever signed it."""


class Verdict(Enum):
    """What a signature is worth."""

    GOOD = auto()
    EXPIRED = auto()
    FORGED = auto()
    """Made with another key, or for something else, or ends too far in the future."""


def signature(key: str, *, kind: str, value: str, exp: int) -> str:
    """The `sig` of a link.  `value` must be one line, as the query will hold it once decoded."""
    text = f"open-in-zoho.v1\n{kind}\n{value}\n{exp}"
    return hmac.digest(key.encode(), text.encode("utf-8", "surrogatepass"), "sha256").hex()


def signed_query(key: str, *, kind: str, value: str, exp: int) -> str:
    """The query of a link, ready to stand behind `/open-in-zoho?` or `/api/v1/dialog-link?`."""
    return urlencode({kind: value, "exp": exp, "sig": signature(key, kind=kind, value=value, exp=exp)})


def check(key: str, *, kind: str, value: str, exp: str, sig: str, now: float) -> Verdict:
    """Judge the parts of a link as they came in.  Compares in constant time; never raises."""
    if not (exp.isascii() and exp.isdigit() and len(exp) <= 12) or not sig.isascii() or "\n" in value:
        return Verdict.FORGED
    ends_at = int(exp)
    if exp != str(ends_at) or not hmac.compare_digest(signature(key, kind=kind, value=value, exp=ends_at), sig):
        return Verdict.FORGED
    if ends_at <= now:
        return Verdict.EXPIRED
    return Verdict.GOOD if ends_at <= now + LONGEST_LIFE_S else Verdict.FORGED
