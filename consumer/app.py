"""Composition root: every object is built here, once, in reading order."""

from __future__ import annotations

import asyncio
import errno
import os
import random
import signal
import socket
import time
from contextlib import AsyncExitStack, suppress
from typing import TYPE_CHECKING

import aiohttp

from consumer import __version__
from consumer.core.backoff import Backoff
from consumer.core.errors import Halt, SyncError
from consumer.core.limits import Gate, Limiter
from consumer.core.links import Links
from consumer.core.phones import Phones
from consumer.kafka.connection import KafkaConnection
from consumer.kafka.dead_letters import KafkaDeadLetters
from consumer.kafka.msk import MskTokens
from consumer.kafka.source import KafkaSource, SourceConfig
from consumer.operations.dlq.desk import Desk
from consumer.pipeline import Pipeline, PipelineConfig
from consumer.settings import SettingsError
from consumer.telemetry import health
from consumer.telemetry import metrics as m
from consumer.telemetry.tracing import UNTRACED, Tracing, tracing_of
from consumer.view.service_view import View
from consumer.web.server import HttpServer, WebConfig
from consumer.zoho.auth import Credentials, HttpTokenEndpoint, TokenCache, TokenSource, authorized, tokened
from consumer.zoho.credit_file import CreditFile
from consumer.zoho.http import HttpSend
from consumer.zoho.layers import Turnstile, gated, limited, retried, wanted
from consumer.zoho.metadata import Schema
from consumer.zoho.people import LeadOptions, MatchPolicy, People
from consumer.zoho.sink import ZohoSink

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from consumer.core.model import TopicPartition
    from consumer.settings import Settings
    from consumer.telemetry.recorder import Recorder
    from consumer.zoho.api import Send

_TICK_S = 1.0
_ZOHO_BACKOFF = Backoff(base_s=0.5, cap_s=30.0)
_HALT_LOOK_S = 30.0
_REBALANCE_MARGIN_S = 35.0
_STUCK_EXIT = 70
_OUTAGE_S = 15.0
_NO_DEAD_LETTERS = "The dead-letter topic takes no records: does it exist, and may this user write to it?"
_MOST_ARE_REJECTED = "Most records of a partition would be dead-lettered: see /metrics or the log for the reason."
_PLAIN_ADVICE = "the broker grants no idempotent producer: after a lost answer a dead letter may be stored twice"


def kafka_connection(settings: Settings) -> KafkaConnection:
    """How to reach the brokers."""
    is_msk = settings.kafka_sasl_mechanism == "AWS_MSK_IAM"
    return KafkaConnection(
        bootstrap_servers=settings.kafka_bootstrap_servers or "",
        security_protocol=settings.kafka_security_protocol,
        sasl_mechanism=settings.kafka_sasl_mechanism,
        sasl_username=settings.kafka_sasl_username,
        sasl_password=settings.secret("KAFKA_SASL_PASSWORD").get,
        ssl_cafile=settings.kafka_ssl_cafile,
        ssl_certfile=settings.kafka_ssl_certfile,
        ssl_keyfile=settings.kafka_ssl_keyfile,
        tokens=MskTokens(settings.aws_region or "", wall_clock=time.time) if is_msk else None,
    )


