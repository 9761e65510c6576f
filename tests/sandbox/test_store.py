"""The store's indexes agree with a plain look at every row."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox.zoho.store import Row, RowIndex, Table, digits_of

IDS = st.sampled_from([str(number) for number in range(6)])
PHONES = st.sampled_from([None, "+1 415 555-0100", "4155550100", "+44 20 7946 0100", "+24155550100", "123"])
NAMES = st.sampled_from([None, "a", "A", "b"])
Step = tuple[str, str, str, str, str]
STEPS = st.lists(st.tuples(st.sampled_from(["put", "remove", "look"]), IDS, PHONES, PHONES, NAMES), max_size=40)
FIELDS = ("Phone", "Mobile")


def row(row_id: str, phone: str | None, mobile: str | None, name: str | None) -> Row:
    values = {"Phone": phone, "Mobile": mobile, "Name": name}
    return Row(row_id, values, 1, 0.0, 0.0, "u", "u", "u")


def ids(rows: list[Row]) -> set[str]:
    return {each.id for each in rows}


@given(STEPS, PHONES, NAMES)
def test_index_finds_what_a_full_look_finds(steps: list[Step], phone: str | None, name: str | None) -> None:
    """After any puts and removals, by value and by last digits, whenever the index was first used."""
    index = RowIndex()
    for step, row_id, *values in steps:
        if step == "put":
            index.put(row(row_id, *values))
        elif step == "remove":
            index.remove(row_id)
        if step == "look" or (step, row_id) == steps[-1][:2]:
            check(index, phone, name)
    check(index, phone, name)


def check(index: RowIndex, phone: str | None, name: str | None) -> None:
    rows = list(index.rows.values())
    if name is not None:
        named = {each.id for each in rows if (each.values["Name"] or "").lower() == name.lower()}
        assert ids(index.find("Name", name)) == named
    if phone is not None and len(digits_of(phone)) >= 7:
        tail = digits_of(phone)[-7:]
        assert ids(index.with_tail(digits_of(phone), FIELDS)) >= {each.id for each in rows if ends_in(each, tail)}


def ends_in(each: Row, tail: str) -> bool:
    return any(digits_of(each.values[field] or "").endswith(tail) for field in FIELDS)


@given(STEPS)
def test_unique_index_knows_the_holder(steps: list[Step]) -> None:
    """Whoever holds a unique value is known, through changes and deletions, with and without case."""
    table = Table()
    table.set_unique([("Name", False), ("Phone", True)])
    for step, row_id, phone, mobile, name in steps:
        if step == "remove":
            table.remove(row_id, now_s=0.0)
        elif step == "put" and is_free(table, row_id, phone, name):
            table.put(row(row_id, phone, mobile, name))
    for each in table:
        for field, unique in table.unique.items():
            value = each.values[field]
            assert value is None or unique.holder(value) == each.id
    assert table.unique["Name"].holder("nobody") is None


def is_free(table: Table, row_id: str, phone: str | None, name: str | None) -> bool:
    held = {"Phone": phone, "Name": name}
    return all(value is None or table.unique[field].holder(value) in (None, row_id) for field, value in held.items())


def test_unique_over_duplicates_is_refused() -> None:
    """A field cannot become unique while two rows share a value."""
    table = Table()
    table.put(row("1", None, None, "a"))
    table.put(row("2", None, None, "A"))
    table.set_unique([("Name", True)])
    with pytest.raises(ValueError, match="Name"):
        table.set_unique([("Name", False)])
