"""The commands as people and programs run them: in processes of their own."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import pty
import signal
import stat
import sys
from pathlib import Path

import pytest
from aiokafka import AIOKafkaProducer

from consumer.operations.auth import authorization_url
from sandbox.zoho.server import SandboxServer
from tests.kafka_server.cluster import Broker
from tests.operations.conftest import Letters, environment, event
from tests.operations.test_auth import SCOPES, client_of, consented

pytestmark = pytest.mark.parametrize("broker", ["embedded_broker"], indirect=True)
ROOT = Path(__file__).parents[2]


class Shell:
    """Runs commands in a folder with an environment of its own."""

    def __init__(self, folder: Path, variables: dict[str, str]) -> None:
        self.folder = folder
        base = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
        self.variables = {**base, "PYTHONPATH": str(ROOT), "LANG": "C.UTF-8", **variables}

    async def start(
        self, *words: str, stdin: int | None = None, stderr: int | None = None
    ) -> asyncio.subprocess.Process:
        """A process that runs."""
        return await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "consumer",
            *words,
            cwd=self.folder,
            env=self.variables,
            stdin=asyncio.subprocess.DEVNULL if stdin is None else stdin,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE if stderr is None else stderr,
        )

    async def run(self, *words: str) -> tuple[int, str, str]:
        """Exit code, standard output, standard error."""
        process = await self.start(*words)
        async with asyncio.timeout(60):
            out, err = await process.communicate()
        return process.returncode or 0, out.decode(), err.decode()


@pytest.fixture
def shell(tmp_path: Path, broker: Broker, letters: Letters, zoho: SandboxServer) -> Shell:
    """Topics, group and Zoho of one's own."""
    names = {
        "KAFKA_TOPIC": letters.topic,
        "KAFKA_DLQ_TOPIC": letters.desk.topic,
        "KAFKA_GROUP_ID": letters.topic,
        "KAFKA_PRODUCER_IDEMPOTENCE": "false",
    }
    return Shell(tmp_path, environment(zoho, **names, **broker.environment()))


async def test_lists_in_a_pipe_and_for_machines(shell: Shell, letters: Letters) -> None:
    """A pipe gets one line with tabs for each group, `--json` one object."""
    await letters.write([event("a"), event("b")])
    code, out, _ = await shell.run("dlq", "list")
    assert code == 0
    assert out.splitlines()[0].split("\t")[:3] == ["zoho.INVALID_DATA", "lead", "2"]
    code, out, _ = await shell.run("dlq", "list", "--json", "--reason", "other")
    assert (code, json.loads(out)["count"]) == (0, 0)


async def test_a_filter_that_cannot_fit_is_told(shell: Shell, letters: Letters) -> None:
    """A mistyped stage is an error with the ones that there are; a filter that fits nothing is no empty topic."""
    await letters.write([event("a")])
    code, out, err = await shell.run("dlq", "list", "--stage", "leed")
    assert (code, out) == (1, "")
    assert "parse, lead, message, note" in err
    code, _, err = await shell.run("dlq", "list", "--stage", "note")
    assert (code, "fits" in err) == (0, True)


async def test_errors_are_for_machines_too(shell: Shell) -> None:
    """With `--json` what went wrong is an object on standard output, with its code and the next step."""
    for words, error in (
        (["dlq", "list", "--stage", "leed"], "dlq.bad_stage"),
        (["dlq", "show", "7"], "dlq.bad_place"),
        (["dlq", "replay", "--since", "yesterday"], "moment.bad"),
        (["explain", "a", "--since", "yesterday"], "moment.bad"),
    ):
        code, out, err = await shell.run(*words, "--json")
        told = json.loads(out)["error"]
        assert (code, told["code"], err) == (1, error, "")
        assert told["fix"]
    shell.variables["KAFKA_TOPIC"] = "no such name"
    for words in (["setup"], ["dlq", "list"], ["explain", "a"]):
        code, out, _ = await shell.run(*words, "--json")
        assert (code, json.loads(out)["error"]["code"]) == (1, "settings.bad")


async def test_a_replay_in_a_pipe_begins_without_asking(shell: Shell, letters: Letters) -> None:
    """Where nobody can be asked it does what it was told to, with `--yes` and without; its help says so."""
    await letters.write([event("a")])
    code, out, _ = await shell.run("dlq", "replay")
    assert (code, "1" in out, len(await letters.came_back())) == (0, True, 1)
    for command in (["dlq", "replay"], ["setup"]):
        assert "nobody is asked" in " ".join((await shell.run(*command, "--help"))[1].replace("│", " ").split())


async def test_shows_nothing_about_people_unless_asked(shell: Shell, letters: Letters) -> None:
    """Phone and text appear with --reveal only."""
    await letters.write([event("a")], key=b"79161234567")
    code, out, err = await shell.run("dlq", "show", "0:0")
    assert code == 0
    assert "9161234567" not in out + err
    assert "about my order" not in out + err
    _, out, _ = await shell.run("dlq", "show", "--message-id", "a", "--reveal")
    assert "+79161234567" in out
    assert "about my order" in out


