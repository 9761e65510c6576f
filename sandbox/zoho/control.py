"""The control API under `/_sandbox`: what a test in another process can see and do. JSON in, JSON out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any
from urllib.parse import parse_qsl

import orjson

from sandbox.zoho.engine import ZohoEngine
from sandbox.zoho.faults import (
    Action,
    Answer,
    Drop,
    FailRow,
    Fault,
    Garble,
    LateEffect,
    Match,
    Meddle,
    Slow,
    Throttle,
)
from sandbox.zoho.model import DropKind, Json
from sandbox.zoho.steps import StepError

PREFIX = "/_sandbox"
ACTIONS: Mapping[str, Callable[..., Action]] = {
    "answer": Answer,
    "throttle": Throttle,
    "drop": Drop,
    "late_effect": LateEffect,
    "garble": Garble,
    "fail_row": FailRow,
    "slow": Slow,
    "meddle": Meddle,
}


class OffsetClock:
    """A clock that runs with another one, and can be advanced."""

    def __init__(self, base: Callable[[], float]) -> None:
        self._base = base
        self.offset_s = 0.0

    def __call__(self) -> float:
        return self._base() + self.offset_s

    def advance(self, seconds: float) -> None:
        """Jumps ahead."""
        self.offset_s += seconds


def fault_from_json(plan: Json) -> Fault:
    """A fault from `{"action": {"kind": "drop", "how": "reset"}, "match": {…}, "times": 1}`.

    Raises:
        StepError: the plan has another shape.
    """
    try:
        action = dict(plan["action"])
        make = ACTIONS[action.pop("kind")]
        if "how" in action:
            action["how"] = DropKind(action["how"])
        match = Match(**plan.get("match", {}))
        rest = {name: plan[name] for name in ("times", "name") if name in plan}
        return Fault(action=make(**action), match=match, **rest)
    except (KeyError, TypeError, ValueError) as error:
        raise StepError(f"fault plan: {error!r}") from error


class Control:
    """Answers the control API's requests."""

    def __init__(self, engine: ZohoEngine, clock: OffsetClock | None = None) -> None:
        self._engine = engine
        self._clock = clock
        self._routes: Mapping[tuple[str, str], Callable[[Json], Any]] = {
            ("GET", "/state"): self._state,
            ("GET", "/calls"): self._calls,
            ("GET", "/effects"): self._effects,
            ("GET", "/violations"): self._violations,
            ("GET", "/config"): self._config,
            ("POST", "/config"): self._configure,
            ("GET", "/faults"): self._faults,
            ("POST", "/faults"): self._plan,
            ("DELETE", "/faults"): self._clear_faults,
            ("POST", "/clock"): self._advance,
            ("POST", "/reset"): self._reset,
        }

    def handle(self, method: str, path: str, query: str, body: bytes) -> tuple[int, bytes]:
        """Status and JSON body."""
        try:
            args = {**dict(parse_qsl(query)), **(orjson.loads(body) if body else {})}
            return 200, orjson.dumps(self._answer(method, path.removeprefix(PREFIX), args))
        except LookupError as error:
            return 404, orjson.dumps({"error": str(error)})
        except (StepError, orjson.JSONDecodeError, TypeError, ValueError) as error:
            return 400, orjson.dumps({"error": str(error)})

    def _answer(self, method: str, path: str, args: Json) -> Any:
        self._engine.settle()
        route = self._routes.get((method, path))
        if route is not None:
            return route(args)
        if method == "GET" and path.startswith("/dump/"):
            return self._engine.steps.run("dump", {"module": path.removeprefix("/dump/")})
        if method == "POST" and path.startswith("/steps/"):
            return {"result": self._engine.steps.run(path.removeprefix("/steps/"), args)}
        raise LookupError(f"{method} {PREFIX}{path} is not part of the control API")

    def _state(self, _: Json) -> Json:
        engine = self._engine
        return {
            "now_s": engine.now(),
            "credits_used": engine.gate.credits.used(engine.now()),
            "credit_limit": engine.config.credit_limit,
            "tokens_issued": len(engine.accounts.tokens_issued),
            "in_flight": engine.gate.concurrency.in_flight,
            "records": {module.api_name: len(engine.org.table(module)) for module in engine.org.schema},
            "chaos_fired": engine.faults.chaos_fired,
            **engine.journal.summary(),
        }

    def _calls(self, args: Json) -> list[Json]:
        since = int(args.get("since", 0))
        wanted = args.get("operation")
        calls = self._engine.journal.calls[since:]
        return [entry.as_json() for entry in calls if wanted in (None, entry.operation)]

    def _effects(self, args: Json) -> list[Json]:
        since = int(args.get("since", 0))
        return [
            {
                "number": effect.number,
                "kind": effect.kind,
                "module": effect.module,
                "record_id": effect.record_id,
                "values": effect.row.values,
                "at_s": effect.at_s,
                "call": effect.call,
            }
            for effect in self._engine.journal.effects[since:]
        ]

    def _violations(self, _: Json) -> list[Json]:
        return [each.as_json() for each in self._engine.violations()]

    def _config(self, _: Json) -> Json:
        return asdict(self._engine.config)

    def _configure(self, args: Json) -> Json:
        self._engine.steps.run("configure", args)
        return self._config(args)

    def _faults(self, _: Json) -> list[Json]:
        return [fault.as_json() for fault in self._engine.faults.faults]

    def _plan(self, args: Json) -> Json:
        return self._engine.faults.add(fault_from_json(args)).as_json()

    def _clear_faults(self, _: Json) -> list[Json]:
        self._engine.faults.clear()
        return []

    def _advance(self, args: Json) -> Json:
        if self._clock is None:
            raise StepError("this engine's clock cannot be advanced")
        self._clock.advance(float(args["advance_s"]))
        return {"now_s": self._engine.now()}

    def _reset(self, _: Json) -> Json:
        self._engine.reset()
        return {"now_s": self._engine.now()}
