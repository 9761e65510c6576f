"""Nothing is lost and nothing is written twice, whatever happens; each failing seed that was ever found stays here."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.simulation.running import Totals, run_seed
from tests.simulation.scenarios import ALL

SEEDS = {"everything": 60, "calm": 10, "zoho": 20, "crashes": 20, "rebalances": 15, "notes": 20, "letters": 15}
SEEDS |= {"tokens": 15, "meddling": 15}
BLOCK = 5

FOUND = {
    ("everything", 3): "an owner of suspect records called its departure clean, and a dead letter was written twice",
    ("everything", 18): "a note was written for a partition that had been taken away",
    ("everything", 22): "a dead letter was written again after its answer was lost",
    ("everything", 55): "a note of a delivery that was taken away counted as somebody else's",
    ("everything", 368): "a late commit moved the offset back",
    ("everything", 457): "a delivery that was taken away came back to life with the redelivered record",
    ("everything", 707): "a late commit moved the offset back past a dead letter",
    ("everything", 31056): "a clean departure was committed late, when others had built on the records since",
    ("everything", 31988): "a message wrote the note of another one without a look",
    ("everything", 5283): "a message was dead-lettered when its person had lost two records",
    ("everything", 5522): "a message was called somebody else's when a redelivery of it had been given up",
    ("everything", 799): "a lead that was to be withdrawn stayed after one failed deletion",
    ("meddling", 6): "a message was dead-lettered while the search still showed its person's deleted leads",
    ("everything", 217): "a replayed message whose note had been refused was told that an older message owed it",
    ("meddling", 600097): "whoever wrote a note for another message took that message's lead away under its feet",
    ("meddling", 900125): "a message was dead-lettered when its person had lost six records, one after the other",
    ("letters", 778): "a message was charged with the refused note of another one, and lost it in a rebalance",
    ("letters", 403): "a note that was refused was never made up for, though its message was replayed",
    ("notes", 100905): "Zoho was still at a note when the next owner of its message looked for it",
    ("notes", 100035): "two owners of one message both made up for its note",
    ("zoho", 100169): "a note was written twice in the same moment",
    ("zoho", 100179): "whoever made a message was held up, and somebody else had written its note meanwhile",
    ("rebalances", 100034): "two owners of one message waited equally long, and both wrote its note",
}


@pytest.mark.parametrize(
    ("name", "start"), [(name, at) for name, count in SEEDS.items() for at in range(0, count, BLOCK)]
)
def test_every_promise_holds(name: str, start: int) -> None:
    """A run under any seed breaks none of the promises."""
    for seed in range(start, start + BLOCK):
        verdict = run_seed(name, seed)
        assert not verdict.violations, f"python -m tests.simulation --scenario {name} --from {seed} --seeds 1"


@pytest.mark.parametrize(("name", "seed"), FOUND, ids=[f"{seed}: {what}" for (_, seed), what in FOUND.items()])
def test_what_was_found_stays_found(name: str, seed: int) -> None:
    """A seed that once showed a fault passes."""
    assert run_seed(name, seed).violations == []


@pytest.mark.parametrize("name", ALL)
def test_the_trouble_is_real(name: str) -> None:
    """Every fault that a scenario promises strikes within its first seeds."""
    totals = Totals(name)
    for seed in range(100):
        totals.add(run_seed(name, seed))
        if not totals.idle_faults():
            return
    assert totals.idle_faults() == []


def test_a_seed_is_a_run() -> None:
    """The same seed gives the same run, in another process with another hash seed, too."""
    here = [run_seed("everything", seed).trace for seed in range(4)]
    code = "from tests.simulation.running import run_seed; print(*(run_seed('everything', s).trace for s in range(4)))"
    root = Path(__file__).parents[2]
    environment = os.environ | {"PYTHONHASHSEED": "17"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root, env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == here
