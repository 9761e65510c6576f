"""Several calls in one: `POST /__composite_requests`, up to five sub-requests for one credit (v8 composite overview).

Not verified against Zoho: whether it takes searches, and in how many places of the concurrency limit it counts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from consumer.core.errors import RefusedError, TokenRefusedError, TransientError
from consumer.zoho.api import API_VERSION, Call, Operation, Reply, Send
from consumer.zoho.http import reply_of

if TYPE_CHECKING:
    from collections.abc import Sequence

_KEY = "__composite_requests"


async def send_together(send: Send, calls: Sequence[Call]) -> list[Reply | None]:
    """The reply of each read, in order; None for one that failed: ask it alone to learn why.

    Raises SyncError when the whole call failed, HaltedError when a read within it found a cause that is not its own.
    """
    body = {
        "rollback_on_fail": False,
        "parallel_execution": True,
        _KEY: [_sub_request(call, index) for index, call in enumerate(calls)],
    }
    together = Call(Operation.SEARCH_TOGETHER, "POST", f"/{_KEY}", body=body, is_optional=True)
    answers = ((await send(together)).body or {}).get(_KEY)
    if not isinstance(answers, list) or len(answers) != len(calls):
        raise TransientError("ANSWER_INCOMPLETE")
    return [_sub_reply(call, answer) for call, answer in zip(calls, answers, strict=True)]


def _sub_request(call: Call, index: int) -> dict[str, Any]:
    return {
        "sub_request_id": f"call{index}",
        "method": call.method,
        "uri": f"/crm/{API_VERSION}{call.path}",
        "headers": {},
        "params": dict(call.params),
    }


def _sub_reply(call: Call, answer: object) -> Reply | None:
    details = answer.get("details") if isinstance(answer, dict) else None
    response = details.get("response") if isinstance(details, dict) else None
    status = response.get("status_code") if isinstance(response, dict) else None
    if not isinstance(response, dict) or not isinstance(status, int):
        return None
    if status == 204 or (status == 200 and response.get("body") in (None, {})):
        return Reply(204, None)
    try:
        return reply_of(call, status, response.get("body"))
    except (RefusedError, TransientError, TokenRefusedError):
        return None
