"""A port with a token and a key, in front of a service that the test fills."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.web.fakes import FakeView
from tests.web.site import open_site

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.web.site import Site


@pytest.fixture
def view() -> FakeView:
    return FakeView()


@pytest.fixture
async def site(view: FakeView) -> AsyncIterator[Site]:
    async with open_site(view) as site:
        yield site
