"""What the view uses of a running service."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from consumer.core.errors import Halt
    from consumer.core.limits import Gate, Limiter
    from consumer.core.phones import Phones
    from consumer.kafka.source import KafkaSource
    from consumer.pipeline import Pipeline
    from consumer.settings import Settings
    from consumer.telemetry.health import Health, Snapshot
    from consumer.telemetry.recorder import Recorder
    from consumer.zoho.api import Send
    from consumer.zoho.auth import TokenSource
    from consumer.zoho.layers import Turnstile
    from consumer.zoho.people import People
    from consumer.zoho.sink import ZohoSink


class ZohoParts(Protocol):
    """Everything between the corridor and Zoho."""

    limiter: Limiter
    gate: Gate
    turnstile: Turnstile
    tokens: TokenSource
    send: Send


class ServiceParts(Protocol):
    """The rooms, and what is judged of them together."""

    settings: Settings
    recorder: Recorder
    phones: Phones
    people: People
    sink: ZohoSink
    source: KafkaSource
    pipeline: Pipeline

    @property
    def zoho(self) -> ZohoParts:
        """The Zoho room."""

    def halts(self) -> tuple[Halt, ...]:
        """Every cause for which work waits."""

    def snapshot(self) -> Snapshot:
        """Everything that health is judged by."""

    def health(self) -> Health:
        """The answer of the probes."""

    def refresh_gauges(self) -> None:
        """Bring the gauges up to date."""
