"""Traces: what a message leaves behind, from its producer's context to Zoho, and what must not be in it."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanContext, SpanKind, StatusCode
from structlog.testing import capture_logs

from consumer.app import Service, _trace_configs
from consumer.core.backoff import Backoff
from consumer.core.model import Deferred, Headers, Rejected
from consumer.core.model import Stage as At
from consumer.core.phones import Phones
from consumer.pipeline import Pipeline, PipelineConfig
from consumer.settings import load_settings
from consumer.telemetry.metrics import Metrics
from consumer.telemetry.spans import SpanTracing
from consumer.telemetry.tracing import UNTRACED, exporters_of, tracing_of
from sandbox.zoho import Answer, Fault, Match
from tests.builders import TOPIC, partition, record
from tests.e2e.stage import CANARY, Stage, message, soon
from tests.fakes import FakeDeadLetters, FakeSink, FakeSource
from tests.kafka_server.cluster import Broker

TRACE = "ab" * 16
PARENT = "cd" * 8
TRACEPARENT = f"00-{TRACE}-{PARENT}-01".encode()
CONTEXT: Headers = (("traceparent", TRACEPARENT), ("tracestate", b"shop=1"))
KEY = b"canary-key-31c"


class Spans:
    """What was traced."""

    def __init__(self) -> None:
        self._exporter = InMemorySpanExporter()
        provider = TracerProvider(shutdown_on_exit=False)
        provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.tracing = SpanTracing(provider, group_id="group", dlq_topic="dead", version="1")

    def all(self) -> list[ReadableSpan]:
        return list(self._exporter.get_finished_spans())

    def named(self, start: str) -> list[ReadableSpan]:
        return [span for span in self.all() if span.name.startswith(start)]

    def messages(self) -> dict[int, ReadableSpan]:
        """Those of messages, by offset."""
        return {_attributes(span)["messaging.kafka.offset"]: span for span in self.named("process ")}

    def outcomes(self) -> dict[int, Any]:
        return {offset: _attributes(span)["zoho_sync.outcome"] for offset, span in self.messages().items()}


def _attributes(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


def _context(span: ReadableSpan) -> SpanContext:
    context = span.get_span_context()
    assert context is not None
    return context


def _trace_id(span: ReadableSpan) -> str:
    return f"{_context(span).trace_id:032x}"


def _span_id(span: ReadableSpan) -> str:
    return f"{_context(span).span_id:016x}"


def _parent_id(span: ReadableSpan) -> str | None:
    return f"{span.parent.span_id:016x}" if span.parent else None


def _linked(spans: Iterable[ReadableSpan]) -> set[str]:
    return {f"{link.context.span_id:016x}" for span in spans for link in span.links}


# -- the whole service ------------------------------------------------------------------------------------------


@asynccontextmanager
async def _service(stage: Stage, spans: Spans, **changes: str) -> AsyncIterator[Service]:
    """The service at work in this process, traced; it has stopped when the block is left."""
    variables = {name.lower(): value for name, value in stage.environment(**changes).items()}
    stop = asyncio.Event()
    async with aiohttp.ClientSession(trace_configs=_trace_configs(spans.tracing)) as session:
        recorder = spans.tracing.recorder(Metrics(version="1"))
        service = Service(load_settings(_env_file=None, **variables), session, recorder, spans.tracing)
        running = asyncio.create_task(service.run(stop))
        yield service
        stop.set()
        await running
        await spans.tracing.stop()


@pytest.fixture
async def stage(embedded_broker: Broker, tmp_path: Path) -> AsyncIterator[Stage]:
    """Kafka and Zoho, on real sockets."""
    async with Stage(embedded_broker, tmp_path, partitions=1) as running:
        yield running


async def _say(stage: Stage, event: dict[str, Any], *, headers: Headers = CONTEXT) -> None:
    stage.sent.messages[event["message_id"]] = event
    await stage.produce(json.dumps(event).encode(), key=KEY, headers=headers)


async def test_a_trace_leads_from_the_producer_to_zoho(stage: Stage) -> None:
    """The message continues its producer's trace, each batch links to it, and each call to Zoho is a child of a
    batch, with operation, method and status; the span of the message tells its place and nothing of its content."""
    spans = Spans()
    await _say(stage, message(1))
    async with _service(stage, spans):
        await stage.drained()
    (span,) = spans.messages().values()
    assert (_trace_id(span), _parent_id(span), span.kind) == (TRACE, PARENT, SpanKind.CONSUMER)
    assert _context(span).trace_state.to_header() == "shop=1"
    assert _attributes(span) == {
        "messaging.system": "kafka",
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.destination.name": stage.topic,
        "messaging.destination.partition.id": "0",
        "messaging.kafka.offset": 0,
        "messaging.consumer.group.name": "group",
        "zoho_sync.outcome": "delivered",
    }
    batches = spans.named("batch ")
    assert [batch.name for batch in batches] == ["batch lead", "batch message", "batch note"]
    assert all(batch.parent is None and _linked([batch]) == {_span_id(span)} for batch in batches)
    calls = {call.name: call for call in spans.named("zoho ")}
    writes = {
        name: _parent_id(calls[name]) for name in ("zoho leads.create", "zoho messages.upsert", "zoho notes.create")
    }
    assert list(writes.values()) == [_span_id(batch) for batch in batches]
    assert _attributes(calls["zoho messages.upsert"]) == {
        "zoho_sync.operation": "messages.upsert",
        "http.request.method": "POST",
        "http.response.status_code": 200,
    }
    assert calls["zoho messages.upsert"].kind is SpanKind.CLIENT


async def test_a_failed_call_tells_status_and_code(stage: Stage) -> None:
    """An attempt that Zoho answers with an error has its status and its code; the next one is a span of its own."""
    spans = Spans()
    answer = Answer(status=500, body={"code": "INTERNAL_ERROR", "message": CANARY, "status": "error"})
    stage.zoho.engine.faults.add(Fault(action=answer, match=Match(operation="records.upsert"), times=1))
    await _say(stage, message(1))
    async with _service(stage, spans):
        await stage.drained()
    failed, *later = spans.named("zoho messages.upsert")
    assert _attributes(failed)["http.response.status_code"] == 500
    assert _attributes(failed)["error.type"] == "INTERNAL_ERROR"
    assert (failed.status.status_code, failed.status.description, failed.events) == (StatusCode.ERROR, None, ())
    assert _attributes(later[-1])["http.response.status_code"] in (200, 201)
    (span,) = spans.messages().values()
    assert [(event.name, dict(event.attributes or {})) for event in span.events] == [
        ("deferred", {"zoho_sync.stage": "message", "zoho_sync.code": "INTERNAL_ERROR"})
    ]


async def test_a_dead_letter_is_part_of_the_trace(stage: Stage) -> None:
    """Its span is a child of the message's; the producer's headers stay as they were, and one more names its place."""
    spans = Spans()
    await stage.produce(b"{", key=KEY, headers=[*CONTEXT, ("other", b"\xfe"), ("dlq.traceparent", b"old")])
    async with _service(stage, spans):
        await stage.drained()
    (span,) = spans.messages().values()
    (sent,) = spans.named("send dead")
    assert (_trace_id(sent), _parent_id(sent), sent.kind) == (TRACE, _span_id(span), SpanKind.PRODUCER)
    assert _attributes(span)["zoho_sync.outcome"] == "dead_lettered"
    assert (_attributes(span)["error.type"], span.status.status_code) == ("invalid_json", StatusCode.ERROR)
    (letter,) = await stage.dead_letters()
    assert list(letter.headers[:3]) == [*CONTEXT, ("other", b"\xfe")]
    places = [value.decode() for name, value in letter.headers if name == "dlq.traceparent"]
    assert places == [f"00-{TRACE}-{_span_id(sent)}-01"]


async def test_no_span_tells_of_a_customer_or_a_secret(stage: Stage) -> None:
    """Whatever happens, no key, number, name, text, token or secret is in a span."""
    spans = Spans()
    bad = Answer(status=400, body={"code": "INVALID_DATA", "message": f"{CANARY} +14155551000", "status": "error"})
    stage.zoho.engine.faults.add(Fault(action=bad, match=Match(operation="records.upsert"), times=1))
    lost = Answer(status=401, body={"code": "INVALID_TOKEN", "message": "no", "status": "error"})
    stage.zoho.engine.faults.add(Fault(action=lost, match=Match(operation="records.upsert", nth=2), times=1))
    for number in range(6):
        await _say(stage, message(number, person=number % 3))
    await stage.produce(f'{{"message_id": "{CANARY}", '.encode(), key=KEY, headers=[("x", CANARY.encode())])
    async with _service(stage, spans):
        await stage.drained()
    told = "".join(span.to_json() for span in spans.all())
    credentials = stage.zoho.credentials
    tokens = [grant.text for grant in stage.zoho.engine.accounts.tokens_issued]
    secrets = [credentials["client_secret"], credentials["refresh_token"], *tokens]
    assert tokens
    people = ["415555", "Person ", "dialog-", CANARY, KEY.decode(), *stage.sent.messages]
    assert [word for word in (*people, *secrets) if word in told] == []


class Collector:
    """Takes OTLP over HTTP, as a collector does."""

    def __init__(self) -> None:
        self.names: set[str] = set()
        self.resource: dict[str, str] = {}
        self._runner: web.AppRunner | None = None

    async def take(self, request: web.Request) -> web.Response:
        told = ExportTraceServiceRequest.FromString(await request.read())
        for spans in told.resource_spans:
            self.resource |= {item.key: item.value.string_value for item in spans.resource.attributes}
            self.names |= {span.name for scope in spans.scope_spans for span in scope.spans}
        return web.Response()

    async def __aenter__(self) -> str:
        app = web.Application()
        app.router.add_post("/v1/traces", self.take)
        self._runner = web.AppRunner(app)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        return f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    async def __aexit__(self, *exc_info: object) -> None:
        if self._runner is not None:
            await self._runner.cleanup()


async def test_one_variable_is_enough(stage: Stage) -> None:
    """With the endpoint of a collector set, the spans are there once the service has stopped."""
    collector = Collector()
    async with collector as url:
        service = await stage.start(OTEL_EXPORTER_OTLP_ENDPOINT=url)
        await stage.say([message(1)])
        await service.ready()
        await stage.drained()
        assert await service.terminate() == 0
    assert collector.names >= {f"process {stage.topic}", "batch lead", "zoho leads.create", "batch note"}
    assert collector.resource["service.name"] == "zoho-sync"


async def test_a_collector_that_hangs_hinders_nothing(stage: Stage) -> None:
    """Messages arrive, and the service ends with 0, while the collector takes the spans and never answers."""
    held: list[asyncio.StreamWriter] = []
    silent = await asyncio.start_server(lambda _reader, writer: held.append(writer), "127.0.0.1", 0)
    async with silent:
        url = f"http://127.0.0.1:{silent.sockets[0].getsockname()[1]}"
        service = await stage.start(OTEL_EXPORTER_OTLP_ENDPOINT=url, OTEL_BSP_SCHEDULE_DELAY="10")
        await stage.say([message(1)])
        await service.ready()
        await stage.drained()
        await soon(lambda: bool(held))
        assert await service.terminate() == 0
        for writer in held:
            writer.close()
    stage.check_all_once()


# -- the corridor alone -----------------------------------------------------------------------------------------


class Corridor:
    """A traced corridor between fakes."""

    def __init__(self) -> None:
        self.spans = Spans()
        tracing = self.spans.tracing
        self.source, self.sink, self.letters = FakeSource(), FakeSink(), FakeDeadLetters()
        self.stop = asyncio.Event()
        self.pipeline = Pipeline(
            self.source,
            tracing.sink(self.sink),
            tracing.dead_letters(self.letters),
            Phones(None),
            config=PipelineConfig(
                linger_s=0.0, batch_max_records=120, commit_interval_s=0.01, backoff=Backoff(base_s=0.01, cap_s=0.01)
            ),
            observer=tracing.recorder(Metrics(version="1")),
            random=lambda: 0.5,
        )

    async def until_committed(self, offset: int) -> None:
        await soon(lambda: self.source.committed().get(partition()) == offset)


@pytest.fixture
async def corridor() -> AsyncIterator[Corridor]:
    """At work."""
    running = Corridor()
    task = asyncio.create_task(running.pipeline.run(running.stop))
    yield running
    running.stop.set()
    await task


async def test_each_record_ends_with_what_became_of_it(corridor: Corridor) -> None:
    """Delivered, skipped, a duplicate of what is in flight or of what was settled before: every span ends so."""
    passage = corridor.sink.hold(At.MESSAGE)
    corridor.source.waiting += [record(0), record(1, phone=None), record(2, message_id="m0-0")]
    await soon(lambda: bool(corridor.sink.batches[At.MESSAGE]))
    passage.set()
    await corridor.until_committed(3)
    corridor.source.waiting.append(record(3, message_id="m0-0"))
    await corridor.until_committed(4)
    await soon(lambda: len(corridor.spans.outcomes()) == 4)
    assert corridor.spans.outcomes() == {0: "delivered", 1: "skipped", 2: "duplicate", 3: "already_settled"}
    assert _attributes(corridor.spans.messages()[1])["zoho_sync.reason"] == "no_phone"


async def test_what_is_taken_away_is_left(corridor: Corridor) -> None:
    """A record whose partition goes to another member ends here; read again, it has a span of its own."""
    corridor.sink.answers[At.LEAD, "m0-0"] = Deferred("HTTP_503")
    corridor.source.waiting.append(record(0))
    await soon(lambda: bool(corridor.sink.seen))
    await corridor.pipeline.on_revoked([partition()])
    assert corridor.spans.outcomes() == {0: "left"}
    corridor.sink.answers.clear()
    corridor.source.waiting.append(record(0))
    await soon(lambda: len(corridor.spans.named("process ")) == 2)
    assert corridor.spans.outcomes() == {0: "delivered"}


async def test_what_is_unsettled_at_the_end_is_told(corridor: Corridor) -> None:
    """The stop ends every span that is open."""
    corridor.sink.answers[At.LEAD, "m0-0"] = Deferred("HTTP_503")
    corridor.source.waiting.append(record(0))
    await soon(lambda: bool(corridor.sink.seen))
    await corridor.spans.tracing.stop()
    assert corridor.spans.outcomes() == {0: "left"}


async def test_a_dead_letter_that_is_refused_is_a_failed_span(corridor: Corridor) -> None:
    """Each try is a span; the message's own ends with the one that succeeds."""
    corridor.sink.answers[At.MESSAGE, "m0-0"] = Rejected(At.MESSAGE, "zoho.INVALID_DATA", "field")
    corridor.letters.is_down = True
    corridor.source.waiting.append(record(0))
    await soon(lambda: corridor.letters.tries > 0)
    corridor.letters.is_down = False
    await corridor.until_committed(1)
    first, last = corridor.spans.named("send dead")[0], corridor.spans.named("send dead")[-1]
    assert (_attributes(first)["error.type"], first.status.status_code) == ("TOPIC_DOWN", StatusCode.ERROR)
    assert last.status.status_code is StatusCode.UNSET
    assert corridor.spans.outcomes() == {0: "dead_lettered"}


