"""The service from outside: what comes in, what stands in the end, and what its operator sees meanwhile."""

from __future__ import annotations

import asyncio
import json
import os
import socket
from pathlib import Path

from sandbox.zoho import Answer, Fault, Match
from tests.e2e.stage import CANARY, Service, Stage, check_silent, conversation, free_port, headers, message, soon
from tests.kafka_server.cluster import Broker
from tests.kafka_server.fixtures import NewKafkaServer

# How long the broker is gone: longer than any session and request on a build machine, shorter on a laptop.
_OUTAGE_S = float(os.environ.get("TEST_OUTAGE_S", "60" if os.environ.get("CI") else "10"))


async def test_messages_come_into_the_crm(broker: Broker, tmp_path: Path) -> None:
    """Leads, messages and notes stand, offsets are committed behind them, what is no message is dead-lettered with
    its bytes intact, and the log tells nothing of customers or secrets."""
    async with Stage(broker, tmp_path) as stage:
        service = await stage.start()
        await stage.say(conversation(40, people=6))
        await stage.say([message(1000, person=3)])
        await stage.say([message(1000, person=3)])
        await stage.produce(json.dumps(message(2000, phone=None)).encode(), key=b"\x00k")
        await stage.produce(f'{{"message_id": "{CANARY}", '.encode(), key=b"\x00k", headers=[("trace", b"\xfe")])
        await service.ready()
        await stage.drained()
        stage.check_all_once()
        await _check_probes(service)
        assert await service.terminate() == 0
        (letter,) = await stage.dead_letters()
        assert (letter.key, letter.value) == (b"\x00k", f'{{"message_id": "{CANARY}", '.encode())
        assert ("trace", b"\xfe") in letter.headers
        reasons = {name: value for name, value in letter.headers if name in ("dlq.reason", "dlq.stage", "dlq.replays")}
        assert reasons == {"dlq.reason": b"invalid_json", "dlq.stage": b"parse", "dlq.replays": b"0"}
        check_silent(service.log_text(), secrets=_secrets(stage))


def _secrets(stage: Stage) -> dict[str, str]:
    credentials = stage.zoho.credentials
    tokens = {grant.text: grant.text for grant in stage.zoho.engine.accounts.tokens_issued}
    return {"secret": credentials["client_secret"], "refresh": credentials["refresh_token"], **tokens}


async def _check_probes(service: Service) -> None:
    assert (await service.get("/livez"))[0] == 200
    assert (await service.readiness())[0] == 200
    metrics = await service.metrics()
    assert metrics["zoho_sync_messages_delivered_total"] == 41
    assert metrics["zoho_sync_dead_letters_total"] == 1
    assert metrics["zoho_sync_partition_lag_records"] == 0


async def test_what_stands_says_what_was_said(stage: Stage) -> None:
    """A lead, a message and a note hold what the event said, the number in one form, and the link to the dialog."""
    service = await stage.start(ZOHO_ORG_ID="org1", ZOHO_LEAD_SOURCE="WhatsApp")
    await stage.say([message(1, person=5, phone="+1 (415) 555-1005", agent={"id": "7", "name": "Olga", "email": None})])
    stage.sent.messages["m-00001"]["phone"] = "+14155551005"
    await service.ready()
    await stage.drained()
    stage.check_all_once()
    (lead,), (row,), (note,) = (stage.dump(module) for module in ("Leads", "Messages", "Notes"))
    assert (lead["Last_Name"], lead["Phone"], lead["Lead_Source"]) == ("Person 5", "+14155551005", "WhatsApp")
    said = {"Direction": "inbound", "Origin": "chat", "Channel": "whatsapp", "Body": f"{CANARY} 1", "Agent": "Olga"}
    assert {name: str(row[name]).lower() for name in said} == {name: text.lower() for name, text in said.items()}
    assert row["Lead"]["id"] == lead["id"]
    assert row["Dialog_ID"] == "dialog-5"
    assert "https://crm.zoho.com/crm/org1/tab/Messages?phone=%2B14155551005" in note["Note_Content"]


