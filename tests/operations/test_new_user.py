"""From an empty `.env` to the first message, by the commands of the guide and nothing else."""

from __future__ import annotations

import asyncio
import json
import signal
from pathlib import Path

import pytest

from consumer.operations.scopes import SETUP_SCOPES, scope_names
from consumer.settings import load_settings
from sandbox.zoho.server import SandboxServer
from tests.kafka_server.clients import produce
from tests.kafka_server.cluster import Broker
from tests.operations.conftest import event
from tests.operations.test_commands import Shell
from tests.operations.test_doctor_kafka import LONG


@pytest.mark.parametrize("broker", [pytest.param("kafka_4", marks=pytest.mark.apache_kafka)], indirect=True)
async def test_the_guide_leads_from_nothing_to_the_first_message(
    broker: Broker, zoho: SandboxServer, tmp_path: Path
) -> None:
    """Connect, set up, add Kafka's answer: the doctor is green, and a message that is sent then stands in Zoho."""
    topic = f"new-user-{tmp_path.name}"
    await broker.admin.create_topic(topic, config=LONG)
    await broker.admin.create_topic(f"{topic}.dlq", config=LONG)
    zoho.engine.steps.run("remove_module", {"module": "Messages"})
    client = zoho.engine.accounts.add_client(is_self=True)
    scopes = [*scope_names(load_settings(_env_file=None), with_setup=False), *SETUP_SCOPES]
    code = zoho.engine.accounts.self_client_code(client.id, scopes)
    shell = Shell(tmp_path, {})
    env_file = tmp_path / ".env"
    env_file.touch(mode=0o600)

    assert (await shell.run("doctor"))[0] == 1
    add(env_file, ZOHO_CLIENT_ID=client.id, ZOHO_CLIENT_SECRET=client.secret, ZOHO_API_DOMAIN=zoho.url)
    assert (await shell.run("auth", "--code", code))[0] == 0
    assert (await shell.run("setup"))[0] == 0
    add(env_file, **broker.environment(), KAFKA_TOPIC=topic, KAFKA_DLQ_TOPIC=f"{topic}.dlq", KAFKA_GROUP_ID=topic)
    add(env_file, ZOHO_CRM_ENABLED="true", HTTP_API_TOKEN="t", HTTP_HOST="127.0.0.1", HTTP_PORT="0")
    exit_code, out, _ = await shell.run("doctor", "--json")
    assert exit_code == 0
    assert [row["code"] for row in json.loads(out)["checks"] if row["status"] != "ok"] == []

    process = await shell.start("run")
    async with asyncio.timeout(120):
        await until_group_has_begun(shell)
        await produce(broker.client_options(), topic, [event("first")])
        await until_delivered(shell, "first")
        process.send_signal(signal.SIGTERM)
        await process.communicate()
    assert process.returncode == 0


def add(file: Path, **variables: str) -> None:
    """Append to `.env`, as with an editor."""
    with file.open("a") as out:
        out.writelines(f"{name}={value}\n" for name, value in variables.items())


async def until_group_has_begun(shell: Shell) -> None:
    """The doctor sees a member with a position."""
    codes: set[str] = set()
    while "kafka.group.ok" not in codes:
        _, out, _ = await shell.run("doctor", "--json")
        codes = {row["code"] for row in json.loads(out)["checks"]}


async def until_delivered(shell: Shell, message_id: str) -> None:
    """`explain` finds it in Zoho."""
    found = ""
    while found != "delivered":
        _, out, _ = await shell.run("explain", message_id, "--json")
        found = json.loads(out)["outcome"]
