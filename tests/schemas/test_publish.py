"""The published schemas."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from schemas import publish
from schemas.__main__ import main
from schemas.samples import Sample, load

# Dates of the calendar are beyond a pattern.
BEYOND_JSON_SCHEMA = {"occurred_at_impossible"}


def is_plain(sample: Sample) -> bool:
    return not sample.headers and "cloudevent" not in sample.name and "base64" not in sample.name


def plain(expected: str, reason: str) -> list[Sample]:
    return [one for one in load() if is_plain(one) and (one.expected, one.reason) == (expected, reason)]


def test_the_published_files_match_the_models() -> None:
    """Nobody changes the contract without publishing it."""
    assert publish.drifted() == [], "run `python -m schemas`"


def test_a_check_fails_on_drift_and_says_what_to_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A missing or outdated file fails the check until it is written anew."""
    monkeypatch.setattr(publish, "JSON_SCHEMA", tmp_path / "json" / "event.json")
    monkeypatch.setattr(publish, "ASYNCAPI", tmp_path / "asyncapi.yaml")
    assert main(["--check"]) == 1
    assert "`python -m schemas`" in capsys.readouterr().err
    assert main([]) == 0
    assert main(["--check"]) == 0
    (tmp_path / "asyncapi.yaml").write_text("asyncapi: 3.0.0\n")
    assert main(["--check"]) == 1
    assert "asyncapi.yaml" in capsys.readouterr().err


def test_the_yaml_says_what_the_generator_meant() -> None:
    """A YAML parser reads the published AsyncAPI document as it was built."""
    assert yaml.safe_load(publish.ASYNCAPI.read_text("utf-8")) == publish.asyncapi()


@pytest.mark.parametrize(
    "node",
    [
        {"a": [], "b": {}, "c": [[1, 2], [{"d": None}]]},
        [{"x": {"y": ["z"]}}, "no", True],
        {"5": "# : - 🌸\n", "yes": 0.5},
    ],
)
def test_any_nesting_survives_yaml(node: object) -> None:
    """Nested, empty and awkward values come back from a YAML parser unchanged."""
    assert yaml.safe_load("\n".join(publish.yaml_lines(node))) == node


def references(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        yield from ([node["$ref"]] if "$ref" in node else [])
        node = list(node.values())
    for child in node if isinstance(node, list) else []:
        yield from references(child)


def test_every_reference_in_the_document_leads_somewhere() -> None:
    """AsyncAPI tools can resolve the document."""
    document = publish.asyncapi()
    for reference in references(document):
        target = document
        for step in reference.removeprefix("#/").split("/"):
            target = target[step]
        assert target


def test_the_document_names_both_topics_and_every_dead_letter_header() -> None:
    """Whoever replays dead letters finds the topic and its headers in the document."""
    document = publish.asyncapi()
    assert [channel["address"] for channel in document["channels"].values()] == [
        "messaging.messages.v1",
        "messaging.messages.v1.dlq",
    ]
    promised = ["reason", "stage", "detail", "topic", "partition", "offset", "timestamp", "attempts"]
    promised += ["failed_at", "replays"]
    headers = document["components"]["messages"]["deadLetter"]["headers"]
    assert set(headers["required"]) == {f"dlq.{name}" for name in promised}
    assert set(headers["properties"]) == {*headers["required"], "dlq.traceparent"}


@pytest.mark.parametrize("sample", [*plain("event", ""), *plain("skip", "no_phone")], ids=lambda sample: sample.name)
def test_the_json_schema_accepts_what_is_accepted(sample: Sample) -> None:
    """A producer that validates with the published schema is not told off for a good event."""
    text = (sample.value or b"").decode("utf-8-sig")
    jsonschema.Draft202012Validator(publish.json_schema()).validate(json.loads(text))


@pytest.mark.parametrize("sample", plain("poison", "schema_violation"), ids=lambda sample: sample.name)
def test_the_json_schema_refuses_what_is_refused(sample: Sample) -> None:
    """A producer that validates with the published schema sends nothing of a wrong shape."""
    is_valid = jsonschema.Draft202012Validator(publish.json_schema()).is_valid(json.loads(sample.value or b""))
    assert is_valid == (sample.name in BEYOND_JSON_SCHEMA)
