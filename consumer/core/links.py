"""Links into Zoho CRM."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import quote

if TYPE_CHECKING:
    from consumer.core.model import Parent


@dataclass(frozen=True, slots=True)
class Links:
    """Builds dialog links; with an organisation id a link needs nothing but the number."""

    crm_url: str
    org_id: str | None = None

    def dialog(self, phone: str, parent: Parent | None) -> str | None:
        """Link to a person's dialog; None when it needs a record and there is none yet.  `phone` is E.164."""
        if self.org_id:
            return f"{self.crm_url}/crm/{quote(self.org_id, safe='')}/tab/Messages?phone={quote(phone, safe='')}"
        if parent is None:
            return None
        return f"{self.crm_url}/crm/tab/{parent.module}/{quote(parent.id, safe='')}/Messages"