class ZohoRoom:
    """Everything between the corridor and Zoho: session, token, limits, and the `Send` they make together."""

    def __init__(
        self,
        settings: Settings,
        session: aiohttp.ClientSession,
        recorder: Recorder,
        tracing: Tracing = UNTRACED,
    ) -> None:
        self._recorder = recorder
        self._failing: tuple[float, str] | None = None
        """Since when, by the loop's clock, and with which code calls fail one after the other."""
        self.limiter = Limiter(max_concurrency=settings.zoho_max_concurrency, daily_credits=settings.zoho_daily_credits)
        cache = settings.zoho_token_cache
        self._credit_file = CreditFile(cache.with_name(f"{cache.name}.credits")) if cache else None
        self.turnstile = Turnstile(self.limiter)
        self.gate = Gate()
        self.tokens = TokenSource(
            Credentials(*map(settings.secret, ("ZOHO_CLIENT_ID", "ZOHO_CLIENT_SECRET", "ZOHO_REFRESH_TOKEN"))),
            HttpTokenEndpoint(session, settings.accounts_domain),
            wall_clock=time.time,
            random=random.random,
            cache=TokenCache(cache) if cache else None,
            account=settings.accounts_domain,
            on_refresh=self._token_refreshed,
        )
        http = HttpSend(session, settings.zoho_api_domain, timeout_s=settings.zoho_request_timeout_s, observer=self)
        self.send = self._layered(tracing.send(http))

    def _layered(self, http: Send) -> Send:
        ready = tokened(wanted(http), self.tokens)
        calm = limited(ready, self.turnstile, backoff=_ZOHO_BACKOFF, random=random.random)
        repeated = retried(authorized(calm, self.tokens), backoff=_ZOHO_BACKOFF, random=random.random)
        return gated(repeated, self.gate)

    def called(
        self, operation: str, *, credits_used: int, code: str, seconds: float, credits_remaining: int | None
    ) -> None:
        """Every attempt is counted; what Zoho says of credits is believed."""
        self._recorder.called(
            operation, credits_used=credits_used, code=code, seconds=seconds, credits_remaining=credits_remaining
        )
        self._note_answer(code)
        if credits_remaining is not None:
            self.limiter.credits_reported(credits_remaining, asyncio.get_running_loop().time())

    def _token_refreshed(self, outcome: str) -> None:
        """A new token ends what a dead grant had halted, even when there is nothing to send."""
        self._recorder.token_refreshed(outcome)
        if outcome == "ok":
            self.gate.open("*")
        self._note_answer(outcome)

    def _note_answer(self, code: str) -> None:
        if code == "ok":
            self._failing = None
        elif code != "cancelled" and self._failing is None:
            self._failing = (asyncio.get_running_loop().time(), code)
        elif code != "cancelled" and self._failing is not None:
            self._failing = (self._failing[0], code)

    def outage(self, now: float) -> Halt | None:
        """No good answer of Zoho for a while, only bad ones or none."""
        if self._failing is None or now - self._failing[0] < _OUTAGE_S:
            return None
        since, code = self._failing
        return Halt(
            "NO_GOOD_ANSWER", f"Zoho gives no good answer ({code}); the service tries again, nothing is lost.", since
        )

    def load_credits(self) -> None:
        """What an earlier process used counts against today's budget, too."""
        if self._credit_file is not None:
            now = asyncio.get_running_loop().time()
            self._credit_file.load(self.limiter.ledger, now=now, wall_now=time.time())

    def save_credits(self) -> None:
        """Once a second, and at the end."""
        if self._credit_file is not None:
            now = asyncio.get_running_loop().time()
            self._credit_file.save(self.limiter.ledger, now=now, wall_now=time.time())

    def halt(self, operation: str, code: str, advice: str) -> None:
        """The meaning of an answer showed a cause outside any one message."""
        self.gate.close(operation, code, advice, asyncio.get_running_loop().time(), wait_s=_HALT_LOOK_S)


