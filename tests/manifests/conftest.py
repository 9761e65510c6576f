"""The manifests as a cluster would get them: every overlay rendered by kubectl's kustomize.

Where `CI` is set, kubectl is required.  Elsewhere the tests of rendered manifests are left out without it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from consumer.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
K8S = ROOT / "k8s"
OVERLAYS = ("dev", "staging", "production")
VARIABLES = {name.upper() for name in Settings.model_fields}


class Rendered(NamedTuple):
    """One overlay's resources."""

    overlay: str
    resources: tuple[dict[str, Any], ...]

    def all(self, kind: str) -> list[dict[str, Any]]:
        """Every resource of a kind."""
        return [resource for resource in self.resources if resource["kind"] == kind]

    def one(self, kind: str, name: str = "zoho-sync") -> dict[str, Any]:
        """The one resource of that kind and name."""
        (found,) = (resource for resource in self.all(kind) if resource["metadata"]["name"] == name)
        return found

    def pod_specs(self) -> list[dict[str, Any]]:
        """Every pod that comes of these resources."""
        deployments = [each["spec"]["template"]["spec"] for each in self.all("Deployment")]
        return deployments + [each["spec"]["jobTemplate"]["spec"]["template"]["spec"] for each in self.all("CronJob")]

    def consumer(self) -> dict[str, Any]:
        """The service's container."""
        container: dict[str, Any] = self.one("Deployment")["spec"]["template"]["spec"]["containers"][0]
        return container

    def settings(self) -> dict[str, str]:
        """What the generated ConfigMap sets."""
        (found,) = (each for each in self.all("ConfigMap") if each["metadata"]["name"].startswith("zoho-sync-settings"))
        data: dict[str, str] = found["data"]
        return data


@cache
def render(overlay: str) -> Rendered:
    """kubectl kustomize; cached for the process."""
    command = ("kubectl", "kustomize", str(K8S / "overlays" / overlay))
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    return Rendered(overlay, tuple(yaml.safe_load_all(done.stdout)))


@pytest.fixture(params=OVERLAYS)
def rendered(request: pytest.FixtureRequest) -> Rendered:
    """Each overlay in turn."""
    _require_kubectl()
    return render(request.param)


@pytest.fixture
def production() -> Rendered:
    """The overlay with everything."""
    _require_kubectl()
    return render("production")


def _require_kubectl() -> None:
    if shutil.which("kubectl") is None:
        refuse = pytest.fail if os.environ.get("CI") else pytest.skip
        refuse("kubectl is not at hand, so no manifest can be rendered")
