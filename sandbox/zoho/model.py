"""What goes into the engine and what comes out of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any
from urllib.parse import urlencode

import orjson

Json = dict[str, Any]


class DropKind(StrEnum):
    """How a connection ends without a proper answer."""

    HANG = "hang"
    RESET = "reset"
    CUT = "cut"


@dataclass(frozen=True, slots=True)
class Request:
    """One HTTP request: `path` and `query` as they stand on the wire, `host` without the port."""

    method: str
    path: str
    query: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    host: str = "127.0.0.1"

    def header(self, name: str) -> str | None:
        """The value of a header; `name` is in lower case, the headers may be in any."""
        for key, value in self.headers.items():
            if key.lower() == name:
                return value
        return None

    @classmethod
    def build(
        cls,
        method: str,
        path: str,
        *,
        token: str | None = None,
        params: Mapping[str, Any] | None = None,
        json: Any = None,
        form: Mapping[str, str] | None = None,
        host: str = "127.0.0.1",
    ) -> Request:
        """A request as a well-behaved client sends it: encoded, with its content type and its token."""
        headers = {"authorization": f"Zoho-oauthtoken {token}"} if token else {}
        body = b""
        if json is not None:
            headers["content-type"] = "application/json"
            body = orjson.dumps(json)
        elif form is not None:
            headers["content-type"] = "application/x-www-form-urlencoded"
            body = urlencode(form).encode()
        return cls(method, path, urlencode(params or {}), headers, body, host)


@dataclass(frozen=True, slots=True)
class Response:
    """One HTTP answer.

    `delay_s` is how long the adapter waits before it answers. `drop`, if set, is what it does instead of
    answering: `hang` says nothing and keeps the connection open, `reset` breaks it, `cut` promises the length of
    `full_length_bytes` but sends only `body` and closes.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes
    delay_s: float = 0.0
    drop: DropKind | None = None
    full_length_bytes: int | None = None

    def json(self) -> Any:
        """The body as JSON; None when it is empty."""
        return orjson.loads(self.body) if self.body else None
