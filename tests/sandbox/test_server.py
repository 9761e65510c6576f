"""The engine behind real sockets, and the command line."""

from __future__ import annotations

import asyncio
import io
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest
from yarl import URL

from sandbox.__main__ import main
from sandbox.zoho import Drop, DropKind, Fault, SandboxConfig
from sandbox.zoho.server import SandboxServer

ROOT = Path(__file__).parents[2]
QUIET = SandboxConfig(latency_median_s=0.0, search_lag_s=(0.0, 0.0))


class Client:
    """A client of a served sandbox."""

    def __init__(self, server: SandboxServer, session: aiohttp.ClientSession) -> None:
        self.server = server
        self.session = session
        token = server.engine.accounts.issue_access_token()
        self.headers = {"Authorization": f"Zoho-oauthtoken {token}"}

    async def call(self, method: str, path: str, **more: Any) -> tuple[int, Any]:
        url = f"{self.server.url}/crm/v8/{path}"
        async with self.session.request(method, url, headers=self.headers, **more) as answer:
            body = await answer.read()
            return answer.status, orjson.loads(body) if body else None


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    async with SandboxServer(QUIET) as server, aiohttp.ClientSession() as session:
        yield Client(server, session)


async def test_a_client_gets_a_token_and_writes_a_lead(client: Client) -> None:
    """With the announced credentials a client gets a token for this very address, and the token works."""
    facts = client.server.credentials
    form = {"grant_type": "refresh_token", **{name: facts[name] for name in facts if name != "url"}}
    async with client.session.post(f"{facts['url']}/oauth/v2/token", data=form) as answer:
        token = await answer.json()
    assert token["api_domain"] == facts["url"]
    headers = {"Authorization": f"Zoho-oauthtoken {token['access_token']}"}
    rows = {"data": [{"Last_Name": "A"}]}
    async with client.session.post(f"{facts['url']}/crm/v8/Leads", headers=headers, json=rows) as answer:
        assert answer.status == 201
        assert answer.headers["Content-Type"] == "application/json;charset=UTF-8"


async def test_query_strings_reach_the_engine_as_sent(client: Client) -> None:
    """An encoded plus is a plus, a raw one is not."""
    await client.call("POST", "Leads", json={"data": [{"Last_Name": "A", "Phone": "+14155550100"}]})
    url = URL(f"{client.server.url}/crm/v8/Leads/search?phone=%2B14155550100", encoded=True)
    assert (await client.call("GET", "Leads/search", params={"phone": "+14155550100"}))[0] == 200
    async with client.session.get(url, headers=client.headers) as answer:
        assert answer.status == 200
    raw = URL(f"{client.server.url}/crm/v8/Leads/search?phone=+14155550100", encoded=True)
    async with client.session.get(raw, headers=client.headers) as answer:
        assert answer.status == 400


async def test_nothing_found_has_no_body(client: Client) -> None:
    """A 204 comes over the wire without a body."""
    assert await client.call("GET", "Leads", params={"fields": "Last_Name"}) == (204, None)


async def test_large_batches_pass(client: Client) -> None:
    """A hundred notes of 60,000 characters are one request."""
    _, made = await client.call("POST", "Leads", json={"data": [{"Last_Name": "A"}]})
    parent = {"module": {"api_name": "Leads"}, "id": made["data"][0]["details"]["id"]}
    rows = [{"Note_Content": "x" * 60_000, "Parent_Id": parent}] * 100
    body = io.BytesIO(orjson.dumps({"data": rows}))
    headers = client.headers | {"Content-Type": "application/json"}
    async with client.session.post(f"{client.server.url}/crm/v8/Notes", headers=headers, data=body) as answer:
        assert answer.status == 201


async def test_latency_is_real_and_calls_overlap() -> None:
    """Calls take their time, and are in flight together while they do."""
    config = SandboxConfig(latency_median_s=0.05)
    async with SandboxServer(config) as server, aiohttp.ClientSession() as session:
        client = Client(server, session)
        await asyncio.gather(*(client.call("GET", "org") for _ in range(5)))
        assert server.engine.journal.peak_in_flight == 5


@pytest.mark.parametrize(
    ("how", "raised"),
    [
        (DropKind.RESET, aiohttp.ClientOSError),
        (DropKind.CUT, aiohttp.ClientPayloadError),
        (DropKind.HANG, TimeoutError),
    ],
)
async def test_connections_really_break(client: Client, how: DropKind, raised: type[Exception]) -> None:
    """A client sees a reset, a short body, or silence; the lead is stored, and the next call works."""
    fault = client.server.engine.faults.add(Fault(action=Drop(how=how)))
    with pytest.raises(raised):
        async with asyncio.timeout(1):
            await client.call("POST", "Leads", json={"data": [{"Last_Name": "A"}]})
    assert fault.fired == 1
    assert len(client.server.engine.steps.dump("Leads")) == 1
    assert (await client.call("GET", "org"))[0] == 200


async def test_a_call_whose_client_is_gone_still_ends() -> None:
    """When the client gives up, the call runs on: its slot comes back and its effect stays."""
    config = SandboxConfig(latency_median_s=0.2, effect_at="finish")
    async with SandboxServer(config) as server, aiohttp.ClientSession() as session:
        client = Client(server, session)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await client.call("POST", "Leads", json={"data": [{"Last_Name": "A"}]})
        while server.engine.gate.concurrency.in_flight:
            await asyncio.sleep(0.01)
        assert len(server.engine.steps.dump("Leads")) == 1


