"""Build the image without a Docker engine, on a stand-in base, and run it as a cluster would.

buildah builds the Dockerfile on a Debian that mmdebstrap makes; bubblewrap runs the result with a read-only root, as
the image's user, without capabilities, as process 1, against the embedded broker and the Zoho stand-in: one message
must arrive in Zoho, and SIGTERM must end it with 0.  A stand-in proves the recipe, not the vendor's base image.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

ROOT = Path(__file__).resolve().parent.parent
CACHE = ROOT / ".cache" / "image"
NEEDED = ("buildah", "mmdebstrap", "bwrap")
SUITE = "trixie"
BASE = "localhost/python-stand-in"
IMAGE = "localhost/zoho-sync"
TOPICS = ("messaging.messages.v1", "messaging.messages.v1.dlq")
UNWANTED = ("gcc", "cc", "c++", "make", "uv", "hatchling", "pytest")
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
TIMEOUT_S = 60.0


class Failed(Exception):
    """A check did not hold; the text says which."""


def main() -> int:
    """Build and check; 0 when all held, or when a tool is missing outside CI."""
    missing = [name for name in NEEDED if shutil.which(name) is None]
    if missing or os.geteuid() != 0:
        why = f"needs {', '.join(missing)} (Debian packages)" if missing else "needs root, to make a root file system"
        print(f"image: not checked, for it {why}")
        return 1 if os.environ.get("CI") else 0
    with tempfile.TemporaryDirectory(prefix="zoho-sync-image-", ignore_cleanup_errors=True) as stores:
        try:
            _check(Buildah(Path(stores)))
        except (Failed, subprocess.CalledProcessError) as error:
            print(f"image: {error}")
            return 1
    return 0


def _check(buildah: Buildah) -> None:
    _make_base(buildah)
    _build(buildah, "service", IMAGE)
    _build(buildah, "sbom", f"{IMAGE}-sbom")
    with _mounted(buildah, IMAGE) as (root, config), _mounted(buildah, f"{IMAGE}-sbom") as (sbom_root, _):
        _check_parts(sbom_root / "sbom.cdx.json")
        _check_contents(root, config)
        _check_confinement(root, config)
        asyncio.run(_check_service(root, config))


# --- build ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Buildah:
    """buildah with stores of its own, gone with their folder."""

    stores: Path

    def __call__(self, *args: str) -> str:
        """Run a command; returns what it printed.  Raises Failed."""
        places = ("--root", str(self.stores / "storage"), "--runroot", str(self.stores / "run"))
        command = ("buildah", *places, "--storage-driver", "vfs", *args)
        env = os.environ | {"BUILDAH_ISOLATION": "chroot"}
        done = subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True, check=False)
        if done.returncode:
            raise Failed(f"buildah {args[0]} failed:\n{done.stdout[-3000:]}{done.stderr[-3000:]}")
        return done.stdout.strip()


def _make_base(buildah: Buildah) -> None:
    CACHE.mkdir(parents=True, exist_ok=True)
    archive = CACHE / f"{SUITE}.tar"
    if not archive.exists():
        print(f"image: making a stand-in base of Debian {SUITE}")
        include = "--include=python3,python3-pip,python3-venv,ca-certificates"
        unfinished = archive.with_suffix(".part.tar")
        command = ("mmdebstrap", "--quiet", "--variant=minbase", include, SUITE, str(unfinished))
        subprocess.run(command, check=True, timeout=600)
        unfinished.rename(archive)
    container = buildah("from", "scratch")
    buildah("add", container, str(archive))
    buildah("commit", "--rm", container, BASE)


def _build(buildah: Buildah, target: str, name: str) -> None:
    print(f"image: building {target}")
    certificates = ("--volume", f"{CERTIFICATES}:{CERTIFICATES}:ro") if CERTIFICATES.exists() else ()
    base = ("--build-arg", f"PYTHON_IMAGE={BASE}", "--pull-never", "--network", "host")
    buildah("bud", "--format", "docker", *base, *certificates, "--target", target, "--tag", name, ".")


@contextlib.contextmanager
def _mounted(buildah: Buildah, name: str) -> Iterator[tuple[Path, dict[str, Any]]]:
    container = buildah("from", "--pull-never", name)
    try:
        inspected = json.loads(buildah("inspect", "--type", "image", name))
        yield Path(buildah("mount", container)), inspected["Docker"]["config"]
    finally:
        buildah("rm", container)


# --- what is in it --------------------------------------------------------------------------------------


def _expect(name: str, is_so: object) -> None:
    if not is_so:
        raise Failed(f"failed: {name}")
    print(f"image: ok: {name}")


def _check_parts(path: Path) -> None:
    parts = json.loads(path.read_text("utf-8"))
    listed = {re.sub(r"[-_.]+", "-", part["name"]).lower() for part in parts["components"]}
    locked = (ROOT / "requirements" / "run.txt").read_text("utf-8")
    needed = {name for name, marker in re.findall(r"^([a-z0-9-]+)==\S+ (;.*)?", locked, re.MULTILINE) if not marker}
    _expect(f"the list of parts names all {len(needed)} locked packages", needed <= listed)


def _check_contents(root: Path, config: dict[str, Any]) -> None:
    places = [root / place for place in ("usr/bin", "usr/local/bin", "opt/zoho-sync/bin", "bin", "sbin")]
    found = [name for name in UNWANTED if any((place / name).exists() for place in places)]
    _expect(f"no compiler, no build or test tool (found: {found})", not found)
    ours = next((root / "opt/zoho-sync/lib").glob("python3*/site-packages"))
    stray = [name for name in ("sandbox", "tests", "_pytest", "schemas/samples", "pip") if (ours / name).exists()]
    _expect(f"no test code beside the service (found: {stray})", not stray)
    user = config["User"].partition(":")[0]
    _expect("a numeric user of 10000 or more", user.isdigit() and int(user) >= 10_000)
    _expect("an entry point in exec form", config["Entrypoint"] == ["zoho-sync"] and config["Cmd"] == ["run"])


# --- how it runs ----------------------------------------------------------------------------------------


def _confined(root: Path, config: dict[str, Any], env: dict[str, str], *extra: str) -> list[str]:
    user, _, group = config["User"].partition(":")
    variables = dict(item.split("=", 1) for item in config["Env"]) | env
    return [
        *("bwrap", "--ro-bind", str(root), "/", "--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp"),
        *("--unshare-all", "--share-net", "--uid", user, "--gid", group, "--cap-drop", "ALL"),
        *("--die-with-parent", "--new-session", "--clearenv", "--chdir", config["WorkingDir"]),
        *(word for name, value in variables.items() for word in ("--setenv", name, value)),
        *extra,
    ]


def _check_confinement(root: Path, config: dict[str, Any]) -> None:
    probe = """
