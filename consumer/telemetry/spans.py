"""Spans: a message from receipt to settled, each batch of a stage, each call to Zoho, each dead letter.

A message continues the trace that its producer began (W3C `traceparent` and `tracestate` among the record's headers).
A batch belongs to many messages, so that it begins a trace of its own and links to theirs.  Attributes follow the
semantic conventions for messaging and HTTP (opentelemetry.io/docs/specs/semconv).  None holds a key, number, text,
address or token; errors leave their code, never their text.  This module alone imports OpenTelemetry.
"""

from __future__ import annotations

import asyncio
import threading
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter
from opentelemetry.trace import Link, SpanKind, StatusCode, get_current_span, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from consumer.core.errors import SyncError
from consumer.core.model import Stage
from consumer.telemetry.recorder import Recorder
from consumer.telemetry.tracing import C, R, Tracing

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping, Sequence

    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.sdk.trace.export import SpanExporter
    from opentelemetry.trace import Span, Tracer
    from opentelemetry.util.types import AttributeValue

    from consumer.core.model import Deferred, Delivered, Delivery, Parent, Record, Rejected, TopicPartition
    from consumer.core.ports import CrmSink, DeadLetters
    from consumer.telemetry.metrics import Metrics

_W3C = TraceContextTextMapPropagator()
_PRODUCER = frozenset({"traceparent", "tracestate"})
_DEAD_LETTER = "dlq.traceparent"
"""Its dead letter's own place in the trace; the producer's header stays beside it as it was."""
_MOST_LINKS = 100
"""Of one batch; as many as Zoho takes records in one call."""
_STOP_TIMEOUT_S = 5.0


def provider_of(exporters: Collection[str], *, version: str) -> TracerProvider:
    """A provider with a bounded queue and a thread of its own for each exporter, all set by OpenTelemetry's variables.

    Raises ValueError for a variable that cannot be read.
    """
    resource = Resource.create({"service.version": version})
    if str(resource.attributes[SERVICE_NAME]).startswith("unknown_service"):
        resource = resource.merge(Resource({SERVICE_NAME: "zoho-sync"}))
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    for name in exporters:
        exporter: SpanExporter = OTLPSpanExporter() if name == "otlp" else ConsoleSpanExporter(formatter=_line)
        provider.add_span_processor(BatchSpanProcessor(exporter))
    return provider


def _line(span: ReadableSpan) -> str:
    return f"{span.to_json(indent=None)}\n"


class SpanTracing(Tracing):
    """Wraps what the service is made of, so that each part leaves its spans."""

    def __init__(self, provider: TracerProvider, *, group_id: str, dlq_topic: str, version: str) -> None:
        self._provider = provider
        self._tracer = provider.get_tracer("zoho-sync", version)
        self._messages = MessageSpans(self._tracer, group_id)
        self._dlq_topic = dlq_topic
        self.on_answer = _note_status

    def recorder(self, metrics: Metrics) -> Recorder:
        return _TracedRecorder(metrics, self._messages)

    def sink(self, sink: CrmSink) -> CrmSink:
        return _TracedSink(sink, self._tracer, self._messages)

    def dead_letters(self, dead_letters: DeadLetters) -> DeadLetters:
        return _TracedDeadLetters(dead_letters, self._tracer, self._messages, self._dlq_topic)

    def send(self, send: Callable[[C], Awaitable[R]]) -> Callable[[C], Awaitable[R]]:
        return _traced_send(send, self._tracer)

    async def stop(self) -> None:
        """A collector that does not answer must not hold up the end: what it did not take by then is lost."""
        self._messages.left(None)
        stopped = asyncio.Event()
        loop = asyncio.get_running_loop()

        def shut_down() -> None:
            self._provider.shutdown()
            with suppress(RuntimeError):  # the loop did not wait for so long
                loop.call_soon_threadsafe(stopped.set)

        threading.Thread(target=shut_down, name="traces-stop", daemon=True).start()
        with suppress(TimeoutError):
            async with asyncio.timeout(_STOP_TIMEOUT_S):
                await stopped.wait()


