"""The Zoho room over Zoho's stand-in, in one process and in virtual time: all is real but the socket."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode, urlsplit

import aiohttp
from multidict import CIMultiDict

from consumer.core.backoff import Backoff
from consumer.core.limits import Gate, Limiter
from consumer.core.links import Links
from consumer.core.model import Deferred, Delivery, NotePolicy, Parent, Record, Stage, TopicPartition
from consumer.core.offsets import OffsetTracker
from consumer.core.phones import Phones
from consumer.zoho.auth import Credentials, HttpTokenEndpoint, TokenCache, TokenSource, authorized, tokened
from consumer.zoho.http import HttpSend
from consumer.zoho.layers import Turnstile, gated, limited, retried, wanted
from consumer.zoho.metadata import Schema
from consumer.zoho.people import LeadOptions, MatchPolicy, People
from consumer.zoho.sink import ZohoSink
from sandbox.zoho import DropKind, Fault, Match, Request, SandboxConfig, ZohoEngine
from sandbox.zoho.inprocess import Wire
from schemas.message_event import MessageEvent
from tests import virtual_time

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Coroutine, Mapping

    from consumer.zoho.api import Operation
    from sandbox.zoho.faults import Action

HOST = "http://127.0.0.1:9"
EPOCH_S = 1_767_225_600.0
BACKOFF = Backoff(base_s=0.5, cap_s=30.0)
TP = TopicPartition("messaging.messages.v1", 0)


def run(work: Coroutine[Any, Any, Any]) -> Any:
    """A scenario in virtual time."""
    return virtual_time.run(work)


class _Content:
    def __init__(self, body: bytes, *, is_cut: bool) -> None:
        self._body = body
        self._is_cut = is_cut

    async def iter_chunked(self, _size: int) -> AsyncIterator[bytes]:
        yield self._body
        if self._is_cut:
            raise aiohttp.ClientPayloadError

    async def read(self, _size: int) -> bytes:
        if self._is_cut:
            raise aiohttp.ClientPayloadError
        return self._body


@dataclass
class _Response:
    status: int
    headers: Mapping[str, str]
    content: _Content


class WireSession:
    """What the room uses of `aiohttp.ClientSession`, over the stand-in's wire; fails as aiohttp does."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    @asynccontextmanager
    async def request(
        self,
        method: str,
        url: str,
        *,
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109 - aiohttp's own signature
        allow_redirects: bool,
        params: list[tuple[str, str]] | None = None,
        data: Any = b"",
        headers: Mapping[str, str] | None = None,
    ) -> AsyncIterator[_Response]:
        assert not allow_redirects
        if isinstance(data, dict):
            headers = {"content-type": "application/x-www-form-urlencoded"}
            data = urlencode(data).encode()
        parts = urlsplit(url)
        request = Request(method, parts.path, urlencode(params or []), dict(headers or {}), data or b"", "127.0.0.1")
        async with asyncio.timeout(timeout.total):
            yield await self._answer(request)

    def post(self, url: str, **options: Any) -> Any:
        return self.request("POST", url, **options)

    async def _answer(self, request: Request) -> _Response:
        try:
            response = await self._wire.send(request)
        except ConnectionResetError:
            raise aiohttp.ServerDisconnectedError from None
        except asyncio.IncompleteReadError as error:
            return _Response(200, CIMultiDict(), _Content(error.partial, is_cut=True))
        return _Response(response.status, CIMultiDict(response.headers), _Content(response.body, is_cut=False))


class Value:
    """A secret that a test can change."""

    def __init__(self, value: str) -> None:
        self.value = value

    def get(self) -> str | None:
        return self.value


