"""Pictures of the figures: what was reached of what was wished for, and how the service stands against baselines."""

from __future__ import annotations

from typing import TYPE_CHECKING

import matplotlib as mpl

if TYPE_CHECKING:
    from pathlib import Path

    from bench.figures import Figure

_INK, _GOOD, _PALE = "#22303c", "#2a7f62", "#c7d3dd"


def draw(figures: dict[str, Figure], folder: Path) -> list[Path]:
    """Draw what was measured; returns the files."""
    mpl.use("Agg")
    drawn = [
        _bars(
            [figures[name] for name in ("share_known", "share_new")],
            "speed on a backlog, as a share of what Zoho's limits allow, in percent",
            folder / "shares.png",
        ),
        _bars(
            [figure for name, figure in figures.items() if name.startswith("limiter_") and name.endswith("_used")],
            "share of Zoho's limit that is used while it changes, in percent",
            folder / "limiter.png",
        ),
        _bars(
            [figures[name] for name in ("calls_known", "calls_met", "calls_new")],
            "API calls per 1,000 messages",
            folder / "calls.png",
        ),
        _bars(
            [figures[name] for name in ("credits_known", "credits_met", "credits_new")],
            "API credits per 1,000 messages",
            folder / "credits.png",
        ),
        _bars(
            [figures[name] for name in ("times_one", "times_fifty", "cpu_ratio")],
            "how many times better than the obvious consumer",
            folder / "baselines.png",
            log=True,
        ),
    ]
    return [path for path in drawn if path is not None]


def _bars(figures: list[Figure], title: str, path: Path, *, log: bool = False) -> Path | None:
    from matplotlib import pyplot as plt  # noqa: PLC0415 - only after the backend is chosen

    figures = [figure for figure in figures if figure.values]
    if not figures:
        return None
    picture, axes = plt.subplots(figsize=(7.5, 0.9 + 0.6 * len(figures)), layout="constrained")
    names = [figure.name.rpartition(", ")[2] if ", " in figure.name else figure.name for figure in figures]
    medians = [figure.median for figure in figures]
    spread = [
        [figure.median - min(figure.values) for figure in figures],
        [max(figure.values) - figure.median for figure in figures],
    ]
    bars = axes.barh(names, medians, xerr=spread, color=_GOOD, ecolor=_INK, height=0.55)
    for position, figure in enumerate(figures):
        wish = float("".join(char for char in figure.wished if char.isdigit() or char == "."))
        axes.plot([wish, wish], [position - 0.4, position + 0.4], color=_INK, linestyle=":")
    picture.suptitle(f"{title} (dotted: wished)", x=0.01, ha="left", fontsize=10, color=_INK)
    axes.invert_yaxis()
    axes.set_xscale("log" if log else "linear")
    axes.bar_label(bars, fmt="%.3g", padding=4)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.grid(axis="x", color=_PALE, linewidth=0.5)
    picture.savefig(path, dpi=130)
    plt.close(picture)
    return path
