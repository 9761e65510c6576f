"""The command line: `python -m consumer` and `zoho-sync` are the same program."""

from __future__ import annotations

import asyncio
import sys

import typer
import uvloop

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
    from consumer.app import run_service  # noqa: PLC0415 - other commands start without Kafka and aiohttp
    from consumer.telemetry.log import configure_logging  # noqa: PLC0415

    settings = settings_or_exit()
    configure_logging(level=settings.log_level, style=settings.log_format)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        raise typer.Exit(runner.run(run_service(settings)))


def settings_or_exit() -> Settings:
    """Settings, or one line for each bad variable on standard error and exit code 2."""
    try:
        return load_settings()
    except SettingsError as error:
        for line in error.lines:
            sys.stderr.write(f"{line}\n")
        raise typer.Exit(2) from None


def main() -> None:
    """Entry point of the console script."""
    cli()


if __name__ == "__main__":
    main()
