"""`python -m sandbox zoho` and `python -m sandbox broker`: serve until SIGTERM or SIGINT.

The first line on standard output is one JSON object that says how to reach what was started.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import signal
import sys
from collections.abc import Sequence
from typing import get_args

import orjson

from sandbox.broker import Broker, BrokerError
from sandbox.zoho.config import Edition, SandboxConfig, Span
from sandbox.zoho.server import SandboxServer


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command; returns its exit code. Wrong arguments end the process with 2."""
    args = _parser().parse_args(argv)
    try:
        asyncio.run(_zoho(args) if args.command == "zoho" else _broker(args))
    except (OSError, BrokerError) as error:
        print(f"sandbox {args.command}: {error}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m sandbox", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    zoho = commands.add_parser("zoho", help="a stand-in for Zoho CRM and Zoho Accounts")
    zoho.add_argument("--host", default="127.0.0.1", help="address to listen on (%(default)s)")
    zoho.add_argument("--port", type=_port, default=0, help="0 picks a free port (%(default)s)")
    zoho.add_argument("--seed", type=int, default=0, help="same seed, same ids, latencies and faults (%(default)s)")
    zoho.add_argument("--latency-median-s", type=_seconds, default=0.4, help="0 turns latency off (%(default)s)")
    lag_help = "seconds until search sees a write, one number or LOW:HIGH (20:120)"
    zoho.add_argument("--index-lag", type=_span, default=(20.0, 120.0), help=lag_help)
    zoho.add_argument("--coql-lag", type=_span, default=(0.0, 0.0), help="the same for COQL (0)")
    zoho.add_argument("--edition", choices=get_args(Edition), default="enterprise", help="limits (%(default)s)")
    zoho.add_argument("--users", type=_positive, default=10, help="users, for the credits (%(default)s)")
    zoho.add_argument("--daily-credits", type=_positive, help="credits in 24 hours, in place of the edition's")
    zoho.add_argument("--concurrency", type=_positive, help="calls in flight, in place of the edition's")
    zoho.add_argument("--url", help="how clients reach it, where that is not the address it listens on")
    broker = commands.add_parser("broker", help="an embedded Kafka broker that keeps its data in memory")
    broker.add_argument("--port", type=_port, default=0, help="0 picks a free port (%(default)s)")
    return parser


def _port(text: str) -> int:
    port = int(text)
    if not 0 <= port <= 65_535:
        raise argparse.ArgumentTypeError("must be between 0 and 65535")
    return port


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0 <= seconds < float("inf"):
        raise argparse.ArgumentTypeError("must be a number of seconds, 0 or more")
    return seconds


def _span(text: str) -> Span:
    low, _, high = text.partition(":")
    span = (_seconds(low), _seconds(high or low))
    if span[0] > span[1]:
        raise argparse.ArgumentTypeError("LOW must not be above HIGH")
    return span


async def _zoho(args: argparse.Namespace) -> None:
    config = SandboxConfig(
        latency_median_s=args.latency_median_s,
        search_lag_s=args.index_lag,
        coql_lag_s=args.coql_lag,
        edition=args.edition,
        users=args.users,
        daily_credits=args.daily_credits,
        concurrency=args.concurrency,
        api_domain=args.url,
    )
    # Every record stays alive: looking through them for garbage as often as usual costs a sixth of the time.
    gc.set_threshold(50_000, 20, 20)
    stopped = _stop_signal()
    async with SandboxServer(config, host=args.host, port=args.port, seed=args.seed) as server:
        _announce(server.credentials)
        await stopped.wait()


async def _broker(args: argparse.Namespace) -> None:
    stopped = _stop_signal()
    async with Broker(port=args.port) as broker:
        _announce({"bootstrap_servers": broker.bootstrap_servers})
        waits = [asyncio.ensure_future(stopped.wait()), asyncio.ensure_future(broker.ended())]
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for each in waits:
            each.cancel()
        if not stopped.is_set():
            raise BrokerError(f"the broker ended by itself:\n{broker.log_text()}")


def _stop_signal() -> asyncio.Event:
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    return stopped


def _announce(facts: dict[str, str]) -> None:
    print(orjson.dumps(facts).decode(), flush=True)


if __name__ == "__main__":
    sys.exit(main())
