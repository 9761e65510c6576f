"""What happens to records other than through record calls: conversion of leads, merging, deletion by a user."""

from __future__ import annotations

from sandbox.zoho.call import Call, Reply
from sandbox.zoho.errors import ApiError, id_error
from sandbox.zoho.model import Json
from sandbox.zoho.org import Organisation
from sandbox.zoho.records import rows_of, success
from sandbox.zoho.rendering import PARENT_MODULE, raw_value
from sandbox.zoho.schema import Module
from sandbox.zoho.store import Row

_COPIED = ("Last_Name", "First_Name", "Email", "Phone", "Mobile", "Lead_Source", "Description")


def convert_lead(org: Organisation, lead_id: str, *, contact_id: str | None = None, call: int = 0) -> Row:
    """Makes a contact of a lead, or joins it with an existing contact; its notes move there.

    Returns:
        The contact. KeyError without such a lead.
    """
    leads, contacts = org.schema.module("Leads"), org.schema.module("Contacts")
    lead = _existing(org, leads, lead_id)
    if contact_id is None:
        values = {
            name: lead.values[name] for name in _COPIED if name in lead.values and name in contacts.fields
        }
        contact = org.create(contacts, values, call=call)
    else:
        contact = _existing(org, contacts, contact_id)
    org.convert(leads, lead, contact_id=contact.id, call=call)
    _move_notes(org, lead_id, contact.id, contacts, call=call)
    return contact


def merge_leads(org: Organisation, lead_id: str, *, into: str, call: int = 0) -> None:
    """Merges a lead into another: that one keeps its values, takes over notes and messages, and the first is gone."""
    leads = org.schema.module("Leads")
    lead, master = _existing(org, leads, lead_id), _existing(org, leads, into)
    gaps = {name: value for name, value in lead.values.items() if master.values.get(name) is None}
    org.delete(leads, lead_id, call=call)
    org.update(leads, master, gaps, call=call)
    _move_notes(org, lead_id, into, leads, call=call)
    for module in list(org.schema):
        for each in module.of_type("lookup"):
            if each.lookup == "Leads":
                for row in org.table(module).current.find(each.api_name, lead_id):
                    org.update(module, row, {each.api_name: into}, call=call)


def delete_record(org: Organisation, module: Module, row_id: str, *, call: int = 0) -> None:
    """Deletes a record and its notes."""
    org.delete(module, row_id, call=call)
    notes = org.schema.module("Notes")
    for row in org.table(notes).current.find("Parent_Id", row_id):
        org.delete(notes, row.id, call=call)


def _existing(org: Organisation, module: Module, row_id: str) -> Row:
    row = org.table(module).get(row_id)
    if row is None:
        raise KeyError(row_id)
    return row


def _move_notes(org: Organisation, old_id: str, new_id: str, module: Module, *, call: int) -> None:
    notes = org.schema.module("Notes")
    for row in org.table(notes).current.find("Parent_Id", old_id):
        org.update(notes, row, {"Parent_Id": new_id, PARENT_MODULE: module.module_name}, call=call)


def convert(org: Organisation, call: Call) -> Reply:
    """POST /Leads/{id}/actions/convert"""
    order = rows_of(call)[0]
    leads, contacts = org.schema.module("Leads"), org.schema.module("Contacts")
    lead = org.table(leads).get(call.the_id)
    if lead is None:
        raise id_error()
    if lead.is_converted:
        raise ApiError(400, "ID_ALREADY_CONVERTED", "id already converted", {"resource_path_index": 1})
    contact_id = _wanted_contact(org, contacts, order)
    contact = convert_lead(org, call.the_id, contact_id=contact_id, call=call.number)
    details: Json = {
        "Contacts": {"name": raw_value(contacts, contact, "Full_Name"), "id": contact.id},
        "Deals": None,
        "Accounts": None,
    }
    return Reply(200, {"data": [success(details, "The record has been converted successfully")]})


def _wanted_contact(org: Organisation, contacts: Module, order: object) -> str | None:
    wanted = order.get("Contacts") if isinstance(order, dict) else None
    if not isinstance(wanted, dict):
        return None
    if org.table(contacts).get(str(wanted.get("id"))) is None:
        details = {"api_name": "Contacts", "json_path": "$.data[0].Contacts"}
        raise ApiError(400, "INVALID_DATA", "the id given seems to be invalid", details)
    return str(wanted["id"])