@pytest.mark.parametrize("text", [None, b"", b"00-short", b"\xff\xfe", b"00-" + b"0" * 32 + b"-" + b"0" * 16 + b"-01"])
async def test_a_context_that_is_none_begins_a_new_trace(corridor: Corridor, text: Any) -> None:
    """Whatever a producer writes into the header, the message is delivered and traced."""
    corridor.source.waiting.append(record(0, headers=(("traceparent", text),)))
    await corridor.until_committed(1)
    (span,) = corridor.spans.messages().values()
    assert span.parent is None
    assert span.name == f"process {TOPIC}"


async def test_a_producer_that_does_not_sample_is_heeded(corridor: Corridor) -> None:
    """The producer's decision not to record its trace holds for the message, too."""
    headers = (("traceparent", f"00-{TRACE}-{PARENT}-00".encode()),)
    corridor.source.waiting += [record(0, headers=headers), record(1)]
    await corridor.until_committed(2)
    assert list(corridor.spans.outcomes()) == [1]


async def test_a_batch_does_not_link_without_end(corridor: Corridor) -> None:
    """Of a batch however large, a hundred messages are linked; its size is told."""
    passage = corridor.sink.hold(At.LEAD)
    people = [f"+49151{number:08d}" for number in range(500)]
    corridor.source.waiting += [record(offset, phone=phone) for offset, phone in enumerate(people)]
    await soon(lambda: not corridor.source.waiting)
    passage.set()
    await corridor.until_committed(len(people))
    sizes = {
        _attributes(batch)["messaging.batch.message_count"]: len(batch.links)
        for batch in corridor.spans.named("batch ")
    }
    assert sizes[120] == 100


