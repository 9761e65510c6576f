"""A broker as a test sees it, whichever it is."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any, Protocol

from tests.kafka_server.admin import Admin


class Broker(Protocol):
    """Where the broker is, how a client connects to it, and what its operator can do."""

    @property
    def bootstrap_servers(self) -> str: ...

    @property
    def admin(self) -> Admin: ...

    def client_options(self) -> dict[str, Any]:
        """What an aiokafka client needs to connect."""

    def environment(self) -> dict[str, str]:
        """The same as the service's environment variables."""


async def new_topic(broker: Broker, *, partitions: int = 1, config: Mapping[str, str] | None = None) -> str:
    """Make a topic that nobody else has, and return its name."""
    name = f"test-{uuid.uuid4().hex}"
    await broker.admin.create_topic(name, partitions=partitions, config=config)
    return name


class OpenCluster:
    """Brokers that somebody else runs, and that ask nobody who he is."""

    def __init__(self, bootstrap_servers: str) -> None:
        self.bootstrap_servers = bootstrap_servers
        self.admin = Admin(bootstrap_servers)

    def client_options(self) -> dict[str, Any]:
        return {"bootstrap_servers": self.bootstrap_servers}

    def environment(self) -> dict[str, str]:
        return {"KAFKA_BOOTSTRAP_SERVERS": self.bootstrap_servers}
