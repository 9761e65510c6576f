"""Open in Zoho, as the contract and its access rules have it."""

from __future__ import annotations

import asyncio
import json
from urllib.parse import quote

import pytest

from consumer.web.view import DialogLink, LinkReason, LinkState, Place, Subject, SubjectKind
from tests.web.fakes import CRM, FakeView
from tests.web.site import BEARER, Site, open_site

PHONE = "+4915123456789"
QUERY = f"phone={quote(PHONE, safe='')}"
PERSON = Subject(SubjectKind.PHONE, PHONE)
DIALOG = Subject(SubjectKind.DIALOG, "d-1")
LEAD = DialogLink(LinkState.LINKED, LinkReason.FOUND, f"{CRM}/crm/tab/Leads/111/Messages", lead_id="111")
CONTACT = DialogLink(LinkState.LINKED, LinkReason.FOUND, f"{CRM}/crm/tab/Contacts/222/Messages", contact_id="222")


async def test_click_opens_the_lead(site: Site) -> None:
    """A signed link redirects to the lead's messages."""
    site.view.found[PERSON] = LEAD
    answer = await site.get(f"/open-in-zoho?{site.signed(value=PHONE)}")
    assert (answer.status, answer.location) == (302, LEAD.url)


async def test_number_may_be_written_in_any_usual_form(site: Site) -> None:
    """What is signed is the number as written; who is looked up is the person behind it."""
    site.view.found[PERSON] = LEAD
    for written in ("0049 1512 3456789", "4915123456789", "+49 (1512) 345-67-89"):
        answer = await site.get(f"/open-in-zoho?{site.signed(value=written)}")
        assert answer.location == LEAD.url, written


async def test_bare_plus_in_the_query_is_a_plus(site: Site) -> None:
    """A link whose plus was not encoded still opens, signed or not."""
    site.view.found[PERSON] = LEAD
    query = site.signed(value=PHONE).replace("%2B", "+")
    assert (await site.get(f"/open-in-zoho?{query}")).location == LEAD.url


async def test_contact_opens_as_contact(site: Site) -> None:
    """Once a lead is a contact, the link leads to the contact, and the API names it."""
    site.view.found[PERSON] = CONTACT
    assert (await site.get(f"/open-in-zoho?{site.signed(value=PHONE)}")).location == CONTACT.url
    body = json.loads((await site.get(f"/api/v1/dialog-link?{QUERY}", headers=BEARER)).text)
    assert (body["lead_id"], body["contact_id"]) == (None, "222")


async def test_dialog_id_needs_no_number_in_the_address(site: Site) -> None:
    """An opaque dialog id opens the same dialog."""
    site.view.found[DIALOG] = LEAD
    assert (await site.get(f"/open-in-zoho?{site.signed(kind='dialog', value='d-1')}")).location == LEAD.url


async def test_org_id_makes_the_link_a_function_of_the_number() -> None:
    """With ZOHO_ORG_ID nobody needs to sign, nobody is asked, and nothing is told about the person."""
    view = FakeView(org_id="org123")
    view.known[PERSON] = LEAD
    async with open_site(view, token=None, key=None) as site:
        answer = await site.get(f"/open-in-zoho?{QUERY}")
        assert (answer.status, answer.location) == (302, f"{CRM}/crm/org123/tab/Messages?phone=%2B4915123456789")
        body = json.loads((await site.get(f"/api/v1/dialog-link?{QUERY}")).text)
    assert (body["url"], body["lead_id"], body["reason"]) == (answer.location, None, "computed")
    assert view.asked == []


@pytest.mark.parametrize("query", ["phone=abc", "phone=%2B", "phone=12", "phone=%00", "phone=" + "1" * 300])
async def test_what_is_no_number_is_refused_in_plain_words(site: Site, query: str) -> None:
    """A wrong number is the visitor's mistake: 400 and a sentence, whoever asks."""
    answer = await site.get(f"/open-in-zoho?{query}")
    assert answer.status == 400
    assert "not a phone number" in answer.text
    assert (await site.get(f"/api/v1/dialog-link?{query}")).status == 400


@pytest.mark.parametrize(
    "query", ["", "phone=", "phone=%2B4915123456789&dialog=d-1", "phone=%2B4915123456789&phone=%2B4915123456780"]
)
async def test_a_link_is_about_one_person(site: Site, query: str) -> None:
    """Nobody, two kinds, or two numbers: refused, so that what was signed is what is used."""
    assert (await site.get(f"/open-in-zoho?{query}", headers=BEARER)).status == 400


@pytest.mark.parametrize(
    ("link", "status", "word"),
    [
        (DialogLink(LinkState.PENDING, LinkReason.QUEUED), 202, "On its way"),
        (DialogLink(LinkState.PENDING, LinkReason.WAITING, code="TOKEN_INVALID_CODE"), 202, "TOKEN_INVALID_CODE"),
        (DialogLink(LinkState.FAILED, LinkReason.REJECTED, code="zoho.INVALID_DATA"), 404, "zoho.INVALID_DATA"),
        (DialogLink(LinkState.UNKNOWN, LinkReason.SKIPPED, code="no_phone"), 404, "no phone number"),
        (DialogLink(LinkState.UNKNOWN, LinkReason.NOT_SEEN), 404, "Nobody in Zoho"),
        (DialogLink(LinkState.UNKNOWN, LinkReason.DISABLED), 503, "ZOHO_CRM_ENABLED"),
        (DialogLink(LinkState.UNKNOWN, LinkReason.UNAVAILABLE, retry_after_s=30), 503, "does not answer"),
        (DialogLink(LinkState.UNKNOWN, LinkReason.HALTED, code="INVALID_MODULE", retry_after_s=30), 503, "doctor"),
        (DialogLink(LinkState.UNKNOWN, LinkReason.BUSY, retry_after_s=2), 429, "Too many"),
    ],
)
async def test_page_says_why_there_is_no_dialog(site: Site, link: DialogLink, status: int, word: str) -> None:
    """Queued, held up, failed, skipped, never seen, off, unreachable: each is said, with the number masked."""
    site.view.found[PERSON] = link
    answer = await site.get(f"/open-in-zoho?{site.signed(value=PHONE)}")
    assert answer.status == status
    assert word in answer.text
    assert PHONE not in answer.text
    assert PHONE[1:] not in answer.text
    assert answer.headers.get("Retry-After") == (str(link.retry_after_s) if link.retry_after_s else None)


