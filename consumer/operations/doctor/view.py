"""Findings in a terminal, in a pipe, and as JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from consumer.operations.doctor.findings import SYMPTOMS, Finding, Status, causes, symptoms_of
from consumer.operations.terminal import style_of
from consumer.operations.texts import phrase, text_of

if TYPE_CHECKING:
    from consumer.operations.terminal import Terminal
    from consumer.operations.texts import Lang

_SIGNS = {Status.OK: "✓", Status.WARNING: "!", Status.FAILED: "✗"}


def finding_json(finding: Finding, lang: Lang) -> dict[str, Any]:
    """One row for machines."""
    text = text_of(lang, finding.code, finding.facts)
    return {
        "check": finding.check,
        "status": str(finding.status),
        "code": finding.code,
        "what": text.what,
        "why": text.why,
        "fix": text.fix,
        "facts": {name: str(value) for name, value in finding.facts.items()},
        "symptoms": symptoms_of(finding.check),
    }


def show_finding(terminal: Terminal, finding: Finding) -> None:
    """One row as it comes: what; and, unless all is well, why it hurts and how to fix it."""
    text = text_of(terminal.lang, finding.code, finding.facts)
    title = phrase(terminal.lang, f"check.{finding.check}")
    if not terminal.is_rich:
        status = phrase(terminal.lang, f"status.{finding.status}")
        terminal.table((), [[status, finding.check, text.what, text.why, text.fix]])
        return
    terminal.line(f"{_SIGNS[finding.status]} {title}: {text.what}", style=style_of(finding.status))
    if text.why:
        terminal.line(f"    {text.why}")
    if text.fix:
        terminal.line(f"    → {text.fix}", style="bold")


def show_summary(terminal: Terminal, findings: list[Finding]) -> None:
    """Counts, and the three usual complaints with the rows that answer them."""
    counts = {status: sum(item.status is status for item in findings) for status in Status}
    terminal.note()
    terminal.note(phrase(terminal.lang, "doctor.summary", **{str(status): count for status, count in counts.items()}))
    for symptom in SYMPTOMS:
        found = causes(findings, symptom)
        titles = ", ".join(dict.fromkeys(phrase(terminal.lang, f"check.{item.check}") for item in found))
        code = "because" if any(item.status is Status.FAILED for item in found) else "maybe" if found else "clear"
        terminal.note(phrase(terminal.lang, f"doctor.{symptom}.{code}", rows=titles))


def report_json(findings: list[Finding], lang: Lang) -> dict[str, Any]:
    """The whole report for machines."""
    rows = [finding_json(finding, lang) for finding in findings]
    is_ok = not any(finding.status is Status.FAILED for finding in findings)
    return {
        "ok": is_ok,
        "checks": rows,
        "symptoms": {name: [c.code for c in causes(findings, name)] for name in SYMPTOMS},
    }
