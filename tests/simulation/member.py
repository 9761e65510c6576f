"""One process of the service: the real corridor and the real Zoho room, put together as `consumer.app` does it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from consumer.core.backoff import Backoff
from consumer.core.limits import Gate, Limiter
from consumer.core.links import Links
from consumer.core.model import NotePolicy
from consumer.core.phones import Phones
from consumer.pipeline import Pipeline, PipelineConfig
from consumer.zoho.auth import Credentials, TokenSource, authorized, tokened
from consumer.zoho.layers import Turnstile, gated, limited, retried, wanted
from consumer.zoho.metadata import Schema
from consumer.zoho.people import LeadOptions, MatchPolicy, People
from consumer.zoho.sink import ZohoSink
from tests.simulation.broker import SimDeadLetters, SimSource
from tests.simulation.wire import WireSend, WireTokens

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from random import Random

    from consumer.core.model import TopicPartition
    from consumer.zoho.api import Send
    from tests.simulation.broker import Broker
    from tests.simulation.wire import Wire
    from tests.virtual_time import Life, MortalLoop

_BACKOFF = Backoff(base_s=0.5, cap_s=30.0)
REQUEST_TIMEOUT_S = 30.0


class Secret:
    """A secret that the operator can change."""

    def __init__(self, value: str) -> None:
        self.value = value

    def get(self) -> str:
        """The current value."""
        return self.value


@dataclass(frozen=True, slots=True)
class MemberConfig:
    """What an operator would set."""

    pipeline: PipelineConfig
    note_policy: NotePolicy = NotePolicy.PER_DIALOG
    max_concurrency: int = 10
    daily_credits: int | None = None
    blocks_in_rebalance: bool = True
    use_composite: bool = False
    directory_from: int = 0


class Quiet:
    """An observer of everything that keeps nothing but what went wrong in our own code."""

    def __init__(self, on_assignment: Callable[[int], None]) -> None:
        self.faults: list[str] = []
        self._on_assignment = on_assignment

    def stage_failed(self, stage: str, error: Exception) -> None:
        """A fault of our own."""
        self.faults.append(f"{stage}: {error!r}")

    def partitions_assigned(self, partitions: Collection[TopicPartition]) -> None:
        """As the service does: the share of the limits follows."""
        self._on_assignment(len(partitions))

    def partitions_revoked(self, _partitions: Collection[TopicPartition], *, unsettled: int) -> None:
        """The same."""
        self._on_assignment(0)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _nothing


def _nothing(*_args: Any, **_named: Any) -> None:
    """Nobody listens."""


class Member:
    """A process: runs until it is stopped, or until its life ends."""

    pipeline_class = Pipeline
    sink_class = ZohoSink
    people_class = People

    def __init__(
        self,
        broker: Broker,
        wire: Wire,
        life: Life,
        secrets: tuple[Secret, Secret, Secret],
        *,
        config: MemberConfig,
        rng: Random,
    ) -> None:
        self.broker = broker
        self.life = life
        self.config = config
        self.loop: MortalLoop = wire.loop
        self.stop = asyncio.Event()
        self.error: BaseException | None = None
        self.is_done = False
        self.limiter = Limiter(max_concurrency=config.max_concurrency, daily_credits=config.daily_credits)
        self.gate = Gate()
        self.observer = Quiet(self._share)
        self.source = SimSource(
            broker,
            life,
            repeat_window=config.pipeline.max_in_flight,
            blocks_in_rebalance=config.blocks_in_rebalance,
        )
        self.send = self._send(wire, secrets, rng)
        self.pipeline = self._pipeline(rng)
        self._share(0)

    def _send(self, wire: Wire, secrets: tuple[Secret, Secret, Secret], rng: Random) -> Send:
        tokens = TokenSource(
            Credentials(*secrets), WireTokens(wire, self.life), wall_clock=self.loop.time, random=rng.random
        )
        http = WireSend(wire, self.life, timeout_s=REQUEST_TIMEOUT_S, on_credits=self._credits)
        calm = limited(tokened(wanted(http), tokens), Turnstile(self.limiter), backoff=_BACKOFF, random=rng.random)
        repeated = retried(authorized(calm, tokens), backoff=_BACKOFF, random=rng.random)
        return gated(repeated, self.gate)

    def _credits(self, remaining: int) -> None:
        self.limiter.credits_reported(remaining, self.loop.time())

    def _halt(self, operation: str, code: str, advice: str) -> None:
        self.gate.close(operation, code, advice, self.loop.time(), wait_s=30.0)

    def _pipeline(self, rng: Random) -> Pipeline:
        phones, schema = Phones(None), Schema(self.send)
        people = self.people_class(
            self.send,
            phones,
            schema,
            policy=MatchPolicy(),
            options=LeadOptions(),
            observer=self.observer,
            on_halted=self._halt,
            use_composite=self.config.use_composite,
            directory_from=self.config.directory_from,
        )
        sink = self.sink_class(
            self.send,
            people,
            phones,
            schema,
            Links("https://crm.zoho.com", None),
            module="Messages",
            note_policy=self.config.note_policy,
            triggers=None,
            on_halted=self._halt,
        )
        return self.pipeline_class(
            self.source,
            sink,
            SimDeadLetters(self.broker),
            phones,
            config=self.config.pipeline,
            observer=self.observer,
            random=rng.random,
        )

    def _share(self, owned: int) -> None:
        self.limiter.set_share(owned / len(self.broker.log))

    def start(self) -> None:
        """Begin; from now on its life may end at any moment."""
        self.life.on_end = self._ended
        self.loop.spawn(self._run(), self.life, name=self.life.name)

    def _ended(self) -> None:
        self.life.ended_at = self.loop.time()
        self.broker.expire(self.source)

    async def _run(self) -> None:
        try:
            await self.pipeline.run(self.stop)
        except Exception as error:  # noqa: BLE001 - a process that ends with a traceback
            self.error = error
        self.is_done = True
        self.life.ended_at = self.loop.time()
