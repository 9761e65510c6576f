"""The operator's pages: is it well, what failed, what became of a message, and replay."""

from __future__ import annotations

import asyncio
import re
from dataclasses import asdict
from functools import wraps
from math import ceil
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlencode

from aiohttp import web

from consumer.web.access import SESSION_COOKIE, SESSION_LIFE_S, is_same_origin, is_tls
from consumer.web.live import LiveStreams, Parts
from consumer.web.pages import Page, language_of
from consumer.web.view import Place, Selection, UnavailableError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from consumer.web.access import Access
    from consumer.web.pages import Pages
    from consumer.web.replays import ReplayJob, Replays
    from consumer.web.view import ServiceView

    Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_ROWS: Final = 100
_PARTS: Final = ("status", "numbers", "partitions", "zoho", "failures")
_LONGEST_FIELD: Final = 300
_JOB_ID: Final = re.compile(r"[0-9a-f]{1,32}")
_TONES: Final = {
    "idle": "good",
    "syncing": "good",
    "standby": "good",
    "halted": "bad",
    "stuck": "bad",
    "disabled": "off",
}


class Console:
    """Handlers of everything that needs the token or a login."""

    def __init__(
        self,
        view: ServiceView,
        access: Access,
        pages: Pages,
        replays: Replays,
        *,
        live_tick_s: float,
        form_timeout_s: float,
    ) -> None:
        self._view = view
        self._access = access
        self._pages = pages
        self._replays = replays
        self._live = LiveStreams(tick_s=live_tick_s)
        self._form_timeout_s = form_timeout_s

    def routes(self) -> list[web.RouteDef]:
        """What is where.  `login` is the one page for those who are not in yet."""
        guarded = (
            web.get("/", self._guarded(self._overview), allow_head=False),
            web.get("/live", self._guarded(self._overview_live), allow_head=False),
            web.get("/messages", self._guarded(self._ask_message), allow_head=False),
            web.post("/messages", self._guarded(self._explain)),
            web.get("/dead-letters", self._guarded(self._dead_letters), allow_head=False),
            web.post("/dead-letters/plan", self._guarded(self._plan)),
            web.post("/dead-letters/replay", self._guarded(self._replay)),
            web.get("/dead-letters/replays/{id}", self._guarded(self._job), allow_head=False),
            web.get("/dead-letters/replays/{id}/live", self._guarded(self._job_live), allow_head=False),
            web.post("/dead-letters/replays/{id}/cancel", self._guarded(self._cancel)),
            web.post("/logout", self._guarded(self._log_out)),
        )
        return [*guarded, web.post("/login", self._log_in)]

    def close(self) -> None:
        """End what is live."""
        self._live.close()

    # -- access -------------------------------------------------------------------------------------------------

    def _guarded(self, handler: Handler) -> Handler:
        @wraps(handler)
        async def guarded(request: web.Request) -> web.StreamResponse:
            if not self._access.has_console():
                return self._pages.sentence(request, "console.off", status=404)
            if not self._access.is_operator(request):
                return self._login_page(request, wait_s=self._access.wait_s(request))
            if request.method != "GET" and not self._access.has_bearer(request) and not is_same_origin(request):
                return self._pages.sentence(request, "error.cross_site", status=403)
            return await handler(request)

        return guarded

    def _login_page(self, request: web.Request, *, is_wrong: bool = False, wait_s: float = 0.0) -> web.Response:
        """`wait_s`: too many were wrong, so for that long nothing is looked at."""
        values = {"is_wrong": is_wrong, "wait_s": ceil(wait_s)}
        response = self._pages.render(request, Page("login.html", values, status=429 if wait_s else 401))
        response.headers.update({"Retry-After": str(ceil(wait_s))} if wait_s else {"WWW-Authenticate": "Bearer"})
        return response

    async def _log_in(self, request: web.Request) -> web.StreamResponse:
        if not self._access.has_console():
            return self._pages.sentence(request, "console.off", status=404)
        if not is_same_origin(request):
            return self._pages.sentence(request, "error.cross_site", status=403)
        token = (await self._form(request)).get("token", "").strip()
        if not self._access.is_token(request, token):
            return self._login_page(request, is_wrong=True, wait_s=self._access.wait_s(request, token))
        response = _see_other("/")
        response.set_cookie(
            SESSION_COOKIE,
            self._access.new_session(),
            max_age=SESSION_LIFE_S,
            httponly=True,
            samesite="Lax",
            secure=is_tls(request),
        )
        return response

    async def _log_out(self, _request: web.Request) -> web.StreamResponse:
        response = _see_other("/")
        response.del_cookie(SESSION_COOKIE)
        return response

    # -- overview -----------------------------------------------------------------------------------------------

    async def _overview(self, request: web.Request) -> web.StreamResponse:
        return self._pages.render(request, Page("overview.html", self._overview_values()))

    async def _overview_live(self, request: web.Request) -> web.StreamResponse:
        def parts() -> Parts | None:
            if not self._access.is_operator(request):
                return None
            values = self._overview_values()
            return {name: self._pages.fragment(request, f"_{name}.html", values) for name in _PARTS}

        return await self._live.stream(request, parts)

    def _overview_values(self) -> dict[str, Any]:
        status = self._view.status()
        return {"status": status, "tone": _TONES.get(status.state, "wait"), "parts": _PARTS}

    # -- messages -----------------------------------------------------------------------------------------------

    async def _ask_message(self, request: web.Request) -> web.StreamResponse:
        return self._pages.render(request, Page("message.html", {"explanation": None}))

    async def _explain(self, request: web.Request) -> web.StreamResponse:
        """A POST, for ids of messages may hold a number, and addresses end up in logs."""
        message_id = (await self._form(request)).get("id", "").strip()
        if not message_id or len(message_id) > 255:
            return self._pages.sentence(request, "message.bad_id", status=400)
        explanation = await self._view.explain(message_id, language_of(request))
        return self._pages.render(request, Page("message.html", {"explanation": explanation}))

    # -- dead letters -------------------------------------------------------------------------------------------

    async def _dead_letters(self, request: web.Request) -> web.StreamResponse:
        selection = _selection(request.query)
        found = self._view.dead_letters(selection, limit=_ROWS)
        return await self._about_letters(request, "dead_letters.html", selection, found)

    async def _plan(self, request: web.Request) -> web.StreamResponse:
        """The dry run: what would be replayed, and nothing else happens."""
        selection = _selection(await self._form(request))
        return await self._about_letters(request, "plan.html", selection, self._view.plan_replay(selection))

    async def _about_letters(
        self, request: web.Request, template: str, selection: Selection, found: Awaitable[object], **more: str
    ) -> web.StreamResponse:
        values: dict[str, Any] = {"selection": selection, "fields": _fields(selection), "problem": "", **more}
        try:
            return self._pages.render(request, Page(template, values | {"page": await found}))
        except UnavailableError as error:
            values |= {"page": None, "problem": error.texts[language_of(request)]}
            return self._pages.render(request, Page(template, values, status=503))

    async def _replay(self, request: web.Request) -> web.StreamResponse:
        return _see_other(_job_path(self._replays.start(_selection(await self._form(request)))))

    async def _job(self, request: web.Request) -> web.StreamResponse:
        job = self._job_of(request)
        return await self._elsewhere(request) if job is None else self._pages.render(request, _job_page(job))

    async def _job_live(self, request: web.Request) -> web.StreamResponse:
        """A browser that reached another process comes again, and may reach the right one."""
        job = self._job_of(request)
        if job is None:
            return await self._live.stream(request, lambda: None)
        values = _job_page(job).values
        return await self._live.stream(request, lambda: {"job": self._pages.fragment(request, "_job.html", values)})

    async def _cancel(self, request: web.Request) -> web.StreamResponse:
        job = self._job_of(request)
        if job is None:
            return await self._elsewhere(request)
        self._replays.cancel(job)
        return _see_other(_job_path(job))

    def _job_of(self, request: web.Request) -> ReplayJob | None:
        return self._replays.find(request.match_info["id"])

    async def _elsewhere(self, request: web.Request) -> web.StreamResponse:
        """A job of another process, or of one that has ended: what the topic tells of it is the same everywhere."""
        selection, job_id = _selection(request.query), request.match_info["id"]
        if not _JOB_ID.fullmatch(job_id):
            raise web.HTTPNotFound
        found = self._view.plan_replay(selection)
        return await self._about_letters(
            request, "elsewhere.html", selection, found, id=job_id, query=_query(selection)
        )

    async def _form(self, request: web.Request) -> Mapping[str, str]:
        """The fields of a plain form.  Anything else, too much of it, or too slow, is refused."""
        if request.content_type != "application/x-www-form-urlencoded":
            raise web.HTTPUnsupportedMediaType
        try:
            async with asyncio.timeout(self._form_timeout_s):
                fields = await request.post()
        except TimeoutError:
            raise web.HTTPRequestTimeout from None
        return {name: value for name, value in fields.items() if isinstance(value, str)}


