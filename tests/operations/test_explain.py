"""Where one message is."""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp
import pytest

from consumer.app import Service
from consumer.operations.commands import _explain as explain
from consumer.operations.commands import desk_of
from consumer.operations.explain import Explanation, ask_kafka, ask_zoho
from consumer.operations.explain_view import explanation_json, rows_of, show_explanation
from consumer.operations.scopes import scope_names
from consumer.operations.terminal import Terminal
from consumer.operations.zoho_desk import zoho_desk
from consumer.settings import Settings, load_settings
from consumer.telemetry import metrics as m
from consumer.telemetry.recorder import Recorder
from sandbox.zoho.server import SandboxServer
from tests.kafka_server.clients import produce
from tests.kafka_server.cluster import Broker
from tests.kafka_server.fixtures import CreateTopic
from tests.operations.conftest import environment, event

pytestmark = pytest.mark.parametrize("broker", ["embedded_broker"], indirect=True)


@pytest.fixture
async def settings(broker: Broker, create_topic: CreateTopic, zoho: SandboxServer) -> Settings:
    """Everything of one's own, and a token with the scopes that `auth` asks for and no others."""
    topic = await create_topic()
    scopes = scope_names(load_settings(_env_file=None), with_setup=False)
    token = zoho.engine.accounts.issue_refresh_token(zoho.credentials["client_id"], scopes)
    variables = environment(zoho, ZOHO_REFRESH_TOKEN=token) | broker.environment()
    more: dict[str, Any] = {
        "kafka_topic": topic,
        "kafka_dlq_topic": await create_topic(),
        "kafka_group_id": topic,
        "kafka_producer_idempotence": False,
        "sync_messages_since": "2026-01-01T00:00:00+00:00",
        "batch_linger_ms": 10,
    }
    return load_settings(_env_file=None, **({name.lower(): value for name, value in variables.items()} | more))


async def explained(settings: Settings, message_id: str) -> tuple[str, Explanation]:
    """Ask both sides."""
    found = Explanation(message_id)
    await ask_kafka(settings, desk_of(settings), found)
    async with zoho_desk(settings) as desk:
        await ask_zoho(desk.send, settings, found)
    return found.outcome(settings)[0], found


async def served(settings: Settings, *message_ids: str) -> None:
    """Run the service until these are settled."""
    stop = asyncio.Event()
    async with aiohttp.ClientSession() as session:
        service = Service(settings, session, Recorder(m.Metrics(version="test")))
        running = asyncio.create_task(service.run(stop))
        async with asyncio.timeout(60):
            for message_id in message_ids:
                while not (await _occurrences(settings, message_id)):
                    await asyncio.sleep(0.1)
        stop.set()
        await running


async def _occurrences(settings: Settings, message_id: str) -> bool:
    found = Explanation(message_id)
    await ask_kafka(settings, desk_of(settings), found)
    return bool(found.occurrences) and all(item.is_settled for item in found.occurrences)


async def test_follows_a_message_to_its_new_lead(broker: Broker, settings: Settings, zoho: SandboxServer) -> None:
    """Before the service runs it waits, with what is ahead of it; afterwards it is in Zoho, with lead and note."""
    await produce(broker.client_options(), settings.kafka_topic, [event("a"), event("b", phone="+79161112233")])
    outcome, found = await explained(settings, "b")
    assert (outcome, found.occurrences[0].ahead) == ("waiting", 1)
    await served(settings, "a", "b")
    outcome, found = await explained(settings, "b")
    assert outcome == "delivered"
    assert found.in_zoho is not None
    assert found.in_zoho.parent is not None
    assert (found.in_zoho.rule, found.in_zoho.candidates, found.in_zoho.has_note) == ("created", 1, True)
    leads = {row["id"]: row["Phone"] for row in zoho.engine.steps.run("dump", {"module": "Leads"})}
    assert leads[found.in_zoho.parent.id] == "+79161112233"


async def test_tells_by_which_rule(broker: Broker, settings: Settings, zoho: SandboxServer) -> None:
    """A contact's number, and one found in a lead's Mobile as people write it, are told apart."""
    zoho.engine.steps.run("insert", {"module": "Contacts", "records": [{"Last_Name": "C", "Phone": "+79160000001"}]})
    zoho.engine.steps.run("insert", {"module": "Leads", "records": [{"Last_Name": "L", "Mobile": "+7 916 000-00-02"}]})
    values = [event("a", phone="+79160000001"), event("b", phone="+79160000002")]
    await produce(broker.client_options(), settings.kafka_topic, values)
    await served(settings, "a", "b")
    rules = [found.in_zoho.rule for _, found in [await explained(settings, name) for name in "ab"] if found.in_zoho]
    assert rules == ["contact", "mobile"]


