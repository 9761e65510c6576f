"""`python -m bench`: measure, and show a table (also as Markdown), JSON, and plots.

Speed depends on the machine, so figures are ratios where they can be, and each comes with minimum, median and maximum
of its rounds, of which as many are measured as the minutes allow.  Nothing here judges: a wish that is not met is shown
beside what was measured.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from bench import limiter, scenarios
from bench.figures import Figure
from bench.scenarios import Sizes

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    Scenario = Callable[[Sizes, dict[str, Figure]], Awaitable[None]]

_SHORT = Sizes(
    messages=4000,
    people=400,
    baseline_messages=5,
    baseline_many=100,
    baseline_at_once=200,
    backlog=50_000,
    backlog_watch_s=8.0,
    waiting=20_000,
    live_s=5.0,
    burst=5000,
)


def new_figures() -> dict[str, Figure]:
    """The table of figures, in the order in which it is shown."""
    return {
        "share_known": Figure("backlog, known people: share of the bound", "%", "≥ 95"),
        "speed_known": Figure("backlog, known people: speed", "messages/s", "-"),
        "share_new": Figure("backlog, new people: share of the bound", "%", "≥ 60"),
        "calls_known": Figure("API calls per 1,000 messages, known", "calls", "≤ 10.5"),
        "calls_met": Figure("API calls per 1,000 messages, first met", "calls", "≤ 25"),
        "calls_new": Figure("API calls per 1,000 messages, new people", "calls", "≤ 90"),
        "credits_known": Figure("credits per 1,000 messages, known", "credits", "≤ 101"),
        "credits_met": Figure("credits per 1,000 messages, first met", "credits", "≤ 130"),
        "credits_new": Figure("credits per 1,000 messages, new people", "credits", "≤ 350"),
        "cpu": Figure("processor time of a message", "µs", "≤ 120"),
        "cpu_ratio": Figure("processor time: one at a time ÷ the service", "times", "≥ 20"),
        "times_one": Figure("speed against one at a time", "times", "≥ 200"),
        "times_fifty": Figure("speed against fifty at a time", "times", "≥ 10"),
        "live_median": Figure("20 messages/s: produce to visible, less linger, median", "latencies", "≤ 2.5"),
        "live_p99": Figure("20 messages/s: produce to visible, less linger, 99 %", "latencies", "≤ 4"),
        "memory": Figure("resident memory with a long backlog", "MiB", "≤ 150"),
        "memory_growth": Figure("its last third against its second third", "times", "≈ 1"),
        "first_commit": Figure("join to first committed offset, backlog waiting", "s", "≤ 5 + 3 latencies"),
        "burst_wait": Figure("inbound behind a burst: waits for this part of it", "%", "measure"),
        **limiter.figures(),
    }


_SCENARIOS: tuple[str, ...] = (
    "known_people",
    "new_people",
    "processor_time",
    "against_baselines",
    "live_latency",
    "first_commit",
    "limiter",
    "memory",
    "behind_a_burst",
)


cli = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@cli.command()
def main(
    *,
    rounds: Annotated[int, typer.Option(min=1, help="How often each scenario is measured, at most.")] = 3,
    minutes: Annotated[float, typer.Option(help="A further round is begun only where it ends within them.")] = 9.0,
    short: Annotated[bool, typer.Option("--short", help="A tenth of the work.")] = False,
    only: Annotated[str, typer.Option(help="Comma-separated scenarios.")] = "",
    latency: Annotated[float, typer.Option(help="Zoho's median latency in seconds.")] = 0.4,
    out: Annotated[Path, typer.Option(help="Folder for results.json, table.md and the plots.")] = Path("bench/results"),
) -> None:
    """Measure the service and two baselines on the same work."""
    sizes = replace(_SHORT if short else Sizes(), latency_s=latency)
    wanted = [name.strip() for name in only.split(",") if name.strip()] or list(_SCENARIOS)
    if unknown := set(wanted) - set(_SCENARIOS):
        sys.stderr.write(f"there is no scenario {', '.join(sorted(unknown))}; there are {', '.join(_SCENARIOS)}\n")
        raise typer.Exit(2)
    console = Console()
    figures = asyncio.run(_measure(sizes, wanted, rounds, minutes * 60, console))
    _show(figures, console)
    _save(figures, sizes, out, console)


async def _measure(
    sizes: Sizes, wanted: list[str], rounds: int, budget_s: float, console: Console
) -> dict[str, Figure]:
    figures = new_figures()
    took_s: dict[str, float] = {}
    ends_at = time.monotonic() + budget_s
    for turn in range(rounds):
        for name in wanted:
            started = time.monotonic()
            if started + took_s.get(name, 0.0) > ends_at and turn > 0:
                continue
            console.print(f"round {turn + 1}/{rounds}: {name.replace('_', ' ')} …", end=" ")
            scenario: Scenario = getattr(scenarios, name)
            await scenario(sizes, figures)
            took_s[name] = time.monotonic() - started
            console.print(f"{took_s[name]:.0f} s")
    return figures


def _show(figures: dict[str, Figure], console: Console) -> None:
    measured = [figure for figure in figures.values() if figure.values]
    if not console.is_terminal:
        for figure in measured:
            console.print(f"{figure.name}: {_range(figure)} {figure.unit} (wished: {figure.wished})", soft_wrap=True)
        return
    table = Table("figure", "min", "median", "max", "unit", "wished")
    for figure in measured:
        low, high = min(figure.values), max(figure.values)
        table.add_row(figure.name, _n(low), _n(figure.median), _n(high), figure.unit, figure.wished)
    console.print(table)


def _range(figure: Figure) -> str:
    low, high = _n(min(figure.values)), _n(max(figure.values))
    return _n(figure.median) if low == high else f"{_n(figure.median)} ({low} to {high})"


def _n(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _save(figures: dict[str, Figure], sizes: Sizes, out: Path, console: Console) -> None:
    out.mkdir(parents=True, exist_ok=True)
    rows = {
        name: {"unit": figure.unit, "wished": figure.wished, "values": figure.values}
        for name, figure in figures.items()
        if figure.values
    }
    about = {"messages": sizes.messages, "people": sizes.people, "latency_median_s": sizes.latency_s}
    (out / "results.json").write_text(json.dumps({"sizes": about, "figures": rows}, indent=2) + "\n", "utf-8")
    (out / "table.md").write_text(_markdown(figures), "utf-8")
    console.print(f"written to {out}: {' '.join(['results.json', 'table.md', *_drawn(figures, out)])}", soft_wrap=True)


def _markdown(figures: dict[str, Figure]) -> str:
    """For docs/performance.md."""
    measured = [figure for figure in figures.values() if figure.values]
    rows = [f"| {figure.name} | {_range(figure)} {figure.unit} | {figure.wished} |" for figure in measured]
    return "\n".join(["| figure | measured | wished |", "| --- | --- | --- |", *rows]) + "\n"


def _drawn(figures: dict[str, Figure], out: Path) -> list[str]:
    """Plots need matplotlib, which only `make bench` installs."""
    if find_spec("matplotlib") is None:
        return []
    from bench.plots import draw  # noqa: PLC0415

    return [path.name for path in draw(figures, out)]


if __name__ == "__main__":
    cli()
