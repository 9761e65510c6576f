"""What the overlays would put into a cluster, against the code that they are for."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from consumer.kafka import dead_letters, source
from consumer.pipeline.corridor import _COMMIT_TIMEOUT_S, _POLL_S
from consumer.settings import SECRETS, Settings
from consumer.telemetry import spans
from tests.manifests.conftest import K8S, OVERLAYS, VARIABLES

if TYPE_CHECKING:
    from tests.manifests.conftest import Rendered

_EXIT_MARGIN_S = 5.0


def _environment(container: dict[str, Any]) -> dict[str, str]:
    return {item["name"]: item["value"] for item in container.get("env", [])}


def test_every_overlay_is_tested() -> None:
    """No overlay can be added without these tests rendering it."""
    assert {path.name for path in (K8S / "overlays").iterdir()} == set(OVERLAYS)


def test_every_component_is_used() -> None:
    """Each component is part of an overlay, so that none is checked by nobody."""
    texts = "".join((K8S / "overlays" / name / "kustomization.yaml").read_text("utf-8") for name in OVERLAYS)
    unused = [path.name for path in (K8S / "components").iterdir() if f"components/{path.name}\n" not in texts]
    assert unused == []


def test_variables_are_settings_of_the_service(rendered: Rendered) -> None:
    """A variable that the service does not read would be a setting without effect."""
    containers = [container for spec in rendered.pod_specs() for container in spec["containers"]]
    named = set(rendered.settings()).union(*(_environment(container) for container in containers))
    assert named <= VARIABLES


def test_settings_are_accepted_by_the_service(rendered: Rendered, monkeypatch: Any, tmp_path: Any) -> None:
    """A pod with these variables and its secret files starts, and does not end with a configuration error."""
    monkeypatch.chdir(tmp_path)
    secret = tmp_path / "secret"
    secret.write_text("made-up")
    variables = rendered.settings() | _environment(rendered.consumer())
    for name, value in variables.items():
        monkeypatch.setenv(name, str(secret) if value.startswith("/run/secrets/") else value)
    settings = Settings()
    assert settings.zoho_crm_enabled
    assert settings.secret("ZOHO_REFRESH_TOKEN").get() == "made-up"


def test_secrets_come_as_files(rendered: Rendered) -> None:
    """No secret is in an environment, where children and dumps would see it."""
    for spec in rendered.pod_specs():
        for container in spec["containers"]:
            assert not set(SECRETS) & {item["name"] for item in container.get("env", [])}
            assert all("secretKeyRef" not in item.get("valueFrom", {}) for item in container.get("env", []))
            assert all("secretRef" not in item for item in container.get("envFrom", []))
    assert not set(SECRETS) & set(rendered.settings())


def test_paths_are_in_mounted_folders(rendered: Rendered) -> None:
    """Each file that a variable names lies in a volume of that container; secret folders follow a rotation."""
    for spec in rendered.pod_specs():
        for container in spec["containers"]:
            mounts = {mount["mountPath"]: mount for mount in container["volumeMounts"]}
            paths = [value for value in _environment(container).values() if value.startswith("/")]
            assert all(path.rpartition("/")[0] in mounts for path in paths)
            assert all("subPath" not in mount for mount in mounts.values())


def test_secret_files_have_a_source(production: Rendered) -> None:
    """Each secret file that a pod reads is a key of the secret that fills it."""
    secrets = production.all("ExternalSecret")
    keys = {each["metadata"]["name"]: {item["secretKey"] for item in each["spec"]["data"]} for each in secrets}
    for spec in production.pod_specs():
        folders = {volume["name"]: volume["secret"]["secretName"] for volume in spec["volumes"] if "secret" in volume}
        for container in spec["containers"]:
            mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
            for path in (value for value in _environment(container).values() if value.startswith("/run/secrets/")):
                folder, _, key = path.rpartition("/")
                assert key in keys[folders[mounts[folder]]]


def test_grace_period_covers_the_longest_stop(rendered: Rendered) -> None:
    """The pod is not killed while it still drains, commits and leaves, however slow each of these is."""
    drain_s = float(rendered.settings()["DRAIN_TIMEOUT_S"])
    commits_s = 2 * _COMMIT_TIMEOUT_S  # what is finished, then what is not
    clients_s = 2 * source._STOP_TIMEOUT_S + dead_letters._STOP_TIMEOUT_S  # consumer and admin client, then producer
    traces_s = spans._STOP_TIMEOUT_S  # where they are on
    longest_s = _POLL_S + drain_s + commits_s + clients_s + traces_s + _EXIT_MARGIN_S
    grace_s = rendered.one("Deployment")["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
    assert grace_s >= longest_s


def test_probes_ask_what_they_are_for(rendered: Rendered) -> None:
    """Start and liveness ask /livez, readiness /readyz, all on the service's own port and from any host."""
    container = rendered.consumer()
    probes = {kind: container[f"{kind}Probe"] for kind in ("startup", "liveness", "readiness")}
    paths = {kind: probe["httpGet"]["path"] for kind, probe in probes.items()}
    assert paths == {"startup": "/livez", "liveness": "/livez", "readiness": "/readyz"}
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert all(ports[probe["httpGet"]["port"]] == int(rendered.settings()["HTTP_PORT"]) for probe in probes.values())
    assert all("host" not in probe["httpGet"] for probe in probes.values())


