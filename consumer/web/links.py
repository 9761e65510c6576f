"""`/open-in-zoho` and `/api/v1/dialog-link`: one question, answered for people and for programs."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING, Any, Final

from aiohttp import web

from consumer.web.pages import Page, mask_phone
from consumer.web.view import DialogLink, LinkReason, LinkState, Subject, SubjectKind
from schemas.links import Verdict

if TYPE_CHECKING:
    from consumer.web.access import Access
    from consumer.web.desk import LinkDesk
    from consumer.web.pages import Pages
    from consumer.web.view import LinkView

_LONGEST_VALUE: Final = 255
_REFRESH_S: Final = 5
_UNASKED: Final = (LinkReason.UNAVAILABLE, LinkReason.HALTED)


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a request gets no link; `key` names the sentence."""

    status: int
    key: str
    retry_after_s: int | None = None


@dataclass(frozen=True, slots=True)
class Asked:
    """A request that was understood.  `signed_value` is the value as the link's maker signed it."""

    subject: Subject
    signed_value: str
    exp: str
    sig: str


class LinkRoutes:
    """Handlers of both addresses."""

    def __init__(self, view: LinkView, desk: LinkDesk, access: Access, pages: Pages) -> None:
        self._view = view
        self._desk = desk
        self._access = access
        self._pages = pages

    async def open(self, request: web.Request) -> web.Response:
        """Redirect to the dialog, or say what is missing."""
        asked = self._understood(request)
        if isinstance(asked, Refusal):
            return self._refused(request, asked)
        url = self._computed(asked)
        if url is None:
            refusal = self._why_not(request, asked)
            if refusal is not None:
                return self._refused(request, refusal)
            link = await self._desk.answer(asked.subject, is_click=True)
        else:
            link = DialogLink(LinkState.LINKED, LinkReason.COMPUTED, url)
        self._view.link_answered(link.state, link.reason)
        return _redirect(link.url) if link.url else self._missing(request, asked, link)

    async def api(self, request: web.Request) -> web.Response:
        """The state as JSON."""
        asked = self._understood(request)
        if isinstance(asked, Refusal):
            return self._refused_json(asked)
        link = await self._api_link(request, asked)
        if isinstance(link, Refusal):
            return self._refused_json(link)
        self._view.link_answered(link.state, link.reason)
        return _json(link)

    async def _api_link(self, request: web.Request, asked: Asked) -> DialogLink | Refusal:
        """Without a right to ask, the answer is computed from the number and says nothing about the person."""
        url = self._computed(asked)
        refusal = self._why_not(request, asked)
        if refusal is not None:
            return refusal if url is None else DialogLink(LinkState.LINKED, LinkReason.COMPUTED, url)
        return await self._desk.answer(asked.subject, is_click=False)

    def _computed(self, asked: Asked) -> str | None:
        return self._view.computed_link(asked.subject.value) if asked.subject.kind is SubjectKind.PHONE else None

    def _understood(self, request: web.Request) -> Asked | Refusal:
        """Each parameter at most once, so that what was signed is what is used."""
        query = request.query
        is_repeated = any(len(query.getall(name, ())) > 1 for name in (*SubjectKind, "exp", "sig"))
        kinds = [kind for kind in SubjectKind if query.get(kind)]
        if is_repeated or len(kinds) != 1:
            return Refusal(400, "link.refused.who")
        value = _plus(query[kinds[0]]) if kinds[0] is SubjectKind.PHONE else query[kinds[0]]
        if len(value) > _LONGEST_VALUE or not value.isprintable():
            return Refusal(400, f"link.refused.bad_{kinds[0]}")
        subject = self._subject(kinds[0], value)
        if subject is None:
            return Refusal(400, "link.refused.bad_phone")
        return Asked(subject, value, query.get("exp", ""), query.get("sig", ""))

    def _subject(self, kind: SubjectKind, value: str) -> Subject | None:
        if kind is SubjectKind.DIALOG:
            return Subject(kind, value)
        phone = self._view.canonical_phone(value)
        return Subject(kind, phone) if phone else None

    def _why_not(self, request: web.Request, asked: Asked) -> Refusal | None:
        """None for those who may ask: a good signature, the token, or a login."""
        refusal = self._unsigned(asked)
        if refusal is None or self._access.is_operator(request):
            return None
        wait_s = self._access.wait_s(request)
        return Refusal(429, "link.refused.too_many", ceil(wait_s)) if wait_s else refusal

    def _unsigned(self, asked: Asked) -> Refusal | None:
        """None for a good signature."""
        if asked.sig or asked.exp:
            signed = Subject(asked.subject.kind, asked.signed_value)
            verdict = self._access.link_verdict(signed, exp=asked.exp, sig=asked.sig)
            if not self._access.can_sign():
                return Refusal(403, "link.refused.no_key")
            return None if verdict is Verdict.GOOD else Refusal(403, f"link.refused.{verdict.name.lower()}")
        if not self._access.has_console() and not self._access.can_sign():
            is_dialog = asked.subject.kind is SubjectKind.DIALOG
            return Refusal(403, "link.refused.not_set_up_dialog" if is_dialog else "link.refused.not_set_up")
        return Refusal(401, "link.refused.unsigned")

    def _refused(self, request: web.Request, refusal: Refusal) -> web.Response:
        response = self._pages.sentence(request, refusal.key, status=refusal.status)
        response.headers.update(_retry_after(refusal.retry_after_s))
        return response

    def _refused_json(self, refusal: Refusal) -> web.Response:
        state = LinkState.UNKNOWN.value
        text = self._pages.english(refusal.key)
        body = {"state": state, "url": None, "lead_id": None, "reason": refusal.key.rpartition(".")[2], "error": text}
        headers = {"WWW-Authenticate": "Bearer"} if refusal.status == 401 else _retry_after(refusal.retry_after_s)
        return web.json_response(body, status=refusal.status, headers=headers)

    def _missing(self, request: web.Request, asked: Asked, link: DialogLink) -> web.Response:
        """A page that says why there is no dialog yet.  It comes again by itself while the message is on its way."""
        may_retry = link.source is not None and self._access.is_operator(request)
        is_phone = asked.subject.kind is SubjectKind.PHONE
        page = Page(
            "link.html",
            {
                "link": link,
                "who": mask_phone(asked.subject.value) if is_phone else None,
                "may_retry": may_retry,
                "refresh_s": _REFRESH_S if link.state is LinkState.PENDING else None,
            },
            status=_status(link),
        )
        response = self._pages.render(request, page)
        response.headers.update(_retry_after(link.retry_after_s))
        return response


def _retry_after(seconds: int | None) -> dict[str, str]:
    return {"Retry-After": str(seconds)} if seconds else {}


def _plus(value: str) -> str:
    """A bare "+" in a query stands for a space; in front of a number it was meant as what it is."""
    return f"+{value[1:]}" if value[:1] == " " and value[1:2].isdigit() else value


def _status(link: DialogLink) -> int:
    if link.reason in (*_UNASKED, LinkReason.DISABLED):
        return 503
    if link.reason is LinkReason.BUSY:
        return 429
    return 202 if link.state is LinkState.PENDING else 404


def _redirect(url: str) -> web.Response:
    return web.Response(status=302, headers={"Location": url}, text="")


def _json(link: DialogLink) -> web.Response:
    body: dict[str, Any] = {
        "state": link.state.value,
        "url": link.url,
        "lead_id": link.lead_id,
        "contact_id": link.contact_id,
        "reason": link.reason.value,
        "code": link.code,
    }
    headers = _retry_after(link.retry_after_s)
    status = _status(link) if link.reason in (*_UNASKED, LinkReason.BUSY) else 200
    return web.json_response(body, status=status, headers=headers)
