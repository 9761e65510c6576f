"""compose.yaml against the code that it starts."""

from __future__ import annotations

import time
from typing import Any

import pytest
import yaml

from consumer.settings import Settings
from sandbox.zoho.engine import ZohoEngine
from tests.manifests.conftest import ROOT, VARIABLES


@pytest.fixture
def services() -> dict[str, Any]:
    """Every service of the file."""
    found: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text("utf-8"))["services"]
    return found


def test_service_is_given_settings_that_it_takes(services: dict[str, Any]) -> None:
    """The service starts with what the file sets."""
    variables = services["zoho-sync"]["environment"]
    assert variables.keys() <= VARIABLES
    settings = Settings.model_validate({name.lower(): value for name, value in variables.items()})
    assert settings.zoho_crm_enabled


def test_credentials_are_the_stand_ins(services: dict[str, Any]) -> None:
    """The stand-in of that seed knows the service's credentials."""
    command = services["zoho"]["command"]
    seed = int(command[command.index("--seed") + 1])
    known = ZohoEngine(None, now=time.time, seed=seed).credentials
    variables = services["zoho-sync"]["environment"]
    assert known == {name: variables[f"ZOHO_{name.upper()}"] for name in known}


def test_service_runs_as_confined_as_in_a_cluster(services: dict[str, Any]) -> None:
    """Read-only, without capabilities or new privileges, and with time to drain."""
    service = services["zoho-sync"]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["stop_grace_period"] == "90s"


def test_ports_are_open_to_this_machine_alone(services: dict[str, Any]) -> None:
    """Nothing of it can be reached from elsewhere."""
    assert all(port.startswith("127.0.0.1:") for each in services.values() for port in each.get("ports", []))
