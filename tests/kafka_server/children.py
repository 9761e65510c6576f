"""Child processes that do not outlive the tests."""

from __future__ import annotations

import shutil
from collections.abc import Sequence


def ends_with_us(command: Sequence[str]) -> list[str]:
    """The command, so started that Linux kills it when this process dies, however it dies."""
    setpriv = shutil.which("setpriv")
    return [setpriv, "--pdeathsig", "KILL", *command] if setpriv else list(command)
