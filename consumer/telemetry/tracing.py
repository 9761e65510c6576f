"""Traces, where OpenTelemetry's own variables ask for them; its packages are the extra `otel`.

Without them nothing is wrapped and nothing of OpenTelemetry is imported: the service is the one that it would be if
there were no traces.  Variables: opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, TypeVar

import structlog

from consumer.telemetry.recorder import Recorder

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from consumer.core.ports import CrmSink, DeadLetters
    from consumer.telemetry.metrics import Metrics

_EXPORTERS = frozenset({"console", "otlp"})
_INSTALL = "a variable asks for traces, but OpenTelemetry is not installed: pip install 'zoho-sync[otel]'"
_ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")


class Call(Protocol):
    """What a span tells of a call to Zoho: no path and no parameters, for they may hold a number."""

    @property
    def operation(self) -> str:
        """What it is for."""

    @property
    def method(self) -> str:
        """Of HTTP."""


C = TypeVar("C", bound=Call)
R = TypeVar("R")


class Tracing:
    """Without traces: everything stays as it is.  `spans.SpanTracing` puts its own around each of these."""

    on_answer: Callable[[int], None] | None = None
    """To be told the status of each answer over HTTP, in the context of the call."""

    def recorder(self, metrics: Metrics) -> Recorder:
        """The observer of all rooms."""
        return Recorder(metrics)

    def sink(self, sink: CrmSink) -> CrmSink:
        """The sink, with each of its batches in a span."""
        return sink

    def dead_letters(self, dead_letters: DeadLetters) -> DeadLetters:
        """The dead-letter topic, with each write in a span."""
        return dead_letters

    def send(self, send: Callable[[C], Awaitable[R]]) -> Callable[[C], Awaitable[R]]:
        """A `Send` of the Zoho room, with each call in a span."""
        return send

    async def stop(self) -> None:
        """Hand over what is left; bounded in time, never raises."""


UNTRACED = Tracing()


def exporters_of(environ: Mapping[str, str]) -> tuple[str, ...]:
    """Where spans shall go: by OTEL_TRACES_EXPORTER, or to an OTLP endpoint when one is set; nowhere by default."""
    if environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return ()
    default = "otlp" if any(environ.get(name, "").strip() for name in _ENDPOINTS) else "none"
    named = environ.get("OTEL_TRACES_EXPORTER", "").strip().lower() or default
    return tuple(dict.fromkeys(name for name in map(str.strip, named.split(",")) if name not in ("", "none")))


def tracing_of(environ: Mapping[str, str], *, group_id: str, dlq_topic: str, version: str) -> Tracing:
    """As the environment asks; what cannot be had is said in the log, and the service runs without."""
    exporters = exporters_of(environ)
    if not exporters:
        return UNTRACED
    advice = _problem(exporters, environ)
    if advice is None:
        try:
            from consumer.telemetry.spans import SpanTracing, provider_of  # noqa: PLC0415 - needs the extra

            provider = provider_of(exporters, version=version)
            return SpanTracing(provider, group_id=group_id, dlq_topic=dlq_topic, version=version)
        except ImportError:
            advice = _INSTALL
        except ValueError as error:
            advice = f"a variable of OpenTelemetry is wrong: {error}"
    structlog.get_logger("consumer").warning("telemetry.traces_unavailable", advice=advice)
    return UNTRACED


def _problem(exporters: tuple[str, ...], environ: Mapping[str, str]) -> str | None:
    """What is asked for and not there."""
    unknown = [name for name in exporters if name not in _EXPORTERS]
    if unknown:
        return f"OTEL_TRACES_EXPORTER knows otlp, console and none, but not {', '.join(unknown)}"
    protocol = next((found for name in _PROTOCOLS if (found := environ.get(name, "").strip())), "http/protobuf")
    if "otlp" in exporters and protocol != "http/protobuf":
        return f"OTEL_EXPORTER_OTLP_PROTOCOL can be http/protobuf (port 4318), not {protocol}"
    return None
