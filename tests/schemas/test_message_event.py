"""The models of the event."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from pydantic import ValidationError

from schemas.message_event import Agent, Attachment, MessageEvent


def event(message_id: str = "m-1") -> MessageEvent:
    return MessageEvent(
        message_id=message_id,
        occurred_at=datetime(2026, 3, 2, tzinfo=UTC),
        direction="inbound",
        origin="chat",
        phone="+14155550100",
        contact_name="Ada Example",
        text="Good morning",
        attachments=(Attachment(url="https://media.example.com/secret.jpg", caption="Passport"),),
        agent=Agent(id="7", name="Olga Operator", email="olga@example.com"),
    )


def test_an_event_cannot_be_changed() -> None:
    """Events are values: they compare by content, serve as keys, and stay as they are."""
    assert {event(), event()} == {event()}
    with pytest.raises(ValidationError):
        setattr(event(), "text", "other")  # noqa: B010 - a plain assignment is already refused by the type checker


def test_an_event_in_a_log_line_tells_nothing_about_people() -> None:
    """The representation leaves out numbers, names, texts, files and addresses."""
    private = ("4155550100", "Ada", "morning", "secret.jpg", "Passport", "Olga", "olga@")
    assert [word for word in private if word in repr(event()) + str(event())] == []


def test_an_error_in_a_log_line_tells_nothing_about_people() -> None:
    """The text of a validation error leaves out the value."""
    with pytest.raises(ValidationError) as caught:
        MessageEvent.model_validate_json('{"phone": 4155550100, "text": ["Good morning"]}')
    assert "phone" in str(caught.value)
    assert "4155550100" not in str(caught.value)
    assert "morning" not in str(caught.value)


@pytest.mark.parametrize("message_id", ["m", "m" * 255, "é" * 255, "wamid.HBgL==", "dialog 7: 12", "пример-1"])
def test_message_ids_that_producers_use_are_accepted(message_id: str) -> None:
    """An id has 1 to 255 characters of any script, with blanks inside."""
    assert event(message_id).message_id == message_id


@pytest.mark.parametrize("message_id", ["", "m" * 256, " ", " m", "m\n", "m\0m", "m\u2003", "m\ufffd"])
def test_message_ids_that_the_crm_would_change_are_refused(message_id: str) -> None:
    """Two ids never become one because the CRM trimmed, cut or cleaned them."""
    with pytest.raises(ValidationError):
        event(message_id)