def _see_other(path: str) -> web.Response:
    return web.Response(status=303, headers={"Location": path})


def _job_path(job: ReplayJob) -> str:
    """With the selection, so that a process which does not know the job can tell what still waits."""
    return f"/dead-letters/replays/{job.id}{_query(job.selection)}"


def _job_page(job: ReplayJob) -> Page:
    return Page("job.html", {"job": job, "query": _query(job.selection)})


def _query(selection: Selection) -> str:
    fields = _fields(selection)
    return f"?{urlencode(fields)}" if fields else ""


def _selection(fields: Mapping[str, str]) -> Selection:
    return Selection(
        reason=fields.get("reason", "")[:_LONGEST_FIELD],
        stage=fields.get("stage", "")[:_LONGEST_FIELD],
        place=_place(fields, ""),
        source=_place(fields, "source_"),
    )


def _place(fields: Mapping[str, str], prefix: str) -> Place | None:
    numbers = [fields.get(f"{prefix}{name}", "") for name in ("partition", "offset")]
    if not any(numbers):
        return None
    if not all(text.isascii() and text.isdigit() and len(text) <= 19 for text in numbers):
        raise web.HTTPBadRequest
    return Place(int(numbers[0]), int(numbers[1]))


def _fields(selection: Selection) -> dict[str, Any]:
    """The selection as the hidden fields of a form."""
    fields: dict[str, Any] = {"reason": selection.reason, "stage": selection.stage}
    for prefix, place in (("", selection.place), ("source_", selection.source)):
        fields |= {f"{prefix}{name}": value for name, value in (asdict(place) if place else {}).items()}
    return {name: value for name, value in fields.items() if value != ""}
