"""What may be set together, and what is said when it may not."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from consumer.operations.commands import desk_of
from consumer.operations.errors import OperationError
from consumer.settings import Settings, SettingsError, load_settings

_ENABLED = {
    "zoho_crm_enabled": True,
    "zoho_client_id": "id",
    "zoho_client_secret": "secret",
    "zoho_refresh_token": "token",
}
_SCRAM = {"kafka_sasl_mechanism": "SCRAM-SHA-512", "kafka_sasl_username": "user", "kafka_sasl_password": "password"}
_ELSEWHERE = (
    "kafka-1:9092",
    "localhost:9092,kafka-1:9092",
    "10.0.0.7:9092",
    "localhost.example.com:9092",
    "[::2]:9092",
)


def settings(**changes: Any) -> Settings:
    """Of a service that is switched on."""
    return load_settings(_env_file=None, **(_ENABLED | changes))


def refusal(**changes: Any) -> list[str]:
    """The lines with which these settings are refused."""
    with pytest.raises(SettingsError) as refused:
        settings(**changes)
    return refused.value.lines


@pytest.mark.parametrize("servers", ["127.0.0.1:9092", "localhost:9092", "LOCALHOST", "[::1]:9092, 127.0.0.2:1"])
@pytest.mark.parametrize("protocol", ["PLAINTEXT", "SASL_PLAINTEXT"])
def test_brokers_on_this_machine_need_no_encryption(servers: str, protocol: str) -> None:
    """What never leaves the machine may be plain, without another word."""
    plain = settings(kafka_bootstrap_servers=servers, kafka_security_protocol=protocol, **_SCRAM)
    assert not plain.is_kafka_exposed


@pytest.mark.parametrize("servers", [*_ELSEWHERE, "[::1:9092"])
@pytest.mark.parametrize("protocol", ["PLAINTEXT", "SASL_PLAINTEXT"])
def test_plaintext_to_other_machines_is_refused(servers: str, protocol: str) -> None:
    """One line names the variable, the alternative, and what allows it all the same."""
    (line,) = refusal(kafka_bootstrap_servers=servers, kafka_security_protocol=protocol, **_SCRAM)
    assert line.startswith("KAFKA_SECURITY_PROTOCOL: must be SASL_SSL or SSL")
    assert "KAFKA_ALLOW_PLAINTEXT=true" in line


@pytest.mark.parametrize("servers", _ELSEWHERE)
def test_plaintext_to_other_machines_can_be_allowed(servers: str) -> None:
    """A word of the administrator is enough."""
    assert settings(kafka_bootstrap_servers=servers, kafka_allow_plaintext="true").is_kafka_exposed


@pytest.mark.parametrize("protocol", ["SSL", "SASL_SSL"])
def test_encrypted_brokers_may_be_anywhere(protocol: str) -> None:
    """With TLS nothing has to be allowed."""
    assert not settings(
        kafka_bootstrap_servers="kafka-1:9093", kafka_security_protocol=protocol, **_SCRAM
    ).is_kafka_exposed


def test_a_service_that_is_off_is_not_judged_by_its_brokers() -> None:
    """Switched off it speaks to none, so that it starts."""
    assert not settings(kafka_bootstrap_servers="kafka-1:9092", zoho_crm_enabled=False).zoho_crm_enabled


def test_no_command_speaks_to_them_either() -> None:
    """Dead letters, and the answers of `explain`, are not fetched over a network that nobody said to trust."""
    plain = settings(kafka_bootstrap_servers="kafka-1:9092", zoho_crm_enabled=False)
    with pytest.raises(OperationError) as refused:
        desk_of(plain)
    assert refused.value.code == "kafka.plaintext"


MSK = {
    "kafka_bootstrap_servers": "b-1.example.com:9098",
    "kafka_security_protocol": "SASL_SSL",
    "kafka_sasl_mechanism": "aws_msk_iam",
}


def test_msk_asks_for_a_region_alone() -> None:
    """With IAM there is no user and no password to set."""
    assert settings(**MSK, aws_region="eu-central-1").kafka_sasl_mechanism == "AWS_MSK_IAM"


def test_msk_says_what_it_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A missing region and a missing package are a line each, and the latter says what to install."""
    monkeypatch.delenv("AWS_REGION", raising=False)
    monkeypatch.setitem(sys.modules, "aws_msk_iam_sasl_signer", None)
    region, package = refusal(**MSK)
    assert region.startswith("AWS_REGION: is required")
    assert "pip install 'zoho-sync[msk]'" in package


def test_what_is_set_can_be_told() -> None:
    """What differs from the defaults is told by variable, and of a secret only that there is one."""
    told = settings(kafka_bootstrap_servers="127.0.0.1:9092", batch_max_records=50, log_level="info").changed()
    assert told == {
        "ZOHO_CRM_ENABLED": "True",
        "ZOHO_CLIENT_ID": "***",
        "ZOHO_CLIENT_SECRET": "***",
        "ZOHO_REFRESH_TOKEN": "***",
        "KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:9092",
        "BATCH_MAX_RECORDS": "50",
    }
