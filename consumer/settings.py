"""Everything an operator can set: environment first, then `.env`; every secret also as X_FILE.

Names, defaults and meanings are the contract with the deployment; README and docs/production.md list them.
"""

from __future__ import annotations

import ipaddress
import re
from datetime import datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

import phonenumbers
from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from consumer.core import datacenters
from consumer.core.model import NotePolicy

SECRETS = (
    "ZOHO_CLIENT_ID",
    "ZOHO_CLIENT_SECRET",
    "ZOHO_REFRESH_TOKEN",
    "KAFKA_SASL_PASSWORD",
    "HTTP_API_TOKEN",
    "LINK_SIGNING_KEY",
)
"""Each can be given as X or as X_FILE, a path that is read again when it changes."""

_EXAMPLES = {
    "ZOHO_CRM_ENABLED": "true",
    "ZOHO_CLIENT_ID": "1000.ABCDEFGHIJKLMNOP",
    "ZOHO_CLIENT_SECRET": "the API console's, or ZOHO_CLIENT_SECRET_FILE=/run/secrets/zoho_client_secret",
    "ZOHO_REFRESH_TOKEN": "1000.…, from `zoho-sync auth`, or ZOHO_REFRESH_TOKEN_FILE=/run/secrets/zoho_refresh_token",
    "ZOHO_API_DOMAIN": "https://www.zohoapis.eu",
    "ZOHO_ACCOUNTS_DOMAIN": "https://accounts.zoho.eu",
    "ZOHO_CRM_URL": "https://crm.zoho.eu",
    "ZOHO_ORG_ID": "org20012345678",
    "ZOHO_MESSAGES_MODULE": "Messages",
    "ZOHO_MAX_CONCURRENCY": "10",
    "ZOHO_DAILY_CREDITS": "40000",
    "ZOHO_ASSIGNMENT_RULE_ID": "4876876000000123456",
    "ZOHO_TRIGGERS": "workflow,approval,blueprint",
    "ZOHO_COMPOSITE": "false",
    "ZOHO_DIRECTORY_FROM": "10",
    "ZOHO_REQUEST_TIMEOUT_S": "60",
    "KAFKA_BOOTSTRAP_SERVERS": "kafka-1:9093,kafka-2:9093",
    "KAFKA_TOPIC": "messaging.messages.v1",
    "KAFKA_GROUP_ID": "zoho-sync",
    "KAFKA_DLQ_TOPIC": "messaging.messages.v1.dlq",
    "KAFKA_SECURITY_PROTOCOL": "SASL_SSL",
    "KAFKA_ALLOW_PLAINTEXT": "false",
    "KAFKA_SASL_MECHANISM": "SCRAM-SHA-512",
    "KAFKA_SASL_USERNAME": "zoho-sync",
    "KAFKA_SASL_PASSWORD": "the user's, or KAFKA_SASL_PASSWORD_FILE=/run/secrets/kafka_sasl_password",
    "AWS_REGION": "eu-central-1",
    "KAFKA_SSL_CAFILE": "/run/secrets/kafka/ca.crt",
    "KAFKA_SSL_CERTFILE": "/run/secrets/kafka/user.crt",
    "KAFKA_SSL_KEYFILE": "/run/secrets/kafka/user.key",
    "KAFKA_GROUP_INSTANCE_ID": "zoho-sync-0",
    "KAFKA_PRODUCER_IDEMPOTENCE": "true",
    "KAFKA_SESSION_TIMEOUT_S": "10",
    "SYNC_MESSAGES_SINCE": "2026-01-31T00:00:00+00:00",
    "SYNC_NOTE_POLICY": "per_dialog",
    "SYNC_DEFAULT_REGION": "RU",
    "SYNC_MATCH_PREFER": "contact",
    "SYNC_MATCH_ORDER": "oldest",
    "SYNC_DEDUP_HORIZON": "200000",
    "BATCH_MAX_RECORDS": "100",
    "BATCH_LINGER_MS": "200",
    "MAX_IN_FLIGHT_MESSAGES": "5000",
    "MAX_IN_FLIGHT_MIB": "64",
    "DLQ_BREAKER_COUNT": "100",
    "DRAIN_TIMEOUT_S": "25",
    "HTTP_PORT": "8080",
    "LOG_LEVEL": "info",
    "LOG_FORMAT": "json",
    "ADMIN_PANEL_ORIGINS": "https://admin.example.com",
    **{f"{name}_FILE": f"/run/secrets/{name.lower()}" for name in SECRETS},
}