class Told:
    """Everything the room says about itself."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str]] = []
        self.people: Counter[str] = Counter()
        self.ambiguous = 0
        self.withdrawn: list[bool] = []
        self.missing: list[tuple[str, str]] = []
        self.unreadable: list[str] = []
        self.refreshes: list[str] = []
        self.halts: list[tuple[str, str, str]] = []
        self.on_credits: Any = lambda _remaining: None

    def called(
        self, operation: str, *, credits_used: int, code: str, seconds: float, credits_remaining: int | None
    ) -> None:
        self.calls.append((operation, code))
        if credits_remaining is not None:
            self.on_credits(credits_remaining)

    def people_resolved(self, how: str, count: int) -> None:
        self.people[how] += count

    def person_ambiguous(self, _hits: int) -> None:
        self.ambiguous += 1

    def lead_withdrawn(self, lead_id: str, kept_id: str, *, is_deleted: bool) -> None:
        self.withdrawn.append(is_deleted)


@dataclass
class World:
    """One organisation; any number of clients."""

    config: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        loop = asyncio.get_running_loop()
        settings = {"search_lag_s": (0.0, 0.0), "latency_median_s": 0.4, **self.config}
        self._loop = loop
        self.engine = ZohoEngine(SandboxConfig(**settings), now=self.now, seed=1)
        self.wire = Wire(self.engine)

    def now(self) -> float:
        """Wall clock."""
        return EPOCH_S + self._loop.time()

    def fault(self, action: Action, *, times: int | None = 1, **match: Any) -> Fault:
        """Plan trouble."""
        return self.engine.faults.add(Fault(action=action, match=Match(**match), times=times))

    def step(self, name: str, **args: Any) -> Any:
        """Something happens behind the client's back."""
        return self.engine.steps.run(name, args)

    def insert(self, module: str, **values: Any) -> str:
        """A record that was there before; returns its id."""
        found: str = self.step("insert", module=module, records=[{"Last_Name": "Somebody", **values}])[0]
        return found

    def dump(self, module: str) -> list[dict[str, Any]]:
        """All records of a module."""
        rows: list[dict[str, Any]] = self.step("dump", module=module)
        return rows

    def operations(self) -> Counter[str]:
        """How often each operation of Zoho was called, those within a composite call left out."""
        return Counter(
            entry.operation for entry in self.engine.journal.calls if not entry.operation.startswith("oauth")
        )

    def calls(self) -> int:
        """Calls that came over the wire, tokens left out."""
        return sum(entry.credits > 0 for entry in self.engine.journal.calls if not entry.operation.startswith("oauth"))

    def credits(self) -> int:
        """Credits used."""
        return self.engine.gate.credits.used(self.now())


