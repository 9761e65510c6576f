"""What became of one message: the answer of the command `explain`, and what this process has in its hands."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from consumer.core.errors import SyncError
from consumer.operations import explain as operation
from consumer.operations.errors import OperationError
from consumer.operations.explain_view import rows_of, sentence_of
from consumer.telemetry.log import mask
from consumer.web.view import Explanation

if TYPE_CHECKING:
    from consumer.core.model import Delivery
    from consumer.operations.dlq.desk import Desk
    from consumer.operations.texts import Lang
    from consumer.view.parts import ServiceParts

_SEARCHED = timedelta(days=7)
_ZOHO_TIMEOUT_S = 8.0
_KAFKA_TIMEOUT_S = 30.0


class Explainer:
    """Asks Zoho first, for that is quick, then Kafka."""

    def __init__(self, service: ServiceParts, desk: Desk) -> None:
        self._service = service
        self._desk = desk

    async def explain(self, message_id: str, lang: Lang) -> Explanation:
        """Everything that could be found out in half a minute."""
        found = operation.Explanation(message_id, since=datetime.now(UTC) - _SEARCHED)
        await self._ask_zoho(found)
        await self._ask_kafka(found)
        settings = self._service.settings
        delivery = self._service.pipeline.dedup.find(message_id).delivery
        is_in_hand = delivery is not None and found.in_zoho is None
        return Explanation(
            "waiting" if is_in_hand else found.outcome(settings)[0],
            "" if is_in_hand and not found.is_kafka_read else sentence_of(lang, found, settings),
            rows=tuple((title, mask(text)) for title, text in rows_of(lang, found, is_revealed=False)),
            facts=_facts(delivery) if delivery else (),
        )

    async def _ask_zoho(self, found: operation.Explanation) -> None:
        try:
            async with asyncio.timeout(_ZOHO_TIMEOUT_S):
                await operation.ask_zoho(self._service.zoho.send, self._service.settings, found)
        except SyncError as error:
            found.zoho_error = error.code
        except TimeoutError:
            found.zoho_error = "TIMEOUT"

    async def _ask_kafka(self, found: operation.Explanation) -> None:
        try:
            async with asyncio.timeout(_KAFKA_TIMEOUT_S):
                await operation.ask_kafka(self._service.settings, self._desk, found)
        except TimeoutError:
            servers = self._desk.connection.bootstrap_servers
            late = OperationError("kafka.unreachable", servers=servers, detail="TimeoutError")
            found.topic_error, found.dead_letters_error = found.topic_error or late, found.dead_letters_error or late


def _facts(delivery: Delivery) -> tuple[tuple[str, str], ...]:
    named = {"stage": delivery.stage.value, "attempts": str(delivery.attempts), "code": delivery.last_code}
    return tuple((name, value) for name, value in named.items() if value)
