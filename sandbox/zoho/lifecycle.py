"""What happens to records beside their own calls: leads are converted and merged, what hangs on a record follows it."""

from __future__ import annotations

from sandbox.zoho.org import Organisation
from sandbox.zoho.rendering import PARENT_MODULE
from sandbox.zoho.schema import Module
from sandbox.zoho.store import Row

_COPIED = ("Last_Name", "First_Name", "Email", "Phone", "Mobile", "Lead_Source", "Description")


def convert_lead(org: Organisation, lead_id: str, *, contact_id: str | None = None, call: int = 0) -> Row:
    """Makes a contact of a lead, or joins it with an existing contact; its notes move there.

    Returns:
        The contact. KeyError without such a lead or contact.
    """
    leads, contacts = org.schema.module("Leads"), org.schema.module("Contacts")
    lead = _existing(org, leads, lead_id)
    if contact_id is None:
        values = {name: lead.values[name] for name in _COPIED if name in lead.values and name in contacts.fields}
        contact = org.create(contacts, values, call=call)
    else:
        contact = _existing(org, contacts, contact_id)
    org.convert(leads, lead, contact_id=contact.id, call=call)
    _move_notes(org, lead_id, contact.id, contacts, call=call)
    return contact


def merge_leads(org: Organisation, lead_id: str, *, into: str, call: int = 0) -> None:
    """Merges a lead into another, which keeps its values and takes over notes and links; the first is gone."""
    leads = org.schema.module("Leads")
    lead, master = _existing(org, leads, lead_id), _existing(org, leads, into)
    gaps = {name: value for name, value in lead.values.items() if master.values.get(name) is None}
    _move_notes(org, lead_id, into, leads, call=call)
    _relink(org, leads, lead_id, into, call=call)
    org.delete(leads, lead_id, call=call)
    org.update(leads, master, gaps, call=call)


def delete_record(org: Organisation, module: Module, row_id: str, *, call: int = 0) -> Row | None:
    """Deletes a record with its notes; what links to it links to nothing. None if there was no such record."""
    row = org.delete(module, row_id, call=call)
    if row is not None:
        notes = org.schema.module("Notes")
        for note in org.table(notes).current.find("Parent_Id", row_id):
            org.delete(notes, note.id, call=call)
        _relink(org, module, row_id, None, call=call)
    return row


def _existing(org: Organisation, module: Module, row_id: str) -> Row:
    row = org.table(module).get(row_id)
    if row is None:
        raise KeyError(row_id)
    return row


def _move_notes(org: Organisation, old_id: str, new_id: str, module: Module, *, call: int) -> None:
    notes = org.schema.module("Notes")
    for row in org.table(notes).current.find("Parent_Id", old_id):
        org.update(notes, row, {"Parent_Id": new_id, PARENT_MODULE: module.module_name}, call=call)


def _relink(org: Organisation, target: Module, old_id: str, new_id: str | None, *, call: int) -> None:
    for module in list(org.schema):
        for field in module.of_type("lookup"):
            if field.lookup == target.module_name:
                for row in org.table(module).current.find(field.api_name, old_id):
                    org.update(module, row, {field.api_name: new_id}, call=call)
