"""Modules, fields, users and the organisation in the shapes of the metadata calls [OAS31]."""

from __future__ import annotations

from sandbox.zoho.model import Json
from sandbox.zoho.org import Organisation, User
from sandbox.zoho.schema import Field, Module

_JSON_TYPES = {
    "lookup": "jsonobject",
    "ownerlookup": "jsonobject",
    "boolean": "boolean",
    "integer": "integer",
    "double": "double",
    "currency": "double",
}
_CREATED_S = 1_700_000_000.0


def show_org(org: Organisation) -> Json:
    """GET /org"""
    address = dict.fromkeys(("city", "street", "state", "zip", "fax", "mobile", "description", "alias", "photo_id"))
    money = {"currency": "US Dollar", "currency_symbol": "$", "currency_locale": "en_US", "iso_code": "USD"}
    flags = dict.fromkeys(("gapps_enabled", "translation_enabled", "mc_status", "privacy_settings"), False)
    more = dict.fromkeys(("hipaa_compliance_enabled", "lite_users_enabled", "deletable_org_account"), False)
    return {
        **address,
        **money,
        **flags,
        **more,
        "id": org.org_id,
        "zgid": org.zgid,
        "ezgid": "3f2a9c1d0b5e4f67",
        "zia_zgid": int(org.zgid),
        "zia_portal_id": None,
        "domain_name": f"org{org.zgid}",
        "company_name": "Sandbox Company",
        "employee_count": str(org.config.users),
        "website": "https://example.com",
        "country": "US",
        "country_code": "US",
        "time_zone": org.config.time_zone,
        "type": org.config.org_type,
        "phone": "+1 555 0100",
        "primary_email": org.user.email,
        "primary_zuid": org.user.zuid,
        "max_per_page": 200,
        "call_icon": "default",
        "oauth_presence": True,
        "created_time": org.time_text(_CREATED_S),
        "checkin_preferences": {"restricted_event_types": None},
        "hierarchy_preferences": {"type": "Role_Hierarchy", "strictly_reporting": False},
        "license_details": _license(org),
    }


def _license(org: Organisation) -> Json:
    return {
        "paid_expiry": org.time_text(_CREATED_S + 10 * 365 * 86_400),
        "users_license_purchased": org.config.users,
        "trial_type": None,
        "trial_expiry": None,
        "trial_action": "none",
        "paid": org.config.edition != "free",
        "paid_type": org.config.edition,
    }


def show_user(org: Organisation, user: User) -> Json:
    """GET /users"""
    profile_id = next(iter(org.profiles))
    first, _, last = user.name.partition(" ")
    return {
        "id": user.id,
        "full_name": user.name,
        "first_name": first,
        "last_name": last,
        "email": user.email,
        "zuid": user.zuid,
        "status": "active" if user.is_active else "disabled",
        "confirm": True,
        "role": {"name": "CEO", "id": org.org_id},
        "profile": {"name": org.profiles[profile_id], "id": profile_id},
        "time_zone": org.config.time_zone,
        "offset": org.config.utc_offset_min * 60_000,
        "locale": "en_US",
        "language": "en_US",
        "country_locale": "en_US",
        "created_time": org.time_text(_CREATED_S),
        "Modified_Time": org.time_text(_CREATED_S),
        "category": "regular_user",
        "personal_account": False,
        "Isonline": False,
        "microsoft": False,
    }


def show_module(org: Organisation, module: Module, *, whole: bool = False) -> Json:
    """GET /settings/modules; a single module comes with its fields' names, its layouts and so on."""
    shown = {
        "id": module.id,
        "api_name": module.api_name,
        "module_name": module.module_name,
        "singular_label": module.singular,
        "plural_label": module.plural,
        "generated_type": module.generated_type,
        "api_supported": module.api_supported,
        "sequence_number": module.sequence,
        "profiles": [{"name": name, "id": profile_id} for profile_id, name in org.profiles.items()],
        "profile_count": len(org.profiles),
        "status": "visible",
        "visibility": 1,
        "modified_time": org.time_text(_CREATED_S) if module.is_custom else None,
        "modified_by": org.user_ref(org.user.id) if module.is_custom else None,
        **_module_flags(module),
        **_module_blanks(),
    }
    return {**shown, **_module_rest(module)} if whole else shown


def _module_flags(module: Module) -> Json:
    able = dict.fromkeys(
        ("creatable", "editable", "viewable", "deletable", "show_as_tab", "visible"), module.api_supported
    )
    off = (
        "inventory_template_supported",
        "chart_view",
        "email_parser_supported",
        "scoring_supported",
        "quick_create",
    )
    on = (
        "triggers_supported",
        "filter_supported",
        "feeds_required",
        "recycle_bin_on_delete",
        "presence_sub_menu",
    )
    also_on = ("isBlueprintSupported", "emailTemplate_support", "webform_supported", "chart_view_supported")
    flags = able | dict.fromkeys(off, False) | dict.fromkeys((*on, *also_on, "common.search_supported"), True)
    return {
        **flags,
        "convertable": module.module_name == "Leads",
        "has_more_profiles": False,
        "sub_menu_available": True,
    }


