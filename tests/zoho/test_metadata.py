"""What the organisation looks like, and how long that is believed."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from consumer.core.model import Delivered
from consumer.zoho.metadata import read_fields, read_modules, read_org
from sandbox.zoho import Answer, Drop, DropKind, Slow, Throttle
from tests.zoho.room import Client, World, delivery, number, run


def test_fields_are_read_as_they_are() -> None:
    """Type, length, uniqueness in either of its forms, options, and where a lookup leads."""

    async def scenario() -> None:
        for unique in ("case_sensitive", "casesensitive"):
            client = Client(World({"unique_as": unique}))
            fields = await read_fields(client.send, "Messages")
            assert fields["Message_ID"].is_unique
            assert not fields["Body"].is_unique
            assert (fields["Body"].data_type, fields["Body"].length) == ("textarea", 32_000)
            assert fields["Direction"].values == ("inbound", "outbound")
            assert fields["Lead"].lookup_module == "Leads"
            assert fields["Name"].is_mandatory

    run(scenario())


def test_modules_and_organisation_are_read() -> None:
    """For the checks before the first message."""

    async def scenario() -> None:
        client = Client(World())
        assert "Messages" in {row["api_name"] for row in await read_modules(client.send)}
        assert (await read_org(client.send))["type"] == "production"

    run(scenario())


def test_a_field_that_is_added_while_the_service_runs_is_written_within_the_hour() -> None:
    """Nobody has to restart it after `setup`."""

    async def scenario() -> None:
        world = World()
        world.step("remove_field", module="Messages", api_name="Agent")
        client = Client(world)
        await client.deliver([delivery("m1", number(1), agent={"name": "Oleg"})])
        world.step("set_field", module="Messages", api_name="Agent", data_type="text", length=255)
        await asyncio.sleep(3601)
        await client.deliver([delivery("m2", number(1), agent={"name": "Oleg"})])
        assert {row["Message_ID"]: row["Agent"] for row in world.dump("Messages")} == {"m1": None, "m2": "Oleg"}

    run(scenario())


def test_a_missing_right_to_read_fields_stops_nothing_and_is_asked_again() -> None:
    """Told once for each module; ten minutes after the right is given the fields are known."""

    async def scenario() -> None:
        world = World()
        client = Client(world)
        world.step("revoke_scope", scope="ZohoCRM.settings.ALL")
        for index in range(5):
            assert await client.deliver([delivery(f"m{index}", number(index))]) == [Delivered()]
        assert client.told.unreadable == ["OAUTH_SCOPE_MISMATCH"] * 3
        assert client.gate.halts() == []
        world.step("grant_scope", scope="ZohoCRM.settings.ALL")
        await asyncio.sleep(601)
        await client.deliver([delivery("later", number(1))])
        assert client.schema.fields_of("Messages")

    run(scenario())


@pytest.mark.parametrize("action", [Answer(status=500, body="<html>"), Answer(status=200, body="<html>")])
def test_fields_that_are_known_stay_good_enough(action: Answer) -> None:
    """A failed second reading stops no message."""

    async def scenario() -> None:
        world = World()
        client = Client(world)
        await client.deliver([delivery("m1", number(1))])
        await asyncio.sleep(3601)
        world.fault(action, operation="metadata.fields", times=None)
        assert await client.deliver([delivery("m2", number(1))]) == [Delivered()]
        assert client.schema.fields_of("Messages")

    run(scenario())


@pytest.mark.parametrize("action", [Drop(how=DropKind.HANG, commit=False), Slow(extra_s=50.0), Throttle()])
def test_fields_that_cannot_be_read_again_soon_hold_nothing_up(action: Any) -> None:
    """Messages go on with what is known; the fields are read when that is possible again."""

    async def scenario() -> None:
        world = World()
        world.step("remove_field", module="Messages", api_name="Agent")
        client = Client(world)
        await client.deliver([delivery("m1", number(1))])
        await asyncio.sleep(3601)
        world.step("set_field", module="Messages", api_name="Agent", data_type="text", length=255)
        trouble = world.fault(action, operation="metadata.fields", times=None)
        began = world.now()
        assert await client.deliver([delivery("m2", number(1))]) == [Delivered()]
        assert await client.deliver([delivery("m3", number(1))]) == [Delivered()]
        assert world.now() - began < 10
        trouble.times = 0
        await asyncio.sleep(900)
        await client.deliver([delivery("m4", number(1))])
        assert "Agent" in (client.schema.fields_of("Messages") or {})

    run(scenario())


def test_nothing_is_written_before_the_fields_were_asked_for() -> None:
    """While Zoho does not answer, messages wait."""

    async def scenario() -> None:
        world = World()
        world.fault(Answer(status=500, body="<html>"), operation="metadata.fields", times=8)
        client = Client(world)
        [found] = await client.resolve(number(1))
        assert found.code == "HTTP_500"
        assert not found.halted
        assert (await client.parent(number(1))).module == "Leads"

    run(scenario())
