"""Stages for the whole service."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.e2e.stage import Stage
from tests.kafka_server.cluster import Broker


@pytest.fixture(params=["embedded_broker", pytest.param("kafka_4", marks=pytest.mark.apache_kafka)])
def broker(request: pytest.FixtureRequest) -> Broker:
    """A running broker that other tests use too."""
    found: Broker = request.getfixturevalue(request.param)
    return found


@pytest_asyncio.fixture
async def stage(embedded_broker: Broker, tmp_path: Path) -> AsyncIterator[Stage]:
    """On the embedded broker, with two partitions."""
    async with Stage(embedded_broker, tmp_path) as running:
        yield running