def _module_blanks() -> Json:
    return {
        "description": None,
        "web_link": None,
        "arguments": [],
        "parent_module": {},
        "activity_badge": "Disabled",
        "business_card_field_limit": 5,
        "track_current_data": False,
    }


def _module_rest(module: Module) -> Json:
    names = list(module.fields)
    name_field = module.fields.get(module.name_field)
    empty_lists = ("$field_states", "$properties", "$on_demand_properties", "related_lists", "layouts")
    more_lists = ("default_mapping_fields", "layout_associations")
    return {
        **{name: [] for name in (*empty_lists, *more_lists)},
        "business_card_fields": names[:5],
        "search_layout_fields": names[:5],
        "fields": [{"api_name": each.api_name, "id": each.id} for each in module.fields.values()],
        "display_field": {"api_name": module.name_field, "id": name_field.id if name_field else None},
        "per_page": 200,
        "kanban_view": False,
        "kanban_view_supported": False,
        "filter_status": True,
        "lookup_field_properties": {"fields": []},
        "related_list_properties": None,
        "custom_view": None,
        "zia_view": False,
    }


def show_field(org: Organisation, module: Module, spec: Field) -> Json:
    """GET /settings/fields"""
    return {
        "id": spec.id,
        "api_name": spec.api_name,
        "field_label": spec.label,
        "display_label": spec.label,
        "data_type": spec.data_type,
        "json_type": _JSON_TYPES.get(spec.data_type, "string"),
        "length": spec.length,
        "system_mandatory": spec.mandatory,
        "read_only": spec.read_only,
        "field_read_only": spec.read_only,
        "custom_field": spec.custom,
        "operation_type": _operations(spec),
        "pick_list_values": _choices(spec),
        "lookup": _lookup(org, spec),
        "unique": {} if spec.unique is None else {org.config.unique_as: _flag(org, spec.unique)},
        "external": None,
        "textarea": {"type": spec.textarea} if spec.textarea else None,
        **_field_flags(spec, spec.api_name == module.name_field),
        **_field_blanks(),
    }


def _flag(org: Organisation, value: bool) -> bool | str:  # noqa: FBT001 (a value, not a switch)
    return value if org.config.unique_as == "case_sensitive" else str(value).lower()


def _operations(spec: Field) -> Json:
    writable = not spec.read_only
    return dict.fromkeys(("web_update", "api_create", "web_create", "api_update"), writable)


def _choices(spec: Field) -> list[Json]:
    return [
        {
            "display_value": value,
            "actual_value": value,
            "reference_value": value,
            "id": str(int(spec.id) + 1_000_000 + number),
            "sequence_number": number,
            "colour_code": None,
            "type": "used",
        }
        for number, value in enumerate(spec.values, 1)
    ]


def _lookup(org: Organisation, spec: Field) -> Json:
    target = org.schema.get(spec.lookup)
    if target is None:
        return {}
    return {
        "module": {"api_name": target.api_name, "id": target.id},
        "display_label": spec.label,
        "api_name": spec.api_name,
        "id": spec.id,
        "query_details": {},
        "revalidate_filter_during_edit": False,
        "show_fields": [],
    }


def _field_flags(spec: Field, is_name: bool) -> Json:  # noqa: FBT001 (a value, not a switch)
    on = (
        "webhook",
        "visible",
        "available_in_user_layout",
        "businesscard_supported",
        "mass_update",
        "filterable",
    )
    off = (
        "virtual_field",
        "separator",
        "enable_colour_code",
        "colour_code_enabled_by_system",
        "static_field",
    )
    flags = dict.fromkeys((*on, "sortable", "blueprint_supported"), True) | dict.fromkeys(off, False)
    return {
        **flags,
        "searchable": spec.searchable,
        "display_field": is_name,
        "pick_list_values_sorted_lexically": False,
        "number_separator": False,
        "_update_existing_records": False,
        "hipaa_compliance_enabled": False,
        "type": "used",
        "created_source": "default" if not spec.custom else "user",
        "column_name": spec.api_name.upper(),
        "ui_type": 1,
        "display_type": -1,
        "show_type": 7,
        "category": 2,
        "view_type": dict.fromkeys(("view", "edit", "quick_create", "create"), True),
    }


def _field_blanks() -> Json:
    nothing = [
        "associated_module",
        "quick_sequence_number",
        "decimal_place",
        "rollup_summary",
        "refer_from_field",
        "sharing_properties",
        "sub_module",
        "hipaa_compliance",
        "crypt",
        "tooltip",
        "history_tracking",
        "association_details",
        "additional_column",
        "created_time",
        "modified_time",
        "multiuserlookup",
        "autonumber",
    ]
    objects = [
        "multi_module_lookup",
        "currency",
        "subform",
        "formula",
        "multiselectlookup",
        "auto_number",
        "common.picklist",
    ]
    lists = [
        "customizable_properties",
        "layout_associations",
        "profiles",
        "allowed_modules",
        "file_upolad_optionlist",
    ]
    return {
        **dict.fromkeys(nothing),
        **{name: {} for name in objects},
        **{name: [] for name in lists},
        "convert_mapping": None,
        "email_parser": {"fields_update_supported": True, "record_operations_supported": True},
    }
