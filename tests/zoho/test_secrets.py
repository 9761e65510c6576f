"""No secret, number, name or text in what the room says of itself, whatever goes wrong and whatever Zoho echoes."""

from __future__ import annotations

import asyncio
import logging
import traceback
from typing import Any

import pytest

from consumer.core.errors import SyncError
from consumer.core.model import NotePolicy
from consumer.zoho.api import Operation, write_call
from consumer.zoho.auth import Token, with_token
from sandbox.zoho import Answer, Drop, DropKind, FailRow, Garble, Throttle
from tests.zoho.room import Client, World, delivery, run

PHONE = "+79165550101"
CANARIES = ("9165550101", "555-01-01", "Canaria", "warbling", "yellow-dialog", "feather.example")
ECHO = f"Canaria {PHONE} warbling"


def item(message_id: str = "m1") -> Any:
    fields = {"contact_name": "Canaria", "text": "warbling", "dialog_id": "yellow-dialog"}
    return delivery(message_id, PHONE, attachments=[{"url": "https://feather.example/1"}], **fields)


def echo(code: str, status: int = 400) -> Answer:
    """An error that repeats what was sent, everywhere that it can."""
    details = {"api_name": ECHO, "json_path": f"$.data[0].{ECHO}", "expected_data_type": ECHO, "id": ECHO}
    return Answer(status=status, body={"code": code, "details": details, "message": ECHO, "status": "error"})


def row_echo(code: str) -> FailRow:
    details = {"api_name": ECHO, "expected_data_type": ECHO, "maximum_length": ECHO, "supported_values": [ECHO]}
    return FailRow(code=code, index=0, message=ECHO, details=details)


TROUBLE: list[tuple[str, Any]] = [
    *(
        (operation, echo(code, status))
        for operation in ("coql", "records.search", "records.insert", "records.upsert", "notes.create")
        for code, status in (
            ("INVALID_DATA", 400),
            ("NO_PERMISSION", 403),
            ("BRAND_NEW", 400),
            (ECHO, 400),
            ("INVALID_QUERY", 400),
        )
    ),
    *(
        (operation, row_echo(code))
        for operation in ("records.insert", "records.upsert", "notes.create")
        for code in ("INVALID_DATA", "DUPLICATE_DATA", ECHO, "RECORD_LOCKED")
    ),
    ("records.upsert", Answer(status=500, body=f"<html>{ECHO}</html>")),
    ("records.upsert", Answer(status=200, body=f"<html>{ECHO}</html>")),
    ("records.insert", Drop(how=DropKind.CUT)),
    ("notes.create", Garble(body=f'{{"data":[{{"code":"{ECHO}')),
    ("records.upsert", Throttle(form="html")),
    ("oauth.token", Answer(status=200, body={"error": ECHO, "error_description": ECHO})),
    ("oauth.token", Answer(status=500, body=ECHO)),
]


def secrets_of(client: Client) -> list[str]:
    world = client.world
    tokens = [str(token) for token in vars(world.engine.accounts).get("_access", {})]
    return [
        secret.value for secret in client.secrets.values() if "secret" in secret.value or len(secret.value) > 20
    ] + tokens


def said_by(client: Client, outcomes: list[Any]) -> str:
    told = vars(client.told)
    state = [client.gate.halts(), client.turnstile.reason, client.tokens.__dict__.get("_token")]
    return repr([{name: value for name, value in told.items() if name != "on_credits"}, state, outcomes])


@pytest.mark.parametrize(
    ("operation", "action"), TROUBLE, ids=lambda each: each if isinstance(each, str) else type(each).__name__
)
@pytest.mark.parametrize("policy", list(NotePolicy))
def test_no_failure_path_tells_what_it_carried(
    operation: str, action: Any, policy: NotePolicy, caplog: pytest.LogCaptureFixture
) -> None:
    """Codes, outcomes, halts, errors and logs, while Zoho echoes all that was sent."""
    caplog.set_level(logging.DEBUG)

    async def scenario() -> None:
        world = World()
        world.fault(action, operation=operation, times=6)
        client = Client(world, note_policy=policy)
        outcomes: list[Any] = []
        one = item()
        for stage in (client.sink.resolve, client.sink.write_messages, client.sink.write_notes) * 6:
            try:
                outcomes += (found := await stage([one]))
            except SyncError as error:
                outcomes.append("".join(traceback.format_exception(error)))
                break
            if stage == client.sink.resolve:
                one.parent = client.sink.parent_of(PHONE)
                if one.parent is None:
                    await asyncio.sleep(5)
                    break
            one.attempts += 1
            outcomes.append(found)
        said = said_by(client, outcomes) + caplog.text
        for canary in (*CANARIES, *secrets_of(client)):
            assert canary not in said

    run(scenario())


def test_errors_carry_no_answer_in_their_trace() -> None:
    """A traceback shows codes and code, not bodies: causes that hold them are cut off."""

    async def scenario() -> None:
        world = World()
        client = Client(world)
        world.fault(echo("INVALID_DATA"), operation="coql")
        await client.tokens.token()
        call = write_call(Operation.CREATE_NOTES, "/coql", [{"Note_Title": ECHO}])
        with pytest.raises(SyncError) as caught:
            await client.send(call)
        text = "".join(traceback.format_exception(caught.value))
        assert not [canary for canary in CANARIES if canary in text]

    run(scenario())


def test_values_that_are_printed_by_accident_show_nothing() -> None:
    """A call, a token, a secret: their representations are safe to log."""
    call = with_token(write_call(Operation.CREATE_NOTES, "/Notes", [{"Note_Title": ECHO}]), "1000.secret-token")
    text = repr(call) + repr(Token("1000.secret-token", 1.0, 2.0))
    assert "secret-token" not in text
    assert not [canary for canary in CANARIES if canary in text]
