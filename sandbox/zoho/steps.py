"""What a test, the control API or a fault can do to the organisation: named steps with plain arguments."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from sandbox.zoho.config import Chaos
from sandbox.zoho.lifecycle import convert_lead, delete_record, merge_leads
from sandbox.zoho.model import Json
from sandbox.zoho.records import reader_of
from sandbox.zoho.rendering import PARENT_MODULE, show_whole
from sandbox.zoho.schema import Field, Module, custom_field, message_fields, messages_module

if TYPE_CHECKING:
    from sandbox.zoho.engine import ZohoEngine

SPANS = ("search_lag_s", "coql_lag_s")


class StepError(ValueError):
    """A step that does not exist, or arguments that it cannot take."""


class Steps:
    """Each public method is a step; its arguments and its result are plain JSON values."""

    def __init__(self, engine: ZohoEngine) -> None:
        self._engine = engine

    def run(self, name: str, args: Json) -> Any:
        """Runs a step by name. StepError when the name or the arguments are wrong."""
        step: Callable[..., Any] | None = None if name.startswith("_") or name == "run" else getattr(self, name, None)
        if step is None:
            raise StepError(f"no step {name!r}")
        try:
            return step(**args)
        except (TypeError, KeyError, ValueError) as error:
            raise StepError(f"{name}: {error!r}") from error

    # Records

    def insert(self, module: str, records: list[Json]) -> list[str]:
        """Stores records without a call; unlike Zoho it also stores duplicates of fields that are not unique."""
        target = self._module(module)
        return [self._insert_one(target, record) for record in records]

    def _insert_one(self, module: Module, record: Json) -> str:
        values, error, _ = reader_of(self._engine.org, module).read(record, 0)
        if error is not None:
            raise StepError(f"{error}")
        if module.module_name == "Notes":
            parent = record["Parent_Id"]
            values["Parent_Id"] = parent["id"]
            values[PARENT_MODULE] = self._module(parent["module"]["api_name"]).module_name
        return self._engine.org.create(module, values).id

    def update(self, module: str, record_id: str, changes: Json) -> None:
        """Changes a record, as a user would."""
        target = self._module(module)
        row = self._engine.org.table(target).current.rows[record_id]
        values, error, _ = reader_of(self._engine.org, target).read(changes, 0)
        if error is not None:
            raise StepError(f"{error}")
        self._engine.org.update(target, row, values)

    def delete(self, module: str, record_id: str) -> None:
        """Deletes a record with its notes."""
        delete_record(self._engine.org, self._module(module), record_id)

    def merge(self, lead_id: str, into: str) -> None:
        """Merges a lead into another."""
        merge_leads(self._engine.org, lead_id, into=into)

    def convert(self, lead_id: str, contact_id: str | None = None) -> str:
        """Converts a lead; returns the contact's id."""
        return convert_lead(self._engine.org, lead_id, contact_id=contact_id).id

    def dump(self, module: str) -> list[Json]:
        """All records of a module, as GET shows a single one."""
        self._engine.settle()
        target = self._module(module)
        org = self._engine.org
        return [show_whole(org, target, row) for row in org.table(target)]

    # Schema

    def _module(self, name: str) -> Module:
        return self._engine.org.schema.named(name)

    def set_field(self, module: str, api_name: str, **attributes: Any) -> None:
        """Adds a field, or changes attributes of one: `data_type`, `length`, `mandatory`, `unique` (null, or whether
        case matters), `values`, `restricted`, `lookup`, `read_only`."""
        target = self._module(module)
        if "values" in attributes:
            attributes["values"] = tuple(attributes["values"])
        if api_name in target.fields:
            self._engine.org.change_field(target, api_name, **attributes)
        else:
            data_type = attributes.pop("data_type", "text")
            new: Field = replace(custom_field(api_name, data_type), **attributes)
            self._engine.org.schema.set_field(target, new)

    def remove_field(self, module: str, api_name: str) -> None:
        """Removes a field."""
        self._engine.org.schema.remove_field(self._module(module), api_name)

    def remove_module(self, module: str) -> None:
        """Removes a module."""
        self._engine.org.schema.remove(self._module(module))

    def rename_module(self, module: str, api_name: str) -> None:
        """Gives a module another API name."""
        self._engine.org.schema.rename(self._module(module), api_name)

    def add_messages_module(self) -> None:
        """The module Messages, as in a new sandbox."""
        org = self._engine.org
        org.schema.add(messages_module(org.ids.new()), message_fields())

    def add_assignment_rule(self, name: str = "Round robin", module: str = "Leads") -> str:
        """An assignment rule; returns its id, the `lar_id` of write calls."""
        org = self._engine.org
        target, rule_id = self._module(module), org.ids.new()
        shown = {
            "id": rule_id,
            "name": name,
            "description": None,
            "default_assignee": org.user_ref(org.user.id),
        }
        org.assignment_rules[rule_id] = {**shown, "module": {"api_name": target.api_name, "id": target.id}}
        return rule_id

    # Access

    def expire_access_tokens(self) -> None:
        """Every access token expires now."""
        self._engine.accounts.expire_access_tokens()

    def revoke_refresh_token(self, token: str | None = None) -> None:
        """Revokes a refresh token; the default one unless told."""
        accounts = self._engine.accounts
        accounts.revoke_refresh_token(token or accounts.default_refresh_token)

    def revoke_scope(self, scope: str) -> None:
        """Takes a scope from all tokens."""
        self._engine.accounts.revoke_scope(scope)

    def grant_scope(self, scope: str) -> None:
        """Gives a scope to all tokens."""
        self._engine.accounts.grant_scope(scope)

    def deactivate_user(self) -> None:
        """The user whose tokens the client holds is deactivated."""
        self._engine.org.set_active(is_active=False)

    def activate_user(self) -> None:
        """The user is active again."""
        self._engine.org.set_active(is_active=True)

    # Behaviour

    def configure(self, **changes: Any) -> None:
        """Changes the configuration: any field of SandboxConfig, spans as lists, `chaos` as an object."""
        for name in SPANS:
            if name in changes:
                low, high = changes[name]
                changes[name] = (float(low), float(high))
        if isinstance(changes.get("chaos"), dict):
            changes["chaos"] = Chaos(**changes["chaos"])
        self._engine.configure(**changes)
