"""The whole view, with a service or, when it is switched off, without one."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

from prometheus_client import generate_latest

from consumer import __version__
from consumer.core.links import Links
from consumer.core.phones import Phones
from consumer.operations.texts import chosen_lang
from consumer.telemetry import health
from consumer.telemetry import metrics as m
from consumer.view.dead_letters import DeadLetterView
from consumer.view.explain import Explainer
from consumer.view.links import LinkFinder
from consumer.view.setbacks import Setbacks
from consumer.view.status import failure_rows, status_of
from consumer.web.view import DialogLink, Explanation, LinkReason, LinkState, Status, UnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable

    from consumer.operations.dlq.desk import Desk
    from consumer.settings import Settings
    from consumer.telemetry.recorder import Recorder
    from consumer.view.parts import ServiceParts
    from consumer.web.view import DeadLetterPage, ReplayPlan, ReplayStep, Selection, Subject


class View:
    """See `consumer.web.view.ServiceView`; without a service it is switched off, and well."""

    def __init__(
        self,
        settings: Settings,
        recorder: Recorder,
        service: ServiceParts | None,
        desk: Desk | None,
    ) -> None:
        self._settings = settings
        self._recorder = recorder
        self._service = service
        self._phones = Phones(settings.sync_default_region)
        self._links = Links(settings.crm_url, settings.zoho_org_id)
        self._setbacks = Setbacks()
        recorder.on_setback = self._setbacks.note
        self._finder = self._finder_for(service) if service else None
        self._desk = desk
        self._dead_letters = DeadLetterView(desk) if desk else None

    def _finder_for(self, service: ServiceParts) -> LinkFinder:
        return LinkFinder(
            send=service.zoho.send,
            module=self._settings.zoho_messages_module,
            sink=service.sink,
            people=service.people,
            phones=service.phones,
            links=self._links,
            deliveries=service.pipeline.dedup.deliveries,
            setbacks=self._setbacks,
            halt_code=lambda: next((halt.code for halt in service.halts()), ""),
            closed_by=lambda: next((code for _, code, _, _ in service.zoho.gate.halts()), ""),
        )

    # -- probes and metrics -------------------------------------------------------------------------------------

    def _health(self) -> health.Health:
        if self._service is not None:
            return self._service.health()
        return health.assess(health.Snapshot(now=0.0, is_enabled=False), health.Limits())

    def is_live(self) -> bool:
        """See `ServiceView`."""
        return self._health().is_live

    def readiness(self) -> tuple[bool, dict[str, Any]]:
        """See `ServiceView`."""
        verdict = self._health()
        checks = [{"name": check.name, "ok": check.is_ok, "reason": check.reason} for check in verdict.checks]
        body = {"ready": verdict.is_ready, "state": verdict.state, "sentence": verdict.sentence, "checks": checks}
        return verdict.is_ready, body

    def metrics_text(self) -> bytes:
        """See `ServiceView`."""
        if self._service is not None:
            self._service.refresh_gauges()
        return generate_latest(self._recorder.metrics.registry)

    # -- links --------------------------------------------------------------------------------------------------

    def canonical_phone(self, raw: str) -> str | None:
        """See `LinkView`."""
        return self._phones.canonical(raw)

    def computed_link(self, phone: str) -> str | None:
        """See `LinkView`."""
        return self._links.dialog(phone, None)

    def known_link(self, subject: Subject) -> DialogLink | None:
        """See `LinkView`."""
        return self._finder.known(subject) if self._finder else DialogLink(LinkState.UNKNOWN, LinkReason.DISABLED)

    async def find_link(self, subject: Subject) -> DialogLink:
        """See `LinkView`."""
        if self._finder is None:
            return DialogLink(LinkState.UNKNOWN, LinkReason.DISABLED)
        return await self._finder.find(subject)

    def link_answered(self, state: LinkState, reason: LinkReason) -> None:
        """See `LinkView`."""
        self._recorder.metrics.count(m.LINKS, state.value, reason.value)

    # -- console ------------------------------------------------------------------------------------------------

    def status(self) -> Status:
        """See `ServiceView`."""
        if self._service is None:
            failures = failure_rows(self._recorder, time.time())
            return Status(__version__, self._health().state.value, None, failures=failures)
        loop_now = asyncio.get_running_loop().time()
        return status_of(self._service, version=__version__, loop_now=loop_now, wall_now=time.time())

    async def explain(self, message_id: str, language: str) -> Explanation:
        """See `ServiceView`."""
        if self._service is None or self._desk is None:
            return Explanation("unavailable")
        return await Explainer(self._service, self._desk).explain(message_id, chosen_lang(language))

    # -- dead letters -------------------------------------------------------------------------------------------

    async def dead_letters(self, selection: Selection, *, limit: int) -> DeadLetterPage:
        """See `ServiceView`."""
        return await self._letters().browse(selection, limit=limit)

    async def plan_replay(self, selection: Selection) -> ReplayPlan:
        """See `ServiceView`."""
        return await self._letters().plan(selection)

    async def replay(
        self, selection: Selection, *, on_step: Callable[[ReplayStep], None], cancel: asyncio.Event
    ) -> None:
        """See `ServiceView`."""
        await self._letters().replay(selection, on_step=on_step, cancel=cancel)

    def _letters(self) -> DeadLetterView:
        if self._dead_letters is None:
            raise UnavailableError(
                {
                    "en": "KAFKA_BOOTSTRAP_SERVERS is not set, or names brokers that may be asked only with TLS.",
                    "ru": "Переменная KAFKA_BOOTSTRAP_SERVERS не задана или требует TLS.",
                }
            )
        return self._dead_letters
