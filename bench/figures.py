"""What a measurement yields."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field


@dataclass(slots=True)
class Figure:
    """One measured figure: all rounds of it, and what was wished for."""

    name: str
    unit: str
    wished: str
    values: list[float] = field(default_factory=list)

    def add(self, value: float) -> None:
        """One more round."""
        self.values.append(value)

    @property
    def median(self) -> float:
        """The figure to quote."""
        return statistics.median(self.values)