import os, pathlib
status = dict(line.split(":\\t", 1) for line in pathlib.Path("/proc/self/status").read_text().splitlines())
try:
    pathlib.Path("/opt/zoho-sync/probe").touch()
except OSError as error:
    print(os.getuid(), status["CapEff"].strip(), status["NoNewPrivs"].strip(), error.errno)
"""
    command = [*_confined(root, config, {}), "/opt/zoho-sync/bin/python", "-c", probe]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30)
    uid, capabilities, no_new_privileges, errno = done.stdout.split()
    _expect("it runs as the image's user", uid == config["User"].partition(":")[0])
    _expect("without capabilities or new privileges", int(capabilities, 16) == 0 and no_new_privileges == "1")
    _expect("on a read-only root", errno == "30")


async def _check_service(root: Path, config: dict[str, Any]) -> None:
    async with _sandbox("broker") as broker, _sandbox("zoho", "--latency-median-s", "0.02") as zoho:
        servers = broker["bootstrap_servers"]
        await _create_topics(servers)
        url = f"http://127.0.0.1:{_free_port()}"
        async with _service(root, config, _environment(servers, zoho, url)) as (run, pid):
            await _until(f"{url}/readyz", '"ready": true')
            print("image: ok: it is ready")
            await _check_healthcheck(root, config, url)
            await _produce(servers)
            await _until(f"{url}/metrics", "zoho_sync_messages_delivered_total 1.0")
            _expect("one message stands in Zoho", len(await _get_json(f"{zoho['url']}/_sandbox/dump/Messages")) == 1)
            (CACHE / "metrics.txt").write_text(await _get(f"{url}/metrics"), "utf-8")
            os.kill(pid, signal.SIGTERM)
            _expect("SIGTERM ends process 1 with 0", await asyncio.wait_for(run.wait(), TIMEOUT_S) == 0)
            told = (CACHE / "service.log").read_text("utf-8")
            _expect("it traces where a variable asks for it", '{"name": "batch note"' in told)


def _environment(servers: str, zoho: dict[str, str], url: str) -> dict[str, str]:
    return {
        "ZOHO_CRM_ENABLED": "true",
        "ZOHO_CLIENT_ID": zoho["client_id"],
        "ZOHO_CLIENT_SECRET": zoho["client_secret"],
        "ZOHO_REFRESH_TOKEN": zoho["refresh_token"],
        "ZOHO_API_DOMAIN": zoho["url"],
        "KAFKA_BOOTSTRAP_SERVERS": servers,
        "KAFKA_PRODUCER_IDEMPOTENCE": "false",
        "SYNC_MESSAGES_SINCE": "2026-01-01T00:00:00+00:00",
        "OTEL_TRACES_EXPORTER": "console",
        "HTTP_HOST": "127.0.0.1",
        "HTTP_PORT": url.rpartition(":")[2],
    }


@contextlib.asynccontextmanager
async def _service(
    root: Path, config: dict[str, Any], env: dict[str, str]
) -> AsyncIterator[tuple[asyncio.subprocess.Process, int]]:
    reading, writing = os.pipe()
    confined = _confined(root, config, env, "--as-pid-1", "--info-fd", str(writing))
    program = ["/opt/zoho-sync/bin/zoho-sync", *config["Cmd"]]
    with (CACHE / "service.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(*confined, *program, stdout=log, stderr=log, pass_fds=(writing,))
    os.close(writing)
    try:
        yield process, await asyncio.to_thread(_child_pid, reading)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def _child_pid(reading: int) -> int:
    with os.fdopen(reading) as info:
        return int(json.load(info)["child-pid"])


async def _check_healthcheck(root: Path, config: dict[str, Any], url: str) -> None:
    kind, *command = config["Healthcheck"]["Test"]
    command[0] = f"/opt/zoho-sync/bin/{command[0]}"
    confined = _confined(root, config, {"HTTP_PORT": url.rpartition(":")[2]})
    check = await asyncio.create_subprocess_exec(*confined, *command, stderr=asyncio.subprocess.DEVNULL)
    _expect("its HEALTHCHECK passes while it is alive", kind == "CMD" and await check.wait() == 0)


@contextlib.asynccontextmanager
async def _sandbox(*args: str) -> AsyncIterator[dict[str, str]]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "sandbox", *args, cwd=ROOT, stdout=asyncio.subprocess.PIPE
    )
    try:
        if process.stdout is None or not (line := await asyncio.wait_for(process.stdout.readline(), 30)):
            raise Failed(f"`python -m sandbox {args[0]}` did not start")
        yield json.loads(line)
    finally:
        process.terminate()
        await process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def _create_topics(servers: str) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=servers)
    await admin.start()
    try:
        await admin.create_topics([NewTopic(name, 1, 1) for name in TOPICS])
    finally:
        await admin.close()


async def _produce(servers: str) -> None:
    event = (ROOT / "schemas" / "samples" / "valid" / "inbound_webhook.json").read_bytes()
    producer = AIOKafkaProducer(bootstrap_servers=servers, enable_idempotence=False)
    await producer.start()
    try:
        await producer.send_and_wait(TOPICS[0], event)
    finally:
        await producer.stop()


async def _get(url: str) -> str:
    async with aiohttp.ClientSession() as session, session.get(url) as response:
        return await response.text()


async def _get_json(url: str) -> Any:
    return json.loads(await _get(url))


async def _until(url: str, text: str) -> None:
    found = ""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(TIMEOUT_S):
            while text not in found:
                await asyncio.sleep(0.2)
                with contextlib.suppress(aiohttp.ClientError):
                    found = await _get(url)
    if text not in found:
        log = (CACHE / "service.log").read_text("utf-8", "replace")[-2000:]
        raise Failed(f"{url} never said {text!r}; it says: {found[:500]}\n{log}")


if __name__ == "__main__":
    sys.exit(main())
