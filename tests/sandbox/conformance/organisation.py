"""An organisation reached over HTTP: the sandbox, or a real one named by the environment."""

from __future__ import annotations

import os
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlencode
from urllib.request import Request, urlopen
from uuid import uuid4

import orjson

PREFIX = "ZOHO_CONFORMANCE_"
TIMEOUT_S = 60.0
INDEX_WAIT_S = 300.0
POLL_S = 0.2
Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Access:
    """How to reach an organisation."""

    url: str
    accounts_url: str
    client_id: str
    client_secret: str
    refresh_token: str
    messages_module: str = "Messages"

    @classmethod
    def from_environment(cls) -> Access | None:
        """`ZOHO_CONFORMANCE_URL`, `…_ACCOUNTS_URL`, `…_CLIENT_ID`, `…_CLIENT_SECRET`, `…_REFRESH_TOKEN` and
        `…_MESSAGES_MODULE`; None without a URL. KeyError when one of the others is missing."""
        if f"{PREFIX}URL" not in os.environ:
            return None
        names = ("url", "accounts_url", "client_id", "client_secret", "refresh_token")
        module = os.environ.get(f"{PREFIX}MESSAGES_MODULE", "Messages")
        return cls(**{name: os.environ[PREFIX + name.upper()] for name in names}, messages_module=module)


@dataclass(frozen=True, slots=True)
class Answer:
    """Status, and body: JSON, or None when there is none."""

    status: int
    body: Any

    @property
    def items(self) -> list[Json]:
        """The rows."""
        rows: list[Json] = self.body["data"]
        return rows

    @property
    def item(self) -> Json:
        """The only row."""
        (row,) = self.items
        return row

    @property
    def codes(self) -> list[str]:
        """The rows' codes."""
        return [row["code"] for row in self.items]

    @property
    def code(self) -> str:
        """The code of an error, alone or in a list."""
        text: str = self.body["code"] if "code" in self.body else self.item["code"]
        return text


@dataclass(slots=True)
class Organisation:
    """Calls with one token, and remembers every record that it made."""

    access: Access
    marker: str = field(default_factory=lambda: f"conformance-{uuid4().hex[:12]}")
    token: str = ""
    _made: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))

    @property
    def messages(self) -> str:
        """The API name of the messages module."""
        return self.access.messages_module

    def token_call(self, **changes: str) -> Answer:
        """A refresh; each one counts against the ten in ten minutes."""
        form = {
            "grant_type": "refresh_token",
            "client_id": self.access.client_id,
            "client_secret": self.access.client_secret,
            "refresh_token": self.access.refresh_token,
        }
        return _send("POST", f"{self.access.accounts_url}/oauth/v2/token", {}, urlencode(form | changes).encode())

    def call(self, method: str, path: str, json: Any = None, *, token: str | None = None, **params: Any) -> Answer:
        """One API call."""
        query = f"?{urlencode(params)}" if params else ""
        headers = {"Authorization": f"Zoho-oauthtoken {token or self.token}", "Content-Type": "application/json"}
        body = None if json is None else orjson.dumps(json)
        answer = _send(method, f"{self.access.url}/crm/v8/{path}{query}", headers, body)
        if method == "POST":
            self._remember(path.partition("/")[0], answer)
        return answer

    def _remember(self, module: str, answer: Answer) -> None:
        for row in answer.body.get("data", []) if isinstance(answer.body, dict) else []:
            if row.get("code") == "SUCCESS":
                self._made[module].append(row["details"]["id"])

    def write(self, path: str, *rows: Json, **more: Any) -> Answer:
        """A POST of rows, without automations."""
        return self.call("POST", path, {"data": list(rows), "trigger": [], **more})

    def coql(self, query: str) -> Answer:
        """A query."""
        return self.call("POST", "coql", {"select_query": query})

    def lead(self, **values: Any) -> str:
        """A new lead's id."""
        row: Json = {"Last_Name": self.marker, **values}
        lead_id: str = self.write("Leads", row).item["details"]["id"]
        return lead_id

    def clean_up(self) -> None:
        """Deletes what was made, notes and messages before people."""
        for module in sorted(self._made, key=lambda name: name in ("Leads", "Contacts")):
            ids = self._made[module]
            for start in range(0, len(ids), 100):
                self.call("DELETE", module, ids=",".join(ids[start : start + 100]))
        self._made.clear()


def _send(method: str, url: str, headers: dict[str, str], body: bytes | None) -> Answer:
    request = Request(url, data=body, headers=headers, method=method)
    try:
        with urlopen(request, timeout=TIMEOUT_S) as answer:
            return Answer(answer.status, _json(answer.read()))
    except HTTPError as error:
        with error:
            return Answer(error.code, _json(error.read()))


def _json(body: bytes) -> Any:
    return orjson.loads(body) if body else None


def eventually(found: Callable[[], bool]) -> bool:
    """Does it come true while an index may lag?"""
    limit_s = time.monotonic() + INDEX_WAIT_S
    while not found():
        if time.monotonic() > limit_s:
            return False
        time.sleep(POLL_S)
    return True
