"""What becomes of the bytes of a record."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from consumer.core.decode import MAX_VALUE_BYTES, Poison, Skip, decode
from schemas.message_event import MESSAGE_CREATED, MessageEvent
from schemas.samples import Sample, load

SAMPLES = load()
STRUCTURED = [("content-type", b"application/cloudevents+json")]
BINARY = [("ce_specversion", b"1.0"), ("ce_type", MESSAGE_CREATED.encode())]
VALID: dict[str, Any] = {
    "message_id": "m-1",
    "occurred_at": "2026-03-02T09:00:00+03:00",
    "direction": "inbound",
    "origin": "webhook",
    "phone": "+1 415 555 0100",
}
FIRST = datetime(1970, 1, 1, tzinfo=UTC)
SECRET = "Ada-4155550100"

any_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)
any_header_value = (
    st.sampled_from([b"application/cloudevents+json", MESSAGE_CREATED.encode(), b"\xff", b""]) | st.binary()
)
any_headers = st.lists(
    st.tuples(st.sampled_from(["content-type", "ce_type", "CE-Type", "x"]), any_header_value), max_size=3
)


def encoded(**fields: Any) -> bytes:
    return json.dumps({**VALID, **fields}).encode()


def envelope(**attributes: Any) -> bytes:
    return json.dumps({"specversion": "1.0", "type": MESSAGE_CREATED, **attributes}).encode()


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: sample.name)
def test_every_golden_record_is_read_skipped_or_refused_as_its_index_says(sample: Sample) -> None:
    """The samples that producers are shown are telling the truth."""
    decoded = decode(sample.value, sample.headers)
    kinds = {MessageEvent: "event", Skip: "skip", Poison: "poison"}
    assert (kinds[type(decoded)], getattr(decoded, "reason", "")) == (sample.expected, sample.reason)


@given(value=st.binary(), headers=any_headers)
@example(value=b'{"a":' * 100_000, headers=[])
@example(value=b"[" * 1_000, headers=STRUCTURED)
@example(value=b'{"message_id":' + b"9" * 10_000 + b"}", headers=[])
@example(value=b'{"campaign":{"id":' + b"9" * 4_300 + b"}}", headers=[])
@example(value=b'"\\ud83d' * 1_000, headers=[])
@example(value=b"\xef\xbb\xbf" * 1_000, headers=[])
@example(value=b'{"message_id": NaN, "occurred_at": -Infinity, "phone": 1e999}', headers=[])
def test_no_bytes_and_no_headers_raise(value: bytes, headers: list[tuple[str, bytes]]) -> None:
    """Whatever arrives, the answer is one of the three."""
    assert isinstance(decode(value, headers), MessageEvent | Skip | Poison)


@given(value=any_json, headers=any_headers)
def test_no_json_raises(value: Any, headers: list[tuple[str, bytes]]) -> None:
    """Whatever JSON arrives, as the value or as a CloudEvent's data, the answer is one of the three."""
    assert isinstance(decode(json.dumps(value).encode(), headers), MessageEvent | Skip | Poison)
    assert isinstance(decode(envelope(data=value), headers), MessageEvent | Skip | Poison)
    assert isinstance(decode(envelope(data_base64=value), headers), MessageEvent | Skip | Poison)


@given(
    data=st.data(),
    sample=st.sampled_from([sample for sample in SAMPLES if len(sample.value or b"") in range(1, 3000)]),
)
def test_no_damaged_sample_raises(data: st.DataObject, sample: Sample) -> None:
    """A record with some bytes replaced, lost or added gets one of the three answers."""
    value = sample.value or b""
    start = data.draw(st.integers(0, len(value)))
    end = data.draw(st.integers(start, min(len(value), start + 8)))
    damaged = value[:start] + data.draw(st.binary(max_size=8)) + value[end:]
    assert isinstance(decode(damaged, sample.headers), MessageEvent | Skip | Poison)


@given(field=st.sampled_from([*MessageEvent.model_fields, "other"]), wrong=any_json)
def test_any_value_in_any_field_is_answered(field: str, wrong: Any) -> None:
    """One field with anything in it never raises, and leaves a refusal that names no other field."""
    decoded = decode(encoded(**{field: wrong}), [])
    if isinstance(decoded, Poison):
        assert decoded.reason == "schema_violation"
        assert decoded.detail.startswith(field)


@given(
    phone=st.from_regex(r"\+?[0-9]{1,15}", fullmatch=True),
    occurred_at=st.timedeltas(timedelta(), timedelta(days=80_000)).map(lambda age: FIRST + age),
    text=st.none() | st.text(),
    campaign_id=st.none() | st.integers() | st.text(),
)
def test_what_a_producer_writes_is_what_is_read(
    phone: str, occurred_at: datetime, text: str | None, campaign_id: int | str | None
) -> None:
    """Every valid value arrives unchanged; only an integer id becomes text."""
    value = encoded(phone=phone, occurred_at=occurred_at.isoformat(), text=text, campaign={"id": campaign_id})
    event = decode(value, [])
    assert isinstance(event, MessageEvent)
    assert event.campaign is not None
    assert (event.phone, event.occurred_at, event.text) == (phone, occurred_at, text)
    assert event.campaign.id == (None if campaign_id is None else str(campaign_id))


@given(text=st.text(st.characters(exclude_categories=[])), ascii_only=st.booleans())
@example(text="🌸\ud83d", ascii_only=True)
@example(text="\\ud83d \\\ud83d", ascii_only=True)
@example(text="\udc00\ud83d\ud83d\udc00", ascii_only=True)
def test_half_a_character_becomes_a_replacement_character(text: str, ascii_only: bool) -> None:
    """A text that was cut inside a surrogate pair costs that character, not the message."""
    whole = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    event = decode(encoded(text=text if ascii_only else whole, caption="\\ud83d"), [])
    assert isinstance(event, MessageEvent)
    assert event.text == whole


