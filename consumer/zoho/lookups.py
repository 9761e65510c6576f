"""Small questions of people who look for one dialog or message; one credit each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from consumer.core.errors import RefusedError
from consumer.zoho import coql
from consumer.zoho.api import Operation

if TYPE_CHECKING:
    from consumer.zoho.api import Send


@dataclass(frozen=True, slots=True)
class StoredMessage:
    """Ids of a message record and of whom it belongs to."""

    id: str
    lead_id: str | None
    contact_id: str | None


async def phone_of_dialog(send: Send, module: str, dialog_id: str) -> str | None:
    """The number in the latest message of a dialog; None when there is none.  Raises SyncError."""
    row = await _latest(send, module, "Phone", "Dialog_ID", dialog_id)
    return str(row["Phone"]) if row and row.get("Phone") else None


async def stored_message(send: Send, module: str, message_id: str) -> StoredMessage | None:
    """The record of a message; None when there is none.  Raises SyncError."""
    row = await _latest(send, module, "Lead, Contact", "Message_ID", message_id)
    return StoredMessage(str(row["id"]), _id(row.get("Lead")), _id(row.get("Contact"))) if row else None


async def _latest(send: Send, module: str, columns: str, field: str, value: str) -> dict[str, Any] | None:
    if not coql.is_plain(value):
        return None
    where = f"({coql.is_in(field, [value])})"
    text = f"select id, {columns} from {module} where {where} order by id desc limit 0, 1"  # noqa: S608 - plain value
    try:
        rows = (await send(coql.query_call(Operation.FIND_MESSAGES, text, limit=1))).rows()
    except RefusedError:
        return None
    return rows[0] if rows else None


def _id(value: object) -> str | None:
    found = value.get("id") if isinstance(value, dict) else value
    return str(found) if found else None
