"""Every test of the composition root runs on virtual time."""

from __future__ import annotations

from tests.pipeline.conftest import pytest_asyncio_loop_factories

__all__ = ["pytest_asyncio_loop_factories"]
