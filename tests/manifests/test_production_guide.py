"""docs/production.md lists what can be set, as it is."""

from __future__ import annotations

import re
from enum import Enum

from consumer.settings import SECRETS, Settings
from tests.manifests.conftest import ROOT, VARIABLES

_ROW = re.compile(r"^\| ([A-Z][A-Z_]+) \| (.+?) \| (.+) \|$", re.MULTILINE)


def _rows() -> dict[str, tuple[str, str]]:
    text = (ROOT / "docs" / "production.md").read_text("utf-8")
    return {name: (default, meaning) for name, default, meaning in _ROW.findall(text)}


def _default(name: str) -> str:
    value = Settings.model_fields[name.lower()].default
    if name == "ZOHO_TRIGGERS":
        return "all"
    if value is None or value == ():
        return "-"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Enum):
        return str(value.value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def test_every_setting_is_listed_with_its_default() -> None:
    """The table has each variable of the service, once, with the default that holds."""
    expected = {name: _default(name) for name in VARIABLES - {f"{secret}_FILE" for secret in SECRETS}}
    assert {name: default for name, (default, _) in _rows().items()} == expected


def test_secrets_are_called_secret() -> None:
    """Whoever reads the table knows what must not be in an environment."""
    assert {name for name, (_, meaning) in _rows().items() if meaning.startswith("secret")} == set(SECRETS)


def test_checklist_is_complete() -> None:
    """Each of the fifty points has an answer."""
    text = (ROOT / "docs" / "production.md").read_text("utf-8").partition("## Checklist")[2]
    assert [int(number) for number in re.findall(r"^\| (\d+) \| [^|]+ \| [^|]+ \|$", text, re.MULTILINE)] == list(
        range(1, 51)
    )