@pytest.mark.parametrize(
    ("value", "headers"),
    [
        (envelope(data=VALID), STRUCTURED),
        (envelope(data=VALID), []),
        (envelope(data_base64=base64.b64encode(encoded()).decode()), STRUCTURED),
        (encoded(), BINARY),
        (encoded(), [("CE_Type", MESSAGE_CREATED.encode()), ("ce-id", b"1")]),
        (encoded(), [("content-type", b"application/json"), ("x-trace", b"\xff")]),
        (encoded(), [("ce_id", b"1")]),
    ],
)
def test_the_form_of_a_record_does_not_change_its_event(value: bytes, headers: list[tuple[str, bytes]]) -> None:
    """Plain, structured and binary records of one message are the same event."""
    assert decode(value, headers) == decode(encoded(), [])


@pytest.mark.parametrize("name", ["ce_type", "CE_Type", "ce-type"])
def test_a_header_in_any_spelling_tells_the_type(name: str) -> None:
    """A binary CloudEvent of another type is skipped, however its client writes header names."""
    assert decode(encoded(), [(name, b"messaging.message.read.v1")]) == Skip("other_event_type")


@pytest.mark.parametrize(
    "content_type", [b"application/cloudevents+json", b" Application/CloudEvents+JSON; charset=utf-8"]
)
@pytest.mark.parametrize("name", ["content-type", "Content-Type"])
def test_what_is_labelled_a_structured_cloud_event_is_read_as_one(name: str, content_type: bytes) -> None:
    """A bare event under the label of an envelope is refused, not guessed at."""
    refused = decode(encoded(), [(name, content_type)])
    assert refused == Poison("schema_violation", "specversion: missing; type: missing")


def test_damaged_base64_is_refused() -> None:
    """Characters outside the alphabet are an error, not noise to read over."""
    text = base64.b64encode(encoded()).decode()
    assert decode(envelope(data_base64=text[:8] + "!" + text[8:]), []) == Poison(
        "schema_violation", "data_base64: not_base64"
    )


def test_the_example_in_the_guide_is_an_event() -> None:
    """A producer that starts from the guide starts with a good event."""
    guide = (Path(__file__).parents[2] / "docs" / "producing.md").read_text("utf-8")
    example = guide.split("```json\n")[1].split("```")[0]
    assert isinstance(decode(example.encode(), []), MessageEvent)


def test_null_means_absent() -> None:
    """A serializer that writes out unset fields as null changes nothing."""
    optional = {name: None for name, field in MessageEvent.model_fields.items() if not field.is_required()}
    assert decode(encoded(**{**optional, "phone": "1"}), []) == decode(encoded(phone="1"), [])
    assert getattr(decode(encoded(channel=None), []), "channel", None) == "whatsapp"
    assert getattr(decode(encoded(attachments=None), []), "attachments", None) == ()


def test_the_last_of_duplicate_keys_counts() -> None:
    """A key that is given twice has its last value, as in most JSON parsers."""
    event = decode(b'{"message_id": 1, "text": "a",' + encoded(text="b")[1:], [])
    assert isinstance(event, MessageEvent)
    assert (event.message_id, event.text) == ("m-1", "b")


def test_a_value_larger_than_the_limit_is_refused_unread() -> None:
    """Size is bounded, and the limit itself is still accepted."""
    largest = encoded(text="").replace(
        b'"text": ""', b'"text": "' + b"x" * (MAX_VALUE_BYTES - len(encoded(text=""))) + b'"'
    )
    assert isinstance(decode(largest, []), MessageEvent)
    assert getattr(decode(largest + b" ", []), "reason", "") == "too_large"


def test_more_attachments_than_the_limit_are_refused() -> None:
    """A list of attachments is bounded, and a thousand are still accepted."""
    files = [{"url": "https://media.example.com/1.jpg"}] * 1001
    assert isinstance(decode(encoded(attachments=files[1:]), []), MessageEvent)
    assert decode(encoded(attachments=files), []) == Poison("schema_violation", "attachments: too_long")


@pytest.mark.parametrize(
    "value",
    [
        *(encoded(**{name: {SECRET: SECRET}}) for name in ("message_id", "occurred_at", "phone", "attachments")),
        *(encoded(**{name: [SECRET]}) for name in MessageEvent.model_fields),
        encoded(occurred_at=SECRET, direction=SECRET, origin=SECRET, message_id=SECRET + "\0"),
        encoded(campaign={"id": [SECRET], "name": [SECRET]}, agent={"id": {SECRET: 1}, "email": [SECRET]}),
        encoded()[:-1] + f', "text": "{SECRET}'.encode(),
        encoded() + SECRET.encode(),
        SECRET.encode(),
        f'"\\x{SECRET}"'.encode(),
        b"{" + SECRET.encode() + b": 1}",
        SECRET.encode() + b"\xff",
        envelope(data={SECRET: SECRET}),
        envelope(data=SECRET),
        envelope(data_base64=SECRET),
        envelope(data={name: [SECRET] for name in MessageEvent.model_fields}),
        envelope(data_base64=base64.b64encode(SECRET.encode()).decode()),
    ],
)
def test_a_refusal_repeats_nothing_of_the_record(value: bytes) -> None:
    """The reason and its detail name fields and errors, no personal data, and stay short."""
    refused = decode(value, [])
    assert isinstance(refused, Poison)
    assert SECRET not in repr(refused)
    assert len(refused.detail) <= 200
