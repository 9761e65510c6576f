"""What a thousand messages cost, in calls and in credits; and the composite call."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from consumer.core.model import Delivered, Parent
from sandbox.zoho import Answer, Throttle
from tests.zoho.room import Client, World, delivery, number, run

if TYPE_CHECKING:
    from consumer.core.model import Delivery


def thousand(prefix: str, people: int = 100, start: int = 0) -> list[Delivery]:
    """A thousand messages of some people."""
    return [delivery(f"{prefix}-{index}", number(start + index % people)) for index in range(1000)]


async def cost(world: World, client: Client, prefix: str, start: int = 0) -> tuple[int, int]:
    """Calls and credits of a thousand messages."""
    await client.sink.prepare()
    calls, credits = world.calls(), world.credits()
    assert await client.deliver(thousand(prefix, start=start)) == [Delivered()] * 1000
    return world.calls() - calls, world.credits() - credits


def test_people_already_met_cost_their_message_records_only() -> None:
    """A thousand messages of known people: ten calls of a hundred records."""

    async def scenario() -> None:
        world = World()
        client = Client(world)
        await cost(world, client, "a")
        assert await cost(world, client, "b") <= (10, 100)

    run(scenario())


def test_people_met_first_in_this_run_cost_a_look_up_more() -> None:
    """Their leads exist: at most 25 calls and 130 credits."""

    async def scenario() -> None:
        world = World()
        for index in range(100):
            world.insert("Leads", Phone=number(index))
        calls, credits = await cost(world, Client(world), "a")
        assert calls <= 25
        assert credits <= 130

    run(scenario())


def test_new_people_with_the_composite_call() -> None:
    """Ten messages each: at most 90 calls and 350 credits."""

    async def scenario() -> None:
        world = World()
        calls, credits = await cost(world, Client(world, composite=True), "a")
        assert calls <= 90
        assert credits <= 350
        assert world.engine.violations() == []

    run(scenario())


def test_new_people_with_the_directory() -> None:
    """Ten messages each, no searches: at most 30 calls and 150 credits, at the second thousand, too."""

    async def scenario() -> None:
        world = World()
        client = Client(world, directory_from=10)
        for prefix in ("a", "b"):
            calls, credits = await cost(world, client, prefix, start=1000 * (prefix == "b"))
            assert calls <= 30
            assert credits <= 150
        assert world.engine.violations() == []

    run(scenario())


def test_new_people_without_it() -> None:
    """The credits stay within 350; each person takes two searches."""

    async def scenario() -> None:
        world = World()
        calls, credits = await cost(world, Client(world), "a")
        assert calls <= 230
        assert credits <= 350

    run(scenario())


# -- the composite call -------------------------------------------------------------------------------------------


def test_five_searches_in_one_call_find_the_same_people() -> None:
    """Odd punctuation, which only the search finds, in leads and contacts."""

    async def scenario() -> None:
        world = World()
        stored = [f"7.916.{index:07d}" for index in range(12)]
        ids = [world.insert("Leads" if index % 2 else "Contacts", Mobile=text) for index, text in enumerate(stored)]
        client = Client(world, composite=True)
        found = await client.resolve(*map(number, range(12)))
        assert [parent.id for parent in found] == ids
        assert world.operations()["composite"] == 5

    run(scenario())


REFUSALS: list[Any] = [
    Answer(status=400, body={"code": "NOT_SUPPORTED", "details": {}, "message": "", "status": "error"}),
    Answer(status=400, body={"code": "INVALID_DATA", "details": {}, "message": "", "status": "error"}),
    Answer(status=401, body={"code": "OAUTH_SCOPE_MISMATCH", "details": {}, "message": "", "status": "error"}),
    Answer(status=404, body={"code": "INVALID_URL_PATTERN", "details": {}, "message": "", "status": "error"}),
    Answer(status=404, body="<html>"),
]


@pytest.mark.parametrize("action", REFUSALS)
def test_an_organisation_that_takes_no_composite_call_is_asked_one_by_one(action: Any) -> None:
    """Once refused it is left alone, nothing halts, and everybody is searched for."""

    async def scenario() -> None:
        world = World()
        ids = [world.insert("Leads", Mobile=f"7.916.{index:07d}") for index in range(3)]
        plan = world.fault(action, times=None, operation="composite")
        client = Client(world, composite=True)
        assert [parent.id for parent in await client.resolve(*map(number, range(3)))] == ids
        fired = plan.fired
        await client.resolve(number(50))
        assert plan.fired == fired
        assert client.gate.halts() == []

    run(scenario())


@pytest.mark.parametrize(
    "action",
    [
        Throttle(),
        Answer(status=500, body="<html>"),
        Answer(status=200, body={"__composite_requests": []}),
        Answer(status=200, body={"__composite_requests": [None] * 2}),
        Answer(status=200, body={"__composite_requests": [{"details": {"response": {"status_code": 500}}}] * 2}),
    ],
)
def test_an_unclear_composite_answer_is_asked_again(action: Any) -> None:
    """No person is made anew because a search got no answer."""

    async def scenario() -> None:
        world = World()
        ids = [world.insert("Leads", Mobile=f"7.916.{index:07d}") for index in range(2)]
        world.fault(action, operation="composite")
        client = Client(world, composite=True)
        found = [await client.parent(number(index)) for index in range(2)]
        assert [parent.id for parent in found] == ids
        assert world.operations()["records.insert"] == 0

    run(scenario())


def test_a_missing_search_scope_within_a_composite_call_creates_nobody() -> None:
    """As with single searches: work halts and says so."""

    async def scenario() -> None:
        world = World()
        world.step("revoke_scope", scope="ZohoSearch.securesearch.READ")
        client = Client(world, composite=True)
        [found] = await client.resolve(number(1))
        assert not isinstance(found, Parent)
        assert found.halted
        assert world.dump("Leads") == []

    run(scenario())
