"""A real API server of Kubernetes, on this machine alone, that is given every overlay: `make manifests ARGS=--server`.

It knows the custom kinds by their operators' own definitions (Strimzi's by name alone: no registry of packages has
them), checks fields strictly, and enforces the restricted Pod Security Standard; nothing runs, for there are no
controllers.  etcd and kube-apiserver come from KUBEBUILDER_ASSETS or the path, or are built from tools/go, which takes
Go and, once, a quarter of an hour of one core.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import socket
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from tools.checks import CACHE, ROOT, Failed, Unavailable

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

PROGRAMS = {"etcd": "go.etcd.io/etcd/server/v3", "kube-apiserver": "k8s.io/kubernetes/cmd/kube-apiserver"}
# Module, its sum, and the definitions of the kinds that the overlays use.
DEFINITIONS = (
    (
        "github.com/kedacore/keda/v2@v2.21.0",
        "h1:R6z2HZvstK4RLUMxroNACzBj74xGxt3kG59b5Xc+Xps=",
        ("config/crd/bases/keda.sh_scaledobjects.yaml", "config/crd/bases/keda.sh_triggerauthentications.yaml"),
    ),
    (
        "github.com/external-secrets/external-secrets@v1.3.2",
        "h1:u2J8RjlHIeF0oZCqtl92adI/uZWUwOesJIDkfql6LqQ=",
        ("config/crds/bases/external-secrets.io_externalsecrets.yaml",),
    ),
    (
        "github.com/prometheus-operator/prometheus-operator@v0.85.0",
        "h1:M5xLCLEoaW2IJfnuCwFzzpL+jSVQu3KGT84Pye+fW8s=",
        tuple(
            f"example/prometheus-operator-crd/monitoring.coreos.com_{kind}.yaml"
            for kind in ("podmonitors", "prometheusrules")
        ),
    ),
)
_BUILD_S = 3600
_START_S = 120
_RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted"}


def admit(overlays: Sequence[Path], folder: Path) -> str:
    """Apply every overlay and create a pod of every template.  Raises Failed with what the server says against it."""
    programs = _programs()
    definitions = [*_definitions(), *_names()]
    with _server(programs, folder) as cluster:
        cluster.apply(definitions)
        resources = pods = 0
        for overlay in overlays:
            documents = list(yaml.safe_load_all(overlay.read_text("utf-8")))
            names = {each["metadata"]["namespace"] for each in documents if "namespace" in each["metadata"]}
            cluster.apply([_namespace(name) for name in sorted(names)])
            cluster.apply(documents)
            templates = [pod for each in documents if (pod := _pod_of(each)) is not None]
            for pod in templates:
                cluster.create(pod)
            cluster.refuse(_unrestricted(templates[0]))
            resources += len(documents)
            pods += len(templates)
        return f"Kubernetes {cluster.version()} takes {resources} resources and {pods} pods, and refuses a lax one"


class Cluster:
    """The server, through kubectl."""

    def __init__(self, url: str, token: str) -> None:
        self._command = ("kubectl", "--kubeconfig=/dev/null", f"--server={url}", f"--token={token}")

    def run(self, *args: str, documents: Sequence[Any] = ()) -> subprocess.CompletedProcess[str]:
        """kubectl; the documents go to its standard input."""
        command = (*self._command, "--insecure-skip-tls-verify", *args)
        text = yaml.safe_dump_all(documents)
        return subprocess.run(command, input=text, capture_output=True, text=True, check=False, timeout=_START_S)

    def is_ready(self) -> bool:
        return self.run("get", "--raw=/readyz").returncode == 0

    def version(self) -> str:
        answer: dict[str, str] = json.loads(self.run("get", "--raw=/version").stdout)
        return answer["gitVersion"]

    def apply(self, documents: Sequence[Any]) -> None:
        """A warning is a failure, too: of Pod Security, or of a version that is about to go."""
        options = ("--server-side", "--validate=strict", "--warnings-as-errors", "--filename=-")
        _check(self.run("apply", *options, documents=documents))
        if any(each["kind"] == "CustomResourceDefinition" for each in documents):
            _check(self.run("wait", "--for=condition=Established", "crd", "--all"))

    def create(self, pod: Any) -> None:
        _check(self._create(pod))

    def refuse(self, pod: Any) -> None:
        """Unless this pod is refused, nothing was enforced."""
        done = self._create(pod)
        if done.returncode == 0 or "PodSecurity" not in done.stderr:
            raise Failed(f"the server does not enforce Pod Security: {done.stdout}{done.stderr}")

    def _create(self, pod: Any) -> subprocess.CompletedProcess[str]:
        return self.run("create", "--dry-run=server", "--validate=strict", "--filename=-", documents=[pod])


def _check(done: subprocess.CompletedProcess[str]) -> None:
    if done.returncode:
        raise Failed(done.stderr[-4000:])


# --- what is applied ------------------------------------------------------------------------------------


def _namespace(name: str) -> Any:
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": _RESTRICTED}}


def _pod_of(resource: Any) -> Any | None:
    """A pod of the resource's template, as a controller would make it."""
    spec = resource.get("spec", {})
    template = spec.get("jobTemplate", {"spec": spec})["spec"].get("template")
    if template is None or "spec" not in template:
        return None
    about = resource["metadata"]
    metadata = template["metadata"] | {"generateName": f"{about['name']}-", "namespace": about["namespace"]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]}


def _unrestricted(pod: Any) -> Any:
    spec = {key: value for key, value in pod["spec"].items() if key != "securityContext"}
    return {**pod, "spec": {**spec, "hostNetwork": True}}


