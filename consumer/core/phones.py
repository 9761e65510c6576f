"""Telephone numbers: one canonical form, the forms people type, and whether a stored number is the same person.

Country rules that are safe for WhatsApp numbers: Brazil's ninth digit both ways, Mexico's 521 = 52, Argentina's 549 may
be stored as 54 but not the other way round (a 54 number without the 9 can be somebody else's landline).
"""

from __future__ import annotations

import re
from collections import OrderedDict
from typing import TYPE_CHECKING, NamedTuple

from phonenumbers import (
    NumberParseException,
    PhoneNumber,
    PhoneNumberFormat,
    PhoneNumberType,
    country_code_for_region,
    format_number,
    is_possible_number,
    is_valid_number,
    national_significant_number,
    normalize_digits_only,
    number_type,
    parse,
    region_code_for_number,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_BRAZIL_MOBILE = re.compile(r"\+55([1-9][0-9])9?([6-9][0-9]{7})")
_MEXICO_MOBILE = re.compile(r"\+521([0-9]{10})")
_ARGENTINA_MOBILE = re.compile(r"\+549([0-9]{10})")
_MOBILE = (PhoneNumberType.MOBILE, PhoneNumberType.FIXED_LINE_OR_MOBILE)
_WHATSAPP_ID = re.compile(r"\+?([0-9]+)(?:[.:][0-9]+)*@(?:c\.us|s\.whatsapp\.net)")
"""Between number and server, the agent and the device that sent the message."""
_BARE = re.compile(r"\D*\d+\D*")
"""One run of digits, whatever stands around it."""
_CACHE_SIZE = 50_000
_FORMS_CACHE_SIZE = 2_000
"""Forms are needed several times while a person is looked up, and never again."""
_SHORTEST, _LONGEST = 4, 20
"""Digits of a stored number that may be somebody's."""
_LONGEST_FORM = 30
_END_DIGITS = 7
_SOME_REGION = "US"
"""Where a number without country code is taken apart whose country is not known: an extension, letters for digits."""


class Person(NamedTuple):
    """One human, as far as a number tells."""

    phone: str
    """E.164, as the message gave it."""
    key: str
    """The same for all safe variants of the number: two events with one key are one person."""
    name: str | None = None


class Phones:
    """Number rules under one default region (ISO country; None when numbers without country code are foreign)."""

    def __init__(self, region: str | None = None) -> None:
        self._region = region
        self._canonical: OrderedDict[str, str | None] = OrderedDict()
        self._forms: OrderedDict[str, list[str]] = OrderedDict()

    def canonical(self, raw: str) -> str | None:
        """E.164 of a number in any usual form; None when it is none.

        WhatsApp ids come without "+" but with the country code: with their suffix they are always international, and of
        bare digits that mean something with a country code and without one, the mobile number wins; else the number
        of the default region.
        """
        if raw in self._canonical:
            return self._canonical[raw]
        phone = _canonical(raw, self._region)
        self._canonical[raw] = phone
        if len(self._canonical) > _CACHE_SIZE:
            self._canonical.popitem(last=False)
        return phone

    def person(self, phone: str, name: str | None = None) -> Person:
        """The person behind an E.164 number."""
        return Person(phone, person_key(phone), name)

    def written_forms(self, phone: str) -> list[str]:
        """The ways in which people and programs store this number, most likely first; at most 30 characters each."""
        if phone in self._forms:
            return self._forms[phone]
        forms: dict[str, None] = {}
        for variant in variants(phone):
            for form in _forms(variant, with_national=self._is_national_ok(variant)):
                forms.setdefault(form)
        self._forms[phone] = [form for form in forms if len(form) <= _LONGEST_FORM]
        if len(self._forms) > _FORMS_CACHE_SIZE:
            self._forms.popitem(last=False)
        return self._forms[phone]

    def matches(self, stored: str | None, phone: str) -> bool:
        """Is the number in a CRM field this number?  Answers by value, not by ending: look-alikes are refused."""
        if not stored or not any(char.isdigit() for char in stored):
            return False
        same = variants(phone)
        if not stored.strip().startswith("+") and _digits(stored) in self._plain_digits(same):
            return True
        return _canonical(stored, self._stored_region(phone)) in same

    def by_stored_form(self, people: Sequence[Person]) -> dict[str, list[Person]]:
        """Which of these people a stored number may mean, by its `stored_form`: one look-up in place of a comparison
        with each of them."""
        index: dict[str, list[Person]] = {}
        for person in people:
            for form in {stored_form(form) for form in self.written_forms(person.phone)}:
                index.setdefault(form, []).append(person)
        return index

    def ends(self, phone: str) -> set[int]:
        """The ends that a stored number of this person can have, see `odd_ends`."""
        return {_end(_digits(form)) for form in self.written_forms(phone)}

    def odd_ends(self, stored: str) -> set[int]:
        """The last digits of a stored number that `written_forms` does not list, though it may be somebody's.

        None for a number that is listed, or that is nobody's.  In doubt it is odd: without a default region nobody can
        tell in whose country a number without country code was written.
        """
        digits = _digits(stored)
        if not _SHORTEST <= len(digits) <= _LONGEST or self._is_listed(stored, digits):
            return set()
        number = _parse(stored, self._region or _SOME_REGION)
        return {_end(end) for end in (digits, national_significant_number(number) if number else "") if end}

    def _is_listed(self, stored: str, digits: str) -> bool:
        phone, has_code = self.canonical(stored), stored.strip().startswith("+")
        if phone is None:
            return has_code or stored == digits
        if self._region is None and not has_code:
            return stored == digits
        return phone == stored or any(
            stored == form and len(form) <= _LONGEST_FORM
            for variant in variants(phone)
            for form in _forms(variant, with_national=self._is_national_ok(variant))
        )

    def search_digits(self, phone: str) -> str:
        """The digits by which Zoho's phone search finds all written forms: the end that all variants share.

        That is the national significant number; without the digit that Brazil and Argentina add for mobiles.
        """
        if match := _BRAZIL_MOBILE.fullmatch(phone):
            return match[2]
        if match := _ARGENTINA_MOBILE.fullmatch(phone):
            return match[1]
        number = _parse(phone, None)
        return national_significant_number(number) if number else _digits(phone)

    def _plain_digits(self, phones: list[str]) -> set[str]:
        return {_digits(form) for phone in phones for form in _forms(phone, with_national=self._is_national_ok(phone))}

    def _is_national_ok(self, phone: str) -> bool:
        return self._region is None or self._region == _region(phone)

    def _stored_region(self, phone: str) -> str | None:
        """Without a default region, a number stored without country code is read in the person's own country."""
        return self._region or _region(phone)


def stored_form(stored: str) -> str:
    """A stored number without its punctuation; the plus stays, for it says that a country code follows."""
    return ("+" if stored.lstrip().startswith("+") else "") + _digits(stored)


def variants(phone: str) -> list[str]:
    """All numbers under which the person may be stored, the given one first."""
    if match := _BRAZIL_MOBILE.fullmatch(phone):
        area, number = match.groups()
        return list(dict.fromkeys([phone, f"+55{area}9{number}", f"+55{area}{number}"]))
    if phone.startswith("+52") and len(phone) == 13:
        return [phone, f"+521{phone[3:]}"]
    if match := _ARGENTINA_MOBILE.fullmatch(phone):
        return [phone, f"+54{match[1]}"]
    return [phone]


def person_key(phone: str) -> str:
    """One key for the variants that are the same person in both directions."""
    if match := _BRAZIL_MOBILE.fullmatch(phone):
        return f"+55{match[1]}9{match[2]}"
    return phone


def _canonical(raw: str, region: str | None) -> str | None:
    if whatsapp_id := _WHATSAPP_ID.fullmatch(raw.strip()):
        raw, region = f"+{whatsapp_id[1]}", None
    digits = _digits(raw)
    if not 5 <= len(digits) <= _LONGEST:
        return None
    numbers = [number for text, where in _readings(raw, digits, region) if (number := _parse(text, where))]
    rank = _rank_of_bare if _BARE.fullmatch(raw) and not _has_code_of(region, digits) else _rank
    best = min(filter(is_possible_number, numbers), key=rank, default=None)
    if best is None:
        return _mexico(f"+{digits}") if _MEXICO_MOBILE.fullmatch(f"+{digits}") else None
    return _mexico(format_number(best, PhoneNumberFormat.E164))


def _readings(raw: str, digits: str, region: str | None) -> Iterator[tuple[str, str | None]]:
    """What a text may mean, the likeliest first: as it is in the region, or digits with the country code."""
    is_international = raw.strip().startswith("+")
    with_code = (_mexico(f"+{digits}"), None)
    if not is_international and _has_code_of(region, digits):
        yield with_code
    if not is_international and digits.startswith("00"):
        yield f"+{digits[2:]}", None
    if region or is_international:
        yield raw, region
    if not is_international:
        yield with_code


def _has_code_of(region: str | None, digits: str) -> bool:
    """No country's code begins with another's, so these digits are nobody's from abroad."""
    return region is not None and digits.startswith(str(country_code_for_region(region)))


def _rank(number: PhoneNumber) -> int:
    """The lowest wins, and of two that are equal the likelier reading."""
    return 2 if is_valid_number(number) else 3


def _rank_of_bare(number: PhoneNumber) -> int:
    """Digits without any punctuation are a program's, WhatsApp's mostly, and there a mobile number is likelier than
    one that is merely valid.  A Brazilian mobile number may lack its ninth digit there."""
    if is_valid_number(number) and number_type(number) in _MOBILE:
        return 0
    return 1 if _BRAZIL_MOBILE.fullmatch(format_number(number, PhoneNumberFormat.E164)) else _rank(number)


def _mexico(phone: str) -> str:
    match = _MEXICO_MOBILE.fullmatch(phone)
    return f"+52{match[1]}" if match else phone


def _parse(text: str, region: str | None) -> PhoneNumber | None:
    try:
        number = parse(text, region)
    except NumberParseException:
        return None
    number.extension = None
    return number


def _region(phone: str) -> str | None:
    number = _parse(phone, None)
    return region_code_for_number(number) if number else None


def _end(digits: str) -> int:
    return int(digits[-_END_DIGITS:])


def _digits(text: str) -> str:
    return normalize_digits_only(text)


def _forms(phone: str, *, with_national: bool) -> Iterator[str]:
    digits = phone[1:]
    number = _parse(phone, None)
    yield phone
    yield digits
    yield f"00{digits}"
    if number is None:
        return
    international = format_number(number, PhoneNumberFormat.INTERNATIONAL)
    yield international
    yield international.replace(" ", "-")
    if with_national:
        national = format_number(number, PhoneNumberFormat.NATIONAL)
        yield national
        yield _digits(national)
        yield national_significant_number(number)
