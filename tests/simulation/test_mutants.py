"""The oracle is no rubber stamp: it notices every hand-made fault."""

from __future__ import annotations

import pytest

from tests.simulation.mutants import MUTANTS, Mutant
from tests.simulation.running import run_seed


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_the_simulation_notices(mutant: Mutant, monkeypatch: pytest.MonkeyPatch) -> None:
    """A service with this fault breaks a promise within a few seeds."""
    mutant.apply(monkeypatch)
    assert any(run_seed(mutant.scenario, seed).violations for seed in range(mutant.within))
