"""`python -m tests.simulation --seeds 1000 [--from 0] [--scenario everything] [--workers N] [-v]`."""

from __future__ import annotations

import argparse
import sys
import time
from typing import TYPE_CHECKING

from tests.simulation.running import Totals, default_workers, verdicts
from tests.simulation.scenarios import ALL

if TYPE_CHECKING:
    from tests.simulation.world import Verdict


def main() -> int:
    """0 when every promise held in every run, and every fault of the scenario struck at least once."""
    args = _arguments()
    is_good = True
    for name in [args.scenario] if args.scenario else list(ALL):
        started = time.monotonic()
        totals = Totals(name)
        for verdict in verdicts(name, range(args.start, args.start + args.seeds), workers=args.workers):
            totals.add(verdict)
            if verdict.violations or args.verbose:
                _tell(verdict)
        is_good &= _sum_up(totals, time.monotonic() - started, is_long=args.seeds >= 20)
    return 0 if is_good else 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation")
    parser.add_argument("--seeds", type=int, default=200, help="how many runs of each scenario")
    parser.add_argument("--from", dest="start", type=int, default=0, help="first seed")
    parser.add_argument("--scenario", choices=list(ALL), help="one scenario instead of all")
    parser.add_argument("--workers", type=int, default=default_workers(), help="processes")
    parser.add_argument("-v", "--verbose", action="store_true", help="a line for each run")
    return parser.parse_args()


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _tell(verdict: Verdict) -> None:
    state = "FAILED" if verdict.violations else "passed"
    _say(f"{verdict.scenario} seed {verdict.seed} {state}, {verdict.virtual_s:.0f} s, trace {verdict.trace}")
    for violation in verdict.violations:
        _say(f"    {violation}")


def _sum_up(totals: Totals, seconds: float, *, is_long: bool) -> bool:
    idle = totals.idle_faults() if is_long else []
    _say(
        f"{totals.scenario}: {totals.runs - len(totals.failed)} of {totals.runs} runs passed,"
        f" {totals.virtual_s / 3600:.0f} virtual hours in {seconds:.0f} s"
    )
    _say("    struck: " + ", ".join(f"{name} {count}" for name, count in sorted(totals.fired.items())))
    for name, count in sorted(totals.excused.items()):
        _say(f"    known limit met {count} times: {name}")
    for name in idle:
        _say(f"    PROVES NOTHING: {name} never struck")
    return not totals.failed and not idle


if __name__ == "__main__":
    sys.exit(main())
