"""The stand-in's engine: synchronous, without I/O, clock or global randomness of its own.

A call has two ends. `begin` admits it: the call is numbered, faults are picked, the token is checked, credits are
booked and a slot is taken, or it is refused (401, 429 …). `finish` gives the slot back and returns the answer.
Between the two the adapter lets `delay_s` pass. The call takes effect at `begin` (or, with `effect_at="finish"`, at
`finish`): so a caller that gives up in between has written all the same. Whoever calls `begin` must call `finish`,
even when the other end is gone. `handle` does both at once, for callers that need no concurrency.

Effects planned for later (`LateEffect`) happen at their own time, before anything else that looks at the store.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any
from urllib.parse import parse_qsl

import orjson

from sandbox.zoho.call import Call, Operation, Reply, body_error
from sandbox.zoho.config import SandboxConfig
from sandbox.zoho.data_centers import LOOPBACK, api_host
from sandbox.zoho.errors import ApiError, method_error, module_error, param_error, url_error
from sandbox.zoho.faults import (
    Action,
    Answer,
    Drop,
    FailRow,
    FaultPlan,
    Garble,
    LateEffect,
    Meddle,
    Slow,
    Throttle,
)
from sandbox.zoho.journal import Violation
from sandbox.zoho.limits import Concurrency, CreditLedger, throttle_body
from sandbox.zoho.model import DropKind, Json, Request, Response
from sandbox.zoho.oauth import Accounts, Grant, module_scope_names, scope_error
from sandbox.zoho.org import Organisation
from sandbox.zoho.routes import operations, resolve
from sandbox.zoho.steps import Steps

JSON_TYPE = {"content-type": "application/json;charset=UTF-8"}
AUTH_SCHEME = "Zoho-oauthtoken "
HEALTHY_SHARE = 0.5


@dataclass(slots=True)
class InFlight:
    """A call between `begin` and `finish`; `delay_s` is the time to let pass."""

    call: Call
    delay_s: float
    is_counted: bool = False
    is_heavy: bool = False
    reply: Reply | None = None
    actions: list[Action] = field(default_factory=list)


class ZohoEngine:
    """One organisation behind one API. `now` gives epoch seconds; the same seed gives the same answers."""

    def __init__(
        self, config: SandboxConfig | None = None, *, now: Callable[[], float], seed: int = 0
    ) -> None:
        self._now = now
        self._seed = seed
        self._config = config or SandboxConfig()
        self._operations = operations()
        self.reset()

    def reset(self) -> None:
        """Everything as new: records, journal, limits, faults and tokens; the credentials stay the same."""
        self._at_s: float | None = None
        self._late: list[tuple[float, int, Call]] = []
        self._latency_rng = Random(f"{self._seed}/latency")
        self.org = Organisation(self._config, clock=self.now, seed=self._seed)
        self.org.dispatch = self._run_sub_request
        self.accounts = Accounts(lambda: self.org.config, now=self.now, rng=Random(f"{self._seed}/tokens"))
        self.credits = CreditLedger()
        self.concurrency = Concurrency()
        self.faults = FaultPlan(lambda: self.org.config, rng=Random(f"{self._seed}/chaos"))
        self.steps = Steps(self)

    # For tests

    def now(self) -> float:
        """Epoch seconds; within a late effect, its own time."""
        return self._now() if self._at_s is None else self._at_s

    @property
    def config(self) -> SandboxConfig:
        return self.org.config

    @property
    def journal(self) -> Any:
        return self.org.journal

    def configure(self, **changes: Any) -> SandboxConfig:
        """Changes some of the configuration from now on; TypeError for an unknown name."""
        self._config = replace(self.org.config, **changes)
        self.org.set_config(self._config)
        return self._config

    @property
    def credentials(self) -> Json:
        """What a client needs: `client_id`, `client_secret`, `refresh_token`."""
        client = self.accounts.default_client
        return {
            "client_id": client.id,
            "client_secret": client.secret,
            "refresh_token": self.accounts.default_refresh_token,
        }

    def violations(self) -> list[Violation]:
        """Records that should be one, as of now."""
        self.settle()
        return self.org.violations()

    def settle(self) -> None:
        """Lets every late effect happen whose time has come."""
        while self._late and self._late[0][0] <= self._now():
            at_s, _, call = heapq.heappop(self._late)
            self._at_s = at_s
            try:
                self._perform(call)
            finally:
                self._at_s = None

    # Calls

    def handle(self, request: Request) -> Response:
        """A whole call at once."""
        return self.finish(self.begin(request))

    def begin(self, request: Request) -> InFlight:
        """Admits a call, or decides how it is refused."""
        self.settle()
        call, error = self._route(request)
        actions = self.faults.strike(call)
        extra_s = sum(each.extra_s for each in actions if isinstance(each, Slow))
        flight = InFlight(call, self._latency() + extra_s, actions=actions)
        self._meddle(flight, "before")
        flight.reply = self._preempted(actions)
        if flight.reply is None:
            flight.reply = self._admit(flight, error)
        elif self._is_api(request):
            self._enter(flight)
        if flight.reply is None and self.config.effect_at == "begin":
            self._take_effect(flight)
        return flight

    def finish(self, flight: InFlight) -> Response:
        """Ends a call: its slot is free again."""
        self.settle()
        if flight.reply is None:
            self._take_effect(flight)
        if flight.is_counted:
            self.concurrency.leave(is_heavy=flight.is_heavy)
        reply = self._altered(flight)
        entry = flight.call.entry
        entry.finished_at_s = self.now()
        response = self._response(flight, reply)
        entry.drop = response.drop
        entry.status = 0 if response.drop in (DropKind.HANG, DropKind.RESET) else response.status
        entry.code = _code_of(reply.body)
        return response

    # Routing

    def _route(self, request: Request) -> tuple[Call, ApiError | None]:
        if request.path.startswith("/oauth/"):
            return self._route_oauth(request)
        route = resolve(request.path)
        methods = self._operations.get(route.shape or "")
        if methods is None:
            return self._new_call(request, _UNKNOWN), url_error()
        operation = methods.get(request.method)
        if operation is None:
            return self._new_call(request, _UNKNOWN), method_error()
        call = self._new_call(request, operation)
        call.record_id = route.record_id
        error = self._set_module(call, route.module)
        self._read_body(call)
        return call, error

    def _route_oauth(self, request: Request) -> tuple[Call, ApiError | None]:
        operation = _OAUTH.get((request.method, request.path))
        if operation is None:
            return self._new_call(request, _UNKNOWN), url_error()
        return self._new_call(request, operation), None

    def _new_call(self, request: Request, operation: Operation) -> Call:
        entry = self.journal.open_call(operation.name, request.method, request.path, now_s=self.now())
        return Call(request, operation, entry)

    def _set_module(self, call: Call, name: str | None) -> ApiError | None:
        if name is None:
            return None
        call.module = self.org.schema.find(name)
        call.entry.module = name
        if call.module is None:
            return module_error()
        if not call.module.api_supported:
            return ApiError(
                400, "NOT_SUPPORTED", "the module is not supported in api", {"resource_path_index": 0}
            )
        return None

    def _read_body(self, call: Call) -> None:
        call.params = (
            dict(parse_qsl(call.request.query, keep_blank_values=True)) if call.request.query else {}
        )
        if not call.operation.takes_json:
            return
        try:
            call.payload = orjson.loads(call.request.body)
        except orjson.JSONDecodeError:
            call.memo["body_error"] = body_error()
        call.entry.rows = len(call.data())
        if isinstance(call.payload, dict):
            call.entry.trigger = call.payload.get("trigger")

    # Admission

    @staticmethod
    def _is_api(request: Request) -> bool:
        return not request.path.startswith("/oauth/")

    def _admit(self, flight: InFlight, error: ApiError | None) -> Reply | None:
        """The reply of a call that is refused; None when it may take effect."""
        call = flight.call
        try:
            if not self._is_api(call.request):
                return self._oauth(call, error)
            if call.operation is _UNKNOWN and error is not None and error.status == 404:
                raise error
            self._check_host(call.request)
            call.grant = self._authenticate(call.request)
            call.entry.client_id = call.grant.client_id
            if error is not None:
                raise error
            self._check_request(call)
            self._check_scopes(call)
            return self._limit(flight)
        except ApiError as refused:
            return self._error_reply(refused)
        except BareRefusal as bare:
            return Reply(bare.status, bare.body, bare.headers)

    def _oauth(self, call: Call, error: ApiError | None) -> Reply:
        if error is not None:
            raise error
        match call.operation.name:
            case "oauth.auth":
                return self.accounts.authorize(call.request)
            case "oauth.token":
                return self.accounts.token(call.request)
            case _:
                return self.accounts.revoke(call.request)

    def _check_host(self, request: Request) -> None:
        if request.host in LOOPBACK:
            return
        if api_host(request.host) != (self.config.data_center, self.config.org_type):
            raise BareRefusal(401)

    def _authenticate(self, request: Request) -> Grant:
        header = request.header("authorization")
        if header is None or not header.startswith(AUTH_SCHEME):
            raise ApiError(401, "AUTHENTICATION_FAILURE", "Authentication failed")
        grant = self.accounts.live_grant(header.removeprefix(AUTH_SCHEME))
        if grant is None or grant.dc != self.config.data_center:
            code = self.config.invalid_token_code
            raise ApiError(
                401, code, "invalid oauth token" if code == "INVALID_TOKEN" else "Authentication failed"
            )
        if not self.org.user.is_active:
            raise self._inactive_user()
        return grant

    def _inactive_user(self) -> ApiError:
        if self.config.inactive_user == "no_permission":
            return ApiError(
                403, "NO_PERMISSION", "permission denied", {"permissions": ["Crm_Implied_Api_Access"]}
            )
        return ApiError(401, "AUTHENTICATION_FAILURE", "Authentication failed")

    def _check_request(self, call: Call) -> None:
        if len(call.request.body) > self.config.max_body_bytes:
            raise BareRefusal(413, b"<html><body><h1>413 Request Entity Too Large</h1></body></html>", _HTML)
        if call.operation.takes_json:
            content_type = (call.request.header("content-type") or "").partition(";")[0].strip().lower()
            if content_type != "application/json":
                raise ApiError(415, "UNSUPPORTED_MEDIA_TYPE", "the content type is not supported")
        unknown = call.params.keys() - call.operation.params
        if unknown and self.config.unknown_params == "reject":
            raise param_error(min(unknown), "the param given seems to be invalid")
        if "body_error" in call.memo:
            raise call.memo["body_error"]

    def _check_scopes(self, call: Call) -> None:
        assert call.grant is not None
        for needed in call.operation.scopes:
            stem, _, verb = needed.partition(".")
            if stem == "notes":
                is_allowed = call.grant.allows(f"module.{verb}", ("notes",))
            else:
                is_allowed = call.grant.allows(needed, module_scope_names(call.module) if call.module else ())
            if not is_allowed:
                raise scope_error(self.config)

    def _limit(self, flight: InFlight) -> Reply | None:
        call = flight.call
        cost = call.operation.credits(self.org, call)
        flight.is_heavy = call.entry.is_heavy = call.operation.is_heavy(self.org, call)
        has_credits = self.credits.used(self.now()) + cost <= self.config.credit_limit
        if has_credits and self.concurrency.has_room(self.config, is_heavy=flight.is_heavy):
            call.entry.credits = cost
            self.credits.spend(cost, now_s=self.now())
            self._enter(flight)
            return None
        if self.config.throttled_call_costs_credit:
            call.entry.credits = 1
            self.credits.spend(1, now_s=self.now())
        wait_s = self.config.retry_after_s
        return Reply(
            429, throttle_body(self.config), {"retry-after": str(wait_s)} if wait_s is not None else {}
        )

    def _enter(self, flight: InFlight) -> None:
        flight.is_counted = True
        self.concurrency.enter(is_heavy=flight.is_heavy)
        self.journal.admitted(
            flight.call.entry,
            in_flight=self.concurrency.in_flight,
            heavy_in_flight=self.concurrency.heavy_in_flight,
        )

    # Effect

    def _take_effect(self, flight: InFlight) -> None:
        flight.call.row_faults = [each for each in flight.actions if isinstance(each, FailRow)]
        if any(isinstance(each, LateEffect) for each in flight.actions):
            flight.reply = Reply(200)
            return
        flight.reply = self._perform(flight.call)
        self._meddle(flight, "after")

    def _perform(self, call: Call) -> Reply:
        try:
            return call.operation.handler(self.org, call)
        except ApiError as error:
            return self._error_reply(error)

    def _error_reply(self, error: ApiError) -> Reply:
        in_data = error.status in (401, 403) and self.config.auth_error_envelope == "data"
        return Reply(error.status, {"data": [error.body]} if in_data else error.body)

    def _run_sub_request(self, parent: Call, request: Request) -> Reply:
        call, error = self._route(request)
        call.grant = parent.grant
        try:
            if error is not None:
                raise error
            self._check_request(call)
            self._check_scopes(call)
            reply = self._perform(call)
        except ApiError as refused:
            reply = self._error_reply(refused)
        call.entry.status = reply.status
        return reply

    # Faults

    def _preempted(self, actions: list[Action]) -> Reply | None:
        """The reply of a call that a fault ends before it has any effect."""
        for action in actions:
            if isinstance(action, Throttle):
                return action.reply(self.config)
            if isinstance(action, Answer) and not action.commit:
                return action.reply()
            if isinstance(action, Drop) and not action.commit:
                return Reply(200)
        return None

    def _meddle(self, flight: InFlight, when: str) -> None:
        for action in flight.actions:
            if not isinstance(action, Meddle) or action.when != when:
                continue
            if action.function is not None:
                action.function()
            if action.do is not None:
                self.steps.run(action.do, dict(action.args))

    def _altered(self, flight: InFlight) -> Reply:
        """The reply after the faults that come behind the effect."""
        reply = flight.reply or Reply(204)
        for action in flight.actions:
            if isinstance(action, Answer) and action.commit:
                reply = action.reply()
            elif isinstance(action, Garble):
                reply = Reply(action.status, action.body.encode(), JSON_TYPE)
            elif isinstance(action, LateEffect):
                due_s = self.now() + action.effect_after_s
                heapq.heappush(self._late, (due_s, flight.call.number, flight.call))
        return reply

    # Answers

    def _latency(self) -> float:
        median_s = self.config.latency_median_s
        if median_s == 0.0:
            return 0.0
        share = self._latency_rng.random()
        if share < 0.5:
            return median_s * (0.9 + 0.2 * share)
        if share < 0.98:
            return median_s * (1.0 + 1.25 * (share - 0.5) / 0.48)
        return median_s * (2.25 + self._latency_rng.expovariate(0.5))

    def _response(self, flight: InFlight, reply: Reply) -> Response:
        body = reply.body if isinstance(reply.body, bytes) else _encoded(reply.body)
        headers = {**(JSON_TYPE if body else {}), **reply.headers, **self._credit_headers(flight)}
        drop = next((each.how for each in flight.actions if isinstance(each, Drop | LateEffect)), None)
        full_length = None
        if drop is DropKind.CUT:
            full_length = max(len(body), 2)
            body = body[: full_length // 2]
        return Response(reply.status, headers, body, flight.delay_s, drop, full_length)

    def _credit_headers(self, flight: InFlight) -> dict[str, str]:
        if not flight.is_counted:
            return {}
        used, limit = self.credits.used(self.now()), self.config.credit_limit
        return {"X-API-CREDITS-REMAINING": str(max(0, limit - used))} if used >= limit * HEALTHY_SHARE else {}


class BareRefusal(Exception):
    """An answer without Zoho's error object."""

    def __init__(self, status: int, body: bytes = b"", headers: dict[str, str] | None = None) -> None:
        super().__init__(status)
        self.status = status
        self.body = body
        self.headers = headers or {}


def _encoded(body: Any) -> bytes:
    return b"" if body is None else orjson.dumps(body)


def _code_of(body: Any) -> str | None:
    """The code at the top of an error answer, or OAuth's `error`."""
    if not isinstance(body, dict):
        return None
    code = body.get("code") or body.get("error")
    return str(code) if code else None


def _nothing(org: Organisation, call: Call) -> Reply:
    raise url_error()


_HTML = {"content-type": "text/html;charset=UTF-8"}
_UNKNOWN = Operation(name="unknown", handler=_nothing)
_OAUTH = {
    ("GET", "/oauth/v2/auth"): Operation(name="oauth.auth", handler=_nothing),
    ("POST", "/oauth/v2/token"): Operation(name="oauth.token", handler=_nothing),
    ("POST", "/oauth/v2/token/revoke"): Operation(name="oauth.revoke", handler=_nothing),
}
