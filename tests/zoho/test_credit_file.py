"""The day's credits outlive a restart."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from consumer.core.limits import DAY_S, CreditLedger
from consumer.zoho.credit_file import CreditFile

if TYPE_CHECKING:
    from pathlib import Path

WALL = 1_800_000_000.0


def _saved(path: Path) -> None:
    ledger = CreditLedger()
    ledger.spend(30, 1000.0)
    ledger.spend(12, 5000.0)
    CreditFile(path).save(ledger, now=5000.0, wall_now=WALL)


def test_a_new_process_goes_on_with_what_the_old_one_used(tmp_path: Path) -> None:
    """Credits count for 24 hours by the wall clock, whatever the new process's own clock says."""
    _saved(tmp_path / "credits")
    ledger = CreditLedger()
    CreditFile(tmp_path / "credits").load(ledger, now=7.0, wall_now=WALL + 60)
    assert ledger.used(7.0) == 42
    assert ledger.used(7.0 + DAY_S - 3000) == 12
    assert ledger.used(7.0 + DAY_S + 100) == 0


def test_what_is_a_day_old_is_forgotten(tmp_path: Path) -> None:
    """A file from the day before yesterday binds nobody."""
    _saved(tmp_path / "credits")
    ledger = CreditLedger()
    CreditFile(tmp_path / "credits").load(ledger, now=0.0, wall_now=WALL + 2 * DAY_S)
    assert ledger.used(0.0) == 0


@pytest.mark.parametrize("content", ["", "{", "[[1]]", '[["a", "b"]]', "null", "7"])
def test_a_broken_file_counts_as_nothing_used(tmp_path: Path, content: str) -> None:
    """Whatever stands in the file, the service starts."""
    path = tmp_path / "credits"
    path.write_text(content, "utf-8")
    ledger = CreditLedger()
    CreditFile(path).load(ledger, now=0.0, wall_now=WALL)
    assert ledger.used(0.0) == 0


def test_a_folder_that_is_not_there_stops_nobody(tmp_path: Path) -> None:
    """A volume that cannot be written costs truth about the budget, not the service."""
    ledger = CreditLedger()
    ledger.spend(1, 0.0)
    CreditFile(tmp_path / "gone" / "credits").save(ledger, now=0.0, wall_now=WALL)
    assert not (tmp_path / "gone").exists()
