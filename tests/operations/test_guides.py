"""The guides say what is so: anchors that alerts lead to, halt codes, commands, fields, scopes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from typer.main import get_command

from consumer.__main__ import cli
from consumer.operations.blueprint import MESSAGE_FIELDS
from consumer.operations.scopes import SETUP_SCOPES, scope_names
from consumer.operations.texts import codes
from consumer.settings import Settings, load_settings
from consumer.zoho.answers import TABLE, Kind

ROOT = Path(__file__).parents[2]
RUNBOOK = (ROOT / "docs/runbook.md").read_text("utf-8")
SETUPS = [(ROOT / f"docs/setup.{lang}.md").read_text("utf-8") for lang in ("en", "ru")]
GUIDES = [RUNBOOK, *SETUPS]


def anchors(text: str) -> set[str]:
    """What a link can lead to."""
    titles = re.findall(r"^#+ (.*)", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title).strip().lower().replace(" ", "-") for title in titles}


def test_every_alert_has_its_section() -> None:
    """Whoever follows an alert's link at night finds the section."""
    rules = (ROOT / "k8s/components/monitoring/rules.yaml").read_text("utf-8")
    assert set(re.findall(r"runbook\.md#([\w-]+)", rules)) - anchors(RUNBOOK) == set()


@pytest.mark.parametrize("text", GUIDES)
def test_links_within_a_guide_lead_somewhere(text: str) -> None:
    """No link points to a section or a file that is not there."""
    assert set(re.findall(r"\]\(#([\w-]+)\)", text)) - anchors(text) == set()
    files = re.findall(r"\]\((\w[\w.-]*\.md)", text)
    assert [name for name in files if not (ROOT / "docs" / name).exists()] == []


def test_every_halt_code_is_explained() -> None:
    """Each code for which the service waits is in the runbook's section on halt codes."""
    halting = {code for code, meaning in TABLE.items() if meaning.kind is Kind.HALTED}
    sources = (ROOT / "consumer/kafka/source.py").read_text("utf-8") + (ROOT / "consumer/app.py").read_text("utf-8")
    halting |= set(re.findall(r'"([A-Z]+(?:_[A-Z]+)+)", advice', sources))
    halting |= {f"TOKEN_{name}" for name in ("INVALID_CODE", "INVALID_CLIENT", "INVALID_CLIENT_SECRET", "THROTTLED")}
    section = RUNBOOK.partition("# Halt codes")[2]
    assert {code for code in halting if code not in section} == set()


@pytest.mark.parametrize("text", [*GUIDES, *(" ".join(part) for part in codes("en").values())])
def test_only_real_commands_are_named(text: str) -> None:
    """Every `zoho-sync …` that is printed or written down can be run, with each of its options."""
    root = get_command(cli)
    for line in re.findall(r"zoho-sync ((?:[a-z]+ ?)+(?:[^`|#\n]*))", text):
        words = line.split()
        command = root
        while words and (found := getattr(command, "commands", {}).get(words[0])):
            command, words = found, words[1:]
        if command is root:
            continue
        known = {option for parameter in command.params for option in parameter.opts}
        assert {word.rstrip(".,;:") for word in words if word.startswith("--")} - known == set(), line


@pytest.mark.parametrize("text", SETUPS)
def test_the_guide_names_every_field(text: str) -> None:
    """Who makes the module by hand misses nothing."""
    for spec in MESSAGE_FIELDS:
        assert f"| {spec.label} |" in text
        assert f"| {spec.api_name} |" in text


@pytest.mark.parametrize("text", SETUPS)
def test_the_guide_names_the_scopes_and_no_others(text: str) -> None:
    """Who grants them by hand, for a self client, gives all that the service can need and nothing more."""
    settings = load_settings(_env_file=None, zoho_assignment_rule_id="1", zoho_composite=True)
    assert scopes_in(text) == sorted([*scope_names(settings, with_setup=False), *SETUP_SCOPES])


def scopes_in(text: str) -> list[str]:
    """All scopes of the guide's table; after a comma the verb alone goes on with the scope before it."""
    found: list[str] = []
    for cell in re.findall(r"^\| (Zoho\S*\..*?) \|", text, re.MULTILINE):
        for name in cell.split(", "):
            found.append(found[-1].rpartition(".")[0] + name if name.startswith(".") else name)
    return sorted(found)


@pytest.mark.parametrize("text", GUIDES)
def test_only_real_variables_are_named(text: str) -> None:
    """Every variable in a guide exists."""
    named = set(re.findall(r"\b((?:ZOHO|KAFKA|SYNC|HTTP|DLQ|LINK|BATCH)_[A-Z_]+)\b(?!\.)", text))
    known = {name.upper() for name in Settings.model_fields}
    assert {name for name in named if name not in known and not name.startswith("HTTP_")} == set()
