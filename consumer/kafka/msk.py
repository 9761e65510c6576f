"""Tokens for Amazon MSK with IAM: signed requests that its brokers take as bearer tokens (SASL/OAUTHBEARER).

Source: docs.aws.amazon.com/msk/latest/developerguide/iam-access-control.html.  Signing is AWS's own package, the extra
`msk`; credentials come from where AWS's programs look for them: the environment, a role of the service account, the
instance.
"""

from __future__ import annotations

import asyncio
import threading
from contextlib import suppress
from typing import TYPE_CHECKING

from aiokafka.abc import AbstractTokenProvider
from aiokafka.errors import AuthenticationFailedError

if TYPE_CHECKING:
    from collections.abc import Callable

    Token = tuple[str, float]
    """The token, and when it ends, in milliseconds since the epoch."""
    Sign = Callable[[str], Token]

_MARGIN_S = 60.0
"""A token is not used any more when it ends within this time."""
_SIGN_TIMEOUT_S = 20.0


def sign_with_aws(region: str) -> Token:
    """A fresh token.  Blocks: credentials may have to be fetched over the network."""
    from aws_msk_iam_sasl_signer import MSKAuthTokenProvider  # noqa: PLC0415 - needs the extra, and takes a second

    token, ends_ms = MSKAuthTokenProvider.generate_auth_token(region)
    return str(token), float(ends_ms)


class MskTokens(AbstractTokenProvider):  # type: ignore[misc]  # aiokafka has no types
    """Hands out one token to all connections until it is about to end."""

    def __init__(self, region: str, *, wall_clock: Callable[[], float], sign: Sign = sign_with_aws) -> None:
        self._region = region
        self._wall_clock = wall_clock
        self._sign = sign
        self._signing = asyncio.Lock()
        self._token = ""
        self._ends_s = 0.0

    async def token(self) -> str:
        """Raises AuthenticationFailedError, without the text of AWS's packages: it may hold an address or a key."""
        async with self._signing:
            if self._wall_clock() > self._ends_s - _MARGIN_S:
                self._token, self._ends_s = await self._signed()
            return self._token

    async def _signed(self) -> tuple[str, float]:
        try:
            async with asyncio.timeout(_SIGN_TIMEOUT_S):
                token, ends_ms = await _in_thread(lambda: self._sign(self._region))
        except Exception as error:  # noqa: BLE001 - of three packages; whatever it is, there is no token
            raise AuthenticationFailedError(f"AWS gives no token: {type(error).__name__}") from None
        return token, ends_ms / 1000


async def _in_thread(work: Callable[[], Token]) -> Token:
    """As `asyncio.to_thread`, but the end of the process does not wait for it."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Token] = loop.create_future()

    def settle(token: Token | None, error: Exception | None) -> None:
        if future.done():
            return
        if token is not None:
            future.set_result(token)
        elif error is not None:
            future.set_exception(error)

    def run() -> None:
        token, failure = None, None
        try:
            token = work()
        except Exception as error:  # noqa: BLE001 - raised where it is awaited
            failure = error
        with suppress(RuntimeError):  # nobody waits any more, and the loop is closed
            loop.call_soon_threadsafe(settle, token, failure)

    threading.Thread(target=run, name="msk-token", daemon=True).start()
    return await future
