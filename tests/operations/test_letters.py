"""What a dead letter says of itself."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.core.model import Headers, Record, TopicPartition
from consumer.operations.dlq.letters import Place, Wanted, dead_letter_of, message_id_of
from consumer.operations.dlq.masking import masked_text, masked_value
from consumer.operations.dlq.view import letter_json
from consumer.operations.errors import OperationError
from tests.operations.conftest import event


def letter(value: bytes | None = b"{}", headers: Headers = ()) -> Record:
    return Record(TopicPartition("t.dlq", 2), 40, 1_700_000_000_000, None, value, headers)


@given(st.lists(st.tuples(st.text(max_size=12) | st.just("dlq.partition"), st.binary(max_size=30))))
def test_reads_any_headers(headers: list[tuple[str, bytes]]) -> None:
    """A record that somebody else put into the topic is shown, not fallen over."""
    found = dead_letter_of(letter(headers=tuple(headers)))
    assert found.place == Place(2, 40)
    assert all(not name.startswith("dlq.") for name, _ in found.original_headers)


def test_shows_a_header_without_value() -> None:
    """A header may have no value: it is shown as empty, and the dead letter is read."""
    found = dead_letter_of(letter(headers=(("trace", None), ("dlq.reason", None))))  # type: ignore[arg-type]
    assert letter_json(found, is_revealed=False)["headers"] == [["trace", ""], ["dlq.reason", ""]]


@given(st.integers(-(2**63), 2**63 - 1), st.text(max_size=30))
def test_reads_any_timestamp(timestamp_ms: int, told: str) -> None:
    """Kafka takes any number for a timestamp; what is no date is shown as the nearest one."""
    given_record = replace(letter(headers=(("dlq.timestamp", told.encode()),)), timestamp_ms=timestamp_ms)
    shown = letter_json(dead_letter_of(given_record), is_revealed=True)
    assert shown["failed_at"] == given_record.date().isoformat()
    assert ["dlq.timestamp", told] in shown["headers"]


@given(st.binary(max_size=60))
def test_reads_any_value(value: bytes) -> None:
    """Bytes that are no message have no message id, and can be masked."""
    assert message_id_of(value) is None or b"message_id" in value
    masked_value(value)


def test_finds_the_message_id_inside_an_envelope() -> None:
    """A structured CloudEvent is found by the id of its message, too."""
    assert message_id_of(b'{"specversion":"1.0","data":' + event("m-7") + b"}") == "m-7"


def test_masks_all_that_is_about_somebody() -> None:
    """Phone, name, text, dialog and anything unknown are masked; what only says what kind of message it is stays."""
    value = event("m-1", contact_name="Anna Petrova", dialog_id="79161234567@c.us", extra={"note": "secret"})
    shown = str(masked_value(value))
    for hidden in ("9161234", "Anna", "about my order", "secret"):
        assert hidden not in shown
    for kept in ("m-1", "inbound", "2026-11-24T10:00:00"):
        assert kept in shown
    assert "9161234" not in masked_text("dialog:79161234567")


@pytest.mark.parametrize("text", ["", "3", "3:", ":4", "a:b", "1:2:3", "-1:4"])
def test_refuses_what_is_no_place(text: str) -> None:
    """A mistyped place is told, not taken for another record."""
    with pytest.raises(OperationError):
        Place.parse(text)


def test_conditions_hold_together() -> None:
    """A filter takes what meets all of its conditions, names in any case."""
    found = dead_letter_of(letter(event("m-1"), (("dlq.reason", b"zoho.INVALID_DATA"), ("dlq.stage", b"lead"))))
    assert Wanted(reasons=("zoho.invalid_data",), stages=("lead",)).includes(found)
    assert not Wanted(reasons=("zoho.INVALID_DATA",), stages=("note",)).includes(found)
    assert not Wanted(message_ids=("m-2",)).includes(found)
