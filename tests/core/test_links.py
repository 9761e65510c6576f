"""Links into Zoho CRM, as the contract has them."""

from __future__ import annotations

import pytest

from consumer.core.links import Links
from consumer.core.model import Module, Parent


def test_with_an_organisation_the_link_needs_nothing_but_the_number() -> None:
    """The number is E.164, percent-encoded."""
    links = Links("https://crm.zoho.eu", "org20012345678")
    assert (
        links.dialog("+79161234567", None) == "https://crm.zoho.eu/crm/org20012345678/tab/Messages?phone=%2B79161234567"
    )


@pytest.mark.parametrize("module", list(Module))
def test_without_one_it_leads_to_the_record(module: Module) -> None:
    """The lead's or the contact's messages."""
    link = Links("https://crm.zoho.com").dialog("+7", Parent(module, "572"))
    assert link == f"https://crm.zoho.com/crm/tab/{module}/572/Messages"


def test_without_organisation_and_record_there_is_no_link() -> None:
    """Whoever asks says what is missing."""
    assert Links("https://crm.zoho.com").dialog("+7", None) is None
