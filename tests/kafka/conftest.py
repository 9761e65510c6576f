"""Brokers for the Kafka room's tests: the embedded one and Apache Kafka's newest line."""

from __future__ import annotations

import functools
import gc
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kafka_server.cluster import Broker, new_topic
from tests.kafka_server.fixtures import CreateTopic


@pytest.fixture(params=["embedded_broker", pytest.param("kafka_4", marks=pytest.mark.apache_kafka)])
def broker(request: pytest.FixtureRequest) -> Broker:
    """A running broker that other tests use too: make own topics, stop nothing."""
    found: Broker = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def create_topic(broker: Broker) -> CreateTopic:
    """Makes topics on `broker` that no other test has."""
    return functools.partial(new_topic, broker)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """aiokafka now and then forgets a connection that it was opening while it was closed (its issues 715 and 1019)."""
    here = Path(__file__).parent
    forgiving = pytest.mark.filterwarnings("ignore:Exception ignored in:pytest.PytestUnraisableExceptionWarning")
    for item in items:
        if here in item.path.parents:
            item.add_marker(forgiving)


@pytest.fixture(autouse=True)
def _forgotten_here() -> Iterator[None]:
    """Whatever is forgotten is found at the end of the test that forgot it, and not in somebody else's."""
    yield
    gc.collect()
