"""Brokers as pytest fixtures, and what a run without Apache Kafka has to say for itself.

Where `CI` is set, Apache Kafka is required. Elsewhere the tests that need it are left out when neither its
jars can be fetched nor `KAFKA_TEST_BOOTSTRAP_SERVERS` names a cluster, and the end of the run says so.
"""

from __future__ import annotations

import functools
import os
from collections.abc import AsyncIterator, Awaitable, Iterator, Mapping
from typing import Final, Protocol

import pytest
import pytest_asyncio
from _pytest.mark import ParameterSet

from tests.kafka_server.cluster import Broker, OpenCluster, new_topic
from tests.kafka_server.embedded import run_embedded_broker
from tests.kafka_server.jars import VERSIONS, KafkaUnavailableError, jars, java
from tests.kafka_server.nodes import Security
from tests.kafka_server.server import KafkaServer

_GIVEN: Final = "KAFKA_TEST_BOOTSTRAP_SERVERS"
_ABSENT: Final = "Apache Kafka is not to be had here"
_NEED_KAFKA: Final = frozenset({"kafka_3_9", "kafka_4", "kafka_server", "secure_kafka"})


class NewKafkaServer(Protocol):
    """Makes a cluster of Apache Kafka for one test: `async with kafka_server(brokers=2) as server`."""

    def __call__(
        self,
        *,
        version: str = "4",
        security: Security = "plaintext",
        brokers: int = 1,
        config: Mapping[str, str] | None = None,
    ) -> KafkaServer: ...


class CreateTopic(Protocol):
    """Makes a topic that no other test has, and returns its name."""

    def __call__(self, *, partitions: int = 1, config: Mapping[str, str] | None = None) -> Awaitable[str]: ...


def _needs_kafka(fixture: str) -> ParameterSet:
    return pytest.param(fixture, marks=pytest.mark.apache_kafka)


@pytest.fixture(params=["embedded_broker", _needs_kafka("kafka_4"), _needs_kafka("kafka_3_9")])
def broker(request: pytest.FixtureRequest) -> Broker:
    """A running broker, of each kind in turn. Other tests use it too: make own topics, stop nothing."""
    found: Broker = request.getfixturevalue(request.param)
    return found


@pytest.fixture(scope="session")
def embedded_broker() -> Iterator[Broker]:
    """The embedded broker, as `python -m sandbox broker` starts it."""
    with run_embedded_broker() as running:
        yield running


@pytest.fixture(scope="session")
def kafka_server(tmp_path_factory: pytest.TempPathFactory) -> NewKafkaServer:
    """Makes clusters of Apache Kafka that the test may stop and kill.

    Where there is none, whatever needs one is left out; on a build machine it fails.
    """
    try:
        java()
        for version in VERSIONS:
            jars(version)
    except KafkaUnavailableError as error:
        refuse = pytest.fail if os.environ.get("CI") else pytest.skip
        refuse(f"{_ABSENT}: {error}")
    return lambda **options: KafkaServer(directory=tmp_path_factory.mktemp("kafka"), **options)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def kafka_4(request: pytest.FixtureRequest) -> AsyncIterator[Broker]:
    """Apache Kafka's newest line, or the cluster that the environment names."""
    given = os.environ.get(_GIVEN)
    if given:
        yield OpenCluster(given)
        return
    kafka_server: NewKafkaServer = request.getfixturevalue("kafka_server")
    async with kafka_server(version="4") as server:
        yield server


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def kafka_3_9(kafka_server: NewKafkaServer) -> AsyncIterator[Broker]:
    """The line of Apache Kafka before."""
    async with kafka_server(version="3.9") as server:
        yield server


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def secure_kafka(kafka_server: NewKafkaServer) -> AsyncIterator[KafkaServer]:
    """A running cluster with TLS, passwords (SCRAM) and access rules, that other tests use too."""
    async with kafka_server(security="sasl_ssl") as server:
        yield server


@pytest.fixture
def create_topic(broker: Broker) -> CreateTopic:
    """Makes topics on `broker` that no other test has."""
    return functools.partial(new_topic, broker)


def pytest_itemcollected(item: pytest.Item) -> None:
    if _NEED_KAFKA.intersection(getattr(item, "fixturenames", ())):
        item.add_marker(pytest.mark.apache_kafka)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    skipped = [report.longrepr for report in terminalreporter.stats.get("skipped", ())]
    left_out = [reason for _, _, reason in skipped if _ABSENT in reason]
    if left_out:
        reason = left_out[0].removeprefix("Skipped: ")
        terminalreporter.write_line(f"{reason}: {len(left_out)} tests did not run against it", yellow=True)