async def test_it_waits_for_zoho(stage: Stage) -> None:
    """Started while Zoho is away it says that it cannot work, loses nothing, and goes on when Zoho is back."""
    await stage.zoho.stop()
    service = await stage.start()
    await stage.say(conversation(10, people=3))
    status, body = await service.readiness()
    assert status == 503
    assert any(not check["ok"] for check in body["checks"])
    await soon(lambda: bool(service.logged("kafka.partitions_assigned")))
    assert (await service.get("/livez"))[0] == 200
    await stage.zoho.start()
    await service.ready()
    await stage.drained()
    stage.check_all_once()
    assert await stage.dead_letters() == []


async def test_a_new_secret_file_ends_a_revocation(stage: Stage, tmp_path: Path) -> None:
    """With its token revoked it halts and says so; a new token in the file is found, and nothing was lost."""
    secret = tmp_path / "refresh_token"
    secret.write_text(stage.zoho.credentials["refresh_token"])
    service = await stage.start(ZOHO_REFRESH_TOKEN=None, ZOHO_REFRESH_TOKEN_FILE=str(secret))
    await stage.say(conversation(5, people=2))
    await service.ready()
    await stage.drained()
    stage.step("revoke_refresh_token")
    stage.step("expire_access_tokens")
    await stage.say(conversation(5, people=3, first=100))
    body = await service.until_state("halted")
    assert any(check["name"].startswith("halted.") and not check["ok"] for check in body["checks"])
    assert (await service.get("/livez"))[0] == 200
    secret.write_text(stage.zoho.engine.accounts.issue_refresh_token(stage.zoho.credentials["client_id"]))
    await service.ready()
    await stage.drained()
    stage.check_all_once()
    assert await stage.dead_letters() == []
    check_silent(service.log_text(), secrets=_secrets(stage))


async def test_an_outage_is_told_and_ends(stage: Stage) -> None:
    """While every call fails it is unready and says why; once Zoho is well it is ready again, and nothing was lost."""
    service = await stage.start()
    await service.ready()
    plan = stage.zoho.engine.faults.add(
        Fault(action=Answer(status=502, body="<html>"), match=Match(path="/crm/"), times=None)
    )
    await stage.say(conversation(8, people=3))
    body = await service.until_state("halted")
    assert any(check["name"] == "halted.NO_GOOD_ANSWER" and "HTTP_502" in check["reason"] for check in body["checks"])
    assert (await service.metrics())["zoho_sync_halted"] >= 1
    stage.zoho.engine.faults.clear()
    await service.ready()
    await stage.drained()
    assert plan.fired > 1
    stage.check_all_once()
    assert await stage.dead_letters() == []


async def test_a_used_up_budget_waits(stage: Stage) -> None:
    """At the daily limit it stops calling, says that it is throttled, dead-letters nothing, and ends when told to."""
    service = await stage.start(ZOHO_DAILY_CREDITS="12", DRAIN_TIMEOUT_S="2")
    await stage.say(conversation(60, people=40))
    body = await service.until_state("throttled")
    assert "credit" in body["sentence"]
    assert (await service.get("/livez"))[0] == 200
    used = stage.zoho.engine.gate.credits.used(stage.zoho.engine.now())
    assert used <= 12 + 3
    assert await service.terminate() == 0
    assert await stage.dead_letters() == []
    await stage.check_settled()


async def test_switched_off_it_idles(stage: Stage) -> None:
    """Switched off, all probes answer 200, it joins no group, commits nothing, and ends with 0."""
    await stage.say(conversation(3, people=1))
    service = await stage.start(ZOHO_CRM_ENABLED=None, ZOHO_CLIENT_ID=None, KAFKA_BOOTSTRAP_SERVERS=None)
    assert [(await service.get(path))[0] for path in ("/livez", "/readyz", "/metrics")] == [200, 200, 200]
    assert await service.terminate() == 0
    assert await stage.committed() == {}
    assert stage.dump("Messages") == []


