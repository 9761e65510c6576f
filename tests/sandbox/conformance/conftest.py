"""The organisation that the expectations are checked against."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import orjson
import pytest

from tests.sandbox.conformance.organisation import Access, Organisation

ROOT = Path(__file__).parents[3]


@contextmanager
def served_sandbox() -> Iterator[Access]:
    """The sandbox in a process of its own, with an index that lags a little."""
    command = [sys.executable, "-m", "sandbox", "zoho", "--latency-median-s", "0", "--index-lag", "0.3"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        facts = orjson.loads(process.stdout.readline())
        try:
            yield Access(accounts_url=facts["url"], **facts)
        finally:
            process.terminate()


@pytest.fixture(scope="session")
def access() -> Iterator[Access]:
    """A real organisation where the environment names one, else the sandbox."""
    named = Access.from_environment()
    if named is not None:
        yield named
        return
    with served_sandbox() as served:
        yield served


@pytest.fixture(scope="session")
def token(access: Access) -> str:
    """One access token for the whole run."""
    text: str = Organisation(access).token_call().body["access_token"]
    return text


@pytest.fixture
def zoho(access: Access, token: str) -> Iterator[Organisation]:
    """The organisation, cleaned of what the test made."""
    organisation = Organisation(access, token=token)
    yield organisation
    organisation.clean_up()
