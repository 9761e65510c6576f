"""The organisation's modules and fields, which a test may change at any time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Literal

GeneratedType = Literal["default", "web", "linking", "custom"]
TEXT_TYPES = frozenset({"text", "textarea", "phone", "email", "picklist", "website", "autonumber"})
NUMBER_TYPES = frozenset({"integer", "bigint", "double", "currency"})
UNIQUE_TYPES = frozenset({"text", "phone", "email", "integer", "bigint", "website"})
DEFAULT_LENGTHS = {"text": 255, "phone": 30, "email": 100, "website": 450, "textarea": 2000, "picklist": 120}


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """One field; `unique` is None, or whether the comparison minds case. Lookups name the other `module_name`."""

    api_name: str
    data_type: str
    label: str
    id: str = ""
    length: int = 255
    mandatory: bool = False
    unique: bool | None = None
    values: tuple[str, ...] = ()
    restricted: bool = False
    lookup: str | None = None
    read_only: bool = False
    custom: bool = False
    textarea: str | None = None
    searchable: bool = True


@dataclass(slots=True)
class Module:
    """One module. `module_name` is its internal, stable name; `api_name` is the one in URLs."""

    module_name: str
    api_name: str
    singular: str
    plural: str
    id: str
    generated_type: GeneratedType = "default"
    system_duplicate_field: str | None = None
    name_field: str = "Name"
    api_supported: bool = True
    sequence: int = 1
    fields: dict[str, Field] = field(default_factory=dict)

    @property
    def is_custom(self) -> bool:
        return self.generated_type == "custom"

    def of_type(self, *data_types: str) -> list[Field]:
        """The fields of these types, in order."""
        return [each for each in self.fields.values() if each.data_type in data_types]


class Schema:
    """All modules; every change raises `version`, so that what is derived from fields can be derived again."""

    def __init__(self, new_id: Callable[[], str]) -> None:
        self.new_id = new_id
        self.version = 0
        self._modules: dict[str, Module] = {}
        self._by_api_name: dict[str, Module] = {}

    def __iter__(self) -> Iterator[Module]:
        return iter(self._modules.values())

    def find(self, api_name: str) -> Module | None:
        """The module with this API name."""
        return self._by_api_name.get(api_name)

    def get(self, module_name: str | None) -> Module | None:
        """The module with this internal name, if there is one."""
        return self._modules.get(module_name or "")

    def module(self, module_name: str) -> Module:
        """The module with this internal name; KeyError without one."""
        return self._modules[module_name]

    def named(self, name: str) -> Module:
        """The module with this API name or internal name; KeyError without one."""
        return self._by_api_name.get(name) or self._modules[name]

    def add(self, module: Module, fields: Iterable[Field]) -> Module:
        """Adds a module with its fields, and the fields that every module has."""
        module.sequence = len(self._modules) + 1
        self._modules[module.module_name] = module
        for each in (*fields, *system_fields()):
            module.fields[each.api_name] = replace(each, id=self.new_id())
        self._changed()
        return module

    def remove(self, module: Module) -> None:
        """The module is gone; its records stay where they were, out of reach."""
        del self._modules[module.module_name]
        self._changed()

    def rename(self, module: Module, api_name: str) -> None:
        """Gives the module another API name."""
        module.api_name = api_name
        self._changed()

    def set_field(self, module: Module, new: Field) -> Field:
        """Adds a field, or replaces the one with the same API name."""
        old = module.fields.get(new.api_name)
        module.fields[new.api_name] = replace(new, id=old.id if old else self.new_id())
        self._changed()
        return module.fields[new.api_name]

    def change_field(self, module: Module, api_name: str, **changes: Any) -> Field:
        """Changes some attributes of a field."""
        return self.set_field(module, replace(module.fields[api_name], **changes))

    def remove_field(self, module: Module, api_name: str) -> None:
        """The field is gone, for requests and for answers."""
        del module.fields[api_name]
        self._changed()

    def _changed(self) -> None:
        self.version += 1
        self._by_api_name = {each.api_name: each for each in self._modules.values()}


def make_field(api_name: str, data_type: str = "text", **more: Any) -> Field:
    """A field with its type's usual length, and a label made from its name."""
    more.setdefault("length", DEFAULT_LENGTHS.get(data_type, 255))
    more.setdefault("label", api_name.replace("__s", "").replace("_", " "))
    return Field(api_name=api_name, data_type=data_type, **more)


