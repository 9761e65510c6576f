"""The command line: `python -m consumer` and `zoho-sync` are the same program."""

from __future__ import annotations

import asyncio
import gc
import signal
import sys
from typing import Annotated, NoReturn

import typer
import uvloop

from consumer.operations.commands import register
from consumer.settings import Settings, SettingsError, load_settings

cli = typer.Typer(
    name="zoho-sync",
    help="Brings every message of a Kafka topic into Zoho CRM: lead, message record, note.",
    add_completion=False,
    no_args_is_help=False,
    pretty_exceptions_enable=False,
)


@cli.callback(invoke_without_command=True)
def default(context: typer.Context) -> None:
    """Without a command: run."""
    if context.invoked_subcommand is None:
        run()


@cli.command()
def run() -> None:
    """Run the service until SIGTERM or SIGINT, then drain, commit and leave the group."""
    signal.signal(signal.SIGTERM, _stop_early)
    from consumer.app import run_service  # noqa: PLC0415 - other commands start without Kafka and aiohttp
    from consumer.telemetry.log import configure_logging  # noqa: PLC0415

    settings = settings_or_exit()
    configure_logging(level=settings.log_level, style=settings.log_format)
    gc.freeze()  # what was imported stays: not looked at again, collecting takes a tenth of the processor time less
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            code = runner.run(run_service(settings))
    except SettingsError as error:
        _refuse(error)
    raise typer.Exit(code)


@cli.command()
def demo(
    messages: Annotated[int, typer.Option(min=10, max=200_000, help="About how many messages to send.")] = 600,
    people: Annotated[int, typer.Option(min=6, max=20_000, help="How many customers write.")] = 120,
    seed: Annotated[int, typer.Option(help="Same seed, same traffic.")] = 1,
    keep: Annotated[bool, typer.Option("--keep", help="Leave everything running and say where to look.")] = False,
) -> None:
    """The whole service on an embedded broker and a Zoho stand-in, with sample traffic; ends by itself."""
    from rich.console import Console  # noqa: PLC0415

    from consumer.operations.demo import DemoError, run_demo  # noqa: PLC0415

    console = Console()
    try:
        code = asyncio.run(run_demo(messages=messages, people=people, seed=seed, keep=keep, console=console))
    except (DemoError, TimeoutError) as error:
        console.print(f"[red]the demo did not finish[/red]: {error or 'the service took too long'}", soft_wrap=True)
        code = 1
    raise typer.Exit(code)


register(cli)


def _stop_early(_number: int, _frame: object) -> NoReturn:
    """Nothing has been begun yet: a stop while the program loads is a clean one."""
    sys.exit(0)


def settings_or_exit() -> Settings:
    """Settings, or one line for each bad variable on standard error and exit code 2."""
    try:
        return load_settings()
    except SettingsError as error:
        _refuse(error)


def _refuse(error: SettingsError) -> NoReturn:
    for line in error.lines:
        sys.stderr.write(f"{line}\n")
    raise typer.Exit(2) from None


def main() -> None:
    """Entry point of the console script."""
    cli()


if __name__ == "__main__":
    main()
