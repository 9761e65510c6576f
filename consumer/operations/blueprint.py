"""The module that this service writes message records to, field by field (what docs/setup.*.md describe)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class FieldSpec:
    """One field as `setup` creates it, and what the doctor accepts in its place."""

    api_name: str
    data_type: str
    length: int | None = None
    values: tuple[str, ...] = ()
    lookup: str | None = None
    is_unique: bool = False
    is_vital: bool = False
    """Without it a message has no identity, or no place."""
    accepted: tuple[str, ...] = ()
    """Other types of Zoho that do as well."""

    @property
    def label(self) -> str:
        """As people see it: Zoho makes the API name from it, with underscores for blanks."""
        return self.api_name.replace("_", " ")

    def takes(self, data_type: str) -> bool:
        """Can a field of this type hold the value?"""
        return data_type == self.data_type or data_type in self.accepted


DIRECTIONS = ("inbound", "outbound")
ORIGINS = ("campaign", "webhook", "chat")

MESSAGE_FIELDS = (
    FieldSpec("Message_ID", "text", length=255, is_unique=True, is_vital=True),
    FieldSpec("Lead", "lookup", lookup="Leads", is_vital=True),
    FieldSpec("Contact", "lookup", lookup="Contacts", is_vital=True),
    FieldSpec("Phone", "phone", accepted=("text",)),
    FieldSpec("Direction", "picklist", values=DIRECTIONS, accepted=("text",)),
    FieldSpec("Channel", "text", length=255, accepted=("picklist",)),
    FieldSpec("Origin", "picklist", values=ORIGINS, accepted=("text",)),
    FieldSpec("Campaign", "text", length=255, accepted=("picklist",)),
    FieldSpec("Body", "textarea", length=32_000, accepted=("text",)),
    FieldSpec("Sent_At", "datetime"),
    FieldSpec("Media_URLs", "textarea", length=2_000, accepted=("text", "website")),
    FieldSpec("Dialog_ID", "text", length=255),
    FieldSpec("Agent", "text", length=255),
)
"""Beside `Name`, which every custom module has."""

FILLED_IN_LEADS = frozenset({"Last_Name", "Phone", "Lead_Source"})
FILLED_IN_MESSAGES = frozenset({"Name", *(spec.api_name for spec in MESSAGE_FIELDS)})

_BY_ZOHO = frozenset({"Owner", "Created_By", "Modified_By", "Created_Time", "Modified_Time", "Layout", "id"})


def demanded(rows: Mapping[str, Mapping[str, Any]], filled: frozenset[str]) -> list[str]:
    """Fields that Zoho demands of every new record, and that this service does not fill."""
    return sorted(
        name
        for name, row in rows.items()
        if row.get("system_mandatory") and not row.get("read_only") and name not in filled | _BY_ZOHO
    )


def find_module(modules: list[dict[str, Any]], name: str) -> dict[str, Any] | None:
    """The module with this API name."""
    return next((row for row in modules if row.get("api_name") == name), None)


def find_by_label(modules: list[dict[str, Any]], name: str) -> dict[str, Any] | None:
    """A module that people call so, or that is called so inside Zoho, under another API name."""
    wanted = name.replace("_", " ").casefold()
    labels = ("plural_label", "singular_label", "module_name", "api_name")
    return next((row for row in modules if wanted in {str(row.get(label, "")).casefold() for label in labels}), None)
