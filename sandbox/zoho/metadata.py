"""The organisation about itself: org, users, modules, fields, profiles, assignment rules."""

from __future__ import annotations

from typing import Any

from sandbox.zoho.call import Call, Reply
from sandbox.zoho.errors import ApiError, missing_param, module_error, param_error
from sandbox.zoho.metadata_forms import show_field, show_module, show_org, show_user
from sandbox.zoho.org import Organisation


def get_org(org: Organisation, _call: Call) -> Reply:
    """GET /org"""
    return Reply(200, {"org": [show_org(org)]})


def get_users(org: Organisation, call: Call) -> Reply:
    """GET /users?type=CurrentUser"""
    kind = call.params.get("type", "AllUsers")
    if kind not in ("CurrentUser", "AllUsers", "ActiveUsers"):
        raise ApiError(
            400,
            "PATTERN_NOT_MATCHED",
            "Please check whether the input values are correct",
            {"api_name": "type"},
        )
    users = [org.user] if kind == "CurrentUser" else list(org.users.values())
    shown = [show_user(org, user) for user in users if kind != "ActiveUsers" or user.is_active]
    info = {"per_page": 200, "count": len(shown), "page": 1, "more_records": False}
    return Reply(200, {"users": shown, "info": info})


def get_modules(org: Organisation, _call: Call) -> Reply:
    """GET /settings/modules"""
    return Reply(200, {"modules": [show_module(org, module) for module in org.schema]})


def get_module(org: Organisation, call: Call) -> Reply:
    """GET /settings/modules/{api_name or id}"""
    module = next((each for each in org.schema if call.the_id in (each.api_name, each.id)), None)
    if module is None:
        raise module_error(2)
    return Reply(200, {"modules": [show_module(org, module, whole=True)]})


def get_fields(org: Organisation, call: Call) -> Reply:
    """GET /settings/fields?module=…"""
    name = call.params.get("module")
    if not name:
        raise missing_param("module")
    kind = call.params.get("type", "all")
    if kind not in ("all", "used", "unused"):
        raise param_error("type")
    module = org.schema.find(name)
    if module is None:
        raise ApiError(400, "INVALID_MODULE", "the module name given seems to be invalid", {"param_name": "module"})
    fields: list[Any] = [] if kind == "unused" else list(module.fields.values())
    if not fields:
        return Reply(204)
    return Reply(200, {"fields": [show_field(org, module, each) for each in fields]})


def get_profiles(org: Organisation, _call: Call) -> Reply:
    """GET /settings/profiles"""
    shown = [
        {
            "id": profile_id,
            "name": name,
            "display_label": name,
            "description": None,
            "custom": False,
            "category": False,
            "default": name == "Administrator",
            "type": "normal_profile",
            "created_time": None,
            "modified_time": None,
            "created_by": None,
            "modified_by": None,
        }
        for profile_id, name in org.profiles.items()
    ]
    return Reply(200, {"profiles": shown})


def get_assignment_rules(org: Organisation, call: Call) -> Reply:
    """GET /settings/automation/assignment_rules"""
    module = call.params.get("module")
    rules = [each for each in org.assignment_rules.values() if module in (None, each["module"]["api_name"])]
    return Reply(200, {"assignment_rules": rules}) if rules else Reply(204)