def _definitions() -> Iterator[Any]:
    """The operators' own, out of their Go modules."""
    for module, checksum, files in DEFINITIONS:
        about = json.loads(_go("mod", "download", "-json", module, folder=CACHE))
        if about["Sum"] != checksum:
            raise Failed(f"{module} is not what it was: {about['Sum']}")
        for file in files:
            yield yaml.safe_load((Path(about["Dir"]) / file).read_text("utf-8"))


def _names() -> Iterator[Any]:
    """Kinds of which only the name is known to the server; k8s/schemas.yaml checks their fields."""
    schemas = yaml.safe_load((ROOT / "k8s" / "schemas.yaml").read_text("utf-8"))
    for kind, schema in schemas.items():
        group, _, version = schema.get("properties", {}).get("apiVersion", {}).get("const", "").partition("/")
        if group == "kafka.strimzi.io":
            anything = {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
            names = {"kind": kind, "plural": f"{kind.lower()}s", "singular": kind.lower()}
            yield {
                "apiVersion": "apiextensions.k8s.io/v1",
                "kind": "CustomResourceDefinition",
                "metadata": {"name": f"{names['plural']}.{group}"},
                "spec": {
                    "group": group,
                    "names": names,
                    "scope": "Namespaced",
                    "versions": [{"name": version, "served": True, "storage": True, "schema": anything}],
                },
            }


# --- the server -----------------------------------------------------------------------------------------


@contextlib.contextmanager
def _server(programs: dict[str, str], folder: Path) -> Iterator[Cluster]:
    """etcd and the API server, each on free ports of the loopback interface, until the block is left."""
    token, (store, peers, port) = secrets.token_hex(), _free_ports(3)
    (folder / "tokens.csv").write_text(f"{token},admin,admin,system:masters\n", "utf-8")
    key = folder / "accounts.key"
    _check(subprocess.run(("openssl", "genrsa", "-out", str(key)), capture_output=True, text=True, check=False))
    etcd = {
        "data-dir": folder / "etcd",
        "listen-client-urls": f"http://127.0.0.1:{store}",
        "advertise-client-urls": f"http://127.0.0.1:{store}",
        "listen-peer-urls": f"http://127.0.0.1:{peers}",
    }
    api = {
        "etcd-servers": f"http://127.0.0.1:{store}",
        "bind-address": "127.0.0.1",
        "secure-port": port,
        "cert-dir": folder / "certificates",
        "endpoint-reconciler-type": "none",
        "service-cluster-ip-range": "10.0.0.0/24",
        "service-account-issuer": "https://kubernetes.default.svc",
        "service-account-key-file": key,
        "service-account-signing-key-file": key,
        "token-auth-file": folder / "tokens.csv",
        "authorization-mode": "RBAC",
    }
    with _running(programs["etcd"], etcd, folder), _running(programs["kube-apiserver"], api, folder) as process:
        cluster = Cluster(f"https://127.0.0.1:{port}", token)
        until = time.monotonic() + _START_S
        while not cluster.is_ready():
            if process.poll() is not None or time.monotonic() > until:
                raise Failed((folder / "kube-apiserver.log").read_text("utf-8")[-2000:])
            time.sleep(0.5)
        yield cluster


@contextlib.contextmanager
def _running(program: str, flags: dict[str, Any], folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    words = [f"--{name}={value}" for name, value in flags.items()]
    with (folder / f"{Path(program).name}.log").open("wb") as log:
        process = subprocess.Popen((program, *words), stdout=log, stderr=log)
        try:
            yield process
        finally:
            process.kill()
            process.wait()


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        found = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [each.getsockname()[1] for each in found]


# --- programs -------------------------------------------------------------------------------------------


def _programs() -> dict[str, str]:
    """Where etcd and kube-apiserver are."""
    folders = os.pathsep.join(filter(None, (os.environ.get("KUBEBUILDER_ASSETS"), os.environ.get("PATH"))))
    found = {name: path for name in PROGRAMS if (path := shutil.which(name, path=folders))}
    return found if len(found) == len(PROGRAMS) else _built()


def _built() -> dict[str, str]:
    source = ROOT / "tools" / "go"
    kubernetes = (source / "go.mod").read_text("utf-8").partition("k8s.io/kubernetes ")[2].split()[0]
    home = CACHE / f"apiserver-{kubernetes}"
    if not home.exists():
        print(f"building etcd and kube-apiserver {kubernetes} into .cache/checks: a quarter of an hour", flush=True)
        unfinished = home.with_suffix(".part")
        shutil.rmtree(unfinished, ignore_errors=True)
        shutil.copytree(source, unfinished)
        stamp = f"-s -w -X k8s.io/component-base/version.gitVersion={kubernetes}"
        for name, package in PROGRAMS.items():
            _go("build", "-trimpath", "-ldflags", stamp, "-o", name, package, folder=unfinished)
        unfinished.rename(home)
    return {name: str(home / name) for name in PROGRAMS}


def _go(*args: str, folder: Path) -> str:
    if shutil.which("go") is None:
        raise Unavailable("etcd and kube-apiserver are not at hand, nor Go to build them with")
    environ = os.environ | {"GOFLAGS": "-mod=mod -buildvcs=false", "CGO_ENABLED": "0"}
    folder.mkdir(parents=True, exist_ok=True)
    command = ("nice", "go", *args)
    done = subprocess.run(
        command, cwd=folder, env=environ, capture_output=True, text=True, check=False, timeout=_BUILD_S
    )
    if done.returncode:
        raise Unavailable(f"go {args[0]}: {done.stderr.strip()[-1000:]}")
    return done.stdout
