"""The three stages as the corridor sees them: a batch goes in, one outcome for each delivery comes out, in order."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any

from consumer.core.errors import RefusedError, SyncError
from consumer.core.model import Deferred, Delivered, Module, NotePolicy, Parent, Rejected, Stage
from consumer.zoho import messages
from consumer.zoho.answers import TRIES_OF_UNKNOWN, RowAnswer, outcome_of
from consumer.zoho.api import Halt, Operation, halt_nothing
from consumer.zoho.note_desk import NoteDesk
from consumer.zoho.people import LATE_EFFECT_S
from consumer.zoho.splitting import in_parts
from consumer.zoho.verdicts import Verdicts, never_written, outcome_of_error

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    from consumer.core.links import Links
    from consumer.core.model import Delivery
    from consumer.core.phones import Person, Phones
    from consumer.zoho.api import Send
    from consumer.zoho.metadata import Schema
    from consumer.zoho.people import People
    from consumer.zoho.verdicts import StageOutcome


class ZohoSink:
    """Zoho CRM behind the port `CrmSink`."""

    def __init__(
        self,
        send: Send,
        people: People,
        phones: Phones,
        schema: Schema,
        links: Links,
        *,
        module: str,
        note_policy: NotePolicy,
        triggers: tuple[str, ...] | None,
        on_halted: Halt = halt_nothing,
        late_effect_s: float = LATE_EFFECT_S,
    ) -> None:
        self._send = send
        self._people = people
        self._phones = phones
        self._schema = schema
        self._module = module
        self._triggers = triggers
        self._verdicts = Verdicts(people, phones, schema, on_halted)
        self._note_desk = NoteDesk(
            send, links, schema, self._verdicts, module=module, policy=note_policy, late_effect_s=late_effect_s
        )
        self._preparing = asyncio.Lock()

    async def prepare(self) -> None:
        """Have the fields of the modules that we write.  Raises SyncError."""
        async with self._preparing:
            for module in (*Module, self._module):
                await self._schema.load(module)

    # -- lead ---------------------------------------------------------------------------------------------------

    def parent_of(self, phone: str) -> Parent | None:
        """The remembered lead or contact, at no cost."""
        return self._people.parent_of(self._phones.person(phone))

    async def resolve(self, deliveries: Sequence[Delivery]) -> list[Parent | Rejected | Deferred]:
        """The lead or contact of each delivery, created where there is none."""
        try:
            await self.prepare()
        except SyncError as error:
            return [never_written(outcome_of_error(error, Stage.LEAD))] * len(deliveries)
        return await self._people.resolve([self._person(delivery) for delivery in deliveries])

    def _person(self, delivery: Delivery) -> Person:
        return self._phones.person(delivery.phone, delivery.event.contact_name)

    def person_key(self, delivery: Delivery) -> str:
        """See `CrmSink`."""
        return self._person(delivery).key

    # -- message ------------------------------------------------------------------------------------------------

    async def write_messages(self, deliveries: Sequence[Delivery]) -> list[StageOutcome]:
        """One record for each message id; what may exist already is read back, not written again."""
        for delivery in deliveries:
            self._note_desk.expect(delivery)
        try:
            await self.prepare()
            existing = await self._existing(deliveries)
        except SyncError as error:
            return [never_written(outcome_of_error(error, Stage.MESSAGE))] * len(deliveries)
        fresh = [delivery for delivery in deliveries if delivery.event.message_id not in existing]
        for delivery in deliveries:
            if delivery.event.message_id in existing:
                delivery.stands(is_ours=False, now=_now())
        outcomes = dict(zip(map(id, fresh), await self._upsert(fresh), strict=True)) if fresh else {}
        return [outcomes.get(id(delivery), Delivered()) for delivery in deliveries]

    async def _existing(self, deliveries: Sequence[Delivery]) -> set[str]:
        """What stands, with the right parent.  Without a look-up the write itself does no harm: it has a key."""
        ids = [item.event.message_id for item in deliveries if item.may_exist and item.stale_parent is None]
        try:
            return await messages.read_existing(self._send, self._module, ids) if ids else set()
        except RefusedError:
            return set()

    async def _upsert(self, deliveries: list[Delivery]) -> list[StageOutcome]:
        return await in_parts(
            deliveries,
            self._upsert_part,
            alone=lambda delivery, error: self._verdicts.refused(delivery, error, Stage.MESSAGE),
            hold=lambda error: self._verdicts.hold(Operation.UPSERT_MESSAGES, error.code),
        )

    async def _upsert_part(self, deliveries: Sequence[Delivery]) -> list[StageOutcome]:
        rows = [messages.row_of(delivery, self._module, self._schema) for delivery in deliveries]
        try:
            sent = await messages.upsert(self._send, self._module, rows, triggers=self._triggers)
        except RefusedError:
            raise
        except SyncError as error:
            return [outcome_of_error(error, Stage.MESSAGE)] * len(deliveries)
        judge = partial(self._message_outcome, sent.at)
        return self._verdicts.judged(Operation.UPSERT_MESSAGES, deliveries, rows, sent.answers, judge)

    def _message_outcome(
        self, sent_at: float, delivery: Delivery, row: dict[str, Any], answer: RowAnswer
    ) -> StageOutcome:
        """A record of ours stands, for whoever looks, from when it was sent; a stranger's, for us, from now on."""
        if answer.is_ok or (answer.code == "DUPLICATE_DATA" and answer.field == messages.UNIQUE_FIELD):
            is_ours = answer.is_ok and answer.action == "insert"
            delivery.stands(is_ours=is_ours, now=sent_at if is_ours else _now())
            return Delivered()
        if answer.code == "DUPLICATE_DATA" and answer.field is None and delivery.attempts < TRIES_OF_UNKNOWN:
            return Deferred(answer.code, wrote_maybe=True)
        return (
            self._verdicts.stale_parent(delivery, answer)
            or self._verdicts.too_long(self._module, row, answer)
            or outcome_of(answer, Stage.MESSAGE, attempts=delivery.attempts)
        )

    # -- note ---------------------------------------------------------------------------------------------------

    def note_key(self, delivery: Delivery) -> Hashable:
        """See `CrmSink`."""
        return self._note_desk.key(delivery)

    def needs_note(self, delivery: Delivery) -> bool:
        """See `CrmSink`."""
        return self._note_desk.needs_note(delivery)

    async def write_notes(self, deliveries: Sequence[Delivery]) -> list[StageOutcome]:
        """See `NoteDesk`."""
        return await self._note_desk.write(deliveries)

    def gave_up(self, delivery: Delivery) -> None:
        """See `CrmSink`."""
        self._note_desk.gave_up(delivery)


def _now() -> float:
    return asyncio.get_running_loop().time()
