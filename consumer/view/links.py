"""Where a person's dialog is, from all that the service knows."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from typing import TYPE_CHECKING

from consumer.core.errors import HaltedError, RefusedError, SyncError
from consumer.core.model import Module
from consumer.view.setbacks import fields_of
from consumer.web.view import DialogLink, LinkReason, LinkState, Place, Subject, SubjectKind
from consumer.zoho.lookups import phone_of_dialog

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from consumer.core.links import Links
    from consumer.core.model import Delivery, Parent
    from consumer.core.phones import Phones
    from consumer.view.setbacks import Setback, Setbacks
    from consumer.zoho.api import Send
    from consumer.zoho.people import People
    from consumer.zoho.sink import ZohoSink

_REMEMBERED_DIALOGS = 20_000
_PATIENCE_S = 7.0
"""Less than the link desk has, so that a cause can be named."""


class LinkFinder:
    """Answers for one running service."""

    def __init__(
        self,
        *,
        send: Send,
        module: str,
        sink: ZohoSink,
        people: People,
        phones: Phones,
        links: Links,
        deliveries: Callable[[], Collection[Delivery]],
        setbacks: Setbacks,
        halt_code: Callable[[], str],
        closed_by: Callable[[], str],
    ) -> None:
        self._send = send
        self._module = module
        self._sink = sink
        self._people = people
        self._phones = phones
        self._links = links
        self._deliveries = deliveries
        self._setbacks = setbacks
        self._halt_code = halt_code
        self._closed_by = closed_by
        self._dialogs: OrderedDict[str, str] = OrderedDict()

    # -- at no cost ---------------------------------------------------------------------------------------------

    def known(self, subject: Subject) -> DialogLink | None:
        """From memory: a person who was met, or a message on its way."""
        delivery = self._on_its_way(subject)
        phone = delivery.phone if delivery else self._phone_of(subject)
        if phone is None:
            return None
        parent = self._people.parent_of(self._phones.person(phone))
        if parent is not None:
            return self._linked(phone, parent)
        return self._pending(delivery) if delivery else None

    def _phone_of(self, subject: Subject) -> str | None:
        return subject.value if subject.kind is SubjectKind.PHONE else self._dialogs.get(subject.value)

    def _on_its_way(self, subject: Subject) -> Delivery | None:
        deliveries = self._deliveries()
        if subject.kind is SubjectKind.DIALOG:
            return next((found for found in deliveries if found.event.dialog_id == subject.value), None)
        key = self._phones.person(subject.value).key
        return next((found for found in deliveries if self._phones.person(found.phone).key == key), None)

    def _linked(self, phone: str, parent: Parent) -> DialogLink:
        is_lead = parent.module is Module.LEADS
        return DialogLink(
            LinkState.LINKED,
            LinkReason.FOUND,
            self._links.dialog(phone, parent),
            lead_id=parent.id if is_lead else None,
            contact_id=None if is_lead else parent.id,
        )

    def _pending(self, delivery: Delivery) -> DialogLink:
        code = self._halt_code() or delivery.last_code
        reason = LinkReason.WAITING if code else LinkReason.QUEUED
        return DialogLink(LinkState.PENDING, reason, self._links.dialog(delivery.phone, None), code=code)

    # -- for credits --------------------------------------------------------------------------------------------

    async def find(self, subject: Subject) -> DialogLink:
        """Ask Zoho."""
        try:
            async with asyncio.timeout(_PATIENCE_S):
                await self._sink.prepare()
                phone = await self._ask_phone(subject)
                parent = await self._ask_parent(phone) if phone else None
        except TimeoutError:
            code = self._closed_by()
            return _unasked(code, is_halted=bool(code))
        except SyncError as error:
            return _unasked(error.code, is_halted=isinstance(error, HaltedError | RefusedError))
        return self._linked(phone, parent) if phone and parent else self._why_not(subject, phone)

    async def _ask_phone(self, subject: Subject) -> str | None:
        known = self._phone_of(subject)
        if known is not None:
            return known
        of_setback = self._phone_of_setback(subject)
        try:
            raw = await phone_of_dialog(self._send, self._module, subject.value)
        except RefusedError:
            if of_setback is None:
                raise
            raw = None
        phone = self._phones.canonical(raw) if raw else of_setback
        if phone is not None:
            self._dialogs[subject.value] = phone
            if len(self._dialogs) > _REMEMBERED_DIALOGS:
                self._dialogs.popitem(last=False)
        return phone

    def _phone_of_setback(self, subject: Subject) -> str | None:
        setback = self._setback_of(subject)
        raw = fields_of(setback.record.value).get("phone") if setback else None
        return self._phones.canonical(raw) if isinstance(raw, str) else None

    async def _ask_parent(self, phone: str) -> Parent | None:
        person = self._phones.person(phone)
        return await self._people.confirm(person) or await self._people.find(person)

    def _why_not(self, subject: Subject, phone: str | None) -> DialogLink:
        url = self._links.dialog(phone, None) if phone else None
        setback = self._setback_of(subject)
        if setback is None:
            return DialogLink(LinkState.UNKNOWN, LinkReason.NOT_SEEN, url)
        if setback.rejected is None:
            return DialogLink(LinkState.UNKNOWN, LinkReason.SKIPPED, url, code=setback.reason)
        source = Place(setback.record.tp.partition, setback.record.offset)
        return DialogLink(LinkState.FAILED, LinkReason.REJECTED, url, code=setback.reason, source=source)

    def _setback_of(self, subject: Subject) -> Setback | None:
        if subject.kind is SubjectKind.DIALOG:
            return self._setbacks.find(lambda fields: fields.get("dialog_id") == subject.value)
        return self._setbacks.find(lambda fields: self._is_number(fields.get("phone"), subject.value))

    def _is_number(self, raw: object, phone: str) -> bool:
        found = self._phones.canonical(raw) if isinstance(raw, str) else None
        return found is not None and self._phones.person(found).key == self._phones.person(phone).key


def _unasked(code: str, *, is_halted: bool) -> DialogLink:
    reason = LinkReason.HALTED if is_halted else LinkReason.UNAVAILABLE
    return DialogLink(LinkState.UNKNOWN, reason, code=code, retry_after_s=30)
