"""Amazon MSK with IAM: tokens are signed offline by AWS's own package, with credentials that open nothing."""

from __future__ import annotations

import asyncio
import base64
import threading
import time
from collections.abc import Iterator
from urllib.parse import parse_qs, urlsplit

import pytest
from aiokafka.errors import AuthenticationFailedError

from consumer.kafka import msk
from consumer.kafka.msk import MskTokens
from tests.kafka.harness import connection

SECRET = "canary-aws-secret-71f"
MSK = {
    "KAFKA_BOOTSTRAP_SERVERS": "b-1.example.kafka.eu-central-1.amazonaws.com:9098",
    "KAFKA_SECURITY_PROTOCOL": "SASL_SSL",
    "KAFKA_SASL_MECHANISM": "AWS_MSK_IAM",
    "AWS_REGION": "eu-central-1",
}


class Signer:
    """Signs in the test's stead; each token holds for 15 minutes of the test's own clock."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.asked: list[str] = []
        self.threads: set[int] = set()
        self.error: Exception | None = None
        self.may_go_on = threading.Event()
        self.may_go_on.set()

    def __call__(self, region: str) -> tuple[str, float]:
        self.may_go_on.wait()
        self.asked.append(region)
        self.threads.add(threading.get_ident())
        if self.error is not None:
            raise self.error
        return f"token {len(self.asked)}", (self.now + 900) * 1000

    def tokens(self) -> MskTokens:
        return MskTokens("eu-central-1", wall_clock=lambda: self.now, sign=self)


@pytest.fixture
def signer() -> Iterator[Signer]:
    found = Signer()
    yield found
    found.may_go_on.set()


@pytest.fixture(autouse=True)
def _credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    """Static ones, so that nothing is looked for elsewhere."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.delenv("AWS_PROFILE", raising=False)


async def test_brokers_get_a_request_that_aws_signed() -> None:
    """The token is what MSK expects: a signed request to connect, of these credentials, for 15 minutes; and the
    client is told to send it as a bearer token, with no user and no password."""
    options = connection(MSK).options()
    assert options["sasl_mechanism"] == "OAUTHBEARER"
    assert not {"sasl_plain_username", "sasl_plain_password"} & options.keys()
    token = await options["sasl_oauth_token_provider"].token()
    url = urlsplit(base64.urlsafe_b64decode(token + "==").decode())
    asked = parse_qs(url.query)
    assert url.hostname == "kafka.eu-central-1.amazonaws.com"
    assert (asked["Action"], asked["X-Amz-Expires"]) == (["kafka-cluster:Connect"], ["900"])
    assert asked["X-Amz-Credential"][0].startswith("AKIAEXAMPLE/")
    assert "X-Amz-Signature" in asked
    assert SECRET not in url.query


async def test_a_token_ends_when_aws_says() -> None:
    """Its end is a moment of the wall clock, some minutes ahead."""
    _, ends_ms = await asyncio.to_thread(msk.sign_with_aws, "eu-central-1")
    assert ends_ms / 1000 - 900 <= time.time() < ends_ms / 1000 - 600


async def test_all_clients_share_one_token(signer: Signer) -> None:
    """Consumer, producer and admin client of one service ask AWS once, off the event loop's thread."""
    tokens = signer.tokens()
    assert {await tokens.token() for _ in range(3)} == {"token 1"}
    assert signer.asked == ["eu-central-1"]
    assert threading.get_ident() not in signer.threads
    shared = connection(MSK)
    assert len({id(shared.options()["sasl_oauth_token_provider"]) for _ in range(2)}) == 1


async def test_who_asks_at_once_waits_for_one_signature(signer: Signer) -> None:
    """Connections that open at the same moment do not sign one token each."""
    signer.may_go_on.clear()
    tokens = signer.tokens()
    asking = [asyncio.create_task(tokens.token()) for _ in range(5)]
    await asyncio.sleep(0)
    signer.may_go_on.set()
    assert set(await asyncio.gather(*asking)) == {"token 1"}


async def test_a_token_is_renewed_before_it_ends(signer: Signer) -> None:
    """It is used for as long as it is sure to be accepted."""
    tokens = signer.tokens()
    assert await tokens.token() == "token 1"
    signer.now += 800
    assert await tokens.token() == "token 1"
    signer.now += 60
    assert await tokens.token() == "token 2"


async def test_what_went_wrong_is_named_without_its_text(signer: Signer) -> None:
    """A failure counts as one of authentication, is tried again by the client, and tells no address or key."""
    tokens = signer.tokens()
    signer.error = RuntimeError(SECRET)
    with pytest.raises(AuthenticationFailedError) as failed:
        await tokens.token()
    assert "RuntimeError" in str(failed.value)
    assert SECRET not in str(failed.value)
    signer.error = None
    assert await tokens.token() == "token 2"


async def test_an_aws_that_does_not_answer_is_not_waited_for(signer: Signer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Credentials that cannot be fetched end in an error, and the thread that waits for them holds nobody up."""
    monkeypatch.setattr(msk, "_SIGN_TIMEOUT_S", 0.01)
    signer.may_go_on.clear()
    with pytest.raises(AuthenticationFailedError):
        await signer.tokens().token()
    waiting = [thread for thread in threading.enumerate() if thread.name == "msk-token"]
    assert waiting
    assert all(thread.daemon for thread in waiting)
