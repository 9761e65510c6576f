"""Notes on a lead or contact.  Zoho has no key for notes: a repeated call makes a second one.

So it is decided beforehand whose task a note is, and an uncertain one is looked for before it is written.

With one note for a dialog, the Messages module is the referee: its records carry growing ids, and everybody can read
them without delay.  After its messages are written, a process asks for the oldest record of the dialog; whoever
delivered that message owes the note, everybody else owes nothing.  That holds however many processes write to one
dialog at once, and after a crash the redelivered message finds out the same way that its note may be missing.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, NamedTuple

from consumer.core.errors import RefusedError
from consumer.core.model import NotePolicy, Parent
from consumer.core.texts import clean, fit, one_line
from consumer.zoho import coql
from consumer.zoho.answers import RowAnswer, row_answers
from consumer.zoho.api import Call, Operation, Send, write_call
from consumer.zoho.messages import UNIQUE_FIELD, zoho_datetime
from consumer.zoho.people import age_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from collections.abc import Set as AbstractSet

    from consumer.core.links import Links
    from consumer.core.model import Delivery
    from consumer.zoho.metadata import Schema

MODULE = "Notes"
TITLE_LENGTH = 120
CONTENT_LENGTH = 65_000
"""Zoho takes 65,535; what counts as a character is not documented."""
_MARKER = re.compile(r"\[([0-9a-f]{10})\]\s*$")
_TWINS_WITHIN_S = 300.0
_NOTES_PER_PAGE = 200
_NUMBERED_PAGES = 10
_MAX_PAGES = 100
_FEW_DIALOGS = 20
_SMALL_LIMIT, _LARGE_LIMIT = 200, 1000
"""One and two credits: a page should show the oldest record of every dialog at once."""


class Dialog(NamedTuple):
    """What one note stands for.  A message without dialog id belongs to the dialog of its number."""

    id: str | None
    phone: str | None = None

    def marker(self) -> str:
        """Ten characters in the note's title by which the note is found again."""
        return marker_of(f"dialog\0{self.id}" if self.id is not None else f"phone\0{self.phone}")


def dialog_of(delivery: Delivery) -> Dialog:
    """The dialog of a message."""
    dialog_id = delivery.event.dialog_id
    return Dialog(dialog_id) if dialog_id else Dialog(None, delivery.phone)


def marker_of(text: str) -> str:
    """A short, stable fingerprint."""
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=5).hexdigest()


def message_marker(delivery: Delivery) -> str:
    """The marker of a note for one message."""
    return marker_of(f"message\0{delivery.event.message_id}")


def note_of(delivery: Delivery, policy: NotePolicy, links: Links, schema: Schema) -> dict[str, Any]:
    """The note of a delivery: the link to the dialog, and what it is about.  The marker ends the title."""
    is_dialog = policy is NotePolicy.PER_DIALOG
    marker = dialog_of(delivery).marker() if is_dialog else message_marker(delivery)
    title = _dialog_title(delivery) if is_dialog else _message_title(delivery)
    return {
        "Note_Title": f"{fit(title, schema.length_of(MODULE, 'Note_Title', TITLE_LENGTH) - 13)} [{marker}]",
        "Note_Content": fit(
            _content(delivery, links, with_text=not is_dialog),
            schema.length_of(MODULE, "Note_Content", CONTENT_LENGTH),
        ),
        "Parent_Id": _parent_id(delivery.parent),
    }


def _parent_id(parent: Parent | None) -> dict[str, Any]:
    if parent is None:
        raise ValueError("a note needs its lead or contact")
    return {"module": {"api_name": str(parent.module)}, "id": parent.id}


def _channel(delivery: Delivery) -> str:
    name = one_line(delivery.event.channel)
    return "WhatsApp" if name.casefold() == "whatsapp" else name.capitalize()


def _dialog_title(delivery: Delivery) -> str:
    return f"{_channel(delivery)} dialog"


def _message_title(delivery: Delivery) -> str:
    event = delivery.event
    return f"{_channel(delivery)} {event.direction} {zoho_datetime(event.occurred_at)[:16].replace('T', ' ')}"


def _content(delivery: Delivery, links: Links, *, with_text: bool) -> str:
    event = delivery.event
    first = f"{event.direction}, {event.origin}, {zoho_datetime(event.occurred_at)}"
    campaign = one_line(event.campaign.name or "") if event.campaign else ""
    lines = [links.dialog(delivery.phone, delivery.parent) or "", first, campaign and f"Campaign: {campaign}"]
    if with_text and event.text:
        lines.append(clean(event.text))
    return "\n".join(filter(None, lines))


async def write(send: Send, rows: list[dict[str, Any]], *, is_wanted: Callable[[], bool]) -> list[RowAnswer]:
    """Write up to 100 notes, of different parents; not at all when they are not wanted at the last moment."""
    call = write_call(Operation.CREATE_NOTES, "/Notes", rows)
    reply = await send(replace(call, is_wanted=is_wanted))
    return row_answers(reply.rows(), expected=len(rows))