async def test_a_dry_run_asks_zoho_and_changes_nothing(shell: Shell, letters: Letters, zoho: SandboxServer) -> None:
    """It tells how many leads there would be, and that what stands is not written again."""
    known = {"Name": "n", "Message_ID": "a"}
    zoho.engine.steps.run("insert", {"module": "Messages", "records": [known]})
    await letters.write([event("a"), event("b")])
    code, out, _ = await shell.run("dlq", "replay", "--dry-run", "--json")
    foreseen = json.loads(out)
    assert (code, foreseen["would_replay"]) == (0, 2)
    assert (foreseen["in_zoho"]["already_there"], foreseen["in_zoho"]["new_leads"]) == (1, 1)
    assert await letters.came_back() == []


async def test_an_interrupt_finishes_the_record_in_hand(shell: Shell, letters: Letters) -> None:
    """Ctrl-C ends the replay with 1 between two records; the next run sends the others, and no record twice."""
    values = [event(f"m{number}") for number in range(6)]
    await letters.write(values)
    process = await shell.start("dlq", "replay", "--rate", "2", "--json")
    async with asyncio.timeout(60):
        while not await letters.came_back():
            await asyncio.sleep(0.05)
        process.send_signal(signal.SIGINT)
        printed, _ = await process.communicate()
    report = json.loads(printed)
    assert (process.returncode, report["cancelled"]) == (1, True)
    assert report["replayed"] == len(await letters.came_back()) < 6
    code, out, _ = await shell.run("dlq", "replay", "--rate", "1000", "--json")
    assert (code, json.loads(out)["replayed"]) == (0, 6 - report["replayed"])
    assert [record.value for record in await letters.came_back()] == values


async def test_the_doctor_ends_with_one_when_a_check_fails(shell: Shell, zoho: SandboxServer) -> None:
    """Exit 0 when all is well or worth a warning, 1 when something failed; rows for machines carry the next step."""
    code, out, _ = await shell.run("doctor", "--json")
    assert (code, json.loads(out)["ok"]) == (0, True)
    zoho.engine.steps.run("revoke_refresh_token", {})
    code, out, _ = await shell.run("doctor", "--json", "--lang", "ru")
    [row] = [row for row in json.loads(out)["checks"] if row["status"] == "failed"]
    assert (code, row["code"]) == (1, "zoho.token.invalid_code")
    assert "zoho-sync auth" in row["fix"]
    code, out, err = await shell.run("doctor")
    assert code == 1
    assert "failed\tzoho.token\t" in out
    assert "Messages do not appear in Zoho? Because of: Zoho token." in err


async def test_the_doctor_reads_bad_settings_as_rows(shell: Shell) -> None:
    """A variable that cannot be read is a failed row, and no traceback."""
    shell.variables["ZOHO_MAX_CONCURRENCY"] = "many"
    code, out, err = await shell.run("doctor", "--json")
    assert code == 1
    assert "ZOHO_MAX_CONCURRENCY" in json.loads(out)["checks"][0]["what"]
    assert "Traceback" not in err


async def test_no_secret_is_ever_shown(shell: Shell, zoho: SandboxServer) -> None:
    """Doctor, setup and auth print neither client secret nor tokens, whether things go well or not."""
    given = zoho.credentials
    secrets = [given["client_secret"], given["refresh_token"]]
    for words in (
        ["doctor"],
        ["setup", "--dry-run"],
        ["auth", "--code", "1000.aaaaaaaaaaaaaaaaaaaa"],
        ["explain", "a"],
    ):
        _, out, err = await shell.run(*words)
        assert not any(secret in out + err for secret in secrets)


async def test_auth_writes_the_file_or_a_secret(shell: Shell, zoho: SandboxServer) -> None:
    """A self client's code becomes `.env`, readable by its owner only, or a Secret as k8s/base mounts it."""
    del shell.variables["ZOHO_REFRESH_TOKEN"]
    made = zoho.engine.accounts.add_client(is_self=True)
    shell.variables |= {"ZOHO_CLIENT_ID": made.id, "ZOHO_CLIENT_SECRET": made.secret}
    code, out, err = await shell.run("auth", "--code", zoho.engine.accounts.self_client_code(made.id))
    file = shell.folder / ".env"
    assert (code, out, stat.S_IMODE(file.stat().st_mode)) == (0, "", 0o600)
    assert "Sandbox Company" in err
    written = dict(line.split("=", 1) for line in file.read_text().splitlines())
    assert written["ZOHO_REFRESH_TOKEN"] in zoho.engine.accounts.refresh_tokens
    assert written["ZOHO_ORG_ID"] == "org808232144"
    again = zoho.engine.accounts.self_client_code(made.id)
    code, out, _ = await shell.run("auth", "--code", again, "--kubernetes", "zoho-sync")
    data = dict(line.strip().split(": ") for line in out.splitlines() if line.startswith("  zoho-"))
    assert code == 0
    assert base64.b64decode(data["zoho-client-secret"]).decode() == made.secret


