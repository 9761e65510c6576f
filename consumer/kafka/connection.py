"""How to reach the brokers: one set of options for consumer, producer and admin client."""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from aiokafka.abc import AbstractTokenProvider
from aiokafka.errors import AuthenticationFailedError
from aiokafka.helpers import create_ssl_context

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


class _BearerToken(AbstractTokenProvider):  # type: ignore[misc]  # aiokafka has no types
    """Hands out the token that somebody else keeps fresh, a sidecar that renews a file, say."""

    def __init__(self, read: Callable[[], str | None]) -> None:
        self._read = read

    async def token(self) -> str:
        token = self._read()
        if not token:
            raise AuthenticationFailedError("there is no bearer token")
        return token


@dataclass(frozen=True, slots=True)
class KafkaConnection:
    """Addresses and credentials, as in Kafka clients.

    With OAUTHBEARER the password is the token; with AWS_MSK_IAM, which is OAUTHBEARER to the brokers, `tokens` has it.
    """

    bootstrap_servers: str
    security_protocol: str = "PLAINTEXT"
    sasl_mechanism: str | None = None
    sasl_username: str | None = None
    sasl_password: Callable[[], str | None] = field(default=lambda: None, repr=False)
    ssl_cafile: Path | None = None
    ssl_certfile: Path | None = None
    ssl_keyfile: Path | None = None
    tokens: AbstractTokenProvider | None = field(default=None, repr=False)
    client_id: str = "zoho-sync"

    def options(self) -> dict[str, Any]:
        """Keyword arguments of aiokafka's clients; the password is read anew each time."""
        options: dict[str, Any] = {
            "bootstrap_servers": self.bootstrap_servers,
            "security_protocol": self.security_protocol,
            "client_id": self.client_id,
        }
        if self.security_protocol in ("SSL", "SASL_SSL"):
            options["ssl_context"] = self._ssl_context()
        if self.security_protocol.startswith("SASL"):
            options |= self._sasl_options()
        return options

    def _sasl_options(self) -> dict[str, Any]:
        if self.sasl_mechanism in ("OAUTHBEARER", "AWS_MSK_IAM"):
            tokens = self.tokens or _BearerToken(self.sasl_password)
            return {"sasl_mechanism": "OAUTHBEARER", "sasl_oauth_token_provider": tokens}
        return {
            "sasl_mechanism": self.sasl_mechanism,
            "sasl_plain_username": self.sasl_username,
            "sasl_plain_password": self.sasl_password(),
        }

    def _ssl_context(self) -> ssl.SSLContext:
        paths = (self.ssl_cafile, self.ssl_certfile, self.ssl_keyfile)
        cafile, certfile, keyfile = (str(path) if path else None for path in paths)
        context: ssl.SSLContext = create_ssl_context(cafile=cafile, certfile=certfile, keyfile=keyfile)
        return context
