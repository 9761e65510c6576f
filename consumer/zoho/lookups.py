"""Whose dialog is this?  Asked when somebody follows a link."""

from __future__ import annotations

from typing import TYPE_CHECKING

from consumer.zoho import coql
from consumer.zoho.api import Operation

if TYPE_CHECKING:
    from consumer.zoho.api import Send


async def phone_of_dialog(send: Send, module: str, dialog_id: str) -> str | None:
    """The number in the latest message of a dialog; None when there is none.  One credit.

    Raises SyncError; RefusedError when the module has no such fields.
    """
    if not coql.is_plain(dialog_id):
        return None
    where = f"({coql.is_in('Dialog_ID', [dialog_id])})"
    text = f"select id, Phone from {module} where {where} order by id desc limit 0, 1"  # noqa: S608 - plain value
    rows = (await send(coql.query_call(Operation.FIND_MESSAGES, text, limit=1))).rows()
    return str(rows[0]["Phone"]) if rows and rows[0].get("Phone") else None
