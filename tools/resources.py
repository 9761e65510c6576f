"""Validate rendered manifests: `python -m tools.resources OVERLAY.yaml …`, one line for each problem.

Kubernetes' own kinds are checked strictly against the schemas of the oldest and the newest version that is supported;
custom kinds against the models of their packages, or against k8s/schemas.yaml.  A kind that nothing here knows is a
problem, for it would be checked by nobody.  Runs in the environment of requirements/checks.txt.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jsonschema
import kubernetes_validate  # type: ignore[import-not-found]
import promql_parser  # type: ignore[import-not-found]
import yaml
from cloudcoil.models.keda import v1alpha1 as keda  # type: ignore[import-not-found]
from cloudcoil.models.prometheus_operator import v1 as prometheus  # type: ignore[import-not-found]

if TYPE_CHECKING:
    from collections.abc import Iterator

VERSIONS = ("1.33", "1.37")
SCHEMAS = Path(__file__).resolve().parent.parent / "k8s" / "schemas.yaml"
MODELS = {
    ("keda.sh/v1alpha1", "ScaledObject"): keda.ScaledObject,
    ("keda.sh/v1alpha1", "TriggerAuthentication"): keda.TriggerAuthentication,
    ("monitoring.coreos.com/v1", "PodMonitor"): prometheus.PodMonitor,
    ("monitoring.coreos.com/v1", "PrometheusRule"): prometheus.PrometheusRule,
}
# Grafana's own variables are not PromQL.
VARIABLES = {"$__rate_interval": "5m", "$namespace": "zoho-sync"}
# What the schemas of Kubernetes leave open and its API server does not.
_QUANTITY = re.compile(r"^[0-9]+(\.[0-9]+)?(m|k|M|G|Ki|Mi|Gi)?$")


def main() -> int:
    """Print every problem; 1 when there is one, or when there was nothing to check."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", nargs="+", type=Path)
    count = 0
    problems: list[str] = []
    for path in parser.parse_args().files:
        for resource in yaml.safe_load_all(path.read_text("utf-8")):
            count += 1
            name = f"{path.stem}: {resource['kind']} {resource['metadata']['name']}"
            problems += [f"{name}: {problem}" for problem in _problems(resource)]
    print(*problems, f"{count} resources, {len(problems)} problems", sep="\n")
    return 1 if problems or not count else 0


def _problems(resource: dict[str, Any]) -> Iterator[str]:
    schemas = yaml.safe_load(SCHEMAS.read_text("utf-8"))
    if model := MODELS.get((resource["apiVersion"], resource["kind"])):
        yield from _model_problems(model, resource)
    elif resource["kind"] in schemas:
        yield from _schema_problems(schemas, resource)
    else:
        yield from _kubernetes_problems(resource)
    yield from _quantity_problems(resource)
    yield from _query_problems(resource)


def _kubernetes_problems(resource: dict[str, Any]) -> Iterator[str]:
    for version in VERSIONS:
        try:
            kubernetes_validate.validate(resource, version, strict=True)
        except kubernetes_validate.ValidationError as error:
            place = ".".join(str(part) for part in error.path)
            yield f"Kubernetes {version}: {place}: {error.message}"
        except (kubernetes_validate.SchemaNotFoundError, kubernetes_validate.InvalidSchemaError) as error:
            yield f"Kubernetes {version}: nothing knows {resource['apiVersion']} {resource['kind']}: {error}"


def _model_problems(model: Any, resource: dict[str, Any]) -> Iterator[str]:
    try:
        kept = model.model_validate(resource).model_dump(mode="json", by_alias=True, exclude_unset=True)
    except ValueError as error:
        yield str(error)
    else:
        # The models ignore what they do not know; what does not come back was not known.
        yield from (f"unknown field {place}" for place in sorted(_places(resource) - _places(kept)))


def _places(value: Any, place: str = "") -> set[str]:
    if isinstance(value, dict):
        return {place}.union(*(_places(item, f"{place}.{key}") for key, item in value.items()))
    if isinstance(value, list):
        return {place}.union(*(_places(item, f"{place}[{index}]") for index, item in enumerate(value)))
    return {place}


def _schema_problems(schemas: dict[str, Any], resource: dict[str, Any]) -> Iterator[str]:
    schema = schemas[resource["kind"]] | {"$defs": schemas["$defs"]}
    for error in jsonschema.Draft202012Validator(schema).iter_errors(resource):
        yield f"{error.json_path}: {error.message}"


def _quantity_problems(value: Any, place: str = "") -> Iterator[str]:
    if isinstance(value, dict):
        for key, item in value.items():
            if key in ("requests", "limits") and isinstance(item, dict):
                bad = [name for name, amount in item.items() if not _QUANTITY.match(str(amount))]
                yield from (f"{place}.{key}.{name} is not a quantity" for name in bad)
            elif key.endswith(("Seconds", "Threshold")) and isinstance(item, int) and item < 0:
                yield f"{place}.{key} is negative"
            yield from _quantity_problems(item, f"{place}.{key}")
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _quantity_problems(item, f"{place}[{index}]")


def _query_problems(resource: dict[str, Any]) -> Iterator[str]:
    texts = resource.get("data", {}) if resource["kind"] == "ConfigMap" else {}
    for name, text in texts.items():
        if name.endswith(".json"):
            panels = json.loads(text)["panels"]
            queries = [target["expr"] for panel in panels for target in panel.get("targets", [])]
            yield from (f"{name}: {problem}" for query in queries for problem in _promql_problems(query))


def _promql_problems(query: str) -> Iterator[str]:
    for variable, value in VARIABLES.items():
        query = query.replace(variable, value)
    try:
        promql_parser.parse(query)
    except ValueError as error:
        yield f"{query}: {error}"


if __name__ == "__main__":
    sys.exit(main())
