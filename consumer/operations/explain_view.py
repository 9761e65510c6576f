"""An explanation in a terminal, in a pipe, and as JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from consumer.core.decode import Poison, Skip
from consumer.operations.texts import phrase, text_of

if TYPE_CHECKING:
    from consumer.operations.explain import Explanation, InZoho
    from consumer.operations.terminal import Terminal
    from consumer.operations.texts import Lang
    from consumer.settings import Settings

_STYLES = {"delivered": "green", "waiting": "yellow", "skipped": "yellow", "no_note": "yellow", "untold": "yellow"}


def explanation_json(found: Explanation, settings: Settings) -> dict[str, Any]:
    """For machines."""
    outcome, facts = found.outcome(settings)
    return {
        "message_id": found.message_id,
        "outcome": outcome,
        **facts,
        "kafka": [
            {
                "partition": item.partition,
                "offset": item.offset,
                "at": item.at.isoformat(),
                "settled": item.is_settled,
                "ahead": item.ahead,
                "readable": not isinstance(item.decoded, (Poison, Skip)),
            }
            for item in found.occurrences
        ],
        "dead_letters": [
            {
                "place": str(letter.place),
                "reason": letter.reason,
                "stage": letter.stage,
                "detail": letter.detail,
                "failed_at": letter.failed_at.isoformat(),
                "replays": letter.replays,
            }
            for letter in found.dead_letters
        ],
        "zoho": _zoho_json(found.in_zoho),
        "zoho_error": found.zoho_error,
        "topic_error": found.topic_error and found.topic_error.code,
        "dead_letters_error": found.dead_letters_error and found.dead_letters_error.code,
    }


def _zoho_json(in_zoho: InZoho | None) -> dict[str, Any] | None:
    if in_zoho is None:
        return None
    parent = in_zoho.parent
    return {
        "record_id": in_zoho.record_id,
        "created_at": in_zoho.created_at,
        "parent": {"module": str(parent.module), "id": parent.id} if parent else None,
        "rule": in_zoho.rule,
        "candidates": in_zoho.candidates,
        "note": in_zoho.has_note,
    }


def show_explanation(terminal: Terminal, found: Explanation, settings: Settings, *, is_revealed: bool) -> None:
    """What became of it, then where each trace of it lies."""
    if terminal.is_json:
        terminal.json(explanation_json(found, settings))
        return
    outcome, _ = found.outcome(settings)
    terminal.line(sentence_of(terminal.lang, found, settings), style=_STYLES.get(outcome, "red"))
    terminal.table(("", ""), rows_of(terminal.lang, found, is_revealed=is_revealed))


def sentence_of(lang: Lang, found: Explanation, settings: Settings) -> str:
    """What became of it."""
    outcome, facts = found.outcome(settings)
    return phrase(lang, f"explain.{outcome}", **facts)


def rows_of(lang: Lang, found: Explanation, *, is_revealed: bool) -> list[tuple[str, str]]:
    """Where each trace of it lies: what, and where or how."""
    return [
        *_unread_rows(lang, found),
        *_kafka_rows(lang, found),
        *_dead_rows(lang, found),
        *_zoho_rows(lang, found, is_revealed),
    ]


def _unread_rows(lang: Lang, found: Explanation) -> list[tuple[str, str]]:
    errors = {"topic": found.topic_error, "dead_letters": found.dead_letters_error}
    if found.topic_error is found.dead_letters_error:
        errors = {"both": found.topic_error}
    rows = []
    for what, error in errors.items():
        if error is not None:
            text = text_of(lang, error.code, error.facts)
            rows.append(("Kafka", phrase(lang, f"explain.unread.{what}", why=f"{text.what} {text.fix}")))
    return rows


def _kafka_rows(lang: Lang, found: Explanation) -> list[tuple[str, str]]:
    rows = []
    for item in found.occurrences:
        state = "settled" if item.is_settled else "unsettled"
        text = phrase(lang, f"explain.kafka.{state}", at=f"{item.at:%Y-%m-%d %H:%M:%SZ}", ahead=item.ahead)
        rows.append((f"Kafka {item.partition}@{item.offset}", text))
    return rows


def _dead_rows(lang: Lang, found: Explanation) -> list[tuple[str, str]]:
    title = phrase(lang, "explain.letter")
    return [
        (
            f"{title} {letter.place}",
            f"{letter.failed_at:%Y-%m-%d %H:%M:%SZ} {letter.stage}: {letter.reason} {letter.detail} "
            + phrase(lang, "explain.replays", count=letter.replays),
        )
        for letter in found.dead_letters
    ]


def _unasked(lang: Lang, code: str) -> str:
    known = {"ZOHO_NOT_SET": "not_set", "NOT_ASKABLE": "not_askable"}
    return phrase(lang, f"explain.unasked.{known.get(code, 'error')}", code=code)


def _zoho_rows(lang: Lang, found: Explanation, is_revealed: bool) -> list[tuple[str, str]]:
    in_zoho = found.in_zoho
    if in_zoho is None:
        return [("Zoho", _unasked(lang, found.zoho_error))] if found.zoho_error else []
    rows = [(phrase(lang, "explain.record"), f"{in_zoho.record_id} {in_zoho.created_at}")]
    if in_zoho.parent is not None:
        rule = phrase(lang, f"explain.rule.{in_zoho.rule}", candidates=in_zoho.candidates)
        rows.append((str(in_zoho.parent.module), f"{in_zoho.parent.id} {rule}"))
    note = {True: "yes", False: "no", None: "unknown"}[in_zoho.has_note]
    rows.append((phrase(lang, "explain.note"), phrase(lang, f"explain.note.{note}")))
    if in_zoho.link and is_revealed:
        rows.append((phrase(lang, "explain.link"), in_zoho.link))
    return rows