@pytest.mark.parametrize(("words", "place"), [([], 0), (["--print"], 1), (["--kubernetes", "name"], 1)])
async def test_the_address_of_consent_can_be_piped_on(
    shell: Shell, zoho: SandboxServer, words: list[str], place: int
) -> None:
    """It stands alone on standard output, unless that is for the Secret; and the answer is taken from a pipe."""
    process = await shell.start("auth", *words, stdin=asyncio.subprocess.PIPE)
    streams = (process.stdout, process.stderr)
    assert process.stdin
    found, url = streams[place], ""
    async with asyncio.timeout(60):
        while found and not url.startswith(f"{zoho.url}/oauth"):
            url = (await found.readline()).decode().strip()
        out, _ = await process.communicate((await consented(url)).encode())
    assert process.returncode == 0
    assert "oauth" not in out.decode()


async def test_auth_takes_a_whole_address_as_code(shell: Shell, zoho: SandboxServer) -> None:
    """The redirect URI is that of the address, also where it is not the usual one."""
    made = zoho.engine.accounts.add_client(redirect_uris=("http://127.0.0.1:9000/back",))
    client = client_of(zoho, id=made.id, secret=made.secret, redirect_uri="http://127.0.0.1:9000/back")
    shell.variables |= {"ZOHO_CLIENT_ID": made.id, "ZOHO_CLIENT_SECRET": made.secret}
    address = await consented(authorization_url(client, SCOPES, "st"))
    code, _, err = await shell.run("auth", "--code", address)
    assert (code, "Sandbox Company" in err) == (0, True)


async def test_auth_asks_without_echo(shell: Shell, zoho: SandboxServer) -> None:
    """In a terminal it asks for what is missing, and what is typed as the secret does not appear."""
    for name in ("ZOHO_CLIENT_ID", "ZOHO_CLIENT_SECRET", "ZOHO_REFRESH_TOKEN"):
        del shell.variables[name]
    given = zoho.credentials
    screen = Screen()
    process = await shell.start("auth", stdin=screen.slave, stderr=screen.slave)
    await screen.answer("Client ID", given["client_id"])
    await screen.answer("Client Secret", given["client_secret"])
    await screen.answer("Redirect URI", "")
    await screen.until("Paste the whole address")
    url = next(word for word in screen.text.split() if word.startswith(f"{zoho.url}/oauth"))
    await screen.answer("Paste", await consented(url))
    async with asyncio.timeout(60):
        await process.communicate()
    screen.close()
    assert process.returncode == 0
    assert given["client_secret"] not in screen.text
    assert f"ZOHO_CLIENT_SECRET={given['client_secret']}" in (shell.folder / ".env").read_text()


class Screen:
    """A terminal that a test types into."""

    def __init__(self) -> None:
        self._master, self.slave = pty.openpty()
        os.set_blocking(self._master, False)
        self.text = ""

    async def until(self, words: str) -> None:
        """Wait until these words have been printed."""
        async with asyncio.timeout(60):
            while words not in self.text:
                await asyncio.sleep(0.02)
                try:
                    self.text += os.read(self._master, 65536).decode()
                except BlockingIOError:
                    continue

    async def answer(self, question: str, text: str) -> None:
        """Wait for the question, then type."""
        await self.until(question)
        await asyncio.sleep(0)
        os.write(self._master, f"{text}\n".encode())

    def close(self) -> None:
        """Hang up."""
        os.close(self._master)
        os.close(self.slave)


async def test_two_replays_of_one_record_write_nothing_twice(
    shell: Shell, letters: Letters, zoho: SandboxServer
) -> None:
    """The service, given the same dead letter twice, has one lead, one message and one note in Zoho."""
    shell.variables |= {"SYNC_MESSAGES_SINCE": "2026-01-01T00:00:00Z", "HTTP_HOST": "127.0.0.1", "HTTP_PORT": "0"}
    await letters.write([event("once")])
    for words in (["--rate", "1000"], ["--rate", "1000", "--again"]):
        assert (await shell.run("dlq", "replay", *words))[0] == 0
    assert len(await letters.came_back()) == 2
    async with AIOKafkaProducer(**letters.desk.connection.options()) as producer:
        await producer.send_and_wait(letters.topic, event("last"), key=b"k", partition=0)
    process = await shell.start("run")
    async with asyncio.timeout(60):
        while len(zoho.engine.steps.run("dump", {"module": "Messages"})) < 2:
            await asyncio.sleep(0.1)
        process.send_signal(signal.SIGTERM)
        await process.communicate()
    assert process.returncode == 0
    assert len(zoho.engine.steps.run("dump", {"module": "Leads"})) == 1
    assert len(zoho.engine.steps.run("dump", {"module": "Notes"})) == 1
    assert zoho.engine.violations() == []
