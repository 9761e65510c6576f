"""Alerts, their unit tests and the dashboard speak of metrics that the service has."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import yaml
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from consumer.telemetry.metrics import CATALOGUE, MetricDef, MetricKind, Metrics
from tests.manifests.conftest import K8S, ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator

MONITORING = K8S / "components" / "monitoring"
_ADDED_BY_PROMETHEUS = {"namespace", "pod", "job", "le", "version"}
_METRIC = re.compile(r"(?<![\w:])(zoho_sync_[a-z_]+)(?:\{([^}]*)\})?")


def _series(definition: MetricDef) -> set[str]:
    if definition.kind is MetricKind.HISTOGRAM:
        return {f"{definition.full_name}_{part}" for part in ("bucket", "sum", "count")}
    return {definition.full_name}


SERIES = {name: definition for definition in CATALOGUE for name in _series(definition)}


def _rules() -> list[dict[str, Any]]:
    document = yaml.safe_load((MONITORING / "rules.yaml").read_text("utf-8"))
    return [rule for group in document["spec"]["groups"] for rule in group["rules"]]


def _alerts() -> list[dict[str, Any]]:
    return [rule for rule in _rules() if "alert" in rule]


def _unit_tests() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = yaml.safe_load((MONITORING / "tests.yaml").read_text("utf-8"))["tests"]
    return found


def _panels() -> list[dict[str, Any]]:
    dashboard = json.loads((MONITORING / "dashboard.json").read_text("utf-8"))
    return [panel for panel in dashboard["panels"] if panel["type"] != "row"]


def _queries() -> Iterator[str]:
    yield from (rule["expr"] for rule in _rules())
    yield from (series["series"] for test in _unit_tests() for series in test["input_series"])
    yield from (target["expr"] for panel in _panels() for target in panel["targets"])


def test_metrics_exist_in_the_catalogue() -> None:
    """Every metric of an alert, of an alert's test or of the dashboard is one that the service exposes."""
    named = {name for query in _queries() for name, _ in _METRIC.findall(query)}
    assert named
    assert named <= SERIES.keys()


def test_labels_exist_in_the_catalogue() -> None:
    """Every label that a metric is selected by is one that it has, or that Prometheus adds."""
    for query in _queries():
        for name, selector in _METRIC.findall(query):
            labels = set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", selector))
            assert labels <= {*SERIES[name].labels, *_ADDED_BY_PROMETHEUS}, query


def test_catalogue_is_what_is_scraped() -> None:
    """The catalogue's names are the ones that Prometheus reads."""
    metrics = Metrics(version="1.2.3")
    families = text_string_to_metric_families(generate_latest(metrics.registry).decode())
    assert {sample.name for family in families for sample in family.samples if "_created" not in sample.name} <= set(
        SERIES
    )


def test_dashboard_shows_every_metric() -> None:
    """What is measured can be seen, so that nothing is exported for nobody."""
    queries = [target["expr"] for panel in _panels() for target in panel["targets"]]
    shown = {SERIES[name].name for query in queries for name, _ in _METRIC.findall(query)}
    assert {definition.name for definition in CATALOGUE} == shown


def test_every_alert_has_a_unit_test() -> None:
    """No alert is shipped that was never seen to fire."""
    text = (MONITORING / "tests.yaml").read_text("utf-8")
    assert [rule["alert"] for rule in _alerts() if rule["alert"] not in text] == []


def test_every_alert_says_what_to_do() -> None:
    """Each alert has a severity, a summary, and a chapter of the runbook that exists."""
    headings = re.findall(r"^#+ (.+)$", (ROOT / "docs" / "runbook.md").read_text("utf-8"), re.MULTILINE)
    anchors = {re.sub(r"[^\w\- ]", "", heading).strip().lower().replace(" ", "-") for heading in headings}
    for rule in _alerts():
        assert rule["labels"]["severity"] in {"page", "ticket"}
        assert rule["annotations"]["summary"]
        page, _, anchor = rule["annotations"]["runbook_url"].partition("#")
        assert page.endswith("/docs/runbook.md")
        assert anchor in anchors


def test_panels_explain_themselves() -> None:
    """Each panel has a title, a description, a unit and the data source that is chosen above."""
    for panel in _panels():
        assert panel["title"]
        assert panel["description"]
        assert panel["fieldConfig"]["defaults"]["unit"]
        assert panel["datasource"]["uid"] == "${datasource}"
