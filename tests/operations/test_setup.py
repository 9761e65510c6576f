"""What `setup` makes in Zoho, and what it leaves alone."""

from __future__ import annotations

import pytest

from consumer.operations import setup
from consumer.operations.blueprint import MESSAGE_FIELDS
from consumer.operations.errors import OperationError
from consumer.operations.texts import LANGS, Lang, text_of
from consumer.operations.zoho_desk import zoho_desk
from consumer.settings import Settings
from sandbox.zoho.faults import Action, Answer, Drop, Fault, Match
from sandbox.zoho.server import SandboxServer
from tests.operations.test_doctor_zoho import bad, findings_of, settings_of


async def set_up(settings: Settings) -> setup.SetupPlan:
    """Plan and carry out; returns the plan."""
    async with zoho_desk(settings) as desk:
        found = await setup.plan(desk, settings.zoho_messages_module)
        await setup.carry_out(desk, found)
    return found


async def test_makes_everything_from_nothing(zoho: SandboxServer) -> None:
    """Without the module, one run makes it and all its fields to the doctor's liking; a second does nothing."""
    zoho.engine.steps.run("remove_module", {"module": "Messages"})
    settings = settings_of(zoho)
    first = await set_up(settings)
    assert len(first.steps) == 1 + len(MESSAGE_FIELDS)
    assert bad(await findings_of(settings)) == {}
    assert (await set_up(settings)).steps == ()


async def test_makes_only_what_is_missing(zoho: SandboxServer) -> None:
    """A field that is gone, one that allows duplicates and a list without a value are mended, and nothing else."""
    run = zoho.engine.steps.run
    run("remove_field", {"module": "Messages", "api_name": "Agent"})
    run("set_field", {"module": "Messages", "api_name": "Message_ID", "unique": None})
    run("set_field", {"module": "Messages", "api_name": "Origin", "values": ["chat", "ours"]})
    settings = settings_of(zoho)
    found = await set_up(settings)
    assert {(step.kind, step.name) for step in found.steps} == {
        ("field", "Agent"),
        ("unique", "Message_ID"),
        ("values", "Origin"),
    }
    assert bad(await findings_of(settings)) == {}
    assert zoho.engine.org.schema.named("Messages").fields["Origin"].values == ("chat", "ours", "campaign", "webhook")


async def test_a_plan_changes_nothing(zoho: SandboxServer) -> None:
    """Looking is free: the module is still missing afterwards."""
    zoho.engine.steps.run("remove_module", {"module": "Messages"})
    async with zoho_desk(settings_of(zoho)) as desk:
        await setup.plan(desk, "Messages")
    assert zoho.engine.org.schema.find("Messages") is None


async def test_tells_what_only_a_person_can_do(zoho: SandboxServer) -> None:
    """A field of the wrong type and one that Leads demand are named, and not touched."""
    zoho.engine.steps.run("set_field", {"module": "Messages", "api_name": "Sent_At", "data_type": "text"})
    zoho.engine.steps.run("set_field", {"module": "Leads", "api_name": "Company", "mandatory": True})
    found = await set_up(settings_of(zoho))
    assert found.steps == ()
    assert [item.code for item in found.by_hand] == ["setup.hand.type", "setup.hand.demanded"]


async def failure(settings: Settings) -> str:
    """The code of the error that a run ends with."""
    with pytest.raises(OperationError) as caught:
        await set_up(settings)
    return caught.value.code


async def test_a_token_without_the_right_is_told(zoho: SandboxServer) -> None:
    """The service's own token may not change settings, and the error says how to get one that may."""
    zoho.engine.steps.run("remove_field", {"module": "Messages", "api_name": "Agent"})
    zoho.engine.steps.run("revoke_scope", {"scope": "ZohoCRM.settings.ALL"})
    for scope in ("ZohoCRM.settings.fields.READ", "ZohoCRM.settings.modules.READ"):
        zoho.engine.steps.run("grant_scope", {"scope": scope})
    assert await failure(settings_of(zoho)) == "setup.no_scope"


@pytest.mark.parametrize("lang", LANGS)
async def test_a_zoho_that_cannot_be_asked_is_told(zoho: SandboxServer, lang: Lang) -> None:
    """A dead token sends to the doctor, too many tokens to a pause, each in the reader's own language."""
    zoho.engine.configure(access_tokens_per_window=0)
    throttled = await failure(settings_of(zoho))
    zoho.engine.steps.run("revoke_refresh_token", {})
    revoked = await failure(settings_of(zoho))
    assert (throttled, revoked) == ("auth.throttled", "zoho.failed")
    assert "zoho-sync doctor" in text_of(lang, revoked, {"code": "TOKEN_INVALID_CODE"}).fix


async def test_duplicates_that_stand_are_told(zoho: SandboxServer) -> None:
    """Message_ID cannot be made unique while a value stands twice."""
    zoho.engine.steps.run("set_field", {"module": "Messages", "api_name": "Message_ID", "unique": None})
    twice = [{"Name": "a", "Message_ID": "m"}, {"Name": "b", "Message_ID": "m"}]
    zoho.engine.steps.run("insert", {"module": "Messages", "records": twice})
    assert await failure(settings_of(zoho)) == "setup.duplicates"


async def test_a_module_under_another_api_name_is_told(zoho: SandboxServer) -> None:
    """No second module is made beside one that people call the same."""
    zoho.engine.steps.run("rename_module", {"module": "Messages", "api_name": "Chats"})
    assert await failure(settings_of(zoho)) == "setup.other_name"


async def test_an_edition_without_modules_is_told(zoho: SandboxServer) -> None:
    """What Zoho refuses is told with its code."""
    zoho.engine.steps.run("remove_module", {"module": "Messages"})
    zoho.engine.configure(edition="free")
    assert await failure(settings_of(zoho)) == "setup.refused"


@pytest.mark.parametrize("action", [Drop(commit=False), Answer(status=403), Answer(status=404)])
async def test_needs_no_organisation(zoho: SandboxServer, action: Action) -> None:
    """Where Zoho does not tell the organisation, everything is created all the same."""
    zoho.engine.faults.add(Fault(action=action, match=Match(path=r"/org\?"), times=None))
    zoho.engine.steps.run("remove_module", {"module": "Messages"})
    assert len((await set_up(settings_of(zoho))).steps) == 1 + len(MESSAGE_FIELDS)