def custom_field(api_name: str, data_type: str = "text", **more: Any) -> Field:
    """A field that the organisation added; its picklists take nothing outside the list."""
    return make_field(api_name, data_type, custom=True, restricted=data_type == "picklist", **more)


def system_fields() -> list[Field]:
    """What Zoho adds to every module."""
    return [
        make_field("Owner", "ownerlookup"),
        make_field("Created_By", "ownerlookup", read_only=True),
        make_field("Modified_By", "ownerlookup", read_only=True),
        make_field("Created_Time", "datetime", read_only=True),
        make_field("Modified_Time", "datetime", read_only=True),
    ]


def message_fields() -> list[Field]:
    """The custom module that holds chat messages."""
    return [
        make_field("Name", length=120, mandatory=True, label="Message Name"),
        custom_field("Message_ID", unique=True),
        custom_field("Lead", "lookup", lookup="Leads"),
        custom_field("Contact", "lookup", lookup="Contacts"),
        custom_field("Phone", "phone"),
        custom_field("Direction", "picklist", values=("inbound", "outbound")),
        custom_field("Channel"),
        custom_field("Origin", "picklist", values=("campaign", "webhook", "chat")),
        custom_field("Campaign"),
        custom_field("Body", "textarea", length=32_000, textarea="large"),
        custom_field("Sent_At", "datetime"),
        custom_field("Media_URLs", "textarea", length=2_000, textarea="small"),
        custom_field("Dialog_ID"),
        custom_field("Agent"),
    ]


def lead_fields() -> list[Field]:
    """Leads as in a new organisation, as far as this service can touch them."""
    sources = ("Advertisement", "Cold Call", "Employee Referral", "External Referral", "Chat", "WhatsApp")
    statuses = ("Attempted to Contact", "Contact in Future", "Contacted", "Junk Lead", "Not Contacted")
    return [
        make_field("Last_Name", length=80, mandatory=True),
        make_field("First_Name", length=40),
        make_field("Company", length=200),
        make_field("Email", "email"),
        make_field("Secondary_Email", "email"),
        make_field("Phone", "phone"),
        make_field("Mobile", "phone"),
        make_field("Lead_Source", "picklist", values=sources),
        make_field("Lead_Status", "picklist", values=statuses),
        make_field("Description", "textarea", length=32_000, textarea="large"),
        make_field("Converted__s", "boolean", read_only=True, label="Is Converted"),
        make_field("Converted_Contact", "lookup", lookup="Contacts", read_only=True),
        make_field("Full_Name", read_only=True),
    ]


def contact_fields() -> list[Field]:
    """Contacts as in a new organisation."""
    return [
        make_field("Last_Name", length=80, mandatory=True),
        make_field("First_Name", length=40),
        make_field("Email", "email"),
        make_field("Secondary_Email", "email"),
        make_field("Phone", "phone"),
        make_field("Mobile", "phone"),
        make_field("Home_Phone", "phone"),
        make_field("Other_Phone", "phone"),
        make_field("Lead_Source", "picklist"),
        make_field("Description", "textarea", length=32_000, textarea="large"),
        make_field("Full_Name", read_only=True),
    ]


def note_fields() -> list[Field]:
    """Notes [OAS31 notes]; `Parent_Id` has its own rules."""
    return [
        make_field("Note_Title", length=120),
        make_field("Note_Content", "textarea", length=65_535, textarea="large"),
        make_field("Parent_Id", "lookup", mandatory=True, read_only=True),
    ]


def default_schema(new_id: Callable[[], str]) -> Schema:
    """Leads, Contacts, Notes, and the custom module Messages."""
    schema = Schema(new_id)
    schema.add(_person_module("Leads", "Lead", new_id()), lead_fields())
    schema.add(_person_module("Contacts", "Contact", new_id()), contact_fields())
    schema.add(Module("Notes", "Notes", "Note", "Notes", new_id(), name_field="Note_Title"), note_fields())
    schema.add(messages_module(new_id()), message_fields())
    return schema


def _person_module(name: str, singular: str, module_id: str) -> Module:
    return Module(name, name, singular, name, module_id, system_duplicate_field="Email", name_field="Full_Name")


def messages_module(module_id: str) -> Module:
    """The custom module Messages; its duplicate check field is `Name`, as in every custom module."""
    return Module(
        "CustomModule1",
        "Messages",
        "Message",
        "Messages",
        module_id,
        generated_type="custom",
        system_duplicate_field="Name",
    )
