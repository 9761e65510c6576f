"""One run: producers, processes, trouble, quiet, verdict.  The same scenario and seed give the same run."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, field, fields, replace
from datetime import UTC, datetime
from hashlib import blake2b
from random import Random
from typing import TYPE_CHECKING, Any

import orjson

from consumer.core.backoff import Backoff
from consumer.core.model import NotePolicy
from consumer.core.phones import Phones
from consumer.pipeline import PipelineConfig
from sandbox.zoho import Chaos, FailRow, Fault, Match, SandboxConfig, ZohoEngine
from tests.simulation.broker import Broker
from tests.simulation.member import Member, MemberConfig, Secret
from tests.simulation.oracle import EVENT, POISON, SKIP, Expected, Ledger, Oracle, marker_in
from tests.simulation.wire import Wire
from tests.virtual_time import Life, MortalLoop

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

EPOCH_S = 1_800_000_000.0
SETTLE_WITHIN_S = 1500.0
LATE_S = 70.0
INDEXED_AFTER_S = 121.0

PEOPLE: tuple[tuple[str, ...], ...] = (
    ("+4915112345678", "4915112345678", "+49 151 12345678", "0049 151 12345678"),
    ("+442079460958", "442079460958", "+44 20 7946 0958"),
    ("+14155552671", "14155552671", "+1 (415) 555-2671"),
    ("+5511987654321", "5511987654321", "+551187654321", "+55 11 98765-4321"),
    ("+79161234567", "79161234567", "+7 916 123-45-67"),
    ("+525512345678", "+5215512345678", "525512345678"),
    ("+33612345678", "33612345678", "+33 6 12 34 56 78"),
    ("+819012345678", "819012345678", "+81 90-1234-5678"),
)
ODD_FORMS = {
    "+4915112345678": "+49 (0)151.123-45678",
    "+442079460958": "+44 (0)20 7946-0958",
    "+5511987654321": "+55 (11) 9.8765.4321",
    "+79161234567": "+7.916.123.45.67",
    "+33612345678": "+33(0)6 12345678",
}
"""As only somebody who types a record writes them."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """How a run is drawn; probabilities and rates unless their names say otherwise."""

    name: str = "everything"
    partitions: tuple[int, int] = (1, 3)
    members: tuple[int, int] = (1, 3)
    messages: tuple[int, int] = (15, 50)
    seconds: tuple[float, float] = (30.0, 150.0)
    people: tuple[int, int] = (2, 8)
    poison: float = 0.06
    skips: float = 0.05
    duplicates: float = 0.15
    duplicates_elsewhere: float = 0.3
    duplicates_differ: float = 0.3
    cursed: float = 0.05
    cursed_notes: float = 0.02
    known_people: float = 0.4
    kills_per_min: float = 2.0
    stops_per_min: float = 1.0
    kicks_per_min: float = 2.0
    meddles_per_min: float = 1.5
    token_deaths_per_min: float = 0.7
    revocations_per_min: float = 0.15
    cuts_per_min: float = 0.5
    broker_outages_per_min: float = 0.3
    letter_outages_per_min: float = 0.3
    replays_per_min: float = 1.0
    chaos: float = 0.12
    commit_trouble: float = 0.1
    letter_trouble: float = 0.1
    policies: tuple[NotePolicy, ...] = (NotePolicy.PER_DIALOG, NotePolicy.PER_DIALOG, NotePolicy.PER_MESSAGE)
    daily_credits: int | None = None
    zoho: dict[str, Any] = field(default_factory=dict)
    pipeline: dict[str, Any] = field(default_factory=dict)

    def is_quiet(self) -> bool:
        """Nothing goes wrong in it."""
        rates = (getattr(self, each.name) for each in fields(self) if each.name.endswith("_per_min"))
        return not any((*rates, self.chaos, self.commit_trouble, self.letter_trouble))


@dataclass(frozen=True, slots=True, kw_only=True)
class FailNote(FailRow):
    """The note with this marker fails."""

    def hits(self, row: Any, _index: int) -> bool:
        """Is it this row?"""
        return isinstance(row, dict) and marker_in(str(row.get("Note_Title"))) == self.value


@dataclass(slots=True)
class Verdict:
    """What came of a run."""

    scenario: str
    seed: int
    violations: list[str]
    excused: Counter[str]
    fired: Counter[str]
    trace: str
    """A fingerprint of all that happened."""
    virtual_s: float


class World:
    """All of one run."""

    member_class = Member

    def __init__(self, loop: MortalLoop, scenario: Scenario, seed: int) -> None:
        self.loop = loop
        self.scenario = scenario
        self.seed = seed
        self.fired: Counter[str] = Counter()
        shape = self.rng("shape")
        self.broker = Broker(loop, self.rng("broker"), partitions=shape.randint(*scenario.partitions))
        self.engine = ZohoEngine(self._zoho(shape), now=loop.time, seed=seed)
        self.wire = Wire(loop, self.engine, self.rng("wire"))
        self.ledger = Ledger()
        self.policy = shape.choice(scenario.policies)
        self.oracle = Oracle(self.broker, self.engine, self.wire, self.ledger, policy=self.policy)
        found = self.engine.credentials
        self.secrets = (
            Secret(found["client_id"]),
            Secret(found["client_secret"]),
            Secret(found["refresh_token"]),
        )
        self.people = [
            shape.choice((forms, forms[:1])) for forms in shape.sample(PEOPLE, shape.randint(*scenario.people))
        ]
        self.duration_s = shape.uniform(*scenario.seconds)
        self.member_count = shape.randint(*scenario.members)
        self.config = self._config(shape)
        self.phones = Phones(None)
        self.oracle.max_concurrency = self.config.max_concurrency
        self.oracle.first_wins = scenario.is_quiet() and self.config.pipeline.dedup_horizon >= scenario.messages[1]
        self.members: list[Member] = []
        self.started = 0
        self._replayed = 0
        self._published: list[dict[str, Any]] = []
        self._curses: list[Fault] = []
        self.oracle.refuses = self._has_refused

    def rng(self, name: str) -> Random:
        """A source of randomness of its own for each purpose."""
        return Random(f"{self.scenario.name}/{self.seed}/{name}")

    def _zoho(self, rng: Random) -> SandboxConfig:
        drawn = {
            "latency_median_s": rng.choice((0.05, 0.4, 1.5)),
            "effect_at": rng.choice(("begin", "finish")),
            "search_lag_s": rng.choice(((0.0, 0.0), (20.0, 120.0))),
            "all_failed_status": rng.choice((400, 202)),
            "mixed_status": rng.choice((207, 200)),
            "auth_error_envelope": rng.choice(("top", "data")),
            "duplicate_form": rng.choice(("v8", "id_only", "api_name_and_id")),
            "lookup_fault_form": rng.choice(("field", "id")),
            "stale_lead_code": rng.choice(("INVALID_DATA", "CONVERTED_RECORD")),
            "expires_in_form": rng.choice(("seconds", "omitted", "milliseconds")),
            "access_token_life_s": rng.choice((3600.0, 3600.0, 300.0)),
            "access_tokens_per_window": 1000,
            "active_access_tokens": 100,
        }
        return SandboxConfig(**{**drawn, **self.scenario.zoho})

    def _config(self, rng: Random) -> MemberConfig:
        drawn = {
            "max_in_flight": rng.choice((3, 20, 200)),
            "batch_max_records": rng.choice((1, 5, 100)),
            "linger_s": rng.choice((0.0, 0.2)),
            "drain_timeout_s": rng.choice((2.0, 10.0, 25.0)),
            "dedup_horizon": rng.choice((0, 10, 1000)),
            "breaker_count": rng.choice((0, 100)),
            "backoff": Backoff(base_s=0.5, cap_s=30.0),
        }
        return MemberConfig(
            PipelineConfig(**{**drawn, **self.scenario.pipeline}),
            note_policy=self.policy,
            daily_credits=self.scenario.daily_credits,
            blocks_in_rebalance=rng.random() < 0.7,
            use_composite=rng.random() < 0.5,
            directory_from=rng.choice((0, 1)),
        )

    # Processes

    def start_member(self) -> Member:
        """A new process."""
        self.started += 1
        life = Life(f"p{self.started}")
        member = self.member_class(
            self.broker, self.wire, life, self.secrets, config=self.config, rng=self.rng(life.name)
        )
        self.members.append(member)
        self.oracle.members.append(member.source)
        member.start()
        return member

    def running(self) -> list[Member]:
        """Processes that are not dead, done or about to be."""
        return [m for m in self.members if m.life.is_alive and not m.is_done and not m.stop.is_set()]

    # Producers

    async def produce(self) -> None:
        """Publishes the run's messages at random moments."""
        rng = self.rng("produce")
        count = rng.randint(*self.scenario.messages)
        for number in range(count):
            await asyncio.sleep(rng.expovariate(count / self.duration_s * 1.3) if rng.random() < 0.7 else 0.0)
            self._publish_one(rng, number)

    def _publish_one(self, rng: Random, number: int) -> None:
        draw = rng.random()
        value: bytes | None
        if draw < self.scenario.poison:
            value = rng.choice((b"{", b"\xff\xfe", b"", b'{"message_id": 1}', b'{"message_id":"x"}'))
            self._append(rng.randrange(len(self.broker.log)), value, Expected(POISON))
        elif draw < self.scenario.poison + self.scenario.skips:
            value = rng.choice((None, orjson.dumps({**self._event(rng, number), "phone": None})))
            self._append(rng.randrange(len(self.broker.log)), value, Expected(SKIP))
        elif self._published and draw > 1 - self.scenario.duplicates:
            self._publish_again(rng, number)
        else:
            event = self._event(rng, number)
            self._published.append(event)
            self._publish(event, self._home(event))
            self._maybe_curse(rng, event)

    def _event(self, rng: Random, number: int) -> dict[str, Any]:
        who = rng.randrange(len(self.people))
        moment = datetime.fromtimestamp(self.loop.time(), UTC)
        return {
            "message_id": f"m{number}",
            "occurred_at": moment.isoformat(),
            "direction": "inbound",
            "origin": rng.choice(("chat", "chat", "campaign")),
            "phone": rng.choice(self.people[who]),
            "contact_name": rng.choice((None, f"Person {who}")),
            "text": f"text {number}",
            "dialog_id": rng.choice((None, f"d{who}", f"d{who}", f"e{who}")),
        }

    def _home(self, event: dict[str, Any]) -> int:
        digest = blake2b(str(event["dialog_id"] or event["phone"]).encode()).digest()
        return digest[0] % len(self.broker.log)

    def _publish_again(self, rng: Random, number: int) -> None:
        event = dict(rng.choice(self._published[-10:]))
        if rng.random() < self.scenario.duplicates_differ:
            event["text"] = f"other text {number}"
        elsewhere = rng.random() < self.scenario.duplicates_elsewhere
        self._publish(event, rng.randrange(len(self.broker.log)) if elsewhere else self._home(event))
        self.fired["duplicate"] += 1

    def _publish(self, event: dict[str, Any], partition: int) -> None:
        self._append(partition, orjson.dumps(event), self._expected(event))

    def _expected(self, event: dict[str, Any]) -> Expected:
        phone = self.phones.canonical(event["phone"])
        assert phone is not None
        return Expected(EVENT, event["message_id"], phone, event["dialog_id"], event["text"])

    def _append(self, partition: int, value: bytes | None, expected: Expected) -> None:
        offset = self.broker.append(partition, b"key", value, (("trace", b"\x00\xff"),))
        self.ledger.add((partition, offset), expected)
        self.fired[f"record.{expected.kind}"] += 1

    def _maybe_curse(self, rng: Random, event: dict[str, Any]) -> None:
        """Zoho will refuse this message, or its note, as such."""
        if rng.random() < self.scenario.cursed:
            match = Match(operation="records.upsert", module="Messages")
            self._curse(match, FailRow(code="INVALID_DATA", key="Message_ID", value=event["message_id"]))
        if rng.random() < self.scenario.cursed_notes:
            marker = self.oracle.marker(self._expected(event))
            self._curse(Match(operation="notes.create"), FailNote(code="INVALID_DATA", value=marker))

    def _curse(self, match: Match, action: FailRow) -> None:
        self._curses.append(self.engine.faults.add(Fault(action=action, match=match, times=None)))

    def _has_refused(self, value: str) -> bool:
        return any(
            curse.fired and isinstance(curse.action, FailRow) and curse.action.value == value for curse in self._curses
        )

    def _plant(self, rng: Random) -> None:
        """Some people are known to Zoho already, in whatever form somebody typed their number."""
        for number, forms in enumerate(self.people):
            if rng.random() < self.scenario.known_people:
                module = rng.choice(("Leads", "Leads", "Contacts"))
                field_name = rng.choice(("Phone", "Mobile"))
                typed = rng.choice((*forms, ODD_FORMS.get(forms[0], forms[0])))
                self.engine.steps.insert(module, [{"Last_Name": f"Known {number}", field_name: typed}])

    # Trouble

    async def trouble(self) -> None:
        """Everything that goes wrong, each kind at its own pace, until the time is over."""
        rates: list[tuple[float, Callable[[Random], Awaitable[None]]]] = [
            (self.scenario.kills_per_min, self._kill),
            (self.scenario.stops_per_min, self._stop),
            (self.scenario.kicks_per_min, self._kick),
            (self.scenario.meddles_per_min, self._meddle),
            (self.scenario.token_deaths_per_min, self._expire_tokens),
            (self.scenario.revocations_per_min, self._revoke),
            (self.scenario.cuts_per_min, self._cut),
            (self.scenario.broker_outages_per_min, self._broker_outage),
            (self.scenario.letter_outages_per_min, self._letter_outage),
            (self.scenario.replays_per_min, self._replay),
        ]
        self._unrest()
        tasks = [self.loop.create_task(self._at_pace(rate, action)) for rate, action in rates if rate > 0]
        await asyncio.sleep(self.duration_s)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._calm()

    async def _at_pace(self, per_min: float, action: Callable[[Random], Awaitable[None]]) -> None:
        rng = self.rng(action.__name__)
        while True:
            await asyncio.sleep(rng.expovariate(per_min / 60.0))
            self.fired[action.__name__] += 1
            await action(rng)

    def _unrest(self) -> None:
        rng, level = self.rng("unrest"), self.scenario.chaos
        weights: dict[str, Any] = {
            name: level * rng.random() ** 2
            for name in (
                "commit_then_drop",
                "drop_before_commit",
                "late_effect",
                "server_error",
                "throttled",
                "garbled",
                "row_fault",
                "token_fault",
            )
        }
        if level:
            self.engine.configure(chaos=Chaos(**weights))
        faults = self.broker.faults
        for name in ("commit_fails", "commit_answer_lost", "commit_late"):
            setattr(faults, name, self.scenario.commit_trouble * rng.random())
        for name in ("dead_letter_fails", "dead_letter_answer_lost"):
            setattr(faults, name, self.scenario.letter_trouble * 3 * rng.random())

    def _calm(self) -> None:
        self.engine.configure(chaos=Chaos())
        self.broker.faults.calm()
        self.wire.is_cut = False
        for member in self.running():
            member.life.fuse = None
        while len(self.running()) < 1:
            self.start_member()

    async def _kill(self, rng: Random) -> None:
        victims = self.running()
        if not victims:
            return
        victim = rng.choice(victims)
        victim.life.fuse = rng.choice((0, rng.randrange(50), rng.randrange(2000)))
        await asyncio.sleep(rng.uniform(1.0, 25.0))
        self.start_member()

    async def _stop(self, rng: Random) -> None:
        victims = self.running()
        if victims:
            rng.choice(victims).stop.set()
            await asyncio.sleep(rng.uniform(0.0, 5.0))
        if len(self.running()) < self.member_count:
            self.start_member()

    async def _kick(self, rng: Random) -> None:
        self.broker.kick()
        if rng.random() < 0.2 and len(self.running()) <= self.member_count:
            self.start_member()

    async def _meddle(self, rng: Random) -> None:
        """A user deletes, converts, merges or retypes a lead."""
        steps, org = self.engine.steps, self.engine.org
        leads = [row for row in steps.dump("Leads") if not row.get("$converted")]
        leads = [lead for lead in leads if org.is_usable(org.schema.module("Leads"), lead["id"])]
        if not leads:
            return
        lead = rng.choice(leads)
        step = rng.choice(("delete", "convert", "merge", "retype"))
        self.fired[f"meddle.{step}"] += 1
        if step == "delete":
            steps.delete("Leads", lead["id"])
        elif step == "convert":
            steps.convert(lead["id"])
        elif step == "merge":
            numbers = {name: lead[name] for name in ("Phone", "Mobile") if lead.get(name)}
            [master] = steps.insert("Leads", [{"Last_Name": "Master", **numbers}])
            steps.merge(lead["id"], master)
        else:
            steps.update("Leads", lead["id"], self._retyped(rng, lead))

    def _retyped(self, rng: Random, lead: dict[str, Any]) -> dict[str, Any]:
        """The number as only a person would write it, perhaps in the other field."""
        number = self.phones.canonical(str(lead.get("Phone") or lead.get("Mobile")))
        phone, mobile = rng.sample((ODD_FORMS.get(str(number), number), None), 2)
        return {"Phone": phone, "Mobile": mobile}

    async def _expire_tokens(self, _rng: Random) -> None:
        self.engine.steps.expire_access_tokens()

    async def _revoke(self, rng: Random) -> None:
        """The refresh token is revoked; after a while the operator puts a new one in place."""
        self.engine.steps.revoke_refresh_token(self.secrets[2].value)
        try:
            await asyncio.sleep(rng.uniform(1.0, 60.0))
        finally:
            self.secrets[2].value = self.engine.accounts.issue_refresh_token(self.secrets[0].value)

    async def _cut(self, rng: Random) -> None:
        self.wire.is_cut = True
        await asyncio.sleep(rng.uniform(1.0, 60.0))
        self.wire.is_cut = False

    async def _broker_outage(self, rng: Random) -> None:
        self.broker.faults.is_down = True
        await asyncio.sleep(rng.uniform(1.0, 30.0))
        self.broker.faults.is_down = False

    async def _letter_outage(self, rng: Random) -> None:
        self.broker.faults.is_dead_letter_topic_down = True
        await asyncio.sleep(rng.uniform(1.0, 40.0))
        self.broker.faults.is_dead_letter_topic_down = False

    async def _replay(self, rng: Random) -> None:
        """Somebody repairs what was wrong with some messages, and replays the dead letters."""
        for curse in self._curses:
            if rng.random() < 0.3:
                curse.times = 0
        for letter in self.broker.letters[self._replayed :]:
            owes_note = letter.header("dlq.stage") == "note"
            expected = replace(self.ledger.records[letter.place], owes_note=owes_note)
            replays = (("dlq.replays", b"1"),)
            headers = tuple(pair for pair in letter.headers if pair[0] != "dlq.replays") + replays
            offset = self.broker.append(letter.place[0], letter.key, letter.value, headers)
            self.ledger.add((letter.place[0], offset), expected)
        self._replayed = len(self.broker.letters)

    # The run

    async def run(self) -> Verdict:
        """From the first message to the verdict."""
        self._plant(self.rng("plant"))
        await asyncio.sleep(INDEXED_AFTER_S)
        self.oracle.began_s = self.loop.time()
        for _ in range(self.member_count):
            self.start_member()
        producing = self.loop.create_task(self.produce())
        await self.trouble()
        await producing
        await self._settle()
        await asyncio.sleep(LATE_S)
        await self._leave()
        violations = self.oracle.judge()
        self._count_faults()
        return self._verdict(violations)

    async def _settle(self) -> None:
        deadline = self.loop.time() + SETTLE_WITHIN_S
        while not self.broker.is_all_committed():
            if self.loop.time() > deadline:
                self.oracle.violations.append(f"not settled after {SETTLE_WITHIN_S} s of quiet: {self._stuck()}")
                return
            if not self.running():
                self.start_member()
            await asyncio.sleep(1.0)

    def _stuck(self) -> str:
        offsets = {number: found.offset for number, found in self.broker.committed.items()}
        ends = [len(records) for records in self.broker.log]
        left = [
            (m.life.name, dict(m.pipeline.deferred_codes()), m.pipeline.queued(), m.pipeline.held_dead_letters())
            for m in self.running()
        ]
        return f"{offsets} of {ends}, {left}"

    async def _leave(self) -> None:
        leaving = self.running()
        for member in leaving:
            member.stop.set()
        await asyncio.sleep(self.config.pipeline.drain_timeout_s + 30.0)
        self.oracle.violations += [f"{m.life.name} does not end" for m in leaving if not m.is_done]
        self.oracle.violations += [
            f"{m.life.name} failed: {m.error!r}" for m in self.members if m.error is not None and m.life.is_alive
        ]
        self.oracle.violations += [f"{m.life.name}: {fault}" for m in self.members for fault in m.observer.faults]
        self.oracle.violations += [f"loop: {context}" for context in self.loop.errors]

    def _count_faults(self) -> None:
        self.fired.update(self.engine.faults.chaos_fired)
        self.fired.update(self.broker.faults.fired)
        self.fired["curse"] = sum(curse.fired for curse in self._curses)
        self.fired["curse.note"] = sum(curse.fired for curse in self._curses if isinstance(curse.action, FailNote))
        self.fired["rebalance"] = self.broker.rebalances
        self.fired["death"] = sum(not member.life.is_alive for member in self.members)
        read = Counter(place for member in self.members for place in member.source.handed_out.elements())
        self.fired["redelivery"] = sum(count - 1 for count in read.values())

    def _verdict(self, violations: list[str]) -> Verdict:
        lines = [
            f"{effect.kind} {effect.module} {effect.record_id} {effect.at_s:.6f}"
            for effect in self.engine.journal.effects
        ]
        lines += [f"{call.operation} {call.started_at_s:.6f} {call.status}" for call in self.engine.journal.calls]
        lines += [f"{letter.place}" for letter in self.broker.letters]
        trace = blake2b("\n".join(lines).encode(), digest_size=8).hexdigest()
        return Verdict(
            self.scenario.name,
            self.seed,
            violations,
            self.oracle.excused,
            self.fired,
            trace,
            self.loop.time() - EPOCH_S,
        )


def simulate(scenario: Scenario, seed: int, *, world_class: type[World] = World) -> Verdict:
    """One run on a loop of its own."""
    loop = MortalLoop(start_s=EPOCH_S)
    asyncio.set_event_loop(loop)
    try:
        return loop.run_until_complete(_run(loop, scenario, seed, world_class))
    finally:
        loop.bury()
        asyncio.set_event_loop(None)
        loop.close()


async def _run(loop: MortalLoop, scenario: Scenario, seed: int, world_class: type[World]) -> Verdict:
    return await world_class(loop, scenario, seed).run()