class Service:
    """The running service: what `consumer run` builds and runs."""

    def __init__(
        self,
        settings: Settings,
        session: aiohttp.ClientSession,
        recorder: Recorder,
        tracing: Tracing = UNTRACED,
    ) -> None:
        self.settings = settings
        self.recorder = recorder
        self.phones = Phones(settings.sync_default_region)
        self.links = Links(settings.crm_url, settings.zoho_org_id)
        self.zoho = ZohoRoom(settings, session, recorder, tracing)
        schema = Schema(
            self.zoho.send,
            on_missing=recorder.field_missing,
        )
        self.people = People(
            self.zoho.send,
            self.phones,
            schema,
            policy=MatchPolicy(settings.sync_match_prefer, settings.sync_match_order),
            options=LeadOptions(settings.zoho_lead_source, settings.zoho_assignment_rule_id, settings.zoho_triggers),
            observer=recorder,
            on_halted=self.zoho.halt,
            use_composite=settings.zoho_composite,
            directory_from=settings.zoho_directory_from,
        )
        self.sink = ZohoSink(
            self.zoho.send,
            self.people,
            self.phones,
            schema,
            self.links,
            module=settings.zoho_messages_module,
            note_policy=settings.sync_note_policy,
            triggers=settings.zoho_triggers,
            on_halted=self.zoho.halt,
        )
        connection = kafka_connection(settings)
        self.source = KafkaSource(connection, _source_config(settings), observer=recorder, wall_clock=time.time)
        self.dead_letters = KafkaDeadLetters(
            connection,
            settings.kafka_dlq_topic,
            idempotence=settings.kafka_producer_idempotence,
            wall_clock=time.time,
            on_plain=lambda: recorder.warn("kafka.idempotence_refused", advice=_PLAIN_ADVICE),
        )
        self.pipeline = Pipeline(
            self.source,
            tracing.sink(self.sink),
            tracing.dead_letters(self.dead_letters),
            self.phones,
            config=_pipeline_config(settings),
            observer=recorder,
            random=random.random,
        )
        recorder.on_assignment = self._share
        self.is_draining = False
        self.exit_code = 0
        self._assigned_at: float | None = None
        self._excused_at: float | None = None
        self._was_recreated = False
        self._told_halts: set[str] = set()
        self._standing = health.Standing()
        self._share(0)

    def _share(self, owned: int) -> None:
        """Our part of the group's limits: the partitions that we own, of all."""
        total = max(self.source.partition_count, owned, 1)
        self.zoho.limiter.set_share(owned / total)
        if owned:
            self._assigned_at = asyncio.get_running_loop().time()

    async def run(self, stop: asyncio.Event) -> None:
        """Work until `stop`, then drain."""
        self.zoho.load_credits()
        warm_up = asyncio.create_task(self._warm_up())
        watch = asyncio.create_task(self._watch(stop))
        draining = asyncio.create_task(self._note_draining(stop))
        try:
            await self.pipeline.run(stop)
        finally:
            for task in (warm_up, watch, draining):
                task.cancel()
            await asyncio.gather(warm_up, watch, draining, return_exceptions=True)
            self.zoho.save_credits()
            await self.dead_letters.stop()

    async def _warm_up(self) -> None:
        """Token and fields while the group joins; asks until it has them, so that a halt ends without traffic, too."""
        while True:
            with suppress(SyncError):
                await self.sink.prepare()
                return
            await asyncio.sleep(_TICK_S)

    async def _note_draining(self, stop: asyncio.Event) -> None:
        await stop.wait()
        self.is_draining = True

    async def _watch(self, stop: asyncio.Event) -> None:
        """Once a second: gauges, loop lag, halts told once, and the watchdog."""
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + _TICK_S
            await asyncio.sleep(_TICK_S)
            self.recorder.metrics.put(m.LOOP_LAG, max(0.0, loop.time() - due))
            self._tell_halts()
            self.zoho.save_credits()
            self.refresh_gauges()
            await self._look_for_standstill(stop)

    async def _look_for_standstill(self, stop: asyncio.Event) -> None:
        snapshot = self.snapshot()
        if health.is_excused(snapshot):
            self._excused_at = snapshot.now
        elif health.is_stuck(snapshot, health.Limits()):
            await self._unstick(stop)

    async def _unstick(self, stop: asyncio.Event) -> None:
        """aiokafka can hang after a broker loss, alive and silent: a new client once, then a new process."""
        self._excused_at = asyncio.get_running_loop().time()
        if not self._was_recreated:
            self._was_recreated = True
            self.recorder.log("kafka.consumer_recreated")
            await self.source.recreate()
        else:
            self.exit_code = _STUCK_EXIT
            stop.set()

    def _tell_halts(self) -> None:
        current = {operation: (code, advice) for operation, code, advice, _ in self.zoho.gate.halts()}
        for operation in current.keys() - self._told_halts:
            self.recorder.halted(operation, *current[operation])
        for operation in self._told_halts - current.keys():
            self.recorder.resumed(operation)
        self._told_halts = set(current)

    # -- what it looks like -------------------------------------------------------------------------------------

    def halts(self) -> tuple[Halt, ...]:
        """Every cause for which work waits, each once."""
        found = [Halt(code, advice, since, _calls(name)) for name, code, advice, since in self.zoho.gate.halts()]
        for tp, item in sorted(self.source.halted.items()):
            found.append(Halt(item.code, item.advice, item.since, _partitions([tp])))
        now = asyncio.get_running_loop().time()
        outage = self.zoho.outage(now)
        found += [outage] if outage and self.pipeline.tracker.in_flight() else []
        found += self._standing.look(self._dead_letter_halts(now))
        return health.merged(found)

    def _dead_letter_halts(self, now: float) -> Iterator[Halt]:
        if self.pipeline.failing_dead_letters():
            yield Halt("DEAD_LETTER_TOPIC_FAILS", _NO_DEAD_LETTERS, now)
        for tp in sorted(self.pipeline.tripped()):
            yield Halt("DEAD_LETTER_BREAKER", _MOST_ARE_REJECTED, now, _partitions([tp]))

    def snapshot(self) -> health.Snapshot:
        """Everything that health is judged by."""
        expires_at = self.zoho.tokens.expires_at
        return health.Snapshot(
            now=asyncio.get_running_loop().time(),
            is_draining=self.is_draining,
            is_joined=self.source.is_joined,
            is_rebalancing=self.source.is_rebalancing,
            has_token=expires_at is not None,
            assigned=len(self.source.assignment()),
            in_flight=self.pipeline.tracker.in_flight(),
            lag=sum(self.source.lag().values()),
            has_room=self.pipeline.room() > 0,
            last_poll_at=self.pipeline.last_poll_at,
            last_progress_at=self.pipeline.last_progress_at,
            assigned_at=self._assigned_at,
            excused_at=self._excused_at,
            kafka_waits_for=self.source.waits_for,
            waiting_for=self.zoho.turnstile.reason,
            halts=self.halts(),
            blocked=len(self.pipeline.blocked()),
            behind=self._behind(),
        )

    def _behind(self) -> int:
        """Records in flight that wait for others: in a queue, or for the message of which they are duplicates."""
        duplicates = self.pipeline.tracker.in_flight() - self.pipeline.dedup.in_flight()
        return max(0, duplicates) + sum(self.pipeline.queued().values())

    def health(self) -> health.Health:
        """The answer of the probes."""
        return health.assess(self.snapshot(), health.Limits())

    def refresh_gauges(self) -> None:
        """Bring the gauges up to date; called before a scrape, too."""
        metrics, limiter, pipeline = self.recorder.metrics, self.zoho.limiter, self.pipeline
        loop_now, wall_now = asyncio.get_running_loop().time(), time.time()
        metrics.put(m.IN_FLIGHT, pipeline.tracker.in_flight())
        metrics.put(m.BLOCKED, len(pipeline.blocked()))
        metrics.put(m.HELD, pipeline.held_dead_letters())
        metrics.put(m.CREDITS_DAY, limiter.ledger.used(loop_now))
        metrics.put(m.CREDITS_LEFT, -1 if limiter.credits_remaining is None else limiter.credits_remaining)
        out_in_s = limiter.exhausted_in_s(loop_now)
        metrics.put(m.CREDITS_OUT, 0 if out_in_s is None else wall_now + out_in_s)
        metrics.put(m.CALLS_IN_FLIGHT, limiter.in_flight)
        metrics.put(m.CALLS_ALLOWED, limiter.capacity(loop_now))
        metrics.put(m.CALLS_WAITING, self.zoho.turnstile.waiting)
        metrics.put(m.TOKEN_EXPIRY, self.zoho.tokens.expires_at or 0)
        self._refresh_partitions(loop_now, wall_now)
        metrics.clear(m.HALTED)
        for halt in self.halts():
            metrics.put(m.HALTED, 1, halt.code)

    def _refresh_partitions(self, loop_now: float, wall_now: float) -> None:
        metrics = self.recorder.metrics
        lags = self.source.lag()
        metrics.clear(m.LAG)
        metrics.clear(m.OLDEST)
        for tp in self.source.assignment():
            oldest = self.pipeline.tracker.oldest(tp)
            age_s = None if oldest is None else loop_now - oldest.received_at
            metrics.put(m.LAG, lags.get(tp, 0), str(tp.partition))
            metrics.put(m.OLDEST, 0 if age_s is None else wall_now - age_s, str(tp.partition))


