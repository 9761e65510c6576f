"""An organisation under test: an engine on a clock that the test moves."""

from __future__ import annotations

from typing import Any

from sandbox.zoho import Fault, Request, Response, SandboxConfig, ZohoEngine
from sandbox.zoho.faults import Action
from sandbox.zoho.oauth import FULL_SCOPES

Json = dict[str, Any]
START_S = 1_767_600_000.0


class Clock:
    """Epoch seconds that only the test moves."""

    def __init__(self) -> None:
        self.now_s = START_S

    def __call__(self) -> float:
        return self.now_s

    def advance(self, seconds: float) -> None:
        self.now_s += seconds


class Zoho:
    """The engine with a client that has a token; `config` starts with no latency and no index lag."""

    def __init__(self, *, seed: int = 7, **config: Any) -> None:
        quiet: Json = {"latency_median_s": 0.0, "search_lag_s": (0.0, 0.0)}
        self.clock = Clock()
        self.engine = ZohoEngine(SandboxConfig(**(quiet | config)), now=self.clock, seed=seed)
        self.token = self.engine.accounts.issue_access_token()

    # Calls

    def request(self, method: str, path: str, json: Any = None, **params: Any) -> Request:
        return Request.build(method, f"/crm/v8/{path}", token=self.token, json=json, params=params)

    def call(self, method: str, path: str, json: Any = None, **params: Any) -> Response:
        return self.engine.handle(self.request(method, path, json, **params))

    def get(self, path: str, **params: Any) -> Response:
        return self.call("GET", path, **params)

    def insert(self, module: str, *rows: Any, **more: Any) -> Response:
        return self.call("POST", module, {"data": list(rows), **more})

    def update(self, module: str, *rows: Any, **more: Any) -> Response:
        return self.call("PUT", module, {"data": list(rows), **more})

    def upsert(self, module: str, *rows: Any, fields: list[str] | None = None, **more: Any) -> Response:
        check = {} if fields is None else {"duplicate_check_fields": fields}
        return self.call("POST", f"{module}/upsert", {"data": list(rows), **check, **more})

    def coql(self, query: str) -> Response:
        return self.call("POST", "coql", {"select_query": query})

    def search(self, module: str, **params: Any) -> Response:
        return self.get(f"{module}/search", **params)

    def note(self, parent_id: str, title: str = "T", content: str = "C", module: str = "Leads") -> Response:
        parent = {"module": {"api_name": module}, "id": parent_id}
        return self.insert("Notes", {"Note_Title": title, "Note_Content": content, "Parent_Id": parent})

    # OAuth

    def token_call(self, host: str = "127.0.0.1", **params: str) -> Response:
        form = {"grant_type": "refresh_token", **self.engine.credentials, **params}
        return self.engine.handle(Request.build("POST", "/oauth/v2/token", form=form, host=host))

    def use_scopes(self, *scopes: str) -> None:
        accounts = self.engine.accounts
        refresh_text = accounts.issue_refresh_token(accounts.default_client.id, scopes)
        self.token = accounts.issue_access_token(refresh_text)

    def use_scopes_without(self, *dropped: str) -> None:
        self.use_scopes(*(scope for scope in FULL_SCOPES if scope not in dropped))

    # Records

    def lead(self, last_name: str = "Doe", **values: Any) -> str:
        return ids(self.insert("Leads", {"Last_Name": last_name, **values}))[0]

    def message(self, message_id: str, **values: Any) -> str:
        return ids(self.insert("Messages", {"Name": message_id, "Message_ID": message_id, **values}))[0]

    def dump(self, module: str) -> list[Json]:
        records: list[Json] = self.engine.steps.dump(module)
        return records

    # Faults

    def plan(self, action: Action, **plan: Any) -> Fault:
        return self.engine.faults.add(Fault(action=action, **plan))


def items(response: Response) -> list[Json]:
    """The rows' results."""
    data: list[Json] = response.json()["data"]
    return data


def ids(response: Response) -> list[str]:
    """The ids of the rows' results."""
    return [item["details"]["id"] for item in items(response)]


def codes(response: Response) -> list[str]:
    """The codes of the rows' results."""
    return [item["code"] for item in items(response)]


def code(response: Response) -> str:
    """The code of a top-level error."""
    text: str = response.json()["code"]
    return text


def names(response: Response, field: str = "Last_Name") -> list[str]:
    """One field of the records found; none for an empty answer."""
    return [] if response.status == 204 else [record[field] for record in items(response)]
