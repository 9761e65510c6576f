"""What holds for every test: nothing may be swallowed, and how Hypothesis searches."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

pytest_plugins = ["tests.kafka_server.fixtures"]

# No deadline: a slow machine must not turn a right answer into a failure. On a build machine the examples are
# the same for the same code, so a red run can be repeated.
settings.register_profile("local", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("ci", settings.get_profile("local"), derandomize=True, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") else "local")


class _Kept(logging.Handler):
    """Keeps what is logged."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(self.format(record))


@pytest.fixture(autouse=True)
def _nothing_is_swallowed() -> Iterator[None]:
    """A task that dies unseen, or a session left open, is only a line in asyncio's log: here it is a failure."""
    logger, kept = logging.getLogger("asyncio"), _Kept()
    logger.addHandler(kept)
    yield
    logger.removeHandler(kept)
    assert not kept.texts