def _source_config(settings: Settings) -> SourceConfig:
    since = settings.sync_messages_since
    return SourceConfig(
        topic=settings.kafka_topic,
        group_id=settings.kafka_group_id,
        since_ms=int(since.timestamp() * 1000) if since else None,
        group_instance_id=settings.kafka_group_instance_id,
        session_timeout_s=settings.kafka_session_timeout_s,
        rebalance_timeout_s=settings.drain_timeout_s + _REBALANCE_MARGIN_S,
        repeat_window=settings.max_in_flight_messages,
    )


def _pipeline_config(settings: Settings) -> PipelineConfig:
    return PipelineConfig(
        max_in_flight=settings.max_in_flight_messages,
        max_in_flight_bytes=settings.max_in_flight_mib * 1024 * 1024,
        batch_max_records=settings.batch_max_records,
        linger_s=settings.batch_linger_ms / 1000,
        drain_timeout_s=settings.drain_timeout_s,
        message_concurrency=settings.zoho_max_concurrency + 2,
        dedup_horizon=settings.sync_dedup_horizon,
        breaker_count=settings.dlq_breaker_count,
        since=settings.sync_messages_since,
    )


def _replay_desk(settings: Settings) -> Desk | None:
    if not settings.kafka_bootstrap_servers or settings.is_plaintext_refused:
        return None
    group_id = f"{settings.kafka_group_id}-dlq-replay"
    idempotence = settings.kafka_producer_idempotence
    return Desk(kafka_connection(settings), settings.kafka_dlq_topic, group_id, idempotence)


