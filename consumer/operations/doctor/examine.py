"""The whole examination, in the order in which one thing needs the other."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from consumer.app import kafka_connection
from consumer.core.datacenters import DATA_CENTERS, of_api_domain
from consumer.operations.doctor import brokers, environment, modules, zoho
from consumer.operations.doctor.kafka import kafka_findings
from consumer.operations.zoho_desk import zoho_desk

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Sequence

    from consumer.core.datacenters import DataCenter
    from consumer.operations.doctor.findings import Finding
    from consumer.operations.zoho_desk import ZohoDesk
    from consumer.settings import Settings


async def examine(
    settings: Settings,
    *,
    is_enabled: bool,
    wall_clock: Callable[[], float] = time.time,
    centers: Sequence[DataCenter] | None = None,
) -> AsyncGenerator[Finding, None]:
    """Findings as they come.  `centers`: data centres to look for the client in, when its own does not know it."""
    for finding in environment.environment_findings(settings, is_enabled=is_enabled):
        yield finding
    async for finding in _examine_kafka(settings, wall_clock):
        yield finding
    for finding in zoho.host_findings(settings):
        yield finding
    if environment.has_zoho(settings):
        async with zoho_desk(settings, wall_clock=wall_clock) as desk:
            async for finding in _examine_zoho(desk, settings, _centers(settings, centers)):
                yield finding
    for finding in environment.link_findings(settings):
        yield finding


def _centers(settings: Settings, centers: Sequence[DataCenter] | None) -> Sequence[DataCenter]:
    """A stand-in on this machine has no neighbours to ask."""
    if centers is not None:
        return centers
    return DATA_CENTERS if of_api_domain(settings.zoho_api_domain) else ()


async def _examine_kafka(settings: Settings, wall_clock: Callable[[], float]) -> AsyncGenerator[Finding, None]:
    if not settings.kafka_bootstrap_servers:
        return
    for finding in kafka_findings(await _look(settings), settings, now=datetime.fromtimestamp(wall_clock(), UTC)):
        yield finding


async def _look(settings: Settings) -> brokers.KafkaFacts:
    """What may not be asked unencrypted is not asked."""
    if settings.is_plaintext_refused:
        servers = settings.kafka_bootstrap_servers or ""
        refused = brokers.Obstacle("plaintext_refused", servers, settings.kafka_security_protocol)
        return brokers.KafkaFacts(obstacles=[refused])
    topics = (settings.kafka_topic, settings.kafka_dlq_topic)
    return await brokers.look(kafka_connection(settings), topics, settings.kafka_group_id)


async def _examine_zoho(
    desk: ZohoDesk, settings: Settings, centers: Sequence[DataCenter]
) -> AsyncGenerator[Finding, None]:
    view = zoho.ZohoView()
    step = "zoho.token"
    may_go_on, found = await zoho.token_findings(desk, settings, centers)
    if may_go_on:
        step = "zoho.api"
        may_go_on, more = await zoho.api_findings(desk, settings, view)
        found += more
    for finding in found:
        yield finding
    if not may_go_on:
        for finding in (*zoho.unchecked_findings(settings, step), *zoho.clock_findings(desk)):
            yield finding
        return
    for finding in [*await zoho.scope_findings(desk, settings), *await zoho.user_findings(desk)]:
        yield finding
    await zoho.load(desk, settings, view)
    rules = await zoho.rule_findings(desk, settings)
    for finding in (
        *zoho.org_findings(settings, view),
        *modules.module_findings(settings, view),
        *modules.lead_findings(settings, view),
        *rules,
        *zoho.credit_findings(desk),
        *zoho.clock_findings(desk),
    ):
        yield finding
