"""POST /Leads/{id}/actions/convert"""

from __future__ import annotations

from typing import Any

from sandbox.zoho.call import Call, Reply
from sandbox.zoho.errors import ApiError, id_error, method_error
from sandbox.zoho.lifecycle import convert_lead
from sandbox.zoho.model import Json
from sandbox.zoho.org import Organisation
from sandbox.zoho.records import rows_of, success
from sandbox.zoho.rendering import raw_value


def convert(org: Organisation, call: Call) -> Reply:
    """Makes a contact of the lead, or joins it with the contact that the body names."""
    if call.the_module.module_name != "Leads":
        raise method_error()
    order = rows_of(call)[0]
    lead = org.table(call.the_module).get(call.the_id)
    if lead is None:
        raise id_error()
    if lead.is_converted:
        raise ApiError(400, "ID_ALREADY_CONVERTED", "id already converted", {"resource_path_index": 1})
    contact = convert_lead(org, call.the_id, contact_id=_wanted_contact(org, order), call=call.number)
    name = raw_value(org.schema.module("Contacts"), contact, "Full_Name")
    details: Json = {"Contacts": {"name": name, "id": contact.id}}
    return Reply(200, {"data": [success(details, "The record has been converted successfully")]})


def _wanted_contact(org: Organisation, order: Any) -> str | None:
    wanted = order.get("Contacts") if isinstance(order, dict) else None
    if not isinstance(wanted, dict):
        return None
    contact_id = str(wanted.get("id"))
    if org.table(org.schema.module("Contacts")).get(contact_id) is None:
        details = {"api_name": "Contacts", "json_path": "$.data[0].Contacts"}
        raise ApiError(400, "INVALID_DATA", "the id given seems to be invalid", details)
    return contact_id
