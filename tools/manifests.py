"""Check what is deployed, without a cluster and without the network: `make manifests`.

Renders every overlay and checks the rendered resources, for it is them that a cluster gets: schemas, policies, alerts,
the dashboard's queries; and lints Dockerfile and compose.yaml.  The checkers live in environments of their own under
.cache/checks, locked like everything else.  What cannot be had is said in one line; where CI is set, it is a failure.
With --server all of it is given to a real API server, too (tools/apiserver.py).
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jsonschema
import yaml
from prometheus_client import generate_latest

from consumer.telemetry.metrics import Metrics
from tools.apiserver import admit
from tools.checks import CACHE, ROOT, Failed, Unavailable, call, environment, output, run

if TYPE_CHECKING:
    from collections.abc import Callable

OVERLAYS = sorted(path.name for path in (ROOT / "k8s" / "overlays").iterdir())
MONITORING = ROOT / "k8s" / "components" / "monitoring"
# Fewer would mean that the checker did not see the manifests.
LEAST_POLICIES = 50


def main() -> int:
    """Run every check; 0 when all held."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--server", action="store_true", help="also on a real API server, which may have to be built")
    is_served = parser.parse_args().server
    checks: list[Callable[[Path], str]] = [schemas, policies, dockerfile, compose, metrics, alerts]
    checks += [server] if is_served else []
    with tempfile.TemporaryDirectory(prefix="zoho-sync-manifests-") as folder:
        try:
            render(Path(folder))
        except (Failed, Unavailable) as error:
            print(f"manifests: {error}")
            return 1
        outcomes = [run(f"manifests: {check.__name__}", functools.partial(check, Path(folder))) for check in checks]
    return 0 if all(outcomes) else 1


def render(folder: Path) -> None:
    """Every overlay, as kubectl would apply it."""
    if shutil.which("kubectl") is None:
        raise Unavailable("nothing can be rendered without kubectl")
    for overlay in OVERLAYS:
        text = output("kubectl", "kustomize", str(ROOT / "k8s" / "overlays" / overlay))
        (folder / f"{overlay}.yaml").write_text(text, "utf-8")


# --- checks ---------------------------------------------------------------------------------------------


def schemas(folder: Path) -> str:
    """Every resource of every overlay against the schema of its kind; an unknown kind is a failure."""
    python = environment("checks") / "python"
    files = [str(folder / f"{overlay}.yaml") for overlay in OVERLAYS]
    return output(str(python), "-m", "tools.resources", *files).strip()


def policies(folder: Path) -> str:
    """checkov's policies on rendered resources and on the Dockerfile."""
    checkov = environment("checkov") / "checkov"
    files = [word for overlay in OVERLAYS for word in ("--file", str(folder / f"{overlay}.yaml"))]
    # Dockerfile: the base comes by an argument, tag and digest together, which this policy takes for "latest".
    docker = ["--file", str(ROOT / "Dockerfile"), "--framework", "dockerfile", "--skip-check", "CKV_DOCKER_7"]
    passed = _policies_passed(str(checkov), *files, "--framework", "kubernetes")
    return f"{passed} on resources, {_policies_passed(str(checkov), *docker)} on the Dockerfile"


def _policies_passed(checkov: str, *args: str) -> int:
    done = call(checkov, *args, "--skip-download", "--output", "json", "--quiet", "--compact")
    try:
        report = json.loads(done.stdout)
    except json.JSONDecodeError:
        raise Failed(f"checkov said nothing that can be read:\n{done.stderr[-2000:]}") from None
    if failed := report["results"]["failed_checks"]:
        raise Failed("\n".join(f"{each['check_id']} {each['resource']}: {each['check_name']}" for each in failed))
    passed = int(report["summary"]["passed"])
    if passed < LEAST_POLICIES or report["summary"]["parsing_errors"]:
        raise Failed(f"only {passed} policies were applied")
    return passed


def dockerfile(_folder: Path) -> str:
    """hadolint."""
    output(str(environment("checks") / "hadolint"), str(ROOT / "Dockerfile"))
    return "hadolint has nothing to say"


def compose(_folder: Path) -> str:
    """compose.yaml against the schema of the compose specification."""
    schema = next(environment("compose").parent.glob("**/compose_spec.json"))
    document = yaml.safe_load((ROOT / "compose.yaml").read_text("utf-8"))
    errors = list(jsonschema.Draft7Validator(json.loads(schema.read_text("utf-8"))).iter_errors(document))
    if errors:
        raise Failed("\n".join(f"{error.json_path}: {error.message}" for error in errors))
    return f"{len(document['services'])} services"


def metrics(_folder: Path) -> str:
    """The names, units and help texts of the metrics, by Prometheus' own rules."""
    exposed = generate_latest(Metrics(version="0").registry).decode()
    done = call(_promtool(), "check", "metrics", text=exposed)
    if done.returncode:
        raise Failed(done.stdout + done.stderr)
    return "promtool accepts them"


def alerts(folder: Path) -> str:
    """The rules' syntax, and their unit tests."""
    rules = yaml.safe_load((MONITORING / "rules.yaml").read_text("utf-8"))["spec"]
    (folder / "rules.yaml").write_text(yaml.safe_dump(rules), "utf-8")
    shutil.copy(MONITORING / "tests.yaml", folder / "tests.yaml")
    output(_promtool(), "check", "rules", str(folder / "rules.yaml"))
    output(_promtool(), "test", "rules", str(folder / "tests.yaml"))
    tests: list[Any] = yaml.safe_load((folder / "tests.yaml").read_text("utf-8"))["tests"]
    return f"{sum(len(group['rules']) for group in rules['groups'])} rules, {len(tests)} tests"


def server(folder: Path) -> str:
    """Every overlay, applied to a real API server with its admission."""
    own = folder / "server"
    own.mkdir()
    return admit([folder / f"{overlay}.yaml" for overlay in OVERLAYS], own)


# --- tools ----------------------------------------------------------------------------------------------


def _promtool() -> str:
    """promtool: from the path, or out of Debian's package without installing it."""
    unpacked = CACHE / "promtool"
    if found := shutil.which("promtool"):
        return found
    if not unpacked.exists():
        _unpack_promtool(unpacked)
    return str(unpacked)


def _unpack_promtool(unpacked: Path) -> None:
    if shutil.which("apt-get") is None:
        raise Unavailable("promtool is not at hand")
    with tempfile.TemporaryDirectory(prefix="zoho-sync-promtool-") as folder:
        command = ("apt-get", "download", "--quiet", "prometheus")
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=300)
        if done.returncode and os.geteuid() == 0:
            call("apt-get", "update", "--quiet")
            done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=300)
        packages = list(Path(folder).glob("prometheus_*.deb"))
        if done.returncode or not packages:
            raise Unavailable("promtool is not at hand, nor Debian's package prometheus (apt-get update?)")
        output("dpkg-deb", "--extract", str(packages[0]), f"{folder}/package")
        CACHE.mkdir(parents=True, exist_ok=True)
        shutil.copy(Path(folder) / "package" / "usr" / "bin" / "promtool", unpacked)


if __name__ == "__main__":
    sys.exit(main())
