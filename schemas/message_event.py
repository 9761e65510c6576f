"""The event contract, version 1: one chat message, as a plain value or inside a CloudEvent.

Within version 1 the contract only grows: new fields are optional, and fields not known here are ignored.
Types are exact (`"message_id": 17` is refused, not read as text) with exceptions that real producers need:
ids of campaigns and agents may be integers, as databases number them; null means the same as absent wherever
a field has a default, as many serializers write out what is unset; and a timestamp may leave out its seconds
or the colon of its offset, as common date formatters do.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Final, Literal

from pydantic import (
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    WithJsonSchema,
)
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

MESSAGE_CREATED: Final = "messaging.message.created.v1"
"""The CloudEvents type of the event."""

MAX_ATTACHMENTS: Final = 1000

Direction = Literal["inbound", "outbound"]
Origin = Literal["campaign", "webhook", "chat"]
"""A mailing, an incoming webhook message, an operator's chat."""

# The years keep every conversion between time zones in range, and refuse the zero time of other languages.
_YEAR = r"(19[7-9][0-9]|2[01][0-9]{2})"
_TIME = r"[0-9]{2}:[0-9]{2}(:[0-9]{2}(\.[0-9]+)?)?"
_RFC_3339 = re.compile(rf"^{_YEAR}-[0-9]{{2}}-[0-9]{{2}}[Tt ]{_TIME}([Zz]|[+-][0-9]{{2}}:?[0-9]{{2}})$")
_MESSAGE_ID = r"^[^\s\x00-\x1f\x7f\ufffd]([^\x00-\x1f\x7f\ufffd]*[^\s\x00-\x1f\x7f\ufffd])?$"


@dataclass(frozen=True, slots=True)
class _EmptyMeans:
    """For `Annotated`: null (or an empty value) stands for `value`."""

    value: object

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return _then(lambda given: given or self.value, core_schema.nullable_schema(handler(source)))


class _TextOrInteger:
    """For `Annotated[str, …]`: an integer is accepted and becomes its decimal digits."""

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        either: list[CoreSchema | tuple[CoreSchema, str]] = [
            handler(source),
            core_schema.int_schema(strict=True),
        ]
        return _then(
            str,
            core_schema.union_schema(
                either,
                custom_error_type="string_or_integer",
                custom_error_message="Input should be a string or an integer",
            ),
        )


def _then(function: Callable[[Any], Any], schema: CoreSchema) -> CoreSchema:
    return core_schema.no_info_after_validator_function(function, schema)


def _timestamp(value: object) -> object:
    """Let through what names a moment; numbers, numeric text and local time do not."""
    if isinstance(value, datetime) or (isinstance(value, str) and _RFC_3339.fullmatch(value)):
        return value
    raise PydanticCustomError("rfc3339_offset", "Input should be RFC 3339 with an offset, from 1970 to 2199")


Id = Annotated[str, _TextOrInteger]
Timestamp = Annotated[
    AwareDatetime,
    BeforeValidator(_timestamp),
    WithJsonSchema({"type": "string", "format": "date-time", "pattern": _RFC_3339.pattern}),
]


class _Contract(BaseModel):
    """Errors and representations of these models hold no value: they are about people."""

    model_config = ConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True)


class Attachment(_Contract):
    """A file of the message, by reference."""

    url: Annotated[str, Field(min_length=1, repr=False)]
    mime_type: str | None = None
    filename: Annotated[str | None, Field(repr=False)] = None
    caption: Annotated[str | None, Field(repr=False)] = None


class Campaign(_Contract):
    """The mailing that a message belongs to."""

    id: Id | None = None
    name: str | None = None


class Agent(_Contract):
    """The operator who wrote the message."""

    id: Id | None = None
    name: Annotated[str | None, Field(repr=False)] = None
    email: Annotated[str | None, Field(repr=False)] = None


class MessageEvent(_Contract):
    """One chat message between a customer and the messaging platform."""

    message_id: Annotated[
        str,
        Field(
            min_length=1,
            max_length=255,
            pattern=_MESSAGE_ID,
            description="Identity: two events with one message_id are one message. No control characters, "
            "and no white space at the ends: the CRM drops them, and two messages would become one.",
        ),
    ]
    occurred_at: Annotated[Timestamp, Field(description="RFC 3339 with offset, of the years 1970 to 2199.")]
    direction: Direction
    origin: Annotated[
        Origin,
        Field(description="A mailing (campaign), an incoming webhook message, or an operator's chat."),
    ]
    phone: Annotated[
        str | None,
        Field(
            repr=False,
            description="The customer's number in any usual form. Without a number the event is skipped.",
        ),
    ] = None
    channel: Annotated[str, _EmptyMeans("whatsapp")] = "whatsapp"
    contact_name: Annotated[str | None, Field(repr=False)] = None
    text: Annotated[
        str | None,
        Field(repr=False, description="Of any length; the CRM's copy is cut at the limit of its field."),
    ] = None
    dialog_id: str | None = None
    attachments: Annotated[
        tuple[Attachment, ...],
        Field(fail_fast=True, max_length=MAX_ATTACHMENTS),
        _EmptyMeans(()),
    ] = ()
    campaign: Campaign | None = None
    agent: Agent | None = None


class CloudEvent(_Contract):
    """What tells a structured CloudEvent from other JSON, and its type; the rest of it may be anything."""

    specversion: str
    type: str


class MessageCreated(_Contract):
    """A structured CloudEvent of type `MESSAGE_CREATED`: the event is in one of the two fields."""

    data: MessageEvent | None = None
    data_base64: Annotated[
        str | None, Field(repr=False, description="The event's UTF-8 JSON in standard base64 (RFC 4648).")
    ] = None