def test_pods_are_restricted(rendered: Rendered) -> None:
    """Every pod meets the restricted Pod Security Standard, with a read-only root and without a token."""
    for spec in rendered.pod_specs():
        assert spec["automountServiceAccountToken"] is False
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["runAsUser"] >= 10_000
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in spec["containers"]:
            context = container["securityContext"]
            assert context["readOnlyRootFilesystem"] is True
            assert context["allowPrivilegeEscalation"] is False
            assert context["capabilities"] == {"drop": ["ALL"]}
            assert container["resources"].keys() == {"requests", "limits"}
            assert "@sha256:" in container["image"]
    labels = rendered.one("Namespace")["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"


def test_secret_files_are_for_the_group_alone(rendered: Rendered) -> None:
    """Secret files are readable by the pod's group and by nobody else."""
    for spec in rendered.pod_specs():
        modes = [volume["secret"]["defaultMode"] for volume in spec["volumes"] if "secret" in volume]
        assert all(mode == 0o440 for mode in modes)


def test_token_cache_never_touches_a_disk(rendered: Rendered) -> None:
    """The access token is cached in memory."""
    path = _environment(rendered.consumer())["ZOHO_TOKEN_CACHE"].rpartition("/")[0]
    (name,) = (mount["name"] for mount in rendered.consumer()["volumeMounts"] if mount["mountPath"] == path)
    volumes = {volume["name"]: volume for volume in rendered.one("Deployment")["spec"]["template"]["spec"]["volumes"]}
    assert volumes[name]["emptyDir"]["medium"] == "Memory"


def test_memory_holds_what_may_be_in_flight(rendered: Rendered) -> None:
    """The memory limit is several times what the service may hold unsettled."""
    limit = rendered.consumer()["resources"]["limits"]["memory"]
    assert limit.endswith("Mi")
    assert int(limit.removesuffix("Mi")) >= 4 * int(rendered.settings()["MAX_IN_FLIGHT_MIB"])


def test_rollout_adds_no_member(rendered: Rendered) -> None:
    """A pod is replaced without a surge pod, which would cost the group a second rebalance."""
    strategy = rendered.one("Deployment")["spec"]["strategy"]["rollingUpdate"]
    assert strategy == {"maxSurge": 0, "maxUnavailable": 1}


def test_selectors_find_the_consumer_alone(rendered: Rendered) -> None:
    """Disruption budget, service and monitor select the consumer's pods, and not those of a replay."""
    pods = rendered.one("Deployment")["spec"]["template"]["metadata"]["labels"]
    job = rendered.one("CronJob", "zoho-sync-replay")["spec"]["jobTemplate"]["spec"]["template"]["metadata"]["labels"]
    selectors = [
        rendered.one("Deployment")["spec"]["selector"]["matchLabels"],
        rendered.one("PodDisruptionBudget")["spec"]["selector"]["matchLabels"],
        rendered.one("Service")["spec"]["selector"],
        *(monitor["spec"]["selector"]["matchLabels"] for monitor in rendered.all("PodMonitor")),
    ]
    for selector in selectors:
        assert selector.items() <= pods.items()
        assert not selector.items() <= job.items()


def test_one_pod_may_always_be_evicted(rendered: Rendered) -> None:
    """A node can be drained at any time: one pod may go, and one that is not ready does not hold it up."""
    budget = rendered.one("PodDisruptionBudget")["spec"]
    assert budget["maxUnavailable"] == 1
    assert "minAvailable" not in budget
    assert budget["unhealthyPodEvictionPolicy"] == "AlwaysAllow"


def test_scaling_stays_within_partitions_and_zoho(production: Rendered) -> None:
    """No more pods than partitions or Zoho's calls at once, two at least, and KEDA alone decides."""
    scaled = production.one("ScaledObject")["spec"]
    partitions = production.one("KafkaTopic", "messaging.messages.v1")["spec"]["partitions"]
    assert scaled["scaleTargetRef"]["name"] == production.one("Deployment")["metadata"]["name"]
    assert 2 <= scaled["minReplicaCount"] <= scaled["fallback"]["replicas"] <= scaled["maxReplicaCount"]
    assert scaled["maxReplicaCount"] <= min(partitions, int(production.settings()["ZOHO_MAX_CONCURRENCY"]))
    assert all(partitions % pods == 0 for pods in range(scaled["minReplicaCount"], scaled["maxReplicaCount"] + 1))
    assert "replicas" not in production.one("Deployment")["spec"]
    assert production.all("HorizontalPodAutoscaler") == []


def test_scaling_reads_what_the_service_reads(production: Rendered) -> None:
    """KEDA takes topic, group and brokers from the container's own variables."""
    (trigger,) = production.one("ScaledObject")["spec"]["triggers"]
    named = {value for key, value in trigger["metadata"].items() if key.endswith("FromEnv")}
    assert named == {"KAFKA_BOOTSTRAP_SERVERS", "KAFKA_GROUP_ID", "KAFKA_TOPIC"}
    assert named <= production.settings().keys()
    assert all(isinstance(value, str) for value in trigger["metadata"].values())


def test_network_is_closed_but_for_what_is_named(rendered: Rendered) -> None:
    """By default nothing goes in or out; the service reaches DNS, Kafka and the outside's port 443."""
    deny = rendered.one("NetworkPolicy", "default-deny")["spec"]
    assert deny == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    allowed = rendered.one("NetworkPolicy")["spec"]
    out = {(port["protocol"], port["port"]) for rule in allowed["egress"] for port in rule["ports"]}
    assert out == {("UDP", 53), ("TCP", 53), ("TCP", 9092), ("TCP", 443)}
    (inside,) = (rule["ports"] for rule in allowed["ingress"])
    assert inside == [{"protocol": "TCP", "port": int(rendered.settings()["HTTP_PORT"])}]


def test_brokers_are_reachable(rendered: Rendered) -> None:
    """The port of the brokers lies in what the network policy lets out."""
    rules = rendered.one("NetworkPolicy")["spec"]["egress"]
    (kafka,) = (port for rule in rules for port in rule["ports"] if "endPort" in port)
    servers = rendered.settings()["KAFKA_BOOTSTRAP_SERVERS"].split(",")
    assert all(kafka["port"] <= int(server.rpartition(":")[2]) <= kafka["endPort"] for server in servers)


def test_topics_and_rights_are_those_of_the_service(production: Rendered) -> None:
    """The declared topics are the ones that it uses, and its user may read, write and commit there, and no more."""
    settings = production.settings()
    names = {settings["KAFKA_TOPIC"], settings["KAFKA_DLQ_TOPIC"]}
    assert {topic["metadata"]["name"] for topic in production.all("KafkaTopic")} == names
    assert settings["KAFKA_SASL_USERNAME"] == production.one("KafkaUser")["metadata"]["name"]
    rights = {
        (acl["resource"]["type"], acl["resource"]["name"], operation)
        for acl in production.one("KafkaUser")["spec"]["authorization"]["acls"]
        for operation in acl["operations"]
        if not operation.startswith("Describe")
    }
    assert rights == {
        ("topic", settings["KAFKA_TOPIC"], "Read"),
        ("group", settings["KAFKA_GROUP_ID"], "Read"),
        ("topic", settings["KAFKA_DLQ_TOPIC"], "Read"),
        ("topic", settings["KAFKA_DLQ_TOPIC"], "Write"),
    }


def test_dead_letters_fit_beside_their_headers(production: Rendered) -> None:
    """Whatever the source topic takes, the dead-letter topic takes with its headers."""
    topics = {topic["metadata"]["name"]: topic["spec"]["config"] for topic in production.all("KafkaTopic")}
    settings = production.settings()
    largest = int(topics[settings["KAFKA_TOPIC"]]["max.message.bytes"])
    assert int(topics[settings["KAFKA_DLQ_TOPIC"]]["max.message.bytes"]) >= largest + 16 * 1024


def test_replay_waits_to_be_asked(rendered: Rendered) -> None:
    """The replay is a template for jobs: suspended, one at a time, and never tried again by itself."""
    spec = rendered.one("CronJob", "zoho-sync-replay")["spec"]
    assert spec["suspend"] is True
    assert spec["concurrencyPolicy"] == "Forbid"
    assert spec["jobTemplate"]["spec"]["backoffLimit"] == 0


def test_changed_settings_roll_the_pods(rendered: Rendered) -> None:
    """The pods name the ConfigMap by a name that changes with its content."""
    (reference,) = rendered.consumer()["envFrom"]
    name, _, content_hash = reference["configMapRef"]["name"].rpartition("-")
    assert name == "zoho-sync-settings"
    assert len(content_hash) == 10


def test_liveness_waits_longer_than_a_start(rendered: Rendered) -> None:
    """A slow start is not taken for a death: the start-up probe allows a minute at least."""
    probe = rendered.consumer()["startupProbe"]
    assert math.prod((probe["periodSeconds"], probe["failureThreshold"])) >= 60
