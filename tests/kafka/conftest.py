"""Brokers for the Kafka room's tests: the embedded one and Apache Kafka's newest line."""

from __future__ import annotations

import functools

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
