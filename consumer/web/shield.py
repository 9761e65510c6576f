"""What holds for every answer: headers that tell the browser to be strict, and plain words for errors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from aiohttp import web

from consumer.web.access import is_tls

if TYPE_CHECKING:
    from aiohttp.typedefs import Handler, Middleware

    from consumer.web.pages import Pages

_CSP: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
_HEADERS: Final = {
    "Content-Security-Policy": _CSP,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Cache-Control": "no-store",
}
_SERVER: Final = "zoho-sync"


async def add_headers(request: web.Request, response: web.StreamResponse) -> None:
    """Signal handler: strict unless the handler said otherwise."""
    for name, value in _HEADERS.items():
        response.headers.setdefault(name, value)
    response.headers["Server"] = _SERVER
    if is_tls(request):
        response.headers.setdefault("Strict-Transport-Security", "max-age=31536000")


def plain_errors(pages: Pages) -> Middleware:
    """Errors as a sentence: JSON for programs, a page for people."""

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            return await handler(request)
        except web.HTTPException as error:
            if error.status < 400:
                raise
            return _explained(pages, request, error)

    return middleware


def _explained(pages: Pages, request: web.Request, error: web.HTTPException) -> web.Response:
    key = f"error.{error.status}" if error.status in (404, 405, 408, 413, 503) else "error.400"
    if request.path.startswith("/api/"):
        response = web.json_response({"error": pages.english(key)}, status=error.status)
    else:
        response = pages.sentence(request, key, status=error.status)
    response.headers.update({name: error.headers[name] for name in ("Allow", "Retry-After") if name in error.headers})
    return response
