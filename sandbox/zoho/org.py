"""The organisation: its users, its records, and the only functions that change a record."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from random import Random
from typing import Any

from sandbox.zoho.call import Call, Reply
from sandbox.zoho.config import SandboxConfig, Span
from sandbox.zoho.errors import ApiError
from sandbox.zoho.journal import Effect, EffectKind, Journal, Violation, groups
from sandbox.zoho.model import Request
from sandbox.zoho.schema import Module, Schema, default_schema
from sandbox.zoho.store import LaggedView, Row, Table, Values, digits_of
from sandbox.zoho.times import format_time

# What GET /org calls the organisation; the `org…` of links is made of it.
ZGID = "808232144"
ID_BASE = 5_725_767_000_000_000_000


@dataclass(frozen=True, slots=True)
class User:
    """A user of the organisation; an inactive one cannot call the API."""

    id: str
    name: str
    email: str
    zuid: str
    is_active: bool = True


def stream(seed: int, name: str) -> Random:
    """A source of randomness of its own for each purpose, so that more of one does not change another."""
    return Random(f"{seed}/{name}")  # noqa: S311 (repeatable, not secret)


def _no_dispatch(_call: Call, _request: Request) -> Reply:
    """The engine needs the organisation before it can set its own; asking earlier is a fault of the sandbox."""
    raise NotImplementedError("the engine sets this")


class Ids:
    """19-digit ids, strictly rising, with gaps as in a shared database."""

    def __init__(self, rng: Random) -> None:
        self._rng = rng
        self._last = ID_BASE + 400_000

    def new(self) -> str:
        """The next id, as a string of digits."""
        self._last += 1 + self._rng.getrandbits(3)
        return str(self._last)


class PageTokens:
    """Tokens for pages beyond the first 2,000 rows; each lives 24 hours."""

    life_s = 86_400.0

    def __init__(self, rng: Random) -> None:
        self._rng = rng
        self._pages: dict[str, tuple[int, str, float]] = {}

    def issue(self, start: int, query: str, *, now_s: float) -> str:
        """A token for the page of this query that starts at this row."""
        token = self._rng.randbytes(24).hex()
        self._pages[token] = (start, query, now_s + self.life_s)
        return token

    def start(self, token: str, query: str, *, now_s: float) -> int:
        """The first row of the token's page.

        Raises:
            ApiError: the token is unknown, too old, or of another query.
        """
        start, its_query, expires_at_s = self._pages.get(token, (0, "", 0.0))
        if not expires_at_s:
            raise ApiError(
                400, "INVALID_DATA", "the page_token given seems to be invalid", {"param_name": "page_token"}
            )
        if expires_at_s <= now_s:
            raise ApiError(400, "EXPIRED_VALUE", "the page_token has expired", {"param_name": "page_token"})
        if its_query != query:
            message = "the page_token belongs to another request"
            raise ApiError(400, "TOKEN_BOUND_DATA_MISMATCH", message, {"param_name": "page_token"})
        return start


class Organisation:
    """Schema, users and tables of one organisation. `clock` gives epoch seconds."""

    def __init__(self, config: SandboxConfig, *, clock: Callable[[], float], seed: int) -> None:
        self.config = config
        self.clock = clock
        self.journal = Journal()
        self._lag_rng = stream(seed, "lag")
        self.ids = Ids(stream(seed, "ids"))
        self.user = User(self.ids.new(), "Patricia Boyle", "patricia@example.com", "60000000001")
        self.users = {self.user.id: self.user}
        self.profiles = {self.ids.new(): "Administrator", self.ids.new(): "Standard"}
        self.assignment_rules: dict[str, Values] = {}
        self.org_id = self.ids.new()
        self.zgid = ZGID
        self.schema: Schema = default_schema(self.ids.new)
        self.page_tokens = PageTokens(stream(seed, "pages"))
        self.readers: dict[str, tuple[int, Any]] = {}
        self.dispatch: Callable[[Call, Request], Reply] = _no_dispatch
        self._tables: dict[str, Table] = {}
        self._unique_version = -1

    def set_config(self, config: SandboxConfig) -> None:
        """Another configuration from now on. A lag of queries starts with what is stored now."""
        starts_lagging = self.config.coql_lag_s == (0.0, 0.0) != config.coql_lag_s
        self.config = config
        if starts_lagging:
            for table in self._tables.values():
                table.coql_view = LaggedView()
                for row in table:
                    table.coql_view.write(row.id, row.version, row, visible_at_s=self.clock())

    # Users

    def set_active(self, *, is_active: bool) -> None:
        """Activates or deactivates the user whose tokens the client holds."""
        self.user = replace(self.user, is_active=is_active)
        self.users[self.user.id] = self.user

    def user_ref(self, user_id: str) -> Values:
        """A user as answers show one."""
        user = self.users[user_id]
        return {"name": user.name, "id": user.id}

    # Tables

    def table(self, module: Module) -> Table:
        """The module's records, with the unique fields as the schema has them now."""
        if self._unique_version != self.schema.version:
            self.sync_unique()
        return self._tables[module.module_name]

    def sync_unique(self) -> None:
        """Makes the tables follow the schema. ValueError when records clash on a field that is to be unique."""
        for module in self.schema:
            table = self._tables.setdefault(module.module_name, Table())
            table.set_unique((each.api_name, each.unique) for each in module.fields.values() if each.unique is not None)
        self._unique_version = self.schema.version

    def change_field(self, module: Module, api_name: str, **changes: Any) -> None:
        """Changes a field. ValueError, and no change, when it is to be unique but records share a value."""
        old = module.fields[api_name]
        self.schema.change_field(module, api_name, **changes)
        try:
            self.sync_unique()
        except ValueError:
            self.schema.set_field(module, old)
            self.sync_unique()
            raise

    def is_usable(self, module: Module, row_id: str) -> bool:
        """Can this record be updated, linked to, or given a note? Deleted and converted ones cannot."""
        row = self.table(module).get(row_id)
        return row is not None and not row.is_converted

    def time_text(self, epoch_s: float) -> str:
        """A time in the organisation's offset."""
        return format_time(int(epoch_s), self.config.utc_offset_min)

    # Changes

    def create(self, module: Module, values: Values, *, call: int = 0) -> Row:
        """Stores a new record."""
        now_s = self.clock()
        user_id = self.user.id
        owner = values.pop("Owner", None) or user_id
        row = Row(self.ids.new(), values, 1, now_s, now_s, user_id, user_id, owner)
        self._store("create", module, row, call=call)
        return row

    def update(self, module: Module, row: Row, changes: Values, *, call: int = 0) -> Row:
        """Stores a new version of a record; only the fields given change."""
        owner = changes.pop("Owner", None) or row.owner
        new = row._replace(
            values={**row.values, **changes},
            version=row.version + 1,
            modified_at_s=self.clock(),
            modified_by=self.user.id,
            owner=owner,
        )
        self._store("update", module, new, call=call)
        return new

    def convert(self, module: Module, row: Row, *, contact_id: str, call: int = 0) -> Row:
        """Marks a lead as converted."""
        values = {**row.values, "Converted__s": True, "Converted_Contact": contact_id}
        new = row._replace(values=values, version=row.version + 1, modified_at_s=self.clock(), is_converted=True)
        self._store("update", module, new, call=call)
        return new

    def delete(self, module: Module, row_id: str, *, call: int = 0) -> Row | None:
        """Deletes a record; None if there was none."""
        table = self.table(module)
        now_s = self.clock()
        row = table.remove(row_id, now_s=now_s)
        if row is not None:
            self._announce(table, row_id, row.version + 1, None, now_s=now_s)
            self.journal.changed("delete", module.module_name, row, at_s=now_s, call=call)
        return row

    def _store(self, kind: EffectKind, module: Module, row: Row, *, call: int) -> None:
        table = self.table(module)
        table.put(row)
        self._announce(table, row.id, row.version, row, now_s=row.modified_at_s)
        self.journal.changed(kind, module.module_name, row, at_s=row.modified_at_s, call=call)

    def _announce(self, table: Table, row_id: str, version: int, row: Row | None, *, now_s: float) -> None:
        lag_s = self._lag(self.config.search_lag_s)
        table.search_view.write(row_id, version, row, visible_at_s=now_s + lag_s)
        if self.config.coql_lag_s != (0.0, 0.0):
            lag_s = self._lag(self.config.coql_lag_s)
            table.coql_view.write(row_id, version, row, visible_at_s=now_s + lag_s)

    def _lag(self, span: Span) -> float:
        return span[0] if span[0] == span[1] else self._lag_rng.uniform(*span)

    # Rollback

    def checkpoint(self) -> Callable[[], None]:
        """A function that takes back every change made from now until it is called."""
        start = len(self.journal.effects)

        def undo() -> None:
            for effect in reversed(self.journal.effects[start:]):
                self._revert(effect)
            del self.journal.effects[start:]

        return undo

    def _revert(self, effect: Effect) -> None:
        table = self.table(self.schema.module(effect.module))
        version = effect.row.version + 2
        earlier = self.journal.effects[: effect.number - 1]
        before = next((each.row for each in reversed(earlier) if each.record_id == effect.record_id), effect.row)
        restored = None if effect.kind == "create" else before._replace(version=version)
        if restored is None:
            table.remove(effect.record_id, now_s=self.clock())
        else:
            table.put(restored)
        self._announce(table, effect.record_id, version, restored, now_s=self.clock())

    # Reports

    def violations(self) -> list[Violation]:
        """Every group of live records that should be one, where a call has made at least one of them."""
        reports = (self._same_phone(), self._same_message(), self._same_note(), self._beside_contact())
        made = self.journal.created_by_calls
        return [each for report in reports for each in report if not made.isdisjoint(each.record_ids)]

    def _live(self, module_name: str) -> list[Row]:
        module = self.schema.get(module_name)
        return [row for row in self.table(module) if not row.is_converted] if module else []

    def _numbers(self, module_name: str) -> Iterator[tuple[str, str]]:
        module = self.schema.get(module_name)
        names = [each.api_name for each in module.of_type("phone")] if module else []
        for row in self._live(module_name):
            for name in names:
                digits = digits_of(row.values.get(name) or "").removeprefix("00")
                if digits:
                    yield digits, row.id

    def _same_phone(self) -> Iterator[Violation]:
        for key, ids in groups(self._numbers("Leads")).items():
            yield Violation("leads_same_phone", key, tuple(ids))

    def _beside_contact(self) -> Iterator[Violation]:
        """A lead made although a contact with its number was there already."""
        contacts = dict(self._numbers("Contacts"))
        for key, lead_id in self._numbers("Leads"):
            contact_id = contacts.get(key)
            if contact_id is not None and contact_id < lead_id and lead_id in self.journal.created_by_calls:
                yield Violation("lead_beside_contact", key, (lead_id, contact_id))

    def _same_message(self) -> Iterator[Violation]:
        pairs = ((row.values.get("Message_ID"), row.id) for row in self._live("CustomModule1"))
        for key, ids in groups((key, row_id) for key, row_id in pairs if key).items():
            yield Violation("messages_same_id", key, tuple(ids))

    def _same_note(self) -> Iterator[Violation]:
        names = ("Parent_Id", "Note_Title", "Note_Content")
        pairs = ((tuple(row.values.get(name) for name in names), row.id) for row in self._live("Notes"))
        for key, ids in groups(pairs).items():
            yield Violation("notes_same_text", f"{key[0]}: {key[1]}", tuple(ids))
