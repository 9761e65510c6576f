"""The demo's traffic, and what must become of it.

The expectation is counted while the traffic is made up, by rules that know nothing of the service's code.
"""

from __future__ import annotations

import json
import random
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

SINCE = datetime(2026, 1, 5, 8, 0, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Customer:
    """A made-up person; `typed` are the ways in which the number arrives."""

    name: str
    phone: str
    typed: tuple[str, ...]
    dialog_id: str
    known_as: str | None = None
    """Module in which the person stands already, if any."""
    stored: str | None = None
    """The number as somebody typed it into the CRM."""


@dataclass(frozen=True, slots=True)
class Sent:
    """One record to produce."""

    key: bytes
    value: bytes
    headers: tuple[tuple[str, bytes], ...] = ()


@dataclass(slots=True)
class Expected:
    """What must stand in the CRM and in the dead-letter topic in the end."""

    events: int = 0
    messages: set[str] = field(default_factory=set)
    new_leads: set[str] = field(default_factory=set)
    dialogs: set[str] = field(default_factory=set)
    duplicates: int = 0
    skipped: dict[str, int] = field(default_factory=dict)
    dead_letters: dict[str, int] = field(default_factory=dict)

    def skip(self, reason: str) -> None:
        """One more record with nothing to write."""
        self.skipped[reason] = self.skipped.get(reason, 0) + 1

    def dead_letter(self, reason: str) -> None:
        """One more record for the dead-letter topic."""
        self.dead_letters[reason] = self.dead_letters.get(reason, 0) + 1


def customers(count: int, rng: random.Random) -> list[Customer]:
    """People of four countries; some of them stand in the CRM already, typed as people type."""
    people: list[Customer] = []
    for index in range(count):
        phone, typed = _number(index)
        known_as = {0: "Leads", 1: "Contacts"}.get(index % 6)
        people.append(
            Customer(
                name=f"{rng.choice(_FIRST)} {rng.choice(_LAST)}",
                phone=phone,
                typed=typed,
                dialog_id=f"dialog-{index:05d}",
                known_as=known_as,
                stored=typed[-1] if known_as else None,
            )
        )
    return people


_FIRST = ("Anna", "Boris", "Clara", "Dmitri", "Elena", "Farid", "Grace", "Ivan", "Julia", "Karim", "Lena", "Maria")
_LAST = ("Berg", "Costa", "Ivanova", "Kim", "Lindqvist", "Moreau", "Novak", "Okafor", "Petrov", "Rossi", "Sato")


def _number(index: int) -> tuple[str, tuple[str, ...]]:
    kind, number = index % 3, index // 3
    if kind == 0:
        tail = f"{number:04d}"
        return f"+1415555{tail}", (f"+1415555{tail}", f"1415555{tail}", f"+1 (415) 555-{tail}", f"+1-415-555-{tail}")
    if kind == 1:
        tail = f"{number:05d}"
        return f"+7916123{tail[1:]}", (
            f"+7916123{tail[1:]}",
            f"7916123{tail[1:]}",
            f"+7 916 123-{tail[1:3]}-{tail[3:]}",
        )
    tail = f"{number:05d}"
    return f"+44770090{tail[1:]}", (f"+44770090{tail[1:]}", f"4477009{'0'}{tail[1:]}", f"+44 7700 90{tail[1:]}")


class Traffic:
    """Makes up the records, in the order in which they are produced."""

    def __init__(self, people: list[Customer], rng: random.Random) -> None:
        self._people = people
        self._rng = rng
        self._number = 0
        self.sent: list[Sent] = []
        self.expected = Expected()

    def campaign(self, name: str) -> None:
        """A mailing: one message for everybody, all at once."""
        for person in self._people:
            self._message(person, "outbound", "campaign", f"Hello {person.name}, our offer", campaign=name)

    def chats(self, count: int) -> None:
        """People answer, operators reply, in mixed order and from differently typed numbers."""
        for _ in range(count):
            person = self._rng.choice(self._people)
            if self._rng.random() < 0.5:
                self._message(person, "inbound", "webhook", "I have a question")
            else:
                self._message(person, "outbound", "chat", "We are glad to help", agent="Olga")

    def duplicates(self, count: int) -> None:
        """The same records again."""
        originals = [sent for sent in self.sent if b'"phone": "' in sent.value]
        for sent in self._rng.sample(originals, count):
            self._add(sent)
            self.expected.duplicates += 1

    def without_phone(self, count: int) -> None:
        """Nobody to file the message under."""
        for index in range(count):
            self._event({**self._base("inbound", "webhook"), "phone": (None, "", "anonymous")[index % 3]})
            self.expected.skip("no_phone")

    def poison(self) -> None:
        """Records that no attempt can deliver."""
        for value, reason in (
            (b'{"message_id": "broken', "invalid_json"),
            (b'{"message_id": "\xff\xfe"}', "invalid_encoding"),
            (json.dumps({"message_id": "no-time", "phone": "+14155550199"}).encode(), "schema_violation"),
            (json.dumps({**self._base("sideways", "chat"), "phone": "+14155550199"}).encode(), "schema_violation"),
            (b"", "empty_value"),
        ):
            self._add(Sent(b"poison", value))
            self.expected.dead_letter(reason)

    def other_events(self, count: int) -> None:
        """Events of another type on the same topic, and messages as CloudEvents."""
        for _ in range(count):
            other = {"specversion": "1.0", "type": "messaging.dialog.closed.v1", "data": {}}
            headers = (("content-type", b"application/cloudevents+json"),)
            self._add(Sent(b"dialog", json.dumps(other).encode(), headers))
            self.expected.skip("other_event_type")

    def mix(self) -> None:
        """Shuffle everything; the first of two equal records is still the first."""
        self._rng.shuffle(self.sent)

    def _message(self, person: Customer, direction: str, origin: str, text: str, **extra: str) -> None:
        event = self._base(direction, origin) | {
            "phone": self._rng.choice(person.typed),
            "contact_name": person.name,
            "text": text,
            "dialog_id": person.dialog_id,
        }
        if campaign := extra.get("campaign"):
            event["campaign"] = {"id": "spring", "name": campaign}
        if agent := extra.get("agent"):
            event["agent"] = {"id": "7", "name": agent, "email": None}
        self._event(event, key=person.dialog_id)
        self.expected.messages.add(event["message_id"])
        self.expected.dialogs.add(person.dialog_id)
        if person.known_as is None:
            self.expected.new_leads.add(person.phone)

    def _base(self, direction: str, origin: str) -> dict[str, Any]:
        self._number += 1
        moment = SINCE + timedelta(seconds=self._number)
        return {
            "message_id": f"wamid.demo.{self._number:06d}",
            "occurred_at": moment.isoformat(),
            "direction": direction,
            "origin": origin,
        }

    def _event(self, event: dict[str, Any], *, key: str = "none") -> None:
        self._add(Sent(key.encode(), json.dumps(event).encode()))

    def _add(self, sent: Sent) -> None:
        self.sent.append(sent)
        self.expected.events += 1


def make_traffic(people: list[Customer], *, messages: int, seed: int) -> Traffic:
    """About `messages` messages: a campaign, chats, duplicates, messages without a phone, poison."""
    rng = random.Random(seed)  # noqa: S311 - made-up traffic, the same for the same seed
    traffic = Traffic(people, rng)
    traffic.campaign("Spring offer")
    traffic.chats(max(0, messages - len(people)))
    traffic.duplicates(max(1, messages // 50))
    traffic.without_phone(max(3, messages // 50))
    traffic.other_events(3)
    traffic.poison()
    traffic.mix()
    return traffic
