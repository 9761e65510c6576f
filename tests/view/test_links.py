"""Where a person's dialog is: asked of a whole Zoho stand-in, in virtual time."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from consumer.core.dedup import Dedup
from consumer.core.links import Links
from consumer.core.model import Record, Rejected, Stage, TopicPartition
from consumer.view.links import LinkFinder
from consumer.view.setbacks import Setbacks
from consumer.web.view import DialogLink, LinkReason, LinkState, Place, Subject, SubjectKind
from sandbox.zoho.faults import Answer
from tests.zoho.room import Client, World, delivery, run

if TYPE_CHECKING:
    from consumer.core.model import Delivery

PHONE = "+79161234567"
PERSON = Subject(SubjectKind.PHONE, PHONE)
DIALOG = Subject(SubjectKind.DIALOG, f"dialog-{PHONE}")
REJECTED = Rejected(Stage.MESSAGE, "zoho.INVALID_DATA", "Body")


@dataclass
class _Corridor:
    dedup: Dedup


@dataclass
class _Zoho:
    send: Any


class Desk:
    """One process: a Zoho room, messages on their way, setbacks."""

    def __init__(self, world: World, *, org_id: str | None = None) -> None:
        self.client = Client(world)
        self.dedup = Dedup(horizon=1000)
        self.setbacks = Setbacks()
        self.halt = ""
        self.pipeline: Any = _Corridor(self.dedup)
        self.zoho = _Zoho(self.client.send)
        self.settings: Any = type("Settings", (), {"zoho_messages_module": "Messages"})
        self.finder = LinkFinder(
            send=self.client.send,
            module="Messages",
            sink=self.client.sink,
            people=self.client.people,
            phones=self.client.phones,
            links=Links("https://crm.zoho.com", org_id),
            deliveries=self.dedup.deliveries,
            setbacks=self.setbacks,
            halt_code=lambda: self.halt,
            closed_by=lambda: next((code for _, code, _, _ in self.client.gate.halts()), ""),
        )

    async def delivered(self, item: Delivery) -> None:
        self.dedup.start(item)
        await self.client.deliver([item])
        self.dedup.settle(item)

    def set_back(self, rejected: Rejected | None, reason: str, **fields: Any) -> None:
        value = json.dumps({"message_id": "m-1", "phone": PHONE, "dialog_id": DIALOG.value, **fields}).encode()
        self.setbacks.note(Record(TopicPartition("t", 2), 17, 0, None, value), rejected, reason)


def test_delivered_message_is_known_at_no_cost() -> None:
    """Whom this process has met it can show without asking Zoho, by number."""

    async def scenario() -> None:
        world = World()
        desk = Desk(world)
        await desk.delivered(delivery("m-1", PHONE))
        before = world.calls()
        link = desk.finder.known(PERSON)
        assert link is not None
        [lead] = world.dump("Leads")
        assert (link.state, link.lead_id) == (LinkState.LINKED, lead["id"])
        assert link.url == f"https://crm.zoho.com/crm/tab/Leads/{lead['id']}/Messages"
        assert world.calls() == before

    run(scenario())


def test_another_process_finds_the_same_lead() -> None:
    """By number or by dialog id, a process that never saw the message leads to the same record."""

    async def scenario() -> None:
        world = World()
        await Desk(world).delivered(delivery("m-1", PHONE))
        [lead] = world.dump("Leads")
        other = Desk(world)
        assert other.finder.known(DIALOG) is None
        for subject in (DIALOG, PERSON):
            assert (await other.finder.find(subject)).lead_id == lead["id"]
        assert other.finder.known(DIALOG) == other.finder.known(PERSON)

    run(scenario())


def test_looking_creates_nobody() -> None:
    """A click on a number that nobody has makes no lead."""

    async def scenario() -> None:
        world = World()
        link = await Desk(world).finder.find(PERSON)
        assert link == DialogLink(LinkState.UNKNOWN, LinkReason.NOT_SEEN)
        assert world.dump("Leads") == []

    run(scenario())


def test_converted_lead_opens_as_contact() -> None:
    """A lead that was converted after it was remembered opens as the contact that it became."""

    async def scenario() -> None:
        world = World()
        desk = Desk(world)
        await desk.delivered(delivery("m-1", PHONE))
        [lead] = world.dump("Leads")
        world.step("convert", lead_id=lead["id"])
        link = await desk.finder.find(PERSON)
        [contact] = world.dump("Contacts")
        assert (link.contact_id, link.lead_id) == (contact["id"], None)
        assert link.url == f"https://crm.zoho.com/crm/tab/Contacts/{contact['id']}/Messages"
        assert desk.finder.known(PERSON) == link

    run(scenario())


def test_deleted_lead_is_not_opened() -> None:
    """A remembered lead that somebody deleted is forgotten, and another record of the number is found."""

    async def scenario() -> None:
        world = World()
        desk = Desk(world)
        await desk.delivered(delivery("m-1", PHONE))
        [lead] = world.dump("Leads")
        world.step("delete", module="Leads", record_id=lead["id"])
        assert (await desk.finder.find(PERSON)).state is LinkState.UNKNOWN
        again = world.insert("Leads", Phone=PHONE)
        assert (await desk.finder.find(PERSON)).lead_id == again

    run(scenario())


def test_message_on_its_way_is_pending() -> None:
    """Queued, or waiting for a cause that is named; by number in any safe variant, or by dialog."""

    async def scenario() -> None:
        desk = Desk(World())
        item = delivery("m-1", "+5511987654321", dialog_id="d-br")
        desk.dedup.start(item)
        eight_digits = Subject(SubjectKind.PHONE, "+551187654321")
        for subject in (eight_digits, Subject(SubjectKind.DIALOG, "d-br")):
            assert desk.finder.known(subject) == DialogLink(LinkState.PENDING, LinkReason.QUEUED)
        desk.halt = "TOKEN_INVALID_CODE"
        waiting = desk.finder.known(eight_digits)
        assert waiting == DialogLink(LinkState.PENDING, LinkReason.WAITING, code="TOKEN_INVALID_CODE")
        assert desk.finder.known(PERSON) is None

    run(scenario())


def test_rejected_message_says_why_and_where() -> None:
    """The reason, and the place by which an operator can replay it; the latest one counts."""

    async def scenario() -> None:
        desk = Desk(World())
        desk.set_back(None, "no_phone")
        desk.set_back(REJECTED, "zoho.INVALID_DATA")
        for subject in (PERSON, DIALOG):
            link = await desk.finder.find(subject)
            assert (link.state, link.reason, link.code) == (LinkState.FAILED, LinkReason.REJECTED, "zoho.INVALID_DATA")
            assert link.source == Place(2, 17)

    run(scenario())


def test_skipped_message_says_why() -> None:
    """A dialog without a usable number is skipped, not unheard of."""

    async def scenario() -> None:
        desk = Desk(World())
        desk.set_back(None, "no_phone", phone=None)
        link = await desk.finder.find(DIALOG)
        assert link == DialogLink(LinkState.UNKNOWN, LinkReason.SKIPPED, code="no_phone")

    run(scenario())


def test_person_counts_more_than_a_setback() -> None:
    """Whoever has a lead is linked, whatever became of one message."""

    async def scenario() -> None:
        world = World()
        desk = Desk(world)
        desk.set_back(REJECTED, "zoho.INVALID_DATA")
        lead = world.insert("Leads", Phone="8 (916) 123-45-67")
        assert (await desk.finder.find(DIALOG)).lead_id == lead

    run(scenario())


def test_org_id_links_carry_the_number_in_every_state() -> None:
    """With an organisation id the address is known even when the person is not."""

    async def scenario() -> None:
        link = await Desk(World(), org_id="org1").finder.find(PERSON)
        assert link.url == "https://crm.zoho.com/crm/org1/tab/Messages?phone=%2B79161234567"
        assert link.state is LinkState.UNKNOWN

    run(scenario())


def test_zoho_out_of_reach_is_said() -> None:
    """When Zoho fails for good, the answer is that it cannot be asked, with its code."""

    async def scenario() -> None:
        world = World()
        world.fault(Answer(status=500), times=None)
        link = await Desk(world).finder.find(PERSON)
        assert (link.state, link.reason) == (LinkState.UNKNOWN, LinkReason.UNAVAILABLE)
        assert link.code

    run(scenario())


@pytest.mark.parametrize(
    ("step", "arguments", "code"),
    [
        ("remove_module", {"module": "Messages"}, "INVALID_MODULE"),
        ("remove_field", {"module": "Messages", "api_name": "Dialog_ID"}, "INVALID_QUERY"),
        ("revoke_scope", {"scope": "ZohoCRM.coql.READ"}, "OAUTH_SCOPE_MISMATCH"),
    ],
)
def test_what_has_to_be_mended_is_said(step: str, arguments: dict[str, str], code: str) -> None:
    """A missing module, field or right is no outage that passes, and no dialog that nobody has seen."""

    async def scenario() -> None:
        world = World()
        await Desk(world).delivered(delivery("m-1", PHONE))
        world.step(step, **arguments)
        link = await Desk(world).finder.find(DIALOG)
        assert (link.state, link.reason, link.code) == (LinkState.UNKNOWN, LinkReason.HALTED, code)

    run(scenario())


def test_a_closed_gate_is_named() -> None:
    """While calls wait for a cause that stands, a click that waits with them is told the cause."""

    async def scenario() -> None:
        world = World()
        desk = Desk(world)
        now = asyncio.get_running_loop().time()
        desk.client.gate.close("*", "TOKEN_INVALID_CODE", "Run auth.", now, wait_s=60.0)
        link = await desk.finder.find(PERSON)
        assert (link.reason, link.code) == (LinkReason.HALTED, "TOKEN_INVALID_CODE")

    run(scenario())


def test_memory_of_setbacks_is_bounded() -> None:
    """Old ones make room, and large ones are not kept; whatever the value is, looking never fails."""
    setbacks = Setbacks()
    for offset in range(2000):
        setbacks.note(Record(TopicPartition("t", 0), offset, 0, None, b'{"message_id":"m"}'), None, "x")
    setbacks.note(
        Record(TopicPartition("t", 0), 9, 0, None, b'{"message_id":"big","text":"' + b"x" * 99_999), None, "x"
    )
    for value in (b"[1]", b"1", b"{", b"\xff", b'{"data": {"message_id": "inner"}}', None):
        setbacks.note(Record(TopicPartition("t", 0), 1, 0, None, value), None, "odd")
    found = setbacks.find(lambda fields: fields.get("message_id") == "m")
    assert found is not None
    assert found.record.offset == 1999
    assert setbacks.find(lambda fields: fields.get("message_id") == "big") is None
    assert setbacks.find(lambda fields: fields.get("message_id") == "inner") is not None