async def test_tells_what_was_skipped_and_what_was_refused(broker: Broker, settings: Settings) -> None:
    """A message without number, and one that Zoho or the decoder refuses, are each told with their reason."""
    values = [event("skipped", phone=None), event("refused", direction="sideways")]
    await produce(broker.client_options(), settings.kafka_topic, values)
    await served(settings, "skipped", "refused")
    _, skipped = await explained(settings, "skipped")
    _, refused = await explained(settings, "refused")
    assert skipped.outcome(settings) == ("skipped", {"reason": "no_phone"})
    outcome, facts = refused.outcome(settings)
    assert (outcome, facts["reason"], facts["stage"]) == ("dead", "schema_violation", "parse")


@pytest.fixture
def without_kafka(settings: Settings) -> Settings:
    """Nobody listens where the brokers should be."""
    return settings.model_copy(update={"kafka_bootstrap_servers": "127.0.0.1:1"})


async def test_tells_what_zoho_knows_without_kafka(
    without_kafka: Settings, zoho: SandboxServer, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the brokers away, a message that is in Zoho is found there, and the reader learns what was not read."""
    zoho.engine.steps.run("insert", {"module": "Messages", "records": [{"Name": "a", "Message_ID": "a"}]})
    outcome, found = await explained(without_kafka, "a")
    assert outcome == "delivered"
    show_explanation(Terminal(), found, without_kafka, is_revealed=False)
    assert "topic and dead letters were not read: Kafka cannot be reached" in capsys.readouterr().out
    assert explanation_json(found, without_kafka)["topic_error"] == "kafka.unreachable"


async def test_never_calls_unknown_what_it_could_not_look_for(without_kafka: Settings, zoho: SandboxServer) -> None:
    """With the brokers away, a message that is not in Zoho may still wait; with Zoho away too, nothing is told."""
    assert (await explained(without_kafka, "a"))[0] == "not_in_zoho"
    token = without_kafka.secret("ZOHO_REFRESH_TOKEN").get()
    zoho.engine.steps.run("revoke_refresh_token", {"token": token})
    found = await explain(without_kafka, "a", "7d")
    assert found.outcome(without_kafka) == ("untold", {"detail": "TOKEN_INVALID_CODE"})


async def test_does_not_speak_for_zoho(settings: Settings, zoho: SandboxServer) -> None:
    """A message that is not in the topics is not called unknown while Zoho could not be asked."""
    zoho.engine.steps.run("revoke_refresh_token", {"token": settings.secret("ZOHO_REFRESH_TOKEN").get()})
    found = await explain(settings, "a", "7d")
    assert found.outcome(settings) == ("not_in_kafka", {"detail": "TOKEN_INVALID_CODE"})
    [(title, text)] = rows_of("en", found, is_revealed=False)
    assert title == "Zoho"
    assert "zoho-sync doctor" in text


async def test_one_topic_that_is_missing_leaves_the_other(broker: Broker, settings: Settings) -> None:
    """Without the dead-letter topic the place in the main topic is told; without the main topic, the dead letters."""
    await produce(broker.client_options(), settings.kafka_topic, [event("a"), event("b", phone=None)])
    no_letters = settings.model_copy(update={"kafka_dlq_topic": "no-such-topic"})
    assert (await explained(no_letters, "a"))[0] == "waiting"
    await produce(broker.client_options(), settings.kafka_dlq_topic, [event("c")])
    no_topic = settings.model_copy(update={"kafka_topic": "no-such-topic"})
    outcome, found = await explained(no_topic, "c")
    assert (outcome, len(found.dead_letters)) == ("dead", 1)
    assert found.topic_error is not None
    assert found.topic_error.code == "kafka.no_topic"


async def test_brokers_that_are_not_set_leave_zoho(settings: Settings, zoho: SandboxServer) -> None:
    """Somebody who has only Zoho's credentials learns what Zoho knows."""
    zoho.engine.steps.run("insert", {"module": "Messages", "records": [{"Name": "a", "Message_ID": "a"}]})
    only_zoho = settings.model_copy(update={"kafka_bootstrap_servers": None})
    found = await explain(only_zoho, "a", "7d")
    assert found.outcome(only_zoho)[0] == "delivered"
    assert found.topic_error is not None
    assert found.topic_error.code == "kafka.not_set"


async def test_tells_what_was_deleted_and_what_never_came(
    broker: Broker, settings: Settings, zoho: SandboxServer
) -> None:
    """A record that somebody deleted in Zoho is not called delivered, and an unknown id is called unknown."""
    await produce(broker.client_options(), settings.kafka_topic, [event("a")])
    await served(settings, "a")
    [row] = zoho.engine.steps.run("dump", {"module": "Messages"})
    zoho.engine.steps.run("delete", {"module": "Messages", "record_id": row["id"]})
    assert (await explained(settings, "a"))[0] == "vanished"
    assert (await explained(settings, "never"))[0] == "unknown"
