"""Many seeds, on one core or on several."""

from __future__ import annotations

import os
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from tests.simulation.scenarios import ALL
from tests.simulation.world import Verdict, simulate

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


@dataclass(slots=True)
class Totals:
    """What came of many runs of one scenario."""

    scenario: str
    runs: int = 0
    failed: list[Verdict] = field(default_factory=list)
    excused: Counter[str] = field(default_factory=Counter)
    fired: Counter[str] = field(default_factory=Counter)
    virtual_s: float = 0.0

    def add(self, verdict: Verdict) -> None:
        """One run more."""
        self.runs += 1
        self.excused += verdict.excused
        self.fired += verdict.fired
        self.virtual_s += verdict.virtual_s
        if verdict.violations:
            self.failed.append(verdict)

    def idle_faults(self) -> list[str]:
        """Faults that never struck: the runs prove nothing about them."""
        return [name for name in ALL[self.scenario].must_fire if not self.fired[name]]


def run_seed(name: str, seed: int) -> Verdict:
    """One run; an error of the simulation itself is a broken promise, too."""
    try:
        return simulate(ALL[name].scenario, seed)
    except Exception as error:  # noqa: BLE001 - reported with its seed
        return Verdict(name, seed, [f"the run failed: {error!r}"], Counter(), Counter(), "", 0.0)


def verdicts(name: str, seeds: Iterable[int], *, workers: int) -> Iterator[Verdict]:
    """In the order of the seeds."""
    if workers == 1:
        yield from map(partial(run_seed, name), seeds)
        return
    with ProcessPoolExecutor(workers) as pool:
        yield from pool.map(partial(run_seed, name), seeds, chunksize=8)


def default_workers() -> int:
    """One for each core."""
    return os.cpu_count() or 1