async def test_pending_page_looks_again_by_itself(site: Site) -> None:
    """While the message is on its way the page comes again, and then redirects; a failed one stands still."""
    site.view.known[PERSON] = DialogLink(LinkState.PENDING, LinkReason.QUEUED)
    path = f"/open-in-zoho?{site.signed(value=PHONE)}"
    assert 'http-equiv="refresh"' in (await site.get(path)).text
    site.view.known[PERSON] = site.view.found[PERSON] = LEAD
    assert (await site.get(path)).status == 302
    assert 'http-equiv="refresh"' not in (await site.get(f"/open-in-zoho?{site.signed(value='+4915123456780')}")).text


async def test_new_lead_is_seen_at_once(site: Site) -> None:
    """That nobody was there a moment ago does not hide the lead that has been made since."""
    path = f"/open-in-zoho?{site.signed(value=PHONE)}"
    assert (await site.get(path)).status == 404
    site.view.known[PERSON] = site.view.found[PERSON] = LEAD
    assert (await site.get(path)).status == 302


async def test_retry_is_offered_to_operators_only(site: Site) -> None:
    """A signed link opens; it does not let its holder replay anything."""
    site.view.found[PERSON] = DialogLink(LinkState.FAILED, LinkReason.REJECTED, code="x", source=Place(2, 17))
    stranger = await site.get(f"/open-in-zoho?{site.signed(value=PHONE)}")
    operator = await site.get(f"/open-in-zoho?{QUERY}", headers=BEARER)
    assert "source_offset" not in stranger.text
    assert 'name="source_offset" value="17"' in operator.text


async def test_api_answers_the_contract(site: Site) -> None:
    """state, url and lead_id, for a lead, a pending message and a stranger."""
    site.view.known[PERSON] = LEAD
    site.view.known[DIALOG] = DialogLink(LinkState.PENDING, LinkReason.QUEUED)
    linked = json.loads((await site.get(f"/api/v1/dialog-link?{QUERY}", headers=BEARER)).text)
    pending = json.loads((await site.get("/api/v1/dialog-link?dialog=d-1", headers=BEARER)).text)
    unknown = await site.get("/api/v1/dialog-link?phone=%2B4915123456780", headers=BEARER)
    assert (linked["state"], linked["url"], linked["lead_id"]) == ("linked", LEAD.url, "111")
    assert (pending["state"], pending["url"], pending["lead_id"]) == ("pending", None, None)
    assert (unknown.status, json.loads(unknown.text)["state"]) == (200, "unknown")


async def test_known_people_cost_nothing_to_show(site: Site) -> None:
    """The state is shown from memory; only a click asks Zoho whether the lead has become a contact, and once."""
    site.view.known[PERSON] = LEAD
    site.view.found[PERSON] = CONTACT
    await site.get(f"/api/v1/dialog-link?{QUERY}", headers=BEARER)
    assert site.view.asked == []
    for _ in range(3):
        assert (await site.get(f"/open-in-zoho?{QUERY}", headers=BEARER)).location == CONTACT.url
    assert site.view.asked == [PERSON]


async def test_click_works_while_zoho_does_not(site: Site) -> None:
    """What is remembered is good enough when Zoho cannot be asked."""
    site.view.known[PERSON] = LEAD
    site.view.found[PERSON] = DialogLink(LinkState.UNKNOWN, LinkReason.UNAVAILABLE, retry_after_s=30)
    assert (await site.get(f"/open-in-zoho?{QUERY}", headers=BEARER)).location == LEAD.url


async def test_who_ask_together_ask_once(site: Site) -> None:
    """Many requests for one person are one look-up."""
    site.view.found[PERSON] = LEAD
    site.view.may_find.clear()
    requests = [asyncio.create_task(site.get(f"/api/v1/dialog-link?{QUERY}", headers=BEARER)) for _ in range(8)]
    while not site.view.asked:
        await asyncio.sleep(0)
    await site.get("/livez")
    site.view.may_find.set()
    answers = await asyncio.gather(*requests)
    assert {json.loads(answer.text)["state"] for answer in answers} == {"linked"}
    assert site.view.asked == [PERSON]


async def test_look_ups_are_rationed(site: Site) -> None:
    """Somebody who walks through numbers is told to wait before Zoho's credits are gone."""
    answers = [
        await site.get(f"/api/v1/dialog-link?phone=%2B49151234{number:05d}", headers=BEARER) for number in range(90)
    ]
    assert answers[0].status == 200
    assert answers[-1].status == 429
    assert int(answers[-1].headers["Retry-After"]) >= 1
    assert len(site.view.asked) < len(answers)


async def test_answers_are_counted(site: Site) -> None:
    """Each answer is told to the metrics, by state and reason."""
    site.view.known[PERSON] = LEAD
    await site.get(f"/api/v1/dialog-link?{QUERY}", headers=BEARER)
    assert site.view.answered == [(LinkState.LINKED, LinkReason.FOUND)]
