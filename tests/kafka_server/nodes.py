"""The members of a cluster: where each lives, which ports it has, and how it is configured."""

from __future__ import annotations

import itertools
import random
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, Self

from tests.kafka_server.certificates import Authority

Security = Literal["plaintext", "ssl", "sasl_plaintext", "sasl_ssl"]
Listener = Literal["CLIENT", "INTERNAL", "CONTROLLER"]

_CONTROLLER_ID: Final = 100
_HOST: Final = "127.0.0.1"
# Below the range from which systems take the local ports of connections, so that a stopped broker finds its
# port free again.
_PORTS: Final = range(20_000, 32_000)
_SCRAM: Final = "org.apache.kafka.common.security.scram.ScramLoginModule"
_AUTHORIZER: Final = "org.apache.kafka.metadata.authorizer.StandardAuthorizer"
# Small, and quick to notice: a group forms at once, and a killed broker is missed within seconds.
_SETTINGS: Final = {
    "auto.create.topics.enable": "false",
    "broker.heartbeat.interval.ms": "500",
    "broker.session.timeout.ms": "3000",
    "group.initial.rebalance.delay.ms": "0",
    "group.min.session.timeout.ms": "100",
    "log.cleaner.dedupe.buffer.size": "4194304",
    "offsets.topic.num.partitions": "4",
    "transaction.state.log.min.isr": "1",
    "transaction.state.log.num.partitions": "4",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """One process of the cluster, and what it listens for."""

    node_id: int
    folder: Path
    ports: Mapping[Listener, int]

    @classmethod
    def broker(cls, number: int, directory: Path, *listeners: Listener) -> Self:
        ports = _free_ports("CLIENT", "INTERNAL", *listeners)
        return cls(node_id=number, folder=directory / f"broker-{number}", ports=ports)

    @classmethod
    def controller(cls, directory: Path) -> Self:
        return cls(node_id=_CONTROLLER_ID, folder=directory / "controller", ports=_free_ports("CONTROLLER"))

    @property
    def properties_file(self) -> Path:
        return self.folder / "server.properties"

    @property
    def log_file(self) -> Path:
        return self.folder / "server.log"

    def address(self, listener: Listener) -> str:
        return f"{_HOST}:{self.ports[listener]}"

    def properties(self, *, controller: Node, brokers: int, security: Security) -> dict[str, str]:
        return {
            "process.roles": ",".join(self._roles()),
            "node.id": str(self.node_id),
            "controller.quorum.voters": f"{controller.node_id}@{controller.address('CONTROLLER')}",
            "controller.listener.names": "CONTROLLER",
            "listeners": ",".join(f"{name}://{self.address(name)}" for name in self.ports),
            "listener.security.protocol.map": (f"CLIENT:{security.upper()},INTERNAL:PLAINTEXT,CONTROLLER:PLAINTEXT"),
            "log.dirs": str(self.folder / "data"),
            "default.replication.factor": str(brokers),
            "offsets.topic.replication.factor": str(brokers),
            "transaction.state.log.replication.factor": str(brokers),
            **({"inter.broker.listener.name": "INTERNAL"} if "INTERNAL" in self.ports else {}),
            **_SETTINGS,
        }

    def _roles(self) -> list[str]:
        return ["broker"] * ("CLIENT" in self.ports) + ["controller"] * ("CONTROLLER" in self.ports)


def security_properties(security: Security, authority: Authority) -> dict[str, str]:
    """Who may connect to the client listener, and what the cluster asks of them."""
    properties: dict[str, str] = {}
    if security != "plaintext":
        # Whoever speaks on the internal listener has no name: the brokers, and the tests' administrator.
        properties |= {"authorizer.class.name": _AUTHORIZER, "super.users": "User:ANONYMOUS"}
    if "sasl" in security:
        properties["sasl.enabled.mechanisms"] = "SCRAM-SHA-512"
        properties["listener.name.client.scram-sha-512.sasl.jaas.config"] = f"{_SCRAM} required;"
    if "ssl" in security:
        properties |= {"ssl.keystore.type": "PEM", "ssl.truststore.type": "PEM"}
        properties["ssl.keystore.location"] = str(authority.broker_keystore())
        properties["ssl.truststore.location"] = str(authority.ca_file)
    if security == "ssl":
        properties |= {
            "ssl.client.auth": "required",
            "ssl.principal.mapping.rules": "RULE:.*CN=([^,]+).*/$1/",
        }
    return properties


def free_address() -> str:
    """Where a server that is about to start can listen."""
    return Node(node_id=1, folder=Path(), ports=_free_ports("CLIENT")).address("CLIENT")


def _free_ports(*listeners: Listener) -> dict[Listener, int]:
    ports = filter(_is_free, random.sample(_PORTS, len(_PORTS)))
    return dict(zip(listeners, itertools.islice(ports, len(listeners)), strict=True))


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((_HOST, port)) != 0
