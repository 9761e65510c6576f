"""The stand-in's engine: synchronous, without I/O, clock or global randomness of its own.

A call has two ends. `begin` admits it: the call is numbered, faults are picked, the token is checked, credits are
booked and a slot is taken, or it is refused (401, 429 …). `finish` gives the slot back and returns the answer.
Between the two the adapter lets `delay_s` pass. The call takes effect at `begin` (or, with
`effect_at="finish"`, at `finish`): so a caller that gives up in between has written all the same. Whoever calls
`begin` must call `finish`, even when the other end is gone. `handle` does both at once, for callers that need no
concurrency.

Effects planned for later (`LateEffect`) happen at their own time, before anything else that looks at the store.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import parse_qsl

import orjson

from sandbox.zoho.call import Call, Operation, Reply, body_error
from sandbox.zoho.config import SandboxConfig
from sandbox.zoho.errors import ApiError, BareRefusal, method_error, module_error, url_error
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
from sandbox.zoho.gate import Gate
from sandbox.zoho.journal import Journal, Violation
from sandbox.zoho.model import DropKind, Json, Request, Response
from sandbox.zoho.oauth import Accounts
from sandbox.zoho.org import Organisation, stream
from sandbox.zoho.routes import operations, resolve
from sandbox.zoho.steps import Steps

JSON_TYPE = {"content-type": "application/json;charset=UTF-8"}
NO_ANSWER = (DropKind.HANG, DropKind.RESET)


@dataclass(slots=True)
class InFlight:
    """A call between `begin` and `finish`; `delay_s` is the time to let pass."""

    call: Call
    delay_s: float
    actions: list[Action] = field(default_factory=list)
    reply: Reply | None = None


class ZohoEngine:
    """One organisation behind one API. `now` gives epoch seconds; the same seed gives the same answers."""

    def __init__(self, config: SandboxConfig | None = None, *, now: Callable[[], float], seed: int = 0) -> None:
        self._now = now
        self._seed = seed
        self._config = config or SandboxConfig()
        self._operations = operations()
        self.steps = Steps(self)
        self.reset()

    def reset(self) -> None:
        """Everything as new: records, journal, limits, faults and tokens; the credentials stay the same."""
        self._at_s: float | None = None
        self._late: list[tuple[float, int, Call]] = []
        self._latency_rng = stream(self._seed, "latency")
        self.org = Organisation(self._config, clock=self.now, seed=self._seed)
        self.org.dispatch = self._run_sub_request
        self.accounts = Accounts(lambda: self.config, now=self.now, rng=stream(self._seed, "tokens"))
        self.gate = Gate(self.org, self.accounts)
        self.faults = FaultPlan(lambda: self.config, rng=stream(self._seed, "chaos"))

    # For tests

    def now(self) -> float:
        """Epoch seconds; within a late effect, its own time."""
        return self._now() if self._at_s is None else self._at_s

    @property
    def config(self) -> SandboxConfig:
        """The configuration as it is now."""
        return self.org.config

    @property
    def journal(self) -> Journal:
        """Every call and every effect."""
        return self.org.journal

    def configure(self, **changes: Any) -> SandboxConfig:
        """Changes some of the configuration from now on; TypeError for an unknown name."""
        self._config = replace(self.config, **changes)
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
            self._at_s, _, call = heapq.heappop(self._late)
            self._perform(call)
            self._at_s = None

    # Calls

    def handle(self, request: Request) -> Response:
        """A whole call at once."""
        return self.finish(self.begin(request))

    def begin(self, request: Request) -> InFlight:
        """Admits a call, or decides how it is refused."""
        self.settle()
        call = self._route(request)
        actions = self.faults.strike(call)
        flight = InFlight(call, self._latency(actions), actions)
        self._meddle(flight, "before")
        flight.reply = self._preempted(flight)
        if flight.reply is None:
            flight.reply = self._admit(call)
        if flight.reply is None and self.config.effect_at == "begin":
            self._take_effect(flight)
        return flight

    def finish(self, flight: InFlight) -> Response:
        """Ends a call: its slot is free again."""
        self.settle()
        if flight.reply is None:
            self._take_effect(flight)
        entry = flight.call.entry
        reply = self._altered(flight)
        response = self._response(flight, reply)
        self.gate.leave(flight.call)
        entry.finished_at_s = self.now()
        entry.drop = response.drop
        entry.status = 0 if response.drop in NO_ANSWER else response.status
        entry.code = _code_of(reply.body)
        return response

    # Routing

    def _route(self, request: Request) -> Call:
        if request.path.startswith("/oauth/"):
            operation = _OAUTH.get((request.method, request.path), _UNKNOWN)
            return self._new_call(request, operation, url_error() if operation is _UNKNOWN else None)
        route = resolve(request.path)
        methods = self._operations.get(route.shape or "")
        if methods is None:
            return self._new_call(request, _UNKNOWN, url_error())
        operation = methods.get(request.method, _UNKNOWN)
        if operation is _UNKNOWN:
            return self._new_call(request, _UNKNOWN, method_error())
        call = self._new_call(request, operation, None)
        call.record_id = route.record_id
        if route.module is not None:
            self._set_module(call, route.module)
        _read_request(call)
        return call

    def _new_call(self, request: Request, operation: Operation, error: ApiError | None) -> Call:
        path = request.path
        entry = self.journal.open_call(operation.name, request.method, path, now_s=self.now())
        return Call(request, operation, entry, route_error=error)

    def _set_module(self, call: Call, name: str) -> None:
        call.module = self.org.schema.find(name)
        call.entry.module = name
        if call.module is None:
            call.route_error = module_error()
        elif not call.module.api_supported:
            details = {"resource_path_index": 0}
            call.route_error = ApiError(400, "NOT_SUPPORTED", "the module is not supported in api", details)

    # Admission

    def _admit(self, call: Call) -> Reply | None:
        """The reply of a call that is refused; None when it may take effect."""
        try:
            if call.operation.is_oauth:
                return None
            if call.route_error is not None and call.route_error.status == 404:
                raise call.route_error
            self.gate.identify(call)
            if call.route_error is not None:
                raise call.route_error
            self.gate.check_request(call)
            return self.gate.enter(call)
        except (ApiError, BareRefusal) as refused:
            return self._refusal(refused)

    def _refusal(self, refused: ApiError | BareRefusal) -> Reply:
        if isinstance(refused, BareRefusal):
            return Reply(refused.status, refused.body or None, refused.headers)
        in_data = refused.status in (401, 403) and self.config.auth_error_envelope == "data"
        return Reply(refused.status, {"data": [refused.body]} if in_data else refused.body)

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
            if call.operation.is_oauth:
                return self.accounts.answer(call)
            return call.operation.handler(self.org, call)
        except ApiError as error:
            return self._refusal(error)

    def _run_sub_request(self, parent: Call, request: Request) -> Reply:
        """A call within a composite call: no slot and no credits of its own."""
        call = self._route(request)
        call.grant = parent.grant
        try:
            if call.route_error is not None:
                raise call.route_error
            self.gate.check_request(call)
            reply = self._perform(call)
        except (ApiError, BareRefusal) as refused:
            reply = self._refusal(refused)
        call.entry.status = reply.status
        return reply

    # Faults

    def _preempted(self, flight: InFlight) -> Reply | None:
        """The reply of a call that a fault ends before it has any effect; it is in flight all the same."""
        reply = next(filter(None, (self._early_reply(action) for action in flight.actions)), None)
        if reply is not None and not flight.call.operation.is_oauth:
            self.gate.take_slot(flight.call)
        return reply

    def _early_reply(self, action: Action) -> Reply | None:
        match action:
            case Throttle():
                return action.reply(self.config)
            case Answer(commit=False):
                return action.reply()
            case Drop(commit=False):
                return Reply(200)
            case _:
                return None

    def _meddle(self, flight: InFlight, when: str) -> None:
        for action in flight.actions:
            if isinstance(action, Meddle) and action.when == when:
                if action.function is not None:
                    action.function()
                if action.do is not None:
                    self.steps.run(action.do, dict(action.args))

    def _altered(self, flight: InFlight) -> Reply:
        """The reply after the faults that come behind the effect."""
        reply = flight.reply or Reply(204)
        for action in flight.actions:
            match action:
                case Answer(commit=True):
                    reply = action.reply()
                case Garble():
                    reply = Reply(action.status, action.body.encode(), JSON_TYPE)
                case LateEffect():
                    due_s = self.now() + action.effect_after_s
                    heapq.heappush(self._late, (due_s, flight.call.number, flight.call))
                case _:
                    pass
        return reply

    # Answers

    def _latency(self, actions: list[Action]) -> float:
        extra_s = sum(each.extra_s for each in actions if isinstance(each, Slow))
        median_s = self.config.latency_median_s
        if median_s == 0.0:
            return extra_s
        share = self._latency_rng.random()
        if share < 0.5:
            return extra_s + median_s * (0.9 + 0.2 * share)
        if share < 0.98:
            return extra_s + median_s * (1.0 + 1.25 * (share - 0.5) / 0.48)
        return extra_s + median_s * (2.25 + self._latency_rng.expovariate(0.5))

    def _response(self, flight: InFlight, reply: Reply) -> Response:
        body = reply.body if isinstance(reply.body, bytes) else _encoded(reply.body)
        headers = {**(JSON_TYPE if body else {}), **reply.headers}
        if flight.call.has_slot:
            headers |= self.gate.credit_headers()
        drop = next((each.how for each in flight.actions if isinstance(each, Drop | LateEffect)), None)
        full_length = max(len(body), 2) if drop is DropKind.CUT else None
        shown = body if full_length is None else body[: full_length // 2]
        return Response(reply.status, headers, shown, flight.delay_s, drop, full_length)


def _read_request(call: Call) -> None:
    request = call.request
    call.params = dict(parse_qsl(request.query, keep_blank_values=True)) if request.query else {}
    if not call.operation.takes_json:
        return
    try:
        call.payload = orjson.loads(request.body)
    except orjson.JSONDecodeError:
        call.body_error = body_error()
    call.entry.rows = len(call.data())
    if isinstance(call.payload, dict):
        call.entry.trigger = call.payload.get("trigger")


def _encoded(body: Any) -> bytes:
    return b"" if body is None else orjson.dumps(body)


def _code_of(body: Any) -> str | None:
    """The code at the top of an error answer, or OAuth's `error`."""
    if not isinstance(body, dict):
        return None
    code = body.get("code") or body.get("error")
    return str(code) if code else None


def _nothing(_org: Organisation, _call: Call) -> Reply:
    raise url_error()


_UNKNOWN = Operation(name="unknown", handler=_nothing)
_OAUTH = {
    ("GET", "/oauth/v2/auth"): Operation(name="oauth.auth", handler=_nothing),
    ("POST", "/oauth/v2/token"): Operation(name="oauth.token", handler=_nothing),
    ("POST", "/oauth/v2/token/revoke"): Operation(name="oauth.revoke", handler=_nothing),
}
