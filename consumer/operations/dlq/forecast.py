"""What a replay would come to in Zoho: asks, and creates nothing."""

from __future__ import annotations

import asyncio
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from consumer.core.phones import Phones
from consumer.operations.zoho_desk import zoho_desk
from consumer.zoho import messages
from consumer.zoho.metadata import Schema
from consumer.zoho.people import LeadOptions, MatchPolicy, People

if TYPE_CHECKING:
    from collections.abc import Sequence

    from consumer.core.phones import Person
    from consumer.settings import Settings
    from consumer.zoho.api import Send
    from schemas.message_event import MessageEvent

_PEOPLE = 50


@dataclass(slots=True)
class Forecast:
    """Counts of messages, and of people."""

    asked: int = 0
    """Messages that were asked for: a sample when there are many."""
    already_there: int = 0
    """Their record stands in Zoho: nothing would be written twice."""
    bad_number: int = 0
    known_people: int = 0
    new_leads: int = 0
    credits: int = 0
    """About what the messages that are not there would cost."""

    def as_json(self) -> dict[str, int]:
        """For machines."""
        return asdict(self)


class _Silent:
    def people_resolved(self, how: str, count: int) -> None:
        """See `PeopleObserver`."""

    def person_ambiguous(self, _hits: int) -> None:
        """See `PeopleObserver`."""

    def lead_withdrawn(self, lead_id: str, kept_id: str, *, is_deleted: bool) -> None:
        """See `PeopleObserver`."""


async def forecast(settings: Settings, events: Sequence[MessageEvent]) -> Forecast:
    """Ask Zoho which of these messages it has, and whose people it knows.  Raises SyncError."""
    async with zoho_desk(settings) as desk:
        return await forecast_with(desk.send, settings, events)


async def forecast_with(send: Send, settings: Settings, events: Sequence[MessageEvent]) -> Forecast:
    """The same over a given `Send`."""
    phones = Phones(settings.sync_default_region)
    found = Forecast(asked=len(events))
    existing = await messages.read_existing(send, settings.zoho_messages_module, [event.message_id for event in events])
    missing = [event for event in events if event.message_id not in existing]
    found.already_there = len(events) - len(missing)
    people: dict[str, Person] = {}
    for event in missing:
        phone = phones.canonical(event.phone or "")
        if phone is None:
            found.bad_number += 1
        else:
            person = phones.person(phone)
            people.setdefault(person.key, person)
    await _look_up(send, settings, phones, list(people.values())[:_PEOPLE], found)
    found.credits = _credits(len(missing) - found.bad_number, len(people), found.new_leads)
    return found


async def _look_up(send: Send, settings: Settings, phones: Phones, people: list[Person], found: Forecast) -> None:
    finder = People(
        send,
        phones,
        Schema(send),
        policy=MatchPolicy(settings.sync_match_prefer, settings.sync_match_order),
        options=LeadOptions(),
        observer=_Silent(),
    )
    parents = await asyncio.gather(*(finder.find(person) for person in people))
    found.known_people = sum(parent is not None for parent in parents)
    found.new_leads = len(parents) - found.known_people


def _credits(messages_count: int, people: int, new_leads: int) -> int:
    """A credit for every ten records, and one for each look-up call (v8 api-limits)."""
    writes = -(-messages_count // 10) + -(-people // 10) + -(-new_leads // 10)
    return writes + 2 * -(-people // 100) + 2 * new_leads
