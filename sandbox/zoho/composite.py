"""Several calls in one: POST /__composite_requests."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import urlencode

import orjson

from sandbox.zoho.call import Call, Reply, body_error
from sandbox.zoho.errors import ApiError, row_error
from sandbox.zoho.model import Json, Request
from sandbox.zoho.org import Organisation

MAX_SUB_REQUESTS = 5
SUB_ID = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_]*")
KEY = "__composite_requests"


def run(org: Organisation, call: Call) -> Reply:
    """Runs up to five calls in order; each gets its own status and body. One credit for all of them."""
    subs = _sub_requests(call)
    is_atomic = bool(call.payload.get("rollback_on_fail"))
    undo = org.checkpoint() if is_atomic else None
    items: list[Json] = []
    for index, sub in enumerate(subs):
        reply = _run_one(org, call, sub, index)
        items.append(reply)
        if undo is not None and _has_failed(reply):
            undo()
            return Reply(400, {KEY: _rolled_back(items, index, len(subs))})
    return Reply(200, {KEY: items})


def _sub_requests(call: Call) -> list[Json]:
    if not isinstance(call.payload, dict):
        raise body_error()
    subs = call.payload.get(KEY)
    path = {"api_name": KEY, "json_path": f"$.{KEY}"}
    if not isinstance(subs, list) or not subs:
        raise ApiError(400, "MANDATORY_NOT_FOUND", "required field not found", path)
    if len(subs) > MAX_SUB_REQUESTS:
        raise ApiError(400, "INVALID_DATA", "invalid data", {**path, "maximum_length": MAX_SUB_REQUESTS})
    payload = call.payload
    if payload.get("rollback_on_fail") and (payload.get("parallel_execution") or payload.get("concurrent_execution")):
        due_to = [{"api_name": name, "json_path": f"$.{name}"} for name in ("rollback_on_fail", "parallel_execution")]
        raise ApiError(400, "AMBIGUITY_DURING_PROCESSING", "ambiguity while processing", {"ambiguity_due_to": due_to})
    return subs


def _run_one(org: Organisation, call: Call, sub: Any, index: int) -> Json:
    fault = _fault_in(sub, f"$.{KEY}[{index}]")
    if fault is not None:
        return fault
    reply = org.dispatch(call, _as_request(call, sub))
    shown = {"headers": {}, "body": reply.body, "status_code": reply.status}
    return {"code": "SUCCESS", "message": "sub request executed", "status": "success", "details": {"response": shown}}


_MEMBERS = (
    ("method", str, "string"),
    ("uri", str, "string"),
    ("params", dict, "jsonobject"),
    ("headers", dict, "jsonobject"),
)


def _fault_in(sub: Any, path: str) -> Json | None:
    """Why this is no request, if it is none."""
    if not isinstance(sub, dict):
        return row_error("INVALID_DATA", "invalid data", {"expected_data_type": "jsonobject", "json_path": path})
    for name, kind, expected in _MEMBERS:
        value = sub.get(name)
        where = {"api_name": name, "json_path": f"{path}.{name}"}
        if value is None and kind is str:
            return row_error("MANDATORY_NOT_FOUND", "required field not found", where)
        if value is not None and not isinstance(value, kind):
            return row_error("INVALID_DATA", "invalid data", {**where, "expected_data_type": expected})
    sub_id = sub.get("sub_request_id")
    if sub_id is not None and not SUB_ID.fullmatch(str(sub_id)):
        where = {"api_name": "sub_request_id", "json_path": f"{path}.sub_request_id"}
        return row_error("INVALID_DATA", "invalid data", {**where, "regex": SUB_ID.pattern})
    return None


def _as_request(call: Call, sub: Json) -> Request:
    path, _, query = sub["uri"].partition("?")
    params = urlencode(sub.get("params") or {})
    headers = {**call.request.headers, "content-type": "application/json"}
    body = orjson.dumps(sub["body"]) if sub.get("body") is not None else b""
    return Request(sub["method"], path, "&".join(filter(None, (query, params))), headers, body, call.request.host)


def _has_failed(item: Json) -> bool:
    if item["status"] == "error":
        return True
    return bool(item["details"]["response"]["status_code"] not in (200, 201, 204))


def _rolled_back(items: list[Json], failed: int, total: int) -> list[Json]:
    details = {"rollbacked_by_sub_request_index": failed}
    undone = row_error("ROLLBACK_PERFORMED", "rollback performed", details)
    stopped = row_error("PROCESSING_STOPPED", "processing stopped", {})
    return [*([undone] * failed), items[failed], *([stopped] * (total - failed - 1))]
