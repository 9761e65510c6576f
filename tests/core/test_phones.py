"""Numbers: one canonical form, the forms people type, and who is the same person."""

from __future__ import annotations

import phonenumbers
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from consumer.core.phones import Person, Phones, person_key, stored_form, variants

MOBILE = phonenumbers.PhoneNumberType.MOBILE


def example(region: str, digits: str) -> str | None:
    """A mobile number of a country whose last digits are these; None when that is no number."""
    base = phonenumbers.example_number_for_type(region, MOBILE)
    if base is None:
        return None
    text = phonenumbers.format_number(base, phonenumbers.PhoneNumberFormat.E164)
    text = text[: -len(digits)] + digits
    parsed = phonenumbers.parse(text, None)
    return text if phonenumbers.is_valid_number(parsed) else None


@pytest.mark.parametrize(
    ("raw", "region", "canonical"),
    [
        ("+79161234567", None, "+79161234567"),
        ("79161234567", None, "+79161234567"),
        ("0079161234567", None, "+79161234567"),
        ("+7 (916) 123-45-67", None, "+79161234567"),
        (" 7-916-123-45-67 ", None, "+79161234567"),
        ("79161234567@c.us", None, "+79161234567"),
        ("whatsapp:+79161234567", None, "+79161234567"),
        ("8 916 123 45 67", "RU", "+79161234567"),
        ("9161234567", "RU", "+79161234567"),
        ("+79161234567", "BR", "+79161234567"),
        ("79161234567", "BR", "+79161234567"),
        ("(11) 98765-4321", "BR", "+5511987654321"),
        ("5215512345678", None, "+525512345678"),
        ("+52 1 55 1234 5678", None, "+525512345678"),
        ("5491123456789", None, "+5491123456789"),
        ("011 15-2345-6789", "AR", "+5491123456789"),
        ("+44 7911 123456", None, "+447911123456"),
        ("07911 123456", "GB", "+447911123456"),
        ("+1 650 253 0000 ext. 5", None, "+16502530000"),
        ("٧٩١٦١٢٣٤٥٦٧", None, "+79161234567"),
    ],
)
def test_every_usual_form_becomes_one(raw: str, region: str | None, canonical: str) -> None:
    """E.164, whether written by a person, a messenger or a program."""
    assert Phones(region).canonical(raw) == canonical


@pytest.mark.parametrize("raw", ["", " ", "-", "none", "1234", "+", "12", "0", "+000000", "9" * 30, "lid:abc", "\x00"])
@pytest.mark.parametrize("region", [None, "RU"])
def test_what_is_no_number_is_none(raw: str, region: str | None) -> None:
    """No message is written for half a number."""
    assert Phones(region).canonical(raw) is None


@given(
    st.sampled_from(sorted(phonenumbers.SUPPORTED_REGIONS)),
    st.text("0123456789", min_size=4, max_size=4),
    st.booleans(),
)
def test_whatever_the_country_its_own_forms_lead_back(region: str, digits: str, is_home: bool) -> None:
    """Each written form is found again, fits its field, and becomes the same number."""
    phone = example(region, digits)
    if phone is None:
        return
    phones = Phones(region if is_home else None)
    canonical = phones.canonical(phone)
    assert canonical is not None
    forms = phones.written_forms(canonical)
    assert forms[0] == canonical
    assert len(forms) == len(set(forms))
    for form in forms:
        assert len(form) <= 30
        assert phones.matches(form, canonical)
    assert phones.canonical(canonical) == canonical


@given(
    st.sampled_from(["RU", "US", "GB", "DE", "IN", "KZ", "UA", "FR", "IT", "ES", "TR", "BR", "MX", "AR"]),
    st.sampled_from(["RU", "US", "GB", "DE", "IN", "KZ", "UA", "FR", "IT", "ES", "TR", "BR", "MX", "AR"]),
    st.text("0123456789", min_size=5, max_size=5),
)
def test_two_numbers_match_only_as_variants(one: str, other: str, digits: str) -> None:
    """The same ending in two countries is two people."""
    first, second = example(one, digits), example(other, digits)
    if first is None or second is None:
        return
    phones = Phones("RU")
    first, second = phones.canonical(first) or "", phones.canonical(second) or ""
    assert phones.matches(first, second) == (first in variants(second))


@pytest.mark.parametrize(
    ("one", "other", "is_same"),
    [
        ("+5511987654321", "+551187654321", True),
        ("+551132654321", "+5511932654321", False),
        ("+5491123456789", "+541123456789", False),
        ("+79161234567", "+79161234568", False),
    ],
)
def test_who_is_one_person(one: str, other: str, is_same: bool) -> None:
    """Only variants that are safe in both directions make one person of two numbers."""
    assert (person_key(one) == person_key(other)) == is_same
    assert person_key(person_key(one)) == person_key(one)


