"""The metric catalogue: names as Prometheus wants them, and a page that says what they mean."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from prometheus_client import generate_latest

from consumer.telemetry import metrics as m

PAGE = Path(__file__).parents[2] / "docs" / "metrics.md"
UNITS = re.compile(r"_(milliseconds|ms|minutes|hours|kilobytes|kb|megabytes|percent)(_|$)")
PERSONAL = {"phone", "message_id", "dialog_id", "lead_id", "text", "name", "email"}


def _touched() -> bytes:
    """The exposition with every series once."""
    metrics = m.Metrics(version="1")
    for definition in m.CATALOGUE:
        labels = ["x"] * len(definition.labels)
        if definition.kind is m.MetricKind.COUNTER:
            metrics.count(definition, *labels)
        elif definition.kind is m.MetricKind.GAUGE:
            metrics.put(definition, 1, *labels)
        elif definition.kind is m.MetricKind.HISTOGRAM:
            metrics.observe(definition, 1, *labels)
    return generate_latest(metrics.registry)


def test_page_matches_the_catalogue() -> None:
    """docs/metrics.md is what the catalogue says today."""
    assert PAGE.read_text("utf-8") == m.document()


@pytest.mark.parametrize("definition", m.CATALOGUE, ids=lambda definition: definition.name)
def test_names_follow_the_rules(definition: m.MetricDef) -> None:
    """Base units, no type in the name, `_total` for counters only, a sentence of help, labels without people."""
    assert re.fullmatch(r"zoho_sync_[a-z][a-z0-9_]*[a-z0-9]", definition.full_name)
    assert not UNITS.search(definition.full_name)
    assert not re.search(r"(counter|gauge|histogram)", definition.full_name)
    assert definition.full_name.endswith("_total") == (definition.kind is m.MetricKind.COUNTER)
    assert not definition.name.endswith(("_count", "_sum", "_bucket", "_created"))
    assert definition.help.endswith(".")
    assert not PERSONAL & set(definition.labels)


def test_names_are_unique() -> None:
    """No two definitions claim one name."""
    names = [definition.full_name for definition in m.CATALOGUE]
    assert len(names) == len(set(names))


def test_exposition_holds_every_metric() -> None:
    """Whatever stands in the catalogue can be scraped under the name that the page shows."""
    text = _touched().decode()
    for definition in m.CATALOGUE:
        assert f"\n{definition.full_name}" in text, definition.full_name


def test_promtool_has_no_complaint() -> None:
    """Prometheus' own linter agrees, where it is installed; the rules above are its rules."""
    promtool = shutil.which("promtool")
    if promtool is not None:
        done = subprocess.run([promtool, "check", "metrics"], input=_touched(), capture_output=True, check=False)
        assert (done.returncode, done.stdout) == (0, b""), done.stderr