class Client:
    """One process's Zoho room."""

    def __init__(
        self,
        world: World,
        *,
        region: str | None = None,
        note_policy: NotePolicy = NotePolicy.PER_DIALOG,
        policy: MatchPolicy | None = None,
        options: LeadOptions | None = None,
        limiter: Limiter | None = None,
        cache: TokenCache | None = None,
        composite: bool = False,
        directory_from: int = 0,
        triggers: tuple[str, ...] | None = None,
        module: str = "Messages",
    ) -> None:
        self.world = world
        self.told = Told()
        self.limiter = limiter or Limiter(max_concurrency=10)
        self.turnstile = Turnstile(self.limiter)
        self.gate = Gate()
        self.phones = Phones(region)
        credentials = world.engine.credentials
        names = ("client_id", "client_secret", "refresh_token")
        self.secrets = {name: Value(credentials[name]) for name in names}
        session: Any = WireSession(world.wire)
        self.tokens = TokenSource(
            Credentials(*(self.secrets[name] for name in names)),
            HttpTokenEndpoint(session, HOST),
            wall_clock=world.now,
            random=lambda: 0.5,
            cache=cache,
            on_refresh=self.told.refreshes.append,
        )
        self.told.on_credits = lambda remaining: self.limiter.credits_reported(
            remaining, asyncio.get_running_loop().time()
        )
        http = HttpSend(session, HOST, timeout_s=60.0, observer=self.told)
        ready = tokened(wanted(http), self.tokens)
        calm = limited(ready, self.turnstile, backoff=BACKOFF, random=lambda: 0.5)
        repeated = retried(authorized(calm, self.tokens), backoff=BACKOFF, random=lambda: 0.5)
        self.send = gated(repeated, self.gate)
        self.schema = Schema(
            self.send,
            on_missing=lambda name, what: self.told.missing.append((name, what)),
            on_unreadable=self.told.unreadable.append,
        )
        self.people = People(
            self.send,
            self.phones,
            self.schema,
            policy=policy or MatchPolicy(),
            options=options or LeadOptions(),
            observer=self.told,
            on_halted=self.halt,
            use_composite=composite,
            directory_from=directory_from,
        )
        self.sink = ZohoSink(
            self.send,
            self.people,
            self.phones,
            self.schema,
            Links("https://crm.zoho.com"),
            module=module,
            note_policy=note_policy,
            triggers=triggers,
            on_halted=self.halt,
        )

    def halt(self, operation: Operation, code: str, advice: str) -> None:
        self.told.halts.append((operation.value, code, advice))
        self.gate.close(operation.value, code, advice, asyncio.get_running_loop().time(), wait_s=30.0)

    async def resolve(self, *phones: str) -> list[Any]:
        """What the lead stage says of these numbers."""
        return await self.sink.resolve([delivery(f"m-{phone}", phone) for phone in phones])

    async def parent(self, phone: str) -> Parent:
        """The lead or contact of a number, tried until there is one."""
        for _ in range(100):
            [found] = await self.resolve(phone)
            if isinstance(found, Parent):
                return found
            assert not hasattr(found, "stage"), found
            await asyncio.sleep(found.retry_after_s or 1.0)
        raise AssertionError("never resolved")

    async def deliver(self, deliveries: list[Delivery]) -> list[Any]:
        """All three stages, each batch tried until it is done or rejected; one final outcome for each."""
        outcomes: dict[int, Any] = {}
        queue = list(deliveries)
        for _ in range(200):
            deferred: list[Delivery] = []
            for start in range(0, len(queue), 100):
                await self._round(queue[start : start + 100], outcomes, deferred)
            if not deferred:
                return [outcomes[id(item)] for item in deliveries]
            queue = deferred
            await asyncio.sleep(1.0)
        raise AssertionError([outcomes[id(item)] for item in queue][:3])

    async def _round(self, items: list[Delivery], outcomes: dict[int, Any], deferred: list[Delivery]) -> None:
        stages = {Stage.LEAD: self._lead, Stage.MESSAGE: self.sink.write_messages, Stage.NOTE: self.sink.write_notes}
        for name, stage in stages.items():
            going = [item for item in items if not hasattr(outcomes.get(id(item)), "stage")]
            items = []
            for item, outcome in zip(going, await stage(going) if going else [], strict=True):
                outcomes[id(item)] = outcome
                item.stage = name
                if isinstance(outcome, Deferred):
                    item.put_off(outcome)
                    deferred.append(item)
                else:
                    items.append(item)

    async def _lead(self, items: list[Delivery]) -> list[Any]:
        found = await self.sink.resolve(items)
        for item, outcome in zip(items, found, strict=True):
            item.parent = outcome if isinstance(outcome, Parent) else None
        return found


def delivery(message_id: str, phone: str, **fields: Any) -> Delivery:
    """A message on its way."""
    event = MessageEvent.model_validate(
        {
            "message_id": message_id,
            "occurred_at": "2026-01-05T10:12:30+03:00",
            "direction": "inbound",
            "origin": "webhook",
            "phone": phone,
            "dialog_id": f"dialog-{phone}",
            "text": "Hello",
            **fields,
        }
    )
    record = Record(TP, 0, 0, None, b"")
    ack = OffsetTracker().issue(TP, 0, now=asyncio.get_running_loop().time(), size_bytes=0)
    return Delivery(record, ack, event, phone)


def number(index: int) -> str:
    """A Russian mobile number, another one for each index."""
    return f"+7916{index:07d}"


__all__ = ["EPOCH_S", "Client", "DropKind", "Told", "Value", "WireSession", "World", "delivery", "number", "run"]
