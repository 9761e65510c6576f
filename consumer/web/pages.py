"""HTML pages: templates, languages, and numbers as people read them.  Everything is escaped by default."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from aiohttp import web
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from consumer.web import texts
from consumer.web.assets import integrity_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from consumer.web.access import Access

LANGUAGE_COOKIE: Final = "zoho_sync_lang"
_TEMPLATES: Final = Path(__file__).parent / "templates"
_MINUTE_S, _HOUR_S, _DAY_S, _YEAR_S = 60, 3600, 86_400, 31_536_000


@dataclass(frozen=True, slots=True)
class Page:
    """A template and what it shows."""

    template: str
    values: dict[str, Any] = field(default_factory=dict)
    status: int = 200


class Pages:
    """Renders pages in the reader's language."""

    def __init__(self, access: Access) -> None:
        self._access = access
        self._templates = Environment(
            loader=FileSystemLoader(_TEMPLATES),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            auto_reload=False,
        )

    def render(self, request: web.Request, page: Page) -> web.Response:
        """A whole page."""
        text = self.fragment(request, page.template, page.values)
        response = web.Response(text=text, status=page.status, content_type="text/html", charset="utf-8")
        if request.query.get("lang") in texts.LANGUAGES:
            response.set_cookie(LANGUAGE_COOKIE, request.query["lang"], max_age=_YEAR_S, httponly=True, samesite="Lax")
        return response

    def fragment(self, request: web.Request, template: str, values: dict[str, Any]) -> str:
        """The text of a template."""
        language = language_of(request)
        shared = {
            "language": language,
            "t": texts.teller(language),
            "number": lambda value: number(value, language),
            "span": lambda seconds: span(seconds, language),
            "integrity": integrity_of,
            "is_operator": self._access.is_operator(request),
            "path": request.path if request.method == "GET" else "",
        }
        return self._templates.get_template(template).render(shared | values)

    def sentence(self, request: web.Request, key: str, *, status: int) -> web.Response:
        """A page with one plain sentence."""
        return self.render(request, Page("sentence.html", {"key": key}, status=status))

    @staticmethod
    def english(key: str) -> str:
        """The sentence for programs."""
        return texts.teller("en")(key)


def language_of(request: web.Request) -> str:
    """Chosen, else what the browser prefers, else English."""
    chosen = request.query.get("lang") or request.cookies.get(LANGUAGE_COOKIE)
    if chosen in texts.LANGUAGES:
        return str(chosen)
    offers = [_preference(part) for part in request.headers.get("Accept-Language", "").split(",")[:20]]
    known = [(quality, name) for quality, name in offers if name in texts.LANGUAGES and quality > 0]
    return max(known, key=lambda offer: offer[0])[1] if known else texts.LANGUAGES[0]


def _preference(part: str) -> tuple[float, str]:
    name, _, options = part.strip().partition(";")
    quality = options.strip().removeprefix("q=")
    try:
        weight = float(quality) if quality else 1.0
    except ValueError:
        weight = 0.0
    return weight, name.strip().lower().partition("-")[0]


def mask_phone(phone: str) -> str:
    """Enough to recognise a number that one knows, not enough to call it."""
    return f"{phone[:3]}…{phone[-2:]}"


def number(value: float, language: str) -> str:
    """Thousands apart, by a narrow space that does not break; at most one digit behind the point."""
    text = f"{value:,.0f}" if float(value).is_integer() else f"{value:,.1f}"
    separated = text.replace(",", "\u202f")
    return separated.replace(".", ",") if language == "ru" else separated


def span(seconds: float | None, language: str) -> str:
    """A length of time, in the largest unit that says enough."""
    tell: Callable[..., str] = texts.teller(language)
    if seconds is None:
        return "–"
    for unit_s, key in ((_DAY_S, "days"), (_HOUR_S, "hours"), (_MINUTE_S, "minutes")):
        if seconds >= 2 * unit_s:
            return tell(f"span.{key}", n=number(int(seconds // unit_s), language))
    return tell("span.seconds", n=number(round(seconds, 1) if seconds < 10 else int(seconds), language))