async def test_bad_settings_are_named(stage: Stage) -> None:
    """Each bad variable is one line, with an example; there is no traceback and no value, and the exit code is 2."""
    service = await stage.start(
        ZOHO_CLIENT_SECRET=None, HTTP_PORT="high", SYNC_DEFAULT_REGION="Russia", KAFKA_SECURITY_PROTOCOL="sasl_ssl"
    )
    assert await service.ended() == 2
    lines = service.log_text().splitlines()
    names = {line.split(":")[0] for line in lines}
    assert names >= {"ZOHO_CLIENT_SECRET", "HTTP_PORT", "SYNC_DEFAULT_REGION", "KAFKA_SASL_MECHANISM"}
    assert len(names) == len(lines)
    assert "Traceback" not in service.log_text()


async def test_a_taken_port_is_named(stage: Stage) -> None:
    """When its HTTP port is in use it says so in one line and ends with 2."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        service = await stage.start(HTTP_PORT=str(other.getsockname()[1]))
        assert await service.ended() == 2
    (line,) = service.log_text().splitlines()
    assert line.startswith("HTTP_PORT: ")
    assert "(example: HTTP_PORT=0" in line


async def test_an_address_of_another_machine_is_named(stage: Stage) -> None:
    """What cannot be listened on is told by the host, where that is at fault."""
    service = await stage.start(HTTP_HOST="203.0.113.1")
    assert await service.ended() == 2
    (line,) = service.log_text().splitlines()
    assert line.startswith("HTTP_HOST: ")


async def test_it_can_be_stopped_without_a_broker(stage: Stage) -> None:
    """Without a broker it is live and not ready, and SIGTERM ends it with 0."""
    service = await stage.start(KAFKA_BOOTSTRAP_SERVERS=f"127.0.0.1:{free_port()}")
    assert (await service.get("/livez"))[0] == 200
    assert (await service.readiness())[0] == 503
    await service.until(lambda: bool(service.logged("kafka.call_failed")))
    assert await service.terminate() == 0


async def test_a_replay_writes_nothing_twice(stage: Stage) -> None:
    """A message that Zoho refused is dead-lettered; sent again, by hand and twice, it is written once."""
    stage.step("set_field", module="Messages", api_name="Shelf", mandatory=True)
    service = await stage.start()
    await stage.say([message(1)])
    await service.ready()
    await stage.drained()
    (letter,) = await stage.dead_letters()
    assert headers(letter)["dlq.stage"] == "message"
    assert headers(letter)["dlq.reason"].startswith("zoho.")
    stage.step("remove_field", module="Messages", api_name="Shelf")
    for replays in (b"1", b"2"):
        again = [(name, value) for name, value in letter.headers if name != "dlq.replays"]
        await stage.produce(letter.value, key=letter.key, headers=[*again, ("dlq.replays", replays)])
    await stage.drained()
    await asyncio.sleep(0)
    stage.check_all_once()
    assert len(await stage.dead_letters()) == 1


async def test_it_waits_for_its_broker(kafka_server: NewKafkaServer, tmp_path: Path) -> None:
    """While its broker is gone it is live and not ready, and its pages answer; once it is back it goes on by itself."""
    async with kafka_server() as server, Stage(server, tmp_path) as stage:
        await stage.say(conversation(10, people=3))
        service = await stage.start(KAFKA_PRODUCER_IDEMPOTENCE="true")
        await service.ready()
        await stage.drained()
        await server.kill()
        gone_at = asyncio.get_running_loop().time()
        await service.until_state("starting")
        while asyncio.get_running_loop().time() < gone_at + _OUTAGE_S:
            assert (await service.get("/livez"))[0] == 200
            assert (await service.readiness())[0] == 503
            assert (await service.get("/metrics"))[0] == 200
            await asyncio.sleep(1)
        await server.start()
        await stage.say(conversation(10, people=5, first=100))
        await stage.drained()
        await service.ready()
        stage.check_all_once()
        assert await service.terminate() == 0
