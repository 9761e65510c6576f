"""Dead letters in a terminal, in a pipe, and as JSON."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import orjson

from consumer.operations.dlq.masking import masked_text, masked_value, shown_value
from consumer.operations.dlq.replay import Verdict
from consumer.operations.texts import phrase

if TYPE_CHECKING:
    from consumer.operations.dlq.desk import Survey
    from consumer.operations.dlq.forecast import Forecast
    from consumer.operations.dlq.letters import DeadLetter, Group
    from consumer.operations.dlq.replay import Plan, ReplayReport
    from consumer.operations.terminal import Terminal

_COLUMNS = ("reason", "stage", "waiting", "replayed", "exhausted", "oldest", "newest", "example")


def age(moment: datetime | None, now: datetime) -> str:
    """How long ago, short: `42s`, `5m`, `3h`, `2d`."""
    if moment is None:
        return ""
    seconds = max(0, int((now - moment).total_seconds()))
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "m")):
        if seconds >= size * 2:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"


def show_survey(terminal: Terminal, survey: Survey, *, limit: int | None, is_filtered: bool = False) -> None:
    """Groups with counts and ages."""
    if terminal.is_json:
        terminal.json(survey.as_json())
        return
    if not survey.groups:
        terminal.note(phrase(terminal.lang, "dlq.none_fits" if is_filtered else "dlq.empty"))
        return
    now = datetime.now(UTC)
    groups = survey.groups[:limit]
    rows = [_group_row(group, now, is_plain=not terminal.is_rich) for group in groups]
    columns = [phrase(terminal.lang, f"dlq.column.{name}") for name in _COLUMNS]
    terminal.table(columns, rows, styles=["" if group.waiting else "dim" for group in groups])
    terminal.note()
    terminal.note(phrase(terminal.lang, "dlq.summary", count=survey.count, waiting=survey.waiting))


def _group_row(group: Group, now: datetime, *, is_plain: bool) -> list[str]:
    counts = [str(number) for number in (group.waiting, group.replayed, group.exhausted)]
    moments = (group.oldest, group.newest)
    ages = [_iso(moment) if is_plain else age(moment, now) for moment in moments]
    return [group.reason, group.stage, *counts, *ages, str(group.example or "")]


def _iso(moment: datetime | None) -> str:
    return moment.isoformat(timespec="seconds") if moment else ""


def letter_json(letter: DeadLetter, *, is_revealed: bool) -> dict[str, Any]:
    """One dead letter with its headers; phone and text masked unless revealed."""
    clear = (lambda text: text) if is_revealed else masked_text
    key = letter.record.key
    return {
        "place": str(letter.place),
        "failed_at": letter.failed_at.isoformat(),
        "reason": letter.reason,
        "stage": letter.stage,
        "detail": letter.detail,
        "from": f"{letter.topic}/{letter.partition}@{letter.offset}" if letter.topic else None,
        "attempts": letter.attempts,
        "replays": letter.replays,
        "message_id": letter.message_id(),
        "headers": [[name, clear((value or b"").decode("utf-8", "replace"))] for name, value in letter.record.headers],
        "key": clear(key.decode("utf-8", "replace")) if key is not None else None,
        "value": shown_value(letter.record.value) if is_revealed else masked_value(letter.record.value),
    }


def show_letters(terminal: Terminal, letters: list[DeadLetter], *, is_revealed: bool) -> None:
    """Whole records, latest first."""
    shown = [letter_json(letter, is_revealed=is_revealed) for letter in letters]
    if terminal.is_json:
        terminal.json(shown)
        return
    for item in shown:
        _show_letter(terminal, item)
    if not is_revealed:
        terminal.note(phrase(terminal.lang, "dlq.masked"))


def _show_letter(terminal: Terminal, item: dict[str, Any]) -> None:
    terminal.line(f"{item['place']}  {item['stage']}: {item['reason']}", style="bold")
    for name in ("detail", "failed_at", "from", "attempts", "replays", "message_id", "key"):
        terminal.line(f"  {name:<11} {'' if item[name] is None else item[name]}")
    for name, value in item["headers"]:
        terminal.line(f"  header      {name}: {value}")
    value = item["value"]
    text = value if isinstance(value, str) else orjson.dumps(value, option=orjson.OPT_INDENT_2).decode()
    terminal.line("  value       " + text.replace("\n", "\n              "))
    terminal.line()


def show_plan(terminal: Terminal, plan: Plan, forecast: Forecast | None) -> None:
    """What a replay would do."""
    if terminal.is_json:
        terminal.json(plan.as_json() | ({"in_zoho": forecast.as_json()} if forecast else {}))
        return
    lang = terminal.lang
    terminal.line(phrase(lang, "dlq.plan", total=plan.total), style="bold")
    _show_outlook(terminal, plan)
    if plan.may_repeat and plan.total:
        terminal.line(phrase(lang, "dlq.plan.may_repeat"), style="yellow")
    _show_left_alone(terminal, plan.verdicts)
    for name, value in (forecast.as_json() if forecast else {}).items():
        terminal.line(phrase(lang, f"dlq.forecast.{name}", count=value))


def _show_outlook(terminal: Terminal, plan: Plan) -> None:
    lang = terminal.lang
    for reason, count in sorted(plan.reasons.items(), key=lambda item: -item[1]):
        terminal.line(f"  {count:>7}  {reason}")
    if plan.readable:
        terminal.line(phrase(lang, "dlq.plan.readable", count=plan.readable))
    for name, counts in (("fails_again", plan.fails_again), ("skips", plan.skips)):
        for reason, count in counts.items():
            terminal.line(phrase(lang, f"dlq.plan.{name}", count=count, reason=reason))


def _show_left_alone(terminal: Terminal, verdicts: dict[Verdict, int]) -> None:
    for verdict, count in verdicts.items():
        if verdict is not Verdict.REPLAY:
            terminal.line(phrase(terminal.lang, f"dlq.plan.{verdict}", count=count))


def show_report(terminal: Terminal, report: ReplayReport) -> None:
    """What a replay did."""
    if terminal.is_json:
        terminal.json(report.as_json())
        return
    lang = terminal.lang
    terminal.line(phrase(lang, "dlq.report", replayed=report.replayed, seconds=f"{report.seconds:.1f}"), style="bold")
    if report.refused:
        terminal.line(phrase(lang, "dlq.report.refused", count=report.refused))
    _show_left_alone(terminal, report.left_alone)
    if report.will_repeat:
        terminal.line(phrase(lang, "dlq.report.will_repeat"), style="yellow")
    if report.is_cancelled:
        left = report.total - report.replayed - report.refused
        terminal.line(phrase(lang, "dlq.report.cancelled", count=left), style="yellow")
