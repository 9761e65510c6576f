"""The operator's commands: options in, a function of this room, words out.  Heavy imports wait inside."""

from __future__ import annotations

import asyncio
import re
import signal
import sys
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterator

    from consumer.operations.dlq.desk import Desk
    from consumer.operations.dlq.forecast import Forecast
    from consumer.operations.dlq.letters import Wanted
    from consumer.operations.dlq.replay import Plan, ReplayOptions, ReplayReport
    from consumer.operations.doctor.findings import Finding
    from consumer.operations.explain import Explanation
    from consumer.operations.terminal import Terminal
    from consumer.settings import Settings

_Result = TypeVar("_Result")
_AGO = re.compile(r"(\d{1,6})\s*([smhdw])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}

Json = Annotated[bool, typer.Option("--json", help="JSON, for machines; an error as well.")]
Language = Annotated[str | None, typer.Option("--lang", help="en or ru; otherwise as the locale says.")]
Reasons = Annotated[list[str] | None, typer.Option("--reason", help="Only this reason, e.g. zoho.INVALID_DATA.")]
Stages = Annotated[list[str] | None, typer.Option("--stage", help="Only this stage: parse, lead, message, note.")]
Ids = Annotated[list[str] | None, typer.Option("--message-id", help="Only this message.")]
Since = Annotated[str | None, typer.Option(help="Failed since: RFC 3339, or ago (30m, 6h, 2d).")]
Until = Annotated[str | None, typer.Option(help="Failed before: RFC 3339, or ago.")]
Limit = Annotated[int | None, typer.Option(min=1, help="At most so many.")]
Yes = Annotated[
    bool,
    typer.Option(
        "--yes", "-y", help="Do not ask before it begins. In a pipe or job nobody is asked: it begins at once."
    ),
]
MaxReplays = Annotated[int, typer.Option(min=1, max=1000, help="Leave alone what has come back so often.")]

dlq_cli = typer.Typer(name="dlq", help="Look into the dead-letter topic, and replay from it.", no_args_is_help=True)


def register(cli: typer.Typer) -> None:
    """Add the commands of this room."""
    cli.command()(auth)
    cli.command()(setup)
    cli.command()(doctor)
    cli.command()(explain)
    cli.add_typer(dlq_cli)


# -- frame ------------------------------------------------------------------------------------------------------


@contextmanager
def _speaking(lang: str | None, *, is_json: bool = False) -> Iterator[Terminal]:
    """A terminal; what goes wrong is told there, and ends the command with 1."""
    from consumer.operations.errors import OperationError  # noqa: PLC0415
    from consumer.operations.terminal import Terminal  # noqa: PLC0415
    from consumer.operations.texts import chosen_lang  # noqa: PLC0415
    from consumer.telemetry.log import configure_logging  # noqa: PLC0415

    configure_logging(level="error", style="console")
    terminal = Terminal(chosen_lang(lang), is_json=is_json)
    try:
        yield terminal
    except OperationError as error:
        terminal.error(error)
        raise typer.Exit(1) from None


def _run(work: Coroutine[Any, Any, _Result]) -> _Result:
    return asyncio.run(work)


def _settings(**overrides: Any) -> Settings:
    """Settings without asking that everything be there.  Raises OperationError."""
    from consumer.operations.errors import OperationError  # noqa: PLC0415
    from consumer.settings import SettingsError, load_settings  # noqa: PLC0415

    try:
        return load_settings(zoho_crm_enabled=False, **overrides)
    except SettingsError as error:
        raise OperationError("settings.bad", lines="\n  ".join(error.lines)) from None


def moment(text: str | None, *, now: datetime | None = None) -> datetime | None:
    """RFC 3339, or how long ago.  Raises OperationError."""
    from consumer.operations.errors import OperationError  # noqa: PLC0415

    if text is None:
        return None
    now = now or datetime.now(UTC)
    if ago := _AGO.fullmatch(text.strip().lower()):
        return now - timedelta(**{_UNITS[ago[2]]: int(ago[1])})
    try:
        found = datetime.fromisoformat(text.strip())
    except ValueError:
        raise OperationError("moment.bad", text=text[:40]) from None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


# -- doctor -----------------------------------------------------------------------------------------------------


def doctor(is_json: Json = False, lang: Language = None) -> None:
    """Check settings, Kafka and Zoho; change nothing.  Ends with 1 when a check failed."""
    with _speaking(lang, is_json=is_json) as terminal:
        from consumer.operations.doctor.findings import Status  # noqa: PLC0415
        from consumer.operations.doctor.view import report_json, show_summary  # noqa: PLC0415

        findings = _run(_doctor(terminal))
        if is_json:
            terminal.json(report_json(findings, terminal.lang))
        else:
            show_summary(terminal, findings)
        if any(finding.status is Status.FAILED for finding in findings):
            raise typer.Exit(1)


async def _doctor(terminal: Terminal) -> list[Finding]:
    from consumer.operations.doctor.examine import examine  # noqa: PLC0415
    from consumer.operations.doctor.findings import failed  # noqa: PLC0415
    from consumer.operations.doctor.view import show_finding  # noqa: PLC0415
    from consumer.settings import SettingsError, load_settings  # noqa: PLC0415

    findings: list[Finding] = []
    try:
        settings = load_settings(zoho_crm_enabled=False)
    except SettingsError as error:
        findings = [failed("environment", "bad", line=line) for line in error.lines]
        settings = None
    if settings is not None:
        async for finding in examine(settings, is_enabled=_is_enabled()):
            findings.append(finding)
            if not terminal.is_json:
                show_finding(terminal, finding)
    return findings


def _is_enabled() -> bool:
    """The switch itself; a service that is on and lacks something counts as on."""
    from consumer.settings import SettingsError, load_settings  # noqa: PLC0415

    try:
        return load_settings().zoho_crm_enabled
    except SettingsError:
        return True


# -- auth -------------------------------------------------------------------------------------------------------

_CONSENT_TIMEOUT_S = 600.0


def auth(
    dc: Annotated[str | None, typer.Option(help="Data centre: us, eu, in, au, jp, ca, sa, uk, cn.")] = None,
    redirect_uri: Annotated[str | None, typer.Option(help="The client's Authorized Redirect URI.")] = None,
    listen: Annotated[bool, typer.Option("--listen", help="Wait for the browser on this machine.")] = False,
    code: Annotated[str | None, typer.Option(help="A code, of a self client say, or the redirected address.")] = None,
    with_setup: Annotated[
        bool, typer.Option("--with-setup", help="Also ask for the rights that `setup` needs.")
    ] = False,
    env_file: Annotated[Path, typer.Option(help="Where the credentials are written.")] = Path(".env"),
    kubernetes: Annotated[str | None, typer.Option(metavar="NAME", help="Print a Secret of this name instead.")] = None,
    print_token: Annotated[bool, typer.Option("--print", help="Print the refresh token instead.")] = False,
    lang: Language = None,
) -> None:
    """Connect with Zoho: print the authorization address, take what comes back, keep the refresh token."""
    with _speaking(lang) as terminal:
        from consumer.operations.auth import secret_manifest, variables, write_env  # noqa: PLC0415
        from consumer.operations.auth_dialog import AuthOptions, ask_and_connect, say_connected  # noqa: PLC0415
        from consumer.operations.errors import OperationError  # noqa: PLC0415

        if kubernetes and terminal.out.is_terminal:
            raise OperationError("auth.on_screen")
        is_piped_on = bool(kubernetes) or print_token
        options = AuthOptions(dc, redirect_uri, listen, code, with_setup, is_piped_on, _CONSENT_TIMEOUT_S)
        client, connected = _run(ask_and_connect(terminal, _settings(), options))
        values = variables(client, connected)
        if kubernetes:
            sys.stdout.write(secret_manifest(kubernetes, values))
        elif print_token:
            sys.stdout.write(values["ZOHO_REFRESH_TOKEN"] + "\n")
        else:
            write_env(env_file, values)
        say_connected(terminal, connected, values, None if is_piped_on else env_file)


# -- setup ------------------------------------------------------------------------------------------------------


def setup(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the plan, and change nothing.")] = False,
    yes: Yes = False,
    is_json: Json = False,
    lang: Language = None,
) -> None:
    """Create in Zoho what is missing: the messages module, its fields, uniqueness.  Shows the plan first."""
    with _speaking(lang, is_json=is_json) as terminal:
        from consumer.operations.setup_dialog import set_up  # noqa: PLC0415

        _run(set_up(terminal, _settings(), is_dry=dry_run, is_agreed=yes))


# -- explain ----------------------------------------------------------------------------------------------------


def explain(
    message_id: Annotated[str, typer.Argument(help="The message_id of the event.")],
    since: Annotated[str, typer.Option(help="How far back to search Kafka: RFC 3339, or ago.")] = "7d",
    reveal: Annotated[bool, typer.Option("--reveal", help="Show the link, which holds the number.")] = False,
    is_json: Json = False,
    lang: Language = None,
) -> None:
    """Where one message is: offset, outcome, lead or contact and by which rule, note, dead letters."""
    with _speaking(lang, is_json=is_json) as terminal:
        from consumer.operations.explain_view import show_explanation  # noqa: PLC0415

        settings = _settings()
        found = _run(_explain(settings, message_id, since))
        show_explanation(terminal, found, settings, is_revealed=reveal)
        if found.outcome(settings)[0] in ("unknown", "not_in_zoho", "not_in_kafka", "untold"):
            raise typer.Exit(1)


async def _explain(settings: Settings, message_id: str, since: str) -> Explanation:
    from consumer.core.errors import SyncError  # noqa: PLC0415
    from consumer.operations.doctor.environment import has_zoho  # noqa: PLC0415
    from consumer.operations.errors import OperationError  # noqa: PLC0415
    from consumer.operations.explain import Explanation, ask_kafka, ask_zoho  # noqa: PLC0415
    from consumer.operations.zoho_desk import zoho_desk  # noqa: PLC0415

    found = Explanation(message_id, since=moment(since))
    try:
        desk_in_kafka = desk_of(settings)
    except OperationError as error:
        found.topic_error = found.dead_letters_error = error
    else:
        await ask_kafka(settings, desk_in_kafka, found)
    if not has_zoho(settings):
        found.zoho_error = "ZOHO_NOT_SET"
        return found
    async with zoho_desk(settings) as desk:
        try:
            await ask_zoho(desk.send, settings, found)
        except SyncError as error:
            found.zoho_error = error.code
    return found


# -- dead letters -----------------------------------------------------------------------------------------------


def desk_of(settings: Settings) -> Desk:
    """Where this service's dead letters are.  Raises OperationError when there are no brokers to speak to."""
    from consumer.app import kafka_connection  # noqa: PLC0415
    from consumer.operations.dlq.desk import Desk  # noqa: PLC0415
    from consumer.operations.errors import OperationError  # noqa: PLC0415

    if not settings.kafka_bootstrap_servers:
        raise OperationError("kafka.not_set")
    if settings.is_plaintext_refused:
        raise OperationError("kafka.plaintext", protocol=settings.kafka_security_protocol)
    return Desk(
        kafka_connection(settings),
        settings.kafka_dlq_topic,
        f"{settings.kafka_group_id}-dlq-replay",
        settings.kafka_producer_idempotence,
    )


def _wanted(
    reasons: list[str] | None, stages: list[str] | None, ids: list[str] | None, since: str | None, until: str | None
) -> Wanted:
    from consumer.core.model import Stage  # noqa: PLC0415
    from consumer.operations.dlq.letters import Wanted  # noqa: PLC0415
    from consumer.operations.errors import OperationError  # noqa: PLC0415

    known = [*map(str, Stage), "unknown"]
    if strange := [stage for stage in stages or () if stage.casefold() not in known]:
        raise OperationError("dlq.bad_stage", text=strange[0][:40], known=", ".join(known))
    return Wanted(tuple(reasons or ()), tuple(stages or ()), tuple(ids or ()), moment(since), moment(until))


@dlq_cli.command("list")
def dlq_list(
    reason: Reasons = None,
    stage: Stages = None,
    message_id: Ids = None,
    since: Since = None,
    until: Until = None,
    limit: Limit = None,
    max_replays: MaxReplays = 3,
    is_json: Json = False,
    lang: Language = None,
) -> None:
    """What is in the dead-letter topic, grouped by reason and stage."""
    with _speaking(lang, is_json=is_json) as terminal:
        from consumer.operations.dlq.desk import survey  # noqa: PLC0415
        from consumer.operations.dlq.view import show_survey  # noqa: PLC0415

        wanted = _wanted(reason, stage, message_id, since, until)
        found = _run(survey(desk_of(_settings()), wanted, max_replays=max_replays))
        show_survey(terminal, found, limit=limit, is_filtered=wanted.is_filtered)


@dlq_cli.command("show")
def dlq_show(
    place: Annotated[str | None, typer.Argument(help="partition:offset, as `dlq list` gives an example.")] = None,
    reason: Reasons = None,
    stage: Stages = None,
    message_id: Ids = None,
    since: Since = None,
    until: Until = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many, the latest.")] = 1,
    reveal: Annotated[bool, typer.Option("--reveal", help="Show phone and text in clear.")] = False,
    is_json: Json = False,
    lang: Language = None,
) -> None:
    """One record with its headers; phone and text masked."""
    with _speaking(lang, is_json=is_json) as terminal:
        from consumer.operations.dlq.desk import find, read_one  # noqa: PLC0415
        from consumer.operations.dlq.letters import Place  # noqa: PLC0415
        from consumer.operations.dlq.view import show_letters  # noqa: PLC0415
        from consumer.operations.errors import OperationError  # noqa: PLC0415

        desk = desk_of(_settings())
        if place is not None:
            letters = [_run(read_one(desk, Place.parse(place)))]
        else:
            letters = _run(find(desk, _wanted(reason, stage, message_id, since, until), limit=limit))
        if not letters:
            raise OperationError("dlq.nothing_found", topic=desk.topic)
        show_letters(terminal, letters, is_revealed=reveal)


@dlq_cli.command("replay")
def dlq_replay(
    reason: Reasons = None,
    stage: Stages = None,
    message_id: Ids = None,
    since: Since = None,
    until: Until = None,
    limit: Limit = None,
    rate: Annotated[float, typer.Option(min=0.01, max=10_000, help="Records a second.")] = 20.0,
    max_replays: MaxReplays = 3,
    again: Annotated[bool, typer.Option("--again", help="Also what has been replayed already.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would happen, and change nothing.")] = False,
    no_zoho: Annotated[bool, typer.Option("--no-zoho", help="Dry run: do not ask Zoho.")] = False,
    yes: Yes = False,
    is_json: Json = False,
    lang: Language = None,
) -> None:
    """Send dead letters back to their topic.  Ctrl-C finishes the record in hand; the next run goes on from there."""
    with _speaking(lang, is_json=is_json) as terminal:
        from consumer.operations.dlq.replay import ReplayOptions, plan  # noqa: PLC0415
        from consumer.operations.dlq.view import show_plan, show_report  # noqa: PLC0415
        from consumer.operations.texts import phrase  # noqa: PLC0415

        settings = _settings()
        desk, wanted = desk_of(settings), _wanted(reason, stage, message_id, since, until)
        options = ReplayOptions(rate, max_replays, limit, again)
        if dry_run:
            found = _run(plan(desk, wanted, options))
            show_plan(terminal, found, None if no_zoho else _forecast(terminal, settings, found))
            return
        if terminal.is_asking_possible and not yes:
            found = _run(plan(desk, wanted, options))
            show_plan(terminal, found, None)
            if not found.total or not typer.confirm(phrase(terminal.lang, "dlq.confirm"), err=True):
                return
        report = _run(_replay(terminal, desk, wanted, options))
        show_report(terminal, report)
        if report.is_cancelled or report.refused:
            raise typer.Exit(1)


def _forecast(terminal: Terminal, settings: Settings, found: Plan) -> Forecast | None:
    """Zoho's side of a dry run; a Zoho that cannot be asked takes nothing from the rest."""
    from consumer.core.errors import SyncError  # noqa: PLC0415
    from consumer.operations.dlq.forecast import forecast  # noqa: PLC0415
    from consumer.operations.texts import phrase  # noqa: PLC0415

    if not found.events or not settings.secret("ZOHO_REFRESH_TOKEN").get():
        return None
    try:
        return _run(forecast(settings, found.events))
    except SyncError as error:
        terminal.note(phrase(terminal.lang, "dlq.forecast_failed", code=error.code), style="yellow")
        return None


async def _replay(terminal: Terminal, desk: Desk, wanted: Wanted, options: ReplayOptions) -> ReplayReport:
    from consumer.operations.dlq.replay import replay  # noqa: PLC0415
    from consumer.operations.texts import phrase  # noqa: PLC0415

    cancel = asyncio.Event()
    loop = asyncio.get_running_loop()

    def on_signal() -> None:
        cancel.set()
        loop.remove_signal_handler(signal.SIGINT)

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, on_signal if number is signal.SIGINT else cancel.set)
    with terminal.progress(phrase(terminal.lang, "dlq.replaying")) as show:

        def told(report: ReplayReport) -> None:
            show(report.replayed, report.total)

        return await replay(desk, wanted, options, on_progress=told, cancel=cancel)