async def test_control_api_is_served_beside_the_api(client: Client) -> None:
    """The same port answers a test in another process."""
    url = client.server.url
    plan = {"action": {"kind": "answer", "status": 503}, "match": {"operation": "org"}}
    async with client.session.post(f"{url}/_sandbox/faults", json=plan) as answer:
        assert answer.status == 200
    assert (await client.call("GET", "org"))[0] == 503
    async with client.session.get(f"{url}/_sandbox/state") as answer:
        assert (await answer.json())["operations"]["org"]["statuses"] == {"503": 1}
    async with client.session.get(f"{url}/_sandbox/nothing") as answer:
        assert answer.status == 404


async def test_a_taken_port_is_an_error() -> None:
    """Two sandboxes cannot share a port."""
    async with SandboxServer(QUIET) as server:
        port = int(server.url.rpartition(":")[2])
        with pytest.raises(OSError, match="address already in use"):
            await SandboxServer(QUIET, port=port).start()


# The command line


async def start(*args: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "sandbox", *args),
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


async def first_line(process: asyncio.subprocess.Process) -> Any:
    assert process.stdout is not None
    return orjson.loads(await process.stdout.readline())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_command_announces_itself_and_ends_on_a_signal(number: signal.Signals) -> None:
    """The first line says where it is and what opens it; a signal ends it with 0 and nothing more said."""
    process = await start("zoho", "--latency-median-s", "0")
    facts = await first_line(process)
    assert facts.keys() == {"url", "client_id", "client_secret", "refresh_token"}
    async with aiohttp.ClientSession() as session, session.get(f"{facts['url']}/crm/v8/org") as answer:
        assert answer.status == 401
    process.send_signal(number)
    assert await process.communicate() == (b"", b"")
    assert process.returncode == 0


async def test_command_ends_although_a_call_hangs() -> None:
    """A client that hangs does not keep it alive."""
    process = await start("zoho", "--latency-median-s", "0")
    url = (await first_line(process))["url"]
    async with aiohttp.ClientSession() as session:
        plan = {"action": {"kind": "drop", "how": "hang"}}
        await session.post(f"{url}/_sandbox/faults", json=plan)
        hanging = asyncio.create_task(session.get(f"{url}/crm/v8/org"))
        while (await (await session.get(f"{url}/_sandbox/faults")).json())[0]["fired"] == 0:
            await asyncio.sleep(0.01)
        process.terminate()
        await process.communicate()
        with pytest.raises(aiohttp.ClientError):
            await hanging
    assert process.returncode == 0


async def test_same_seed_same_credentials() -> None:
    """The seed decides the credentials."""
    facts = []
    for seed in ("1", "1", "2"):
        process = await start("zoho", "--seed", seed)
        facts.append((await first_line(process))["client_id"])
        process.terminate()
        await process.communicate()
    assert facts[0] == facts[1] != facts[2]


async def test_options_reach_the_organisation() -> None:
    """Limits, lags and the public address can be given on the command line."""
    options = "--daily-credits 1 --index-lag 5 --coql-lag 1:2 --concurrency 3 --url http://zoho.test:9"
    process = await start("zoho", "--latency-median-s", "0", "--port", "0", *options.split())
    facts = await first_line(process)
    process.terminate()
    await process.communicate()
    assert facts["url"] == "http://zoho.test:9"


@pytest.mark.parametrize(
    ("args", "named"),
    [
        ([], "command"),
        (["mail"], "mail"),
        (["zoho", "--port", "99999"], "--port"),
        (["zoho", "--port", "x"], "--port"),
        (["zoho", "--latency-median-s", "-1"], "--latency-median-s"),
        (["zoho", "--latency-median-s", "nan"], "--latency-median-s"),
        (["zoho", "--index-lag", "9:3"], "--index-lag"),
        (["zoho", "--edition", "gold"], "--edition"),
        (["zoho", "--users", "0"], "--users"),
        (["broker", "--seed", "1"], "--seed"),
    ],
)
def test_wrong_arguments_end_with_2_and_a_reason(
    args: list[str], named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A mistake on the command line is named."""
    with pytest.raises(SystemExit) as ended:
        main(args)
    assert ended.value.code == 2
    assert named in capsys.readouterr().err


async def test_a_taken_port_ends_the_command_with_1() -> None:
    """When the port is taken the command says so."""
    async with SandboxServer(QUIET) as server:
        port = server.url.rpartition(":")[2]
        process = await start("zoho", "--port", port)
        _, said = await process.communicate()
    assert process.returncode == 1
    assert b"in use" in said


def is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


async def test_broker_command_ends_its_broker_even_when_killed() -> None:
    """However the command ends, no broker stays behind."""
    process = await start("broker")
    servers = (await first_line(process))["bootstrap_servers"]
    port = servers.rpartition(":")[2]
    pid = broker_on(port)
    process.kill()
    await process.communicate()
    while is_running(pid):
        await asyncio.sleep(0.01)


def broker_on(port: str) -> int:
    (found,) = [each for each in Path("/proc").iterdir() if each.name.isdigit() and listens(each, port)]
    return int(found.name)


def listens(process: Path, port: str) -> bool:
    try:
        command = (process / "cmdline").read_bytes()
    except OSError:
        return False
    return b"tansu" in command and f"127.0.0.1:{port}".encode() in command


async def test_broker_command_announces_itself_and_ends_on_sigterm() -> None:
    """The first line names the address; SIGTERM ends it with 0."""
    process = await start("broker")
    assert (await first_line(process)).keys() == {"bootstrap_servers"}
    process.terminate()
    _, said = await process.communicate()
    assert (process.returncode, said) == (0, b"")
