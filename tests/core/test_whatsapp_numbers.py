"""WhatsApp gives numbers as bare digits with their country code, whatever the default region is."""

from __future__ import annotations

import phonenumbers
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from phonenumbers import PhoneNumberFormat, PhoneNumberType

from consumer.core.phones import Phones, stored_form

HOMES = ["DE", "RU", "BR", "MX", "IN", "CN", "IT", "AT", "ID", "US", "GB", "KZ"]
ABROAD = [
    "FR",
    "ES",
    "PL",
    "UA",
    "BY",
    "NO",
    "DK",
    "EE",
    "TR",
    "NG",
    "ZA",
    "EG",
    "AE",
    "SA",
    "CO",
    "PE",
    "AR",
    "VN",
    "SG",
]
_MOBILE = (PhoneNumberType.MOBILE, PhoneNumberType.FIXED_LINE_OR_MOBILE)
_ENDS = st.text("0123456789", min_size=6, max_size=6)


def mobile(region: str, end: str) -> phonenumbers.PhoneNumber:
    """A mobile number of a country, with this end; the example does without where there is none."""
    base = phonenumbers.example_number_for_type(region, PhoneNumberType.MOBILE)
    assert base is not None
    digits = phonenumbers.national_significant_number(base)
    number = phonenumbers.parse(f"+{base.country_code}{digits[:-6]}{end}", None)
    assume(phonenumbers.is_valid_number(number) and phonenumbers.number_type(number) in _MOBILE)
    return number


def e164(number: phonenumbers.PhoneNumber) -> str:
    """With plus and country code."""
    return phonenumbers.format_number(number, PhoneNumberFormat.E164)


def is_mobile_of(region: str, phone: str | None) -> bool:
    """A valid mobile number under this country's code."""
    number = phonenumbers.parse(phone or "+", None)
    is_home = number.country_code == phonenumbers.country_code_for_region(region)
    return is_home and phonenumbers.number_type(number) in _MOBILE


def is_home_with_code(region: str, text: str) -> bool:
    """Digits that begin with the country's own code and are a number by that: nobody takes them for anything else."""
    digits = phonenumbers.normalize_digits_only(text)
    code = str(phonenumbers.country_code_for_region(region))
    return digits.startswith(code) and phonenumbers.is_valid_number(phonenumbers.parse(f"+{digits}", None))


@pytest.mark.parametrize(
    ("region", "raw", "phone"),
    [
        ("DE", "491705550007", "+491705550007"),
        ("DE", "0170 5550007", "+491705550007"),
        ("DE", "1705550007", "+491705550007"),
        ("RU", "79161234567", "+79161234567"),
        ("RU", "89161234567", "+79161234567"),
        ("RU", "9161234567", "+79161234567"),
        ("US", "14155550100", "+14155550100"),
        ("US", "4155550100", "+14155550100"),
        ("IT", "3931234567", "+393931234567"),
    ],
)
def test_digits_that_begin_with_the_country_code_are_international(region: str, raw: str, phone: str) -> None:
    """Where both readings are numbers, the country code is taken for what it is; a national number stays national."""
    assert Phones(region).canonical(raw) == phone


@given(st.sampled_from(HOMES), st.sampled_from(HOMES + ABROAD), _ENDS)
def test_bare_digits_of_a_mobile_number_are_no_strangers_landline(home: str, country: str, end: str) -> None:
    """A mobile number from anywhere is read with its country code, unless its digits are a mobile number at home."""
    phone = e164(mobile(country, end))
    found = Phones(home).canonical(phone[1:])
    assert found == Phones().canonical(phone) or is_mobile_of(home, found)


@given(
    st.sampled_from(HOMES),
    st.sampled_from(HOMES + ABROAD),
    _ENDS,
    st.sampled_from(["@c.us", "@s.whatsapp.net", ":12@s.whatsapp.net", ".0:12@s.whatsapp.net", ":3@c.us"]),
)
def test_a_whatsapp_id_is_always_international(home: str, country: str, end: str, suffix: str) -> None:
    """With its suffix nothing else can be meant, whatever the default region; the device is no part of the number."""
    phone = e164(mobile(country, end))
    assert Phones(home).canonical(f"{phone[1:]}{suffix}") == Phones().canonical(phone)


@given(st.sampled_from(HOMES), _ENDS)
def test_what_people_write_at_home_is_read_at_home(home: str, end: str) -> None:
    """A mobile number in its national form, with punctuation or without, and without the digit before it."""
    number = mobile(home, end)
    national = phonenumbers.format_number(number, PhoneNumberFormat.NATIONAL)
    forms = [national, phonenumbers.normalize_digits_only(national), phonenumbers.national_significant_number(number)]
    phones = Phones(home)
    read = {form: phones.canonical(form) for form in forms if not is_home_with_code(home, form)}
    assert read == dict.fromkeys(read, phones.canonical(e164(number)))


@pytest.mark.parametrize(
    ("region", "raw", "phone"),
    [
        ("DE", "33612345678", "+33612345678"),
        ("DE", "whatsapp:33612345678", "+33612345678"),
        ("DE", "030 1234567", "+49301234567"),
        ("DE", "0301234567", "+49301234567"),
        ("AT", "34612345678", "+34612345678"),
        ("RU", "4740612345", "+4740612345"),
        ("RU", "84991234567", "+84991234567"),
        ("RU", "8 (499) 123-45-67", "+74991234567"),
        ("RU", "8 499 123-45-67", "+74991234567"),
        ("RU", "4951234567", "+74951234567"),
        ("US", "4792345678", "+14792345678"),
        ("BR", "(47) 4123-4567", "+554741234567"),
        ("BR", "51987654321", "+5551987654321"),
        ("FR", "0612345678", "+33612345678"),
        ("IN", "9812345678", "+919812345678"),
        ("IT", "3906123456", "+3906123456"),
    ],
)
def test_mobile_wins_and_home_wins_a_tie(region: str, raw: str, phone: str) -> None:
    """Bare digits are the mobile number among what they may mean, else the number at home; what has punctuation was
    written by a person, at home."""
    assert Phones(region).canonical(raw) == phone


@pytest.mark.parametrize(("raw", "phone"), [("551187654321", "+551187654321"), ("5215512345678", "+525512345678")])
def test_old_whatsapp_ids_are_numbers_abroad(raw: str, phone: str) -> None:
    """Brazil without the ninth digit and Mexico with a 1: WhatsApp has kept what the countries gave up."""
    assert Phones("DE").canonical(raw) == phone


def test_a_stored_whatsapp_id_is_its_owners() -> None:
    """Whoever stored the bare digits is found by look-up and by comparison."""
    phones, stored = Phones("DE"), "33612345678"
    owner = phones.person(phones.canonical(stored) or "")
    assert stored in phones.written_forms(owner.phone)
    assert phones.matches(stored, owner.phone)
    assert phones.by_stored_form([owner])[stored_form(stored)] == [owner]
    assert not phones.matches(stored, "+49612345678")