@dataclass(frozen=True, slots=True)
class Standing:
    """Notes with one marker."""

    oldest: str
    twins: tuple[str, ...] = ()
    """Ids of those that were made too soon after it to be anything but the same note, and that nobody has edited."""


async def standing(send: Send, parent: Parent, markers: AbstractSet[str]) -> dict[str, Standing]:
    """The notes of a lead or contact that carry these markers.

    Reads newest notes first, until each marker was seen; twins stand close together, so on one page as a rule.
    Page numbers reach the first 2,000 records, tokens the rest (v8 Get Records).
    """
    found: dict[str, list[Mapping[str, Any]]] = {}
    token: str | None = None
    for page in range(1, _MAX_PAGES + 1):
        where = ("page_token", token) if token and page > _NUMBERED_PAGES else ("page", str(page))
        params = (("fields", "Note_Title,Created_Time,Modified_Time"), ("per_page", str(_NOTES_PER_PAGE)), where)
        reply = await send(Call(Operation.READ_NOTES, "GET", f"/{parent.module}/{parent.id}/Notes", params=params))
        for row in reply.rows():
            if (marker := marker_in(str(row.get("Note_Title") or ""))) in markers:
                found.setdefault(marker, []).append(row)
        token = reply.next_page_token()
        if found.keys() >= markers or not reply.has_more():
            break
    return {marker: _standing(rows) for marker, rows in found.items()}


def _standing(rows: list[Mapping[str, Any]]) -> Standing:
    """Notes that a merge of two leads brought together were made long apart, and both stay."""
    first, *others = sorted(rows, key=age_of)
    until = age_of(first)[0] + _TWINS_WITHIN_S
    twins = [row for row in others if age_of(row)[0] <= until and not _is_edited(row)]
    return Standing(str(first.get("id")), tuple(str(row.get("id")) for row in twins))


def _is_edited(row: Mapping[str, Any]) -> bool:
    return row.get("Modified_Time") not in (None, row.get("Created_Time"))


def marker_in(title: str) -> str:
    """The marker at the end of a title; empty when there is none."""
    found = _MARKER.search(title)
    return found[1] if found else ""


async def withdraw(send: Send, note_id: str) -> None:
    """Delete a note that was made a moment ago.  A repeated deletion does no harm."""
    await send(Call(Operation.DELETE_NOTES, "DELETE", f"/{MODULE}/{note_id}", is_optional=True))


class DialogReferee:
    """Asks the Messages module which message of a dialog is the oldest."""

    def __init__(self, send: Send, module: str) -> None:
        self._send = send
        self._module = module

    async def owners(self, dialogs: Sequence[Dialog]) -> dict[Dialog, str]:
        """The message id of the oldest record of each dialog; dialogs that cannot be asked for are left out.

        Raises SyncError when Zoho cannot be asked now, RefusedError when it gave an answer that nobody knows.
        """
        named = [dialog for dialog in dialogs if dialog.id is not None and coql.is_plain(dialog.id)]
        bare = [dialog for dialog in dialogs if dialog.id is None]
        found: dict[Dialog, str] = {}
        for field, group in (("Dialog_ID", named), ("Phone", bare)):
            for start in range(0, len(group), 100):
                found.update(await self._oldest(field, group[start : start + 100]))
        return found

    async def _oldest(self, field: str, dialogs: Sequence[Dialog]) -> dict[Dialog, str]:
        """Rows come oldest first, so the first row of a dialog decides; then only the others are asked for."""
        open_dialogs = {dialog.id or dialog.phone or "": dialog for dialog in dialogs}
        owners: dict[Dialog, str] = {}
        while open_dialogs:
            limit = _SMALL_LIMIT if len(open_dialogs) <= _FEW_DIALOGS else _LARGE_LIMIT
            rows, has_more = await self._page(field, list(open_dialogs), limit)
            found = [(value, row) for row in rows if (value := str(row.get(field) or "")) in open_dialogs]
            for value, row in sorted(found, key=lambda pair: age_of(pair[1])):
                owners.setdefault(open_dialogs[value], str(row.get(UNIQUE_FIELD) or ""))
            before = len(open_dialogs)
            open_dialogs = {value: dialog for value, dialog in open_dialogs.items() if dialog not in owners}
            if not has_more or len(open_dialogs) == before:
                break
        return owners

    async def _page(self, field: str, values: list[str], limit: int) -> tuple[list[dict[str, Any]], bool]:
        criterion = coql.is_in(field, values)
        where = f"({criterion} and Dialog_ID is null)" if field == "Phone" else f"({criterion})"
        columns = f"id, Created_Time, {UNIQUE_FIELD}, {field}"
        text = f"select {columns} from {self._module} where {where} order by id asc limit 0, {limit}"  # noqa: S608
        try:
            reply = await self._send(coql.query_call(Operation.FIND_MESSAGES, text, limit=limit))
        except RefusedError as error:
            if error.is_unknown:
                raise
            return [], False
        return reply.rows(), reply.has_more()