# -- whether it is on -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("environ", "exporters"),
    [
        ({}, ()),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": " "}, ()),
        ({"OTEL_SERVICE_NAME": "x"}, ()),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318"}, ("otlp",)),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://c:4318/v1/traces"}, ("otlp",)),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, ("otlp",)),
        ({"OTEL_TRACES_EXPORTER": "Console, otlp"}, ("console", "otlp")),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318", "OTEL_TRACES_EXPORTER": "none"}, ()),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318", "OTEL_SDK_DISABLED": "TRUE"}, ()),
    ],
)
def test_the_standard_variables_decide(environ: dict[str, str], exporters: tuple[str, ...]) -> None:
    """Off unless an endpoint or an exporter is named."""
    assert exporters_of(environ) == exporters


def _warned(environ: dict[str, str]) -> str:
    """What the log advises; the service runs without traces."""
    with capture_logs() as lines:
        assert tracing_of(environ, group_id="g", dlq_topic="d", version="1") is UNTRACED
    (line,) = lines
    assert line["event"] == "telemetry.traces_unavailable"
    return str(line["advice"])


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without OpenTelemetry the log says what to install, and the service runs."""
    monkeypatch.setitem(sys.modules, "consumer.telemetry.spans", None)
    assert "pip install 'zoho-sync[otel]'" in _warned({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318"})


@pytest.mark.parametrize(
    ("variables", "named"),
    [
        ({"OTEL_TRACES_EXPORTER": "zipkin"}, "zipkin"),
        ({"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, "http/protobuf"),
        ({"OTEL_TRACES_EXPORTER": "otlp", "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "9999"}, "batch"),
    ],
)
def test_what_cannot_be_had_is_named(variables: dict[str, str], named: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable that asks for what there is not is named in the log, and the service runs."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert named in _warned(variables)


def test_off_costs_nothing() -> None:
    """Off, everything is what it was before, and nothing of OpenTelemetry is loaded."""
    tracing = tracing_of({}, group_id="g", dlq_topic="d", version="1")
    sink, letters = FakeSink(), FakeDeadLetters()
    assert tracing.sink(sink) is sink
    assert tracing.dead_letters(letters) is letters
    assert _trace_configs(tracing) == []
    code = "import consumer.app, sys; sys.exit(any(name.startswith('opentelemetry') for name in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0
