"""Planned trouble: which calls it befalls, what happens to them, and how often it has happened."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from random import Random
from typing import Any, Literal

from sandbox.zoho.call import Call, Reply
from sandbox.zoho.config import Chaos, SandboxConfig
from sandbox.zoho.errors import field_details, row_error
from sandbox.zoho.limits import throttle_body
from sandbox.zoho.model import DropKind, Json

HTML = {"content-type": "text/html;charset=UTF-8"}


def html_page(status: int) -> str:
    """What a gateway in front of Zoho shows."""
    head = f"<html><head><title>{status}</title></head>"
    return f"{head}<body><h1>{status}</h1><p>Sorry, try again later.</p></body></html>"


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """Which calls a fault is for; every condition given must hold.

    `operation` is a name such as `records.upsert`, or a prefix that ends in a dot; `path` is a pattern searched for in
    the path and query; `module` an API name; `nth` counts the calls that meet the other conditions, from 1.
    """

    operation: str | None = None
    method: str | None = None
    path: str | None = None
    module: str | None = None
    min_rows: int = 0
    nth: int | None = None
    predicate: Callable[[Call], bool] | None = None

    def meets(self, call: Call) -> bool:
        """Everything but `nth`."""
        request = call.request
        return (
            _is_operation(self.operation, call.operation.name)
            and self.method in (None, request.method)
            and (self.path is None or re.search(self.path, f"{request.path}?{request.query}") is not None)
            and (self.module is None or (call.module is not None and call.module.api_name == self.module))
            and len(call.data()) >= self.min_rows
            and (self.predicate is None or self.predicate(call))
        )


def _is_operation(wanted: str | None, name: str) -> bool:
    return wanted is None or wanted == name or (wanted.endswith(".") and name.startswith(wanted))


# What happens


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """This answer instead of the proper one, after the effect (`commit`) or instead of it."""

    status: int
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)
    commit: bool = False

    def reply(self) -> Reply:
        """The answer."""
        body = self.body.encode() if isinstance(self.body, str) else self.body
        return Reply(self.status, body, self.headers)


@dataclass(frozen=True, slots=True, kw_only=True)
class Throttle:
    """429, in the organisation's form or this one."""

    form: Literal["too_many_requests", "rate_limit_exceeded", "trace", "html", "empty"] | None = None
    retry_after: str | None = None

    def reply(self, config: SandboxConfig) -> Reply:
        """The answer."""
        headers = {"retry-after": self.retry_after} if self.retry_after else {}
        if self.form == "html":
            return Reply(429, html_page(429).encode(), HTML | headers)
        return Reply(429, None if self.form == "empty" else throttle_body(config, form=self.form), headers)


@dataclass(frozen=True, slots=True, kw_only=True)
class Drop:
    """No proper answer: the connection hangs, breaks, or ends in the middle of the body; with or without effect."""

    how: DropKind = DropKind.RESET
    commit: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class LateEffect:
    """The connection drops, and the effect comes this long after that."""

    effect_after_s: float
    how: DropKind = DropKind.RESET


@dataclass(frozen=True, slots=True, kw_only=True)
class Garble:
    """The effect, and then a 200 whose body is no JSON."""

    body: str = '{"data":[{"code":"SUCC'
    status: int = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class FailRow:
    """One row of a batch fails with this code: row `index`, or each row whose `key` has this `value`; with `commit`
    it is stored all the same."""

    code: str
    message: str = "failed"
    index: int | None = None
    key: str | None = None
    value: Any = None
    details: Json | None = None
    commit: bool = False

    def hits(self, row: Any, index: int) -> bool:
        """Is it this row?"""
        if self.key is not None:
            return isinstance(row, dict) and row.get(self.key) == self.value
        return self.index == index

    def item(self, index: int) -> Json:
        """The row's result."""
        details = self.details if self.details is not None else field_details(self.key or "id", index)
        return row_error(self.code, self.message, details)


