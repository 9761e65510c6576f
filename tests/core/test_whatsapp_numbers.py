"""WhatsApp gives numbers as bare digits with their country code, whatever the default region is."""

from __future__ import annotations

import pytest

from consumer.core.phones import Phones


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