_PLAINTEXT_PROBLEM = (
    "must be SASL_SSL or SSL for brokers on other machines; where the network may carry messages unencrypted, "
    "set KAFKA_ALLOW_PLAINTEXT=true"
)
_TRIGGERS = ("workflow", "approval", "blueprint", "pathfinder", "orchestration")


def _fits(pattern: str, problem: str) -> AfterValidator:
    def check(value: str) -> str:
        if not re.fullmatch(pattern, value, re.ASCII):
            raise ValueError(problem)
        return value

    return AfterValidator(check)


def _base_url(value: str) -> str:
    parts = urlsplit(value)
    if parts.scheme not in ("https", "http") or not parts.hostname or parts.query or parts.fragment:
        raise ValueError("is not the address of a host")
    if parts.username or parts.password:
        raise ValueError("must not hold a user name or password")
    if parts.port == 0:  # one that is no number, or too great, raises by itself
        raise ValueError("Port out of range 1-65535")
    if parts.scheme == "http" and not datacenters.is_loopback(value):
        raise ValueError("must begin with https:// (plain http only for this machine itself)")
    return value.rstrip("/")


def _api_domain(value: str) -> str:
    if not datacenters.is_trusted_api(value):
        raise ValueError("is not an API host of Zoho; the token would go to a stranger")
    return value


def _accounts_domain(value: str) -> str:
    if not datacenters.is_trusted_accounts(value):
        raise ValueError("is not an accounts host of Zoho; the client secret would go to a stranger")
    return value


def _servers(value: str) -> str:
    servers = [server for server in map(str.strip, value.split(",")) if server]
    for number, server in enumerate(servers, start=1):
        if not _is_server(server):
            message = f"address {number} is not host:port, with a port from 1 to 65535"
            raise ValueError(message)
    if not servers:
        raise ValueError("names no broker")
    return value


def _is_server(text: str) -> bool:
    """`host:port`; the port may be left out, also of an IPv6 address."""
    if re.search(r"[\s/;@]", text):
        return False
    host, colon, port = text.rpartition(":")
    if not colon or text.endswith("]") or _is_address(text):
        return True
    return bool(host and re.fullmatch("[0-9]{1,5}", port)) and 1 <= int(port) <= 65535


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _origins(value: tuple[str, ...]) -> tuple[str, ...]:
    """Browsers send an origin without a slash at its end, and it is compared letter for letter."""
    origins = tuple(origin.removesuffix("/") for origin in value)
    if not all(re.fullmatch(r"https?://[^/\s?#@]+", origin) for origin in origins):
        raise ValueError("must be scheme and host only, several with commas")
    return origins


def _region(value: str) -> str:
    region = value.strip().upper()
    if region not in phonenumbers.SUPPORTED_REGIONS:
        raise ValueError("is not an ISO country code of two letters")
    return region


def _moment(value: datetime) -> datetime:
    if value.tzinfo is None:
        raise ValueError("needs a time zone offset")
    return value


