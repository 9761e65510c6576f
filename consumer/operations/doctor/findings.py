"""What a check found.  The words are in the catalogue, under the finding's code."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class Status(StrEnum):
    """How bad it is."""

    OK = "ok"
    WARNING = "warning"
    """It works, but not as it should, or it could not be told."""
    FAILED = "failed"
    """It does not work so."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One row.  `check` names what was looked at; `code` is what was found, with `facts` for its gaps."""

    check: str
    status: Status
    code: str
    facts: dict[str, Any] = field(default_factory=dict)


def ok(check: str, code: str = "ok", /, **facts: Any) -> Finding:
    """All right."""
    return Finding(check, Status.OK, f"{check}.{code}", facts)


def warning(check: str, code: str, /, **facts: Any) -> Finding:
    """Works, with a but."""
    return Finding(check, Status.WARNING, f"{check}.{code}", facts)


def failed(check: str, code: str, /, **facts: Any) -> Finding:
    """Does not work."""
    return Finding(check, Status.FAILED, f"{check}.{code}", facts)


def unchecked(check: str, because: str, /) -> Finding:
    """Could not be looked at, because the check `because` did not go well."""
    return Finding(check, Status.WARNING, f"unchecked.{because}")


SYMPTOMS: dict[str, tuple[str, ...]] = {
    "messages": (
        "environment", "kafka.connection", "kafka.topic", "kafka.dlq", "kafka.rights", "kafka.group", "zoho.hosts",
        "zoho.token", "zoho.api", "zoho.scopes", "zoho.module", "zoho.fields", "zoho.unique", "zoho.credits",
    ),
    "links": ("links", "zoho.org", "zoho.hosts", "zoho.token", "zoho.api"),
    "leads": (
        "environment", "kafka.connection", "kafka.topic", "zoho.token", "zoho.api", "zoho.scopes", "zoho.leads",
        "zoho.lead_source", "zoho.assignment_rule", "zoho.user", "kafka.group",
    ),
}  # fmt: skip
"""The three complaints of whoever sets this up, and the checks that can explain them."""


TELLING = frozenset({
    "environment.switched_off", "kafka.topic.since_gone", "kafka.group.nobody", "kafka.group.strangers",
    "zoho.hosts.mixed", "zoho.token.throttled", "zoho.scopes.unanswered", "zoho.module.unreadable", "zoho.org.not_set",
    "zoho.org.unknown", "zoho.credits.half", "links.closed",
})  # fmt: skip
"""Warnings that may explain a complaint; the others are about other dangers."""


def symptoms_of(check: str) -> list[str]:
    """Complaints that this check can explain."""
    return [name for name, checks in SYMPTOMS.items() if check in checks]


def causes(findings: list[Finding], symptom: str) -> list[Finding]:
    """What was found that explains a complaint: failures, or else telling warnings."""
    related = [item for item in findings if item.check in SYMPTOMS[symptom]]
    failures = [item for item in related if item.status is Status.FAILED]
    return failures or [item for item in related if item.code in TELLING]
