"""The environment: what is set, and what is missing.  No input or output but a look at `.env`."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import TYPE_CHECKING

from consumer.operations.doctor.findings import Finding, failed, ok, warning

if TYPE_CHECKING:
    from collections.abc import Iterator

    from consumer.settings import Settings

ZOHO = ("ZOHO_CLIENT_ID", "ZOHO_CLIENT_SECRET", "ZOHO_REFRESH_TOKEN")


def has_zoho(settings: Settings) -> bool:
    """Are all three credentials set?"""
    return all(settings.secret(name).get() for name in ZOHO)


def environment_findings(settings: Settings, *, is_enabled: bool, env_file: Path = Path(".env")) -> Iterator[Finding]:
    """Required variables, the switch, and who can read the file of secrets."""
    missing = [name for name in ZOHO if not settings.secret(name).get()]
    if not settings.kafka_bootstrap_servers:
        missing.append("KAFKA_BOOTSTRAP_SERVERS")
    if missing:
        yield failed("environment", "missing", names=", ".join(missing))
    if not is_enabled:
        yield warning("environment", "switched_off")
    if _is_open_to_others(env_file):
        yield warning("environment", "readable", file=env_file)
    if not missing and is_enabled:
        yield ok("environment")


def link_findings(settings: Settings) -> Iterator[Finding]:
    """What the button needs."""
    has_token, has_key = bool(settings.secret("HTTP_API_TOKEN").get()), bool(settings.secret("LINK_SIGNING_KEY").get())
    if not has_token and not has_key:
        yield warning("links", "closed")
    else:
        yield ok("links", "ok" if has_key else "no_key", crm=settings.crm_url)


def _is_open_to_others(file: Path) -> bool:
    try:
        return bool(file.stat().st_mode & (stat.S_IRGRP | stat.S_IROTH))
    except OSError:
        return False