def _text_moment(value: object) -> object:
    if isinstance(value, str) and not re.match(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d", value.strip()):
        raise ValueError("is not an RFC 3339 time")
    return value


def _triggers(value: object) -> object:
    if not isinstance(value, str):
        return value
    names = tuple(name.strip().lower() for name in value.split(",") if name.strip())
    if names in ((), ("all",)):
        return None
    names = () if names == ("none",) else names
    if unknown := [name for name in names if name not in _TRIGGERS]:
        message = f"knows {', '.join(_TRIGGERS)}, all and none, but not {', '.join(unknown)}"
        raise ValueError(message)
    return names


def _words(value: object) -> object:
    return tuple(word.strip() for word in value.split(",") if word.strip()) if isinstance(value, str) else value


def _lower(value: object) -> object:
    return value.strip().lower() if isinstance(value, str) else value


def _upper(value: object) -> object:
    return value.strip().upper() if isinstance(value, str) else value


BaseUrl = Annotated[str, AfterValidator(_base_url)]
Origins = Annotated[tuple[str, ...], NoDecode, AfterValidator(_origins), BeforeValidator(_words)]
OrgId = Annotated[str, _fits(r"[A-Za-z0-9._-]{1,100}", "is not the part org… of your CRM's address")]
KafkaName = Annotated[
    str,
    _fits(
        r"(?!\.{1,2}$)[a-zA-Z0-9._-]{1,249}",
        "may hold letters, digits, dots, underscores and hyphens only, at most 249, and be neither . nor ..",
    ),
]
"""Of a topic, or a static member: what Kafka itself allows (org.apache.kafka.common.internals.Topic)."""


class Settings(BaseSettings):
    """One frozen object; `app` hands each room only the values it needs."""

    model_config = SettingsConfigDict(
        env_file=".env",
        env_file_encoding="utf-8",
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
        hide_input_in_errors=True,
    )

    zoho_crm_enabled: bool = False
    zoho_client_id: SecretStr | None = None
    zoho_client_id_file: Path | None = None
    zoho_client_secret: SecretStr | None = None
    zoho_client_secret_file: Path | None = None
    zoho_refresh_token: SecretStr | None = None
    zoho_refresh_token_file: Path | None = None
    zoho_api_domain: Annotated[BaseUrl, AfterValidator(_api_domain)] = "https://www.zohoapis.com"
    zoho_accounts_domain: Annotated[BaseUrl, AfterValidator(_accounts_domain)] | None = None
    zoho_crm_url: BaseUrl | None = None
    zoho_org_id: OrgId | None = None
    zoho_messages_module: Annotated[
        str, _fits(r"[A-Za-z][A-Za-z0-9_]{0,49}", "is no API name: letters, digits and underscores, at most 50")
    ] = "Messages"
    zoho_max_concurrency: Annotated[int, Field(ge=1, le=100)] = 10
    zoho_daily_credits: Annotated[int, Field(ge=1)] | None = None
    zoho_token_cache: Path | None = None
    zoho_lead_source: str | None = None
    zoho_assignment_rule_id: Annotated[str, _fits(r"[0-9]{1,30}", "must be the rule's number")] | None = None
    zoho_triggers: Annotated[tuple[str, ...] | None, NoDecode, BeforeValidator(_triggers)] = None
    """None: all automations run; empty: none; else the named ones."""
    zoho_composite: bool = False
    """Searches for new people five in one call; needs the scope ZohoCRM.composite_requests.CUSTOM."""
    zoho_directory_from: Annotated[int, Field(ge=0)] = 10
    """New people at once from whom on all odd numbers are read in place of searches; 0: never."""
    zoho_request_timeout_s: Annotated[float, Field(gt=0, le=300)] = 60.0

    kafka_bootstrap_servers: Annotated[str, AfterValidator(_servers)] | None = None
    kafka_topic: KafkaName = "messaging.messages.v1"
    kafka_group_id: Annotated[str, Field(min_length=1)] = "zoho-sync"
    kafka_dlq_topic: KafkaName = "messaging.messages.v1.dlq"
    kafka_security_protocol: Annotated[
        Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"], BeforeValidator(_upper)
    ] = "PLAINTEXT"
    kafka_allow_plaintext: bool = False
    kafka_sasl_mechanism: Annotated[
        Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER", "AWS_MSK_IAM"] | None,
        BeforeValidator(_upper),
    ] = None
    kafka_sasl_username: str | None = None
    kafka_sasl_password: SecretStr | None = None
    kafka_sasl_password_file: Path | None = None
    aws_region: str | None = None
    """Of the MSK cluster; AWS sets it in its own containers."""
    kafka_ssl_cafile: Path | None = None
    kafka_ssl_certfile: Path | None = None
    kafka_ssl_keyfile: Path | None = None
    kafka_group_instance_id: KafkaName | None = None
    kafka_producer_idempotence: bool = True
    """Off only for brokers without idempotent producers, such as the embedded one."""
    kafka_session_timeout_s: Annotated[float, Field(ge=1, le=300)] = 10.0

    sync_messages_since: Annotated[datetime, AfterValidator(_moment), BeforeValidator(_text_moment)] | None = None
    sync_note_policy: Annotated[NotePolicy, BeforeValidator(_lower)] = NotePolicy.PER_DIALOG
    sync_default_region: Annotated[str, AfterValidator(_region)] | None = None
    sync_match_prefer: Annotated[Literal["contact", "lead"], BeforeValidator(_lower)] = "contact"
    sync_match_order: Annotated[Literal["oldest", "newest"], BeforeValidator(_lower)] = "oldest"
    sync_dedup_horizon: Annotated[int, Field(ge=1000, le=5_000_000)] = 200_000
    batch_max_records: Annotated[int, Field(ge=1, le=100)] = 100
    batch_linger_ms: Annotated[int, Field(ge=0, le=60_000)] = 200
    max_in_flight_messages: Annotated[int, Field(ge=1, le=1_000_000)] = 5000
    max_in_flight_mib: Annotated[int, Field(ge=1, le=4096)] = 64
    dlq_breaker_count: Annotated[int, Field(ge=0)] = 100
    """Dead letters of one partition that halt it when they are most of what it sees; 0 switches the breaker off."""
    drain_timeout_s: Annotated[float, Field(ge=0, le=600)] = 25.0

    http_host: str = "0.0.0.0"  # noqa: S104 - probes and scrapers come from outside the pod
    http_port: Annotated[int, Field(ge=0, le=65535)] = 8080
    http_api_token: SecretStr | None = None
    http_api_token_file: Path | None = None
    link_signing_key: SecretStr | None = None
    link_signing_key_file: Path | None = None
    admin_panel_origins: Origins = ()
    log_level: Annotated[Literal["debug", "info", "warning", "error"], BeforeValidator(_lower)] = "info"
    log_format: Annotated[Literal["json", "console"], BeforeValidator(_lower)] = "json"

    @model_validator(mode="after")
    def _check_required(self) -> Settings:
        problems = [*self._missing(), *self._inconsistent()]
        if problems:
            raise SettingsProblems(problems)
        return self

    def _missing(self) -> list[tuple[str, str]]:
        if not self.zoho_crm_enabled:
            return []
        needed = ("ZOHO_CLIENT_ID", "ZOHO_CLIENT_SECRET", "ZOHO_REFRESH_TOKEN", "KAFKA_BOOTSTRAP_SERVERS")
        return [(name, "is required when ZOHO_CRM_ENABLED is true") for name in needed if not self._has(name)]

    def _has(self, name: str) -> bool:
        return any(getattr(self, field, None) for field in (name.lower(), f"{name.lower()}_file"))

    def _inconsistent(self) -> list[tuple[str, str]]:
        problems = [
            (f"{name}_FILE", problem)
            for name in SECRETS
            if (problem := _file_problem(getattr(self, f"{name.lower()}_file")))
        ]
        problems += [
            (name, problem)
            for name in ("KAFKA_SSL_CAFILE", "KAFKA_SSL_CERTFILE", "KAFKA_SSL_KEYFILE")
            if (problem := _file_problem(getattr(self, name.lower())))
        ]
        if self.kafka_security_protocol.startswith("SASL"):
            problems += self._sasl_problems()
        if self.zoho_crm_enabled and self.is_plaintext_refused:
            problems.append(("KAFKA_SECURITY_PROTOCOL", _PLAINTEXT_PROBLEM))
        if self.zoho_crm_enabled and self.is_of_two_centers:
            problems.append(("ZOHO_ACCOUNTS_DOMAIN", self._center_problem()))
        if self.kafka_topic == self.kafka_dlq_topic:
            problems.append(("KAFKA_DLQ_TOPIC", "must not be the topic that is read"))
        return problems

    def _center_problem(self) -> str:
        center = datacenters.of_api_domain(self.zoho_api_domain)
        right = f" (example: ZOHO_ACCOUNTS_DOMAIN={center.accounts})" if center else ""
        return f"belongs to another data centre than ZOHO_API_DOMAIN; leave it out{right}"

    def _sasl_problems(self) -> list[tuple[str, str]]:
        if self.kafka_sasl_mechanism is None:
            return [("KAFKA_SASL_MECHANISM", "is required with a SASL security protocol")]
        if self.kafka_sasl_mechanism == "AWS_MSK_IAM":
            return self._msk_problems()
        is_token = self.kafka_sasl_mechanism == "OAUTHBEARER"
        needed = ("KAFKA_SASL_PASSWORD",) if is_token else ("KAFKA_SASL_USERNAME", "KAFKA_SASL_PASSWORD")
        return [
            (name, f"is required with {self.kafka_sasl_mechanism}{', and holds the token' if is_token else ''}")
            for name in needed
            if not self._has(name)
        ]

    def _msk_problems(self) -> list[tuple[str, str]]:
        problems = [] if self.aws_region else [("AWS_REGION", "is required with AWS_MSK_IAM")]
        if find_spec("aws_msk_iam_sasl_signer") is None:
            problems.append(("KAFKA_SASL_MECHANISM", "AWS_MSK_IAM needs a package: pip install 'zoho-sync[msk]'"))
        return problems

    @property
    def is_kafka_exposed(self) -> bool:
        """Would messages, and a password with PLAIN, cross a network unencrypted?"""
        servers = filter(None, map(str.strip, (self.kafka_bootstrap_servers or "").split(",")))
        return self.kafka_security_protocol.endswith("PLAINTEXT") and not all(map(_is_here, servers))

    @property
    def is_plaintext_refused(self) -> bool:
        """Nobody said that the network may be trusted with it, so nothing may speak to these brokers."""
        return self.is_kafka_exposed and not self.kafka_allow_plaintext

    @property
    def is_of_two_centers(self) -> bool:
        """Were tokens of one data centre asked for on purpose, for the API of another, which takes none of them?"""
        if not {"zoho_api_domain", "zoho_accounts_domain"} <= self.model_fields_set:
            return False
        api = datacenters.of_api_domain(self.zoho_api_domain)
        accounts = datacenters.of_accounts_domain(self.accounts_domain)
        return api is not None and accounts is not None and api != accounts

    @property
    def accounts_domain(self) -> str:
        """Where tokens come from: as set, or of the API domain's data centre, or the loopback host itself."""
        center = datacenters.of_api_domain(self.zoho_api_domain)
        return self.zoho_accounts_domain or (center.accounts if center else self.zoho_api_domain)

    @property
    def crm_url(self) -> str:
        """Where links lead."""
        center = datacenters.of_api_domain(self.zoho_api_domain)
        return self.zoho_crm_url or (center.crm if center else self.zoho_api_domain)

    def changed(self) -> dict[str, str]:
        """What is not as by default, by variable; of a secret only that it is set."""
        values = ((name, getattr(self, name), field.default) for name, field in type(self).model_fields.items())
        return {
            name.upper(): "***" if isinstance(value, SecretStr) else str(value)
            for name, value, default in values
            if value != default
        }

    def secret(self, name: str) -> Secret:
        """A secret by its variable's name."""
        value: SecretStr | None = getattr(self, name.lower())
        return Secret(value.get_secret_value() if value else None, getattr(self, f"{name.lower()}_file"))


class SettingsProblems(ValueError):
    """Several variables are wrong at once: (name, what is wrong) for each."""

    def __init__(self, problems: list[tuple[str, str]]) -> None:
        super().__init__("; ".join(f"{name} {problem}" for name, problem in problems))
        self.problems = problems


class SettingsError(Exception):
    """Bad configuration; `lines` holds one line for each bad variable: name, what is wrong, an example."""

    def __init__(self, lines: list[str]) -> None:
        super().__init__("\n".join(lines))
        self.lines = lines


class Secret:
    """A secret given as a value or as a file; the file is read again when it changes."""

    __slots__ = ("_path", "_read", "_stamp", "_value")

    def __init__(self, value: str | None, path: Path | None = None) -> None:
        self._value = value
        self._path = path
        self._read: str | None = None
        self._stamp: tuple[int, int, int] | None = None

    def __repr__(self) -> str:
        return "Secret(***)"

    def get(self) -> str | None:
        """The current value; a file wins over a value.  A file that is gone for a moment keeps its last value."""
        if self._path is None:
            return self._value
        try:
            status = self._path.stat()
            stamp = (status.st_mtime_ns, status.st_ino, status.st_size)
            if stamp != self._stamp:
                self._read = self._path.read_text("utf-8").strip() or None
                self._stamp = stamp
        except OSError:
            return self._read or self._value
        return self._read or self._value


def load_settings(**overrides: Any) -> Settings:
    """Read the environment and `.env`.  Raises SettingsError."""
    try:
        return Settings(**overrides)
    except ValidationError as error:
        raise SettingsError(_lines(error) + _hidden_lines(error, overrides)) from None


def _hidden_lines(error: ValidationError, overrides: dict[str, Any]) -> list[str]:
    """What the checks across variables say, which run only once each variable by itself is right."""
    bad = {str(item["loc"][0]) for item in error.errors() if item["loc"]}
    if not bad:
        return []
    defaults = {name: Settings.model_fields[name].default for name in bad}
    try:
        Settings(**{**overrides, **defaults})
    except ValidationError as rest:
        return [line for line in _lines(rest) if line.split(":")[0].lower() not in bad]
    return []


def _lines(error: ValidationError) -> list[str]:
    lines: list[str] = []
    for item in error.errors():
        cause = item.get("ctx", {}).get("error")
        if isinstance(cause, SettingsProblems):
            lines += [_line(name, problem) for name, problem in cause.problems]
        else:
            name = str(item["loc"][0]).upper() if item["loc"] else "settings"
            lines.append(_line(name, _plain(item["type"], item["msg"])))
    return list(dict.fromkeys(lines))


def _line(name: str, problem: str) -> str:
    example = _EXAMPLES.get(name)
    has_own = "(example: " in problem
    return f"{name}: {problem}" + (f" (example: {name}={example})" if example and not has_own else "")


def _plain(kind: str, text: str) -> str:
    text = text.removeprefix("Value error, ").removeprefix("Input ")
    words = {
        "int_parsing": "must be a whole number",
        "float_parsing": "must be a number",
        "bool_parsing": "must be true or false",
    }
    return words.get(kind, text)


def _is_here(server: str) -> bool:
    """True for a broker on this machine."""
    try:
        return datacenters.is_loopback(f"kafka://{server}")
    except ValueError:
        return False


def _file_problem(path: Path | None) -> str | None:
    if path is None:
        return None
    try:
        has_content = bool(path.read_text("utf-8").strip())
    except (OSError, UnicodeDecodeError):
        return "names a file that cannot be read"
    return None if has_content else "names an empty file"