@dataclass(frozen=True, slots=True, kw_only=True)
class Slow:
    """The call takes this much longer."""

    extra_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Meddle:
    """Something happens behind the client's back, before or after the call's effect.

    `do` names a step of the control API (`delete`, `merge`, `convert`, `revoke_scope`, `deactivate_user`, `configure`
    …), `args` are its arguments; or `function` is called.
    """

    do: str | None = None
    args: Mapping[str, Any] = field(default_factory=dict)
    function: Callable[[], object] | None = None
    when: Literal["before", "after"] = "before"


Action = Answer | Throttle | Drop | LateEffect | Garble | FailRow | Slow | Meddle


@dataclass(slots=True, kw_only=True)
class Fault:
    """A plan: up to `times` of the matching calls (None: all) meet with `action`. `fired` counts them."""

    action: Action
    match: Match = field(default_factory=Match)
    times: int | None = 1
    name: str = ""
    seen: int = 0
    fired: int = 0

    def strikes(self, call: Call) -> bool:
        """Does it befall this call? Counts."""
        if (self.times is not None and self.fired >= self.times) or not self.match.meets(call):
            return False
        self.seen += 1
        if self.match.nth is not None and self.seen != self.match.nth:
            return False
        self.fired += 1
        return True

    def as_json(self) -> Json:
        """For the control API."""
        return {
            "name": self.name,
            "action": type(self.action).__name__,
            "times": self.times,
            "seen": self.seen,
            "fired": self.fired,
        }


class FaultPlan:
    """The planned faults in order, and the random ones."""

    def __init__(self, config: Callable[[], SandboxConfig], *, rng: Random) -> None:
        self._config = config
        self._rng = rng
        self.faults: list[Fault] = []
        self.chaos_fired: dict[str, int] = {}

    def add(self, fault: Fault) -> Fault:
        """Plans a fault; it keeps its counts."""
        fault.name = fault.name or f"fault-{len(self.faults) + 1}"
        self.faults.append(fault)
        return fault

    def clear(self) -> None:
        """Nothing is planned any more."""
        self.faults.clear()

    def strike(self, call: Call) -> list[Action]:
        """The actions that befall this call."""
        struck = [fault for fault in self.faults if fault.strikes(call)]
        if struck:
            call.entry.fault = ",".join(fault.name for fault in struck)
        actions = [fault.action for fault in struck]
        return actions or self._random(call)

    def _random(self, call: Call) -> list[Action]:
        chaos = self._config().chaos
        if chaos == _CALM:
            return []
        for name, action in self._options(chaos, call):
            if self._rng.random() < getattr(chaos, name):
                self.chaos_fired[name] = self.chaos_fired.get(name, 0) + 1
                call.entry.fault = f"chaos.{name}"
                return [action()]
        return []

    def _options(self, chaos: Chaos, call: Call) -> list[tuple[str, Callable[[], Action]]]:
        if call.operation.is_oauth:
            return [("token_fault", lambda: Answer(status=500, body=html_page(500), headers=HTML))]
        options: list[tuple[str, Callable[[], Action]]] = [
            ("server_error", lambda: self._server_error(commit=False)),
            ("throttled", Throttle),
            ("drop_before_commit", lambda: Drop(how=self._rng.choice(list(DropKind)), commit=False)),
            ("commit_then_drop", self._commit_then_drop),
            ("late_effect", lambda: LateEffect(effect_after_s=self._rng.uniform(*chaos.late_effect_s))),
            ("garbled", Garble),
        ]
        if call.data():
            options.append(("row_fault", lambda: self._row_fault(len(call.data()))))
        return options

    def _server_error(self, *, commit: bool) -> Action:
        status = self._rng.choice((500, 502, 503))
        return Answer(status=status, body=html_page(status), headers=HTML, commit=commit)

    def _commit_then_drop(self) -> Action:
        if self._rng.random() < 0.5:
            return self._server_error(commit=True)
        return Drop(how=self._rng.choice(list(DropKind)), commit=True)

    def _row_fault(self, rows: int) -> Action:
        code = self._rng.choice(("RECORD_LOCKED", "INTERNAL_ERROR", "LIMIT_EXCEEDED"))
        return FailRow(code=code, index=self._rng.randrange(rows), commit=self._rng.random() < 0.2)


_CALM = Chaos()
