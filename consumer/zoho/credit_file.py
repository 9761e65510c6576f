"""The credits of the last 24 hours, over restarts: a file beside the token cache.

Without it a crash loop would get a fresh daily budget with every start.  Losing the file costs truth about one day's
budget, never a message; Zoho's own count, which comes from half of the day's credits on, is believed anyway.
"""

from __future__ import annotations

import json
import os
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from consumer.core.limits import CreditLedger


class CreditFile:
    """Reads and replaces the file in one step; moments in it are wall clock, in seconds."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._saved: object = None

    def load(self, ledger: CreditLedger, *, now: float, wall_now: float) -> None:
        """Book what an earlier process used.  A missing or broken file counts as nothing used."""
        with suppress(OSError, ValueError, TypeError):
            entries = json.loads(self._path.read_text("utf-8"))
            ledger.restore([(wall_now - float(moment), int(spent)) for moment, spent in entries], now)

    def save(self, ledger: CreditLedger, *, now: float, wall_now: float) -> None:
        """Replace the file when credits were used since.  A volume that cannot be written is no reason to stop."""
        ages = ledger.ages(now)
        spent = [spent for _, spent in ages]
        if spent == self._saved:
            return
        with suppress(OSError):
            descriptor, name = tempfile.mkstemp(dir=self._path.parent, prefix=f".{self._path.name}.")
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                json.dump([(wall_now - age_s, spent) for age_s, spent in ages], file)
            Path(name).replace(self._path)
            self._saved = spent
