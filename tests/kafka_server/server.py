"""A cluster of Apache Kafka on the loopback interface, made for one purpose and gone afterwards."""

from __future__ import annotations

import asyncio
import base64
import os
import secrets
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Self

from aiokafka.helpers import create_ssl_context

from tests.kafka_server.admin import DEADLINE_S, POLL_S, Admin
from tests.kafka_server.certificates import Authority
from tests.kafka_server.children import ends_with_us
from tests.kafka_server.jars import jars, java
from tests.kafka_server.nodes import Listener, Node, Security, security_properties

_JVM: Final = (
    "-Xmx512m",
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",
    "-XX:-UsePerfData",
    "-Dorg.slf4j.simpleLogger.showDateTime=true",
    "-Dorg.slf4j.simpleLogger.dateTimeFormat=HH:mm:ss.SSS",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    """Somebody the cluster knows: by password, or by the certificate in `certificate` (PEM, with its key)."""

    name: str
    password: str = field(repr=False, default="")
    certificate: Path | None = None


class KafkaServer:
    """One broker that is its own controller, or `brokers` brokers (1, 2, …) and a controller beside them.

    Data, certificates and logs lie in `directory`. `config` overrides broker settings. An async context
    manager: running inside, stopped afterwards. Everybody may do everything over plaintext; with another
    `security`, a user (`create_user`) may do only what `admin.allow` says.
    """

    def __init__(
        self,
        *,
        directory: Path,
        version: str = "4",
        security: Security = "plaintext",
        brokers: int = 1,
        config: Mapping[str, str] | None = None,
    ) -> None:
        self._jars = jars(version)
        self._java = java()
        self._security = security
        self._config = dict(config or {})
        own: list[Listener] = ["CONTROLLER"] if brokers == 1 else []
        self._brokers = [Node.broker(number, directory, *own) for number in range(1, brokers + 1)]
        # Brokers before their controller: they need it to leave in good order, and can wait for it to come.
        self._members = self._brokers if own else [*self._brokers, Node.controller(directory)]
        self._authority = Authority(directory / "certificates")
        self._processes: dict[int, subprocess.Popen[bytes]] = {}
        self.admin = Admin(self._addresses("INTERNAL"))

    @property
    def bootstrap_servers(self) -> str:
        return self._addresses("CLIENT")

    @property
    def ca_file(self) -> Path:
        return self._authority.ca_file

    def client_options(self, user: User | None = None) -> dict[str, Any]:
        """What an aiokafka client needs to connect, as `user` where the cluster asks who it is."""
        options: dict[str, Any] = {
            "bootstrap_servers": self.bootstrap_servers,
            "security_protocol": self._security.upper(),
        }
        if "ssl" in self._security:
            certificate = user.certificate if user else None
            options["ssl_context"] = create_ssl_context(cafile=str(self.ca_file), certfile=certificate)
        if user and user.password:
            options["sasl_mechanism"] = "SCRAM-SHA-512"
            options |= {"sasl_plain_username": user.name, "sasl_plain_password": user.password}
        return options

    def environment(self, user: User | None = None) -> dict[str, str]:
        """The same as the service's environment variables."""
        variables = {
            "KAFKA_BOOTSTRAP_SERVERS": self.bootstrap_servers,
            "KAFKA_SECURITY_PROTOCOL": self._security.upper(),
        }
        if "ssl" in self._security:
            variables["KAFKA_SSL_CAFILE"] = str(self.ca_file)
        if user and user.certificate:
            variables |= {
                "KAFKA_SSL_CERTFILE": str(user.certificate),
                "KAFKA_SSL_KEYFILE": str(user.certificate),
            }
        if user and user.password:
            variables |= {"KAFKA_SASL_MECHANISM": "SCRAM-SHA-512", "KAFKA_SASL_USERNAME": user.name}
            variables["KAFKA_SASL_PASSWORD"] = user.password
        return variables

    async def create_user(self, name: str) -> User:
        """Somebody who can connect, and is allowed nothing yet."""
        if self._security == "ssl":
            return User(name=name, certificate=self._authority.client_certificate(name))
        user = User(name=name, password=secrets.token_urlsafe(16))
        await self.admin.create_scram_user(name, password=user.password)
        return user

    async def __aenter__(self) -> Self:
        await self._format()
        try:
            await self.start()
        except BaseException:
            await self.kill()
            raise
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.kill()

    async def start(self, broker: int | None = None) -> None:
        """Start the broker of this number (1, 2, …), or all that do not run; they keep their data.

        Returns when clients can use the cluster. Raises RuntimeError with the end of the log when it dies.
        """
        for node in self._nodes(broker):
            self._spawn(node)
        await self._until_ready()

    async def stop(self, broker: int | None = None) -> None:
        """Stop the broker, or all, in good order: it hands its work to the others first."""
        await self._end(signal.SIGTERM, self._nodes(broker))

    async def kill(self, broker: int | None = None) -> None:
        """End the broker, or all, at once, as a power cut does."""
        await self._end(signal.SIGKILL, self._nodes(broker))

    def _addresses(self, listener: Listener) -> str:
        return ",".join(node.address(listener) for node in self._brokers)

    def _nodes(self, broker: int | None) -> Sequence[Node]:
        return self._members if broker is None else [self._brokers[broker - 1]]

    async def _format(self) -> None:
        # A cluster id is 16 bytes in base64, and must not look like an option of the command line.
        cluster_id = base64.urlsafe_b64encode(b"k" + os.urandom(15)).decode().rstrip("=")
        await asyncio.gather(*(asyncio.to_thread(self._format_node, node, cluster_id) for node in self._members))

    def _format_node(self, node: Node, cluster_id: str) -> None:
        node.folder.mkdir(parents=True)
        node.properties_file.write_text("".join(f"{key}={value}\n" for key, value in self._settings(node).items()))
        tool = self._command("kafka.tools.StorageTool", "format", "--cluster-id", cluster_id, "--config")
        done = subprocess.run(
            [*tool, str(node.properties_file)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"Kafka's storage could not be formatted:\n{done.stdout}{done.stderr}")

    def _settings(self, node: Node) -> dict[str, str]:
        return {
            **node.properties(controller=self._members[-1], brokers=len(self._brokers), security=self._security),
            **security_properties(self._security, self._authority),
            **self._config,
        }

    def _command(self, *arguments: str) -> list[str]:
        return [self._java, *_JVM, "-cp", f"{self._jars}/*", *arguments]

    def _spawn(self, node: Node) -> None:
        if node.node_id in self._processes:
            return
        with node.log_file.open("ab") as log:
            self._processes[node.node_id] = subprocess.Popen(
                ends_with_us(self._command("kafka.Kafka", str(node.properties_file))),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    async def _end(self, how: signal.Signals, nodes: Sequence[Node]) -> None:
        for node in nodes:
            process = self._processes.pop(node.node_id, None)
            if process is not None:
                process.send_signal(how)
                await asyncio.to_thread(process.wait, DEADLINE_S)

    async def _until_ready(self) -> None:
        running = [node for node in self._brokers if node.node_id in self._processes]
        async with asyncio.timeout(DEADLINE_S):
            for node in running:
                await self._until_seen(Admin(node.address("INTERNAL")), brokers=len(running))

    async def _until_seen(self, view: Admin, *, brokers: int) -> None:
        """Each broker is asked itself: the others go on naming one that was killed for a while."""
        while not await view.is_ready(brokers=brokers):
            self._raise_if_dead()
            await asyncio.sleep(POLL_S)

    def _raise_if_dead(self) -> None:
        for node in self._members:
            process = self._processes.get(node.node_id)
            if process is not None and process.poll() is not None:
                end = node.log_file.read_text(errors="replace").splitlines()[-20:]
                raise RuntimeError("\n".join([f"Kafka's node {node.node_id} died while starting:", *end]))