def _web_config(settings: Settings) -> WebConfig:
    return WebConfig(
        host=settings.http_host,
        port=settings.http_port,
        api_token=settings.secret("HTTP_API_TOKEN").get,
        link_key=settings.secret("LINK_SIGNING_KEY").get,
        wall_clock=time.time,
        panel_origins=settings.admin_panel_origins,
    )


def _calls(operation: str) -> tuple[str, ...]:
    """What a closed gate holds up; `*` is everything."""
    return () if operation == "*" else (f"calls {operation}",)


def _partitions(tps: Iterable[TopicPartition]) -> tuple[str, ...]:
    return tuple(f"partition {tp.partition}" for tp in sorted(tps))


async def run_service(
    settings: Settings, *, on_ready: Callable[[str], None] = lambda _url: None, stop: asyncio.Event | None = None
) -> int:
    """Serve until SIGTERM, SIGINT or `stop`; returns the exit code.  A second signal ends it at once."""
    stop = stop or asyncio.Event()
    tracing = _tracing(settings)
    recorder = tracing.recorder(m.Metrics(version=__version__))
    async with AsyncExitStack() as stack:
        stack.push_async_callback(tracing.stop)
        connector = aiohttp.TCPConnector(limit=settings.zoho_max_concurrency + 10, keepalive_timeout=15)
        session = await stack.enter_async_context(
            aiohttp.ClientSession(
                connector=connector,
                cookie_jar=aiohttp.DummyCookieJar(),
                headers={"User-Agent": f"zoho-sync/{__version__}"},
                trace_configs=_trace_configs(tracing),
            )
        )
        service = Service(settings, session, recorder, tracing) if settings.zoho_crm_enabled else None
        server = HttpServer(View(settings, recorder, service, _replay_desk(settings)), _web_config(settings))
        stack.push_async_callback(server.stop)
        url = await _listening(server, settings)
        _handle_signals(stop, recorder)
        recorder.log("app.service_started", version=__version__, is_enabled=settings.zoho_crm_enabled, http=url)
        recorder.log("app.settings_read", changed=settings.changed())
        on_ready(url)
        if service is None:
            await stop.wait()
            return 0
        _warn_of_plaintext(settings, recorder)
        await service.run(stop)
        recorder.log("app.service_stopped", exit_code=service.exit_code)
        return service.exit_code


def _tracing(settings: Settings) -> Tracing:
    group_id, dlq_topic = settings.kafka_group_id, settings.kafka_dlq_topic
    return tracing_of(os.environ, group_id=group_id, dlq_topic=dlq_topic, version=__version__)


def _trace_configs(tracing: Tracing) -> list[aiohttp.TraceConfig]:
    """aiohttp's own hook, for the status of an answer that becomes an error further up."""
    if (on_answer := tracing.on_answer) is None:
        return []

    async def answered(_session: object, _context: object, params: aiohttp.TraceRequestEndParams) -> None:
        on_answer(params.response.status)

    config = aiohttp.TraceConfig()
    config.on_request_end.append(answered)
    return [config]


async def _listening(server: HttpServer, settings: Settings) -> str:
    try:
        return await server.start()
    except OSError as error:
        raise SettingsError([_deaf(settings, error)]) from None


def _deaf(settings: Settings, error: OSError) -> str:
    """The host is at fault when it has no address, or none of this machine; else the port."""
    address = f"{settings.http_host}:{settings.http_port}"
    if isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL:
        return f"HTTP_HOST: cannot listen on {address}: no address of this machine (example: HTTP_HOST=0.0.0.0)"
    why = os.strerror(error.errno) if error.errno else str(error)
    return f"HTTP_PORT: cannot listen on {address}: {why.lower()} (example: HTTP_PORT=0, which picks a free port)"


def _warn_of_plaintext(settings: Settings, recorder: Recorder) -> None:
    """It is allowed; whoever reads the log should know."""
    if settings.is_kafka_exposed:
        advice = (
            "messages travel unencrypted: set KAFKA_SECURITY_PROTOCOL to SASL_SSL or SSL unless the network is trusted"
        )
        recorder.warn("kafka.connection_unencrypted", advice=advice)


def _handle_signals(stop: asyncio.Event, recorder: Recorder) -> None:
    loop = asyncio.get_running_loop()

    def on_signal(number: signal.Signals) -> None:
        if stop.is_set():
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        recorder.log("app.stop_requested", signal=number.name)
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal, number)