class MessageSpans:
    """The spans of records that were read and are not settled."""

    def __init__(self, tracer: Tracer, group_id: str) -> None:
        self._tracer = tracer
        self._group_id = group_id
        self._open: dict[TopicPartition, dict[int, Span]] = {}

    def begin(self, record: Record) -> None:
        """It was received."""
        carrier = {name: (value or b"").decode("latin-1") for name, value in record.headers if name in _PRODUCER}
        topic = record.tp.topic
        span = self._tracer.start_span(
            f"process {topic}",
            _W3C.extract(carrier, Context()),
            SpanKind.CONSUMER,
            {
                "messaging.system": "kafka",
                "messaging.operation.name": "process",
                "messaging.operation.type": "process",
                "messaging.destination.name": topic,
                "messaging.destination.partition.id": str(record.tp.partition),
                "messaging.kafka.offset": record.offset,
                "messaging.consumer.group.name": self._group_id,
            },
        )
        self._open.setdefault(record.tp, {})[record.offset] = span

    def end(self, record: Record, outcome: str, **attributes: AttributeValue) -> None:
        """It is settled; a record whose span has ended is let pass."""
        span = self._open.get(record.tp, {}).pop(record.offset, None)
        if span is not None:
            _end(span, outcome, attributes)

    def reject(self, record: Record, rejected: Rejected) -> None:
        """It stands in the dead-letter topic."""
        if (span := self.of(record)) is not None:
            _fail(span, rejected.reason)
        self.end(record, "dead_lettered", **{"zoho_sync.stage": rejected.stage.value})

    def of(self, record: Record) -> Span | None:
        """The span of a record that is not settled."""
        return self._open.get(record.tp, {}).get(record.offset)

    def links(self, deliveries: Sequence[Delivery]) -> list[Link]:
        """To the messages of a batch."""
        spans = (self.of(delivery.record) for delivery in deliveries[:_MOST_LINKS])
        return [Link(span.get_span_context()) for span in spans if span is not None]

    def committed(self, offsets: Mapping[TopicPartition, int]) -> None:
        """What is committed and was not told of had been settled before: its message, or its dead letter, stood."""
        for tp, offset in offsets.items():
            spans = self._open.get(tp, {})
            for settled in [place for place in spans if place < offset]:
                _end(spans.pop(settled), "already_settled", {})

    def left(self, partitions: Collection[TopicPartition] | None) -> None:
        """These partitions, or all, are no longer ours: what is not settled is left to their next owner."""
        for tp in [tp for tp in self._open if partitions is None or tp in partitions]:
            for span in self._open.pop(tp).values():
                _end(span, "left", {})


def _end(span: Span, outcome: str, attributes: Mapping[str, AttributeValue]) -> None:
    span.set_attributes({"zoho_sync.outcome": outcome, **attributes})
    span.end()


def _fail(span: Span, code: str) -> None:
    span.set_attribute("error.type", code)
    span.set_status(StatusCode.ERROR)


class _TracedRecorder(Recorder):
    """The recorder, and the spans of messages."""

    def __init__(self, metrics: Metrics, messages: MessageSpans) -> None:
        super().__init__(metrics)
        self._messages = messages

    def record_received(self, record: Record) -> None:
        super().record_received(record)
        self._messages.begin(record)

    def message_delivered(self, delivery: Delivery) -> None:
        super().message_delivered(delivery)
        self._messages.end(delivery.record, "delivered")
        for record, _ in delivery.waiting:
            self._messages.end(record, "duplicate")

    def record_skipped(self, record: Record, reason: str) -> None:
        super().record_skipped(record, reason)
        self._messages.end(record, "skipped", **{"zoho_sync.reason": reason})

    def record_rejected(self, record: Record, rejected: Rejected) -> None:
        super().record_rejected(record, rejected)
        self._messages.reject(record, rejected)

    def delivery_deferred(self, delivery: Delivery, deferred: Deferred) -> None:
        super().delivery_deferred(delivery, deferred)
        if (span := self._messages.of(delivery.record)) is not None:
            span.add_event("deferred", {"zoho_sync.stage": delivery.stage.value, "zoho_sync.code": deferred.code})

    def committed(self, offsets: dict[TopicPartition, int]) -> None:
        super().committed(offsets)
        self._messages.committed(offsets)

    def partitions_revoked(self, partitions: Collection[TopicPartition], *, unsettled: int) -> None:
        super().partitions_revoked(partitions, unsettled=unsettled)
        self._messages.left(partitions)


