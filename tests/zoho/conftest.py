"""Fixtures of the http layer's own tests; everything else runs on `room`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from unittest import mock

import aioresponses.core as planned_core
import pytest
from aiohttp import ClientResponse
from aiohttp.abc import AbstractStreamWriter
from aioresponses import aioresponses

if TYPE_CHECKING:
    from collections.abc import Iterator


class _Response(ClientResponse):
    """aiohttp 3.14 asks for a `stream_writer`, which aioresponses 0.7 does not know of yet."""

    def __init__(self, *args: Any, **options: Any) -> None:
        options.setdefault("stream_writer", mock.create_autospec(AbstractStreamWriter, instance=True))
        super().__init__(*args, **options)


@pytest.fixture
def wire(monkeypatch: pytest.MonkeyPatch) -> Iterator[aioresponses]:
    """Answers in place of the network; an address that was not planned is refused."""
    monkeypatch.setattr(planned_core, "ClientResponse", _Response)
    with aioresponses() as planned:
        yield planned
