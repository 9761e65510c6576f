"""What the pages and probes need to know, in their own words."""

from __future__ import annotations

from typing import Any, Protocol


class ServiceView(Protocol):
    """The service as the HTTP port sees it."""

    def is_live(self) -> bool:
        """Do our own loops make progress?"""

    def readiness(self) -> tuple[bool, dict[str, Any]]:
        """Can work be done now, and every check with its reason."""

    def metrics_text(self) -> bytes:
        """Prometheus text."""