class _TracedSink:
    """A `CrmSink` whose batches are spans; what the batch calls are their children."""

    def __init__(self, sink: CrmSink, tracer: Tracer, messages: MessageSpans) -> None:
        self._sink = sink
        self._tracer = tracer
        self._messages = messages
        self.parent_of = sink.parent_of
        self.person_key = sink.person_key
        self.note_key = sink.note_key
        self.needs_note = sink.needs_note
        self.gave_up = sink.gave_up

    async def resolve(self, deliveries: Sequence[Delivery]) -> Sequence[Parent | Rejected | Deferred]:
        with self._batch(Stage.LEAD, deliveries):
            return await self._sink.resolve(deliveries)

    async def write_messages(self, deliveries: Sequence[Delivery]) -> Sequence[Delivered | Rejected | Deferred]:
        with self._batch(Stage.MESSAGE, deliveries):
            return await self._sink.write_messages(deliveries)

    async def write_notes(self, deliveries: Sequence[Delivery]) -> Sequence[Delivered | Rejected | Deferred]:
        with self._batch(Stage.NOTE, deliveries):
            return await self._sink.write_notes(deliveries)

    @contextmanager
    def _batch(self, stage: Stage, deliveries: Sequence[Delivery]) -> Iterator[None]:
        attributes = {"zoho_sync.stage": stage.value, "messaging.batch.message_count": len(deliveries)}
        links = self._messages.links(deliveries)
        with _span(self._tracer, f"batch {stage.value}", attributes, context=Context(), links=links):
            yield


class _TracedDeadLetters:
    """`DeadLetters` whose writes are spans, children of their message's."""

    def __init__(self, inner: DeadLetters, tracer: Tracer, messages: MessageSpans, topic: str) -> None:
        self._inner = inner
        self._tracer = tracer
        self._messages = messages
        self._topic = topic
        self.standing = inner.standing

    async def write(self, record: Record, rejected: Rejected, *, attempts: int) -> None:
        """See `DeadLetters`.  The letter gets one header more, its place in the trace."""
        attributes = {
            "messaging.system": "kafka",
            "messaging.operation.name": "send",
            "messaging.operation.type": "send",
            "messaging.destination.name": self._topic,
            "zoho_sync.reason": rejected.reason,
        }
        parent = self._messages.of(record)
        context = set_span_in_context(parent, Context()) if parent is not None else Context()
        with _span(self._tracer, f"send {self._topic}", attributes, kind=SpanKind.PRODUCER, context=context):
            await self._inner.write(_with_place(record), rejected, attempts=attempts)


def _with_place(record: Record) -> Record:
    """The record as it is to be written: the current span's place takes that of an earlier dead letter."""
    carrier: dict[str, str] = {}
    _W3C.inject(carrier)
    headers = tuple((name, value) for name, value in record.headers if name != _DEAD_LETTER)
    return replace(record, headers=(*headers, (_DEAD_LETTER, carrier["traceparent"].encode())))


def _traced_send(send: Callable[[C], Awaitable[R]], tracer: Tracer) -> Callable[[C], Awaitable[R]]:
    """Each attempt is a span: operation, method, the answer's status, and the code of what went wrong."""

    async def send_traced(call: C) -> R:
        attributes = {"zoho_sync.operation": str(call.operation), "http.request.method": call.method}
        with _span(tracer, f"zoho {call.operation}", attributes, kind=SpanKind.CLIENT):
            return await send(call)

    return send_traced


def _note_status(status: int) -> None:
    """The token's own requests, which belong to no call, are passed over."""
    span = get_current_span()
    if getattr(span, "kind", None) is SpanKind.CLIENT:
        span.set_attribute("http.response.status_code", status)


@contextmanager
def _span(
    tracer: Tracer,
    name: str,
    attributes: Mapping[str, AttributeValue],
    *,
    kind: SpanKind = SpanKind.INTERNAL,
    context: Context | None = None,
    links: Sequence[Link] = (),
) -> Iterator[None]:
    """The current span of the block.  The texts of exceptions may hold anything, so that only their code is kept."""
    silent: dict[str, Any] = {"record_exception": False, "set_status_on_exception": False}
    with tracer.start_as_current_span(name, context, kind, attributes, links, **silent) as span:
        try:
            yield
        except Exception as error:
            _fail(span, error.code if isinstance(error, SyncError) else type(error).__name__)
            raise