def test_argentinas_nine_may_be_dropped_and_never_added() -> None:
    """A 54 number without the 9 can be somebody else's landline."""
    phones = Phones()
    assert phones.matches("+541123456789", "+5491123456789")
    assert not phones.matches("+5491123456789", "+541123456789")


@pytest.mark.parametrize(
    ("stored", "phone", "region", "is_same"),
    [
        ("9161234567", "+79161234567", "RU", True),
        ("9161234567", "+79161234567", None, True),
        ("9161234567", "+19161234567", "RU", False),
        ("+9161234567", "+79161234567", "RU", False),
        ("161234567", "+79161234567", "RU", False),
        ("79161234567", "+9161234567", "RU", False),
        ("call 916 123-45-67", "+79161234567", "RU", True),
        ("+7 916 123-45-67 ext. 9", "+79161234567", "RU", True),
        ("", "+79161234567", "RU", False),
        (None, "+79161234567", "RU", False),
        ("none", "+79161234567", "RU", False),
    ],
)
def test_a_stored_number_is_compared_by_value(
    stored: str | None, phone: str, region: str | None, is_same: bool
) -> None:
    """Not by its ending, and numbers without country code under the operator's region."""
    assert Phones(region).matches(stored, phone) == is_same


@pytest.mark.parametrize(
    "phone", ["+5511987654321", "+551187654321", "+5491123456789", "+525512345678", "+79161234567", "+16502530000"]
)
def test_search_digits_end_every_variant(phone: str) -> None:
    """Zoho's phone search compares endings, so it is asked for the part that all stored forms share."""
    digits = Phones().search_digits(phone)
    assert len(digits) >= 8
    for variant in variants(phone):
        assert variant.endswith(digits)


def test_many_people_are_found_by_what_is_stored() -> None:
    """One index in place of a comparison of each row with each person."""
    phones = Phones("RU")
    people = [phones.person(f"+7916000000{index}") for index in range(10)]
    index = phones.by_stored_form(people)
    assert index[stored_form("8 (916) 000-00-03")] == [people[3]]
    assert stored_form("+8 916 000 00 03") not in index


def test_a_person_keeps_number_and_name() -> None:
    """The number as the message gave it, and the key that makes variants one."""
    assert Phones().person("+551187654321", "Ana") == Person("+551187654321", "+5511987654321", "Ana")


# -- odd numbers ----------------------------------------------------------------------------------------------------

_PUNCTUATION = st.sampled_from(["", "", "", " ", "-", ".", "(", ") ", "/", "  "])


@st.composite
def typed(draw: st.DrawFn) -> tuple[str, str]:
    """A person's number, and a form of it with punctuation wherever somebody may put it."""
    region = draw(st.sampled_from(["RU", "DE", "US", "BR", "AR", "MX", "GB", "IT", "FR", "IN"]))
    phone = example(region, draw(st.text("0123456789", min_size=4, max_size=4)))
    assume(phone is not None)
    form = draw(st.sampled_from(Phones().written_forms(phone or "")))
    marks = draw(st.lists(_PUNCTUATION, min_size=len(form), max_size=len(form)))
    return phone or "", form[0] + "".join(mark + char for mark, char in zip(marks[1:], form[1:], strict=True))


@given(typed(), st.sampled_from([None, "RU", "DE", "US", "BR", "AR", "MX"]))
@settings(max_examples=300)
def test_a_number_that_no_listed_form_finds_is_kept_as_odd(pair: tuple[str, str], region: str | None) -> None:
    """Whoever is meant by a stored number is found by its forms or by its end."""
    phone, stored = pair
    phones = Phones(region)
    if phones.matches(stored, phone) and stored not in phones.written_forms(phone):
        assert phones.ends(phone) & phones.odd_ends(stored)


@pytest.mark.parametrize("region", [None, "RU", "US"])
@pytest.mark.parametrize("phone", ["+79161234567", "+14155552671", "+5511987654321", "+525512345678"])
def test_listed_forms_are_not_odd(phone: str, region: str | None) -> None:
    """E.164 above all, which programs store; national forms when the country is known."""
    phones = Phones(region)
    international = [form for form in phones.written_forms(phone) if form.startswith("+")]
    assert [form for form in international if phones.odd_ends(form)] == []
    own = Phones({"+7": "RU", "+1": "US", "+5": "BR"}[phone[:2]]) if phone != "+525512345678" else Phones("MX")
    assert [form for form in own.written_forms(phone) if own.odd_ends(form)] == []


@pytest.mark.parametrize("stored", ["", "-", "none", "123", "+", "9" * 30])
def test_what_is_no_number_is_not_odd(stored: str) -> None:
    """Nobody has it."""
    assert Phones().odd_ends(stored) == set()
