"""The console's way to the dead letters, on real brokers."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from consumer.kafka.connection import KafkaConnection
from consumer.operations.dlq.desk import Desk
from consumer.view.dead_letters import DeadLetterView
from consumer.web.view import Place, ReplayPlan, ReplayStep, Selection, UnavailableError
from tests.operations.conftest import event, letters, values_of

if TYPE_CHECKING:
    from tests.operations.conftest import Letters

__all__ = ["letters"]


async def replayed(view: DeadLetterView, selection: Selection) -> list[ReplayStep]:
    steps: list[ReplayStep] = []
    await view.replay(selection, on_step=steps.append, cancel=asyncio.Event())
    return steps


async def test_browse_counts_all_and_shows_the_latest(letters: Letters) -> None:
    """As many rows as asked for, latest first, and the counts of all of them by reason."""
    await letters.write([event(f"m-{number}") for number in range(3)], offset="7")
    await letters.write([event("m-9")], reason="schema_violation", stage="parse", offset="8", detail="phone: type")
    page = await DeadLetterView(letters.desk).browse(Selection(), limit=2)
    assert page.total == 4
    assert page.reasons == (("zoho.INVALID_DATA", 3), ("schema_violation", 1))
    assert [(row.reason, row.source) for row in page.rows] == [
        ("schema_violation", Place(0, 8)),
        ("zoho.INVALID_DATA", Place(0, 7)),
    ]
    assert page.rows[0].detail == "phone: type"


async def test_selection_by_reason_stage_and_place(letters: Letters) -> None:
    """Each condition narrows, in the dead-letter topic and where the record came from."""
    await letters.write([event("m-1")], offset="7")
    await letters.write([event("m-2")], reason="schema_violation", stage="parse", offset="8")
    view = DeadLetterView(letters.desk)
    for selection, offsets in (
        (Selection(reason="schema_violation"), [8]),
        (Selection(stage="lead"), [7]),
        (Selection(source=Place(0, 8)), [8]),
        (Selection(source=Place(1, 8)), []),
        (Selection(reason="schema_violation", stage="lead"), []),
    ):
        page = await view.browse(selection, limit=10)
        assert [row.source.offset for row in page.rows if row.source] == offsets, selection
    [row] = (await view.browse(Selection(stage="lead"), limit=10)).rows
    assert (await view.browse(Selection(place=row.place), limit=10)).rows == (row,)


async def test_replay_of_one_leaves_the_others(letters: Letters) -> None:
    """The plan says one, one comes back, and it is no longer shown; the other still is."""
    await letters.write([event("m-1")], offset="7")
    await letters.write([event("m-2")], offset="8")
    view = DeadLetterView(letters.desk)
    chosen = Selection(source=Place(0, 7))
    plan = await view.plan(chosen)
    assert plan == ReplayPlan(1, (("lead: zoho.INVALID_DATA", 1),))
    assert await letters.came_back() == []
    assert (await replayed(view, chosen))[-1] == ReplayStep(1, 1)
    assert values_of(await letters.came_back()) == [event("m-1")]
    page = await view.browse(Selection(), limit=10)
    assert [row.source for row in page.rows] == [Place(0, 8)]


async def test_plan_foresees_what_comes_back(letters: Letters) -> None:
    """Values that are still at fault are counted, and what was replayed is left alone."""
    await letters.write([b"{no json"], reason="invalid_json", stage="parse")
    view = DeadLetterView(letters.desk)
    assert (await view.plan(Selection())).fails_again == 1
    await replayed(view, Selection())
    again = await view.plan(Selection())
    assert (again.total, again.left_alone) == (0, 1)


async def test_numbers_are_masked(letters: Letters) -> None:
    """Should a detail hold a number all the same, the page does not show it."""
    await letters.write([event("m-1")], detail="bad value +79161234567")
    [row] = (await DeadLetterView(letters.desk).browse(Selection(), limit=10)).rows
    assert row.detail == "bad value ***"


async def test_unreachable_brokers_are_said_in_both_languages() -> None:
    """Nobody listens there: one sentence in each language, no traceback."""
    view = DeadLetterView(Desk(KafkaConnection("127.0.0.1:1"), "t", "g"))
    with pytest.raises(UnavailableError) as caught:
        await view.browse(Selection(), limit=1)
    assert caught.value.texts["en"]
    assert caught.value.texts["ru"] != caught.value.texts["en"]
