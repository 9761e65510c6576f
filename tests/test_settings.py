"""What may be set together, and what is said when it may not."""

from __future__ import annotations

import re
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


def lines_for(name: str, value: str) -> list[str]:
    """With which this value of the environment is refused; none when it is taken."""
    try:
        settings(**({"kafka_bootstrap_servers": "127.0.0.1:9092"} | {name.lower(): value}))
    except SettingsError as error:
        return error.lines
    return []


@pytest.mark.parametrize("name", [name.upper() for name in Settings.model_fields])
def test_every_refusal_shows_a_right_value(name: str) -> None:
    """Whatever can be wrong about a variable, its line ends with an example, and the example is taken."""
    for value in ("", "no such value!", "-1", "99999999999"):
        for line in lines_for(name, value):
            shown = re.fullmatch(r"(\w+): .+ \(example: \1=(.+)\)", line)
            assert shown, line
            if "/run/secrets" not in line:
                assert not [other for other in lines_for(*shown.groups()) if other.startswith(f"{shown[1]}: ")]


@pytest.mark.parametrize("mechanism", [None, "SCRAM-SHA-512", "OAUTHBEARER", "AWS_MSK_IAM"])
def test_what_is_missing_comes_with_an_example(monkeypatch: pytest.MonkeyPatch, mechanism: str | None) -> None:
    """So does a variable that another one demands."""
    monkeypatch.delenv("AWS_REGION", raising=False)
    lines = refusal(
        zoho_client_id=None,
        zoho_client_secret=None,
        zoho_refresh_token=None,
        kafka_security_protocol="SASL_SSL",
        kafka_sasl_mechanism=mechanism,
    )
    assert len(lines) > 4
    for line in lines:
        assert f"(example: {line.partition(':')[0]}=" in line


@pytest.mark.parametrize("name", ["KAFKA_TOPIC", "KAFKA_DLQ_TOPIC", "KAFKA_GROUP_INSTANCE_ID"])
@pytest.mark.parametrize("value", ["two words", "slash/ed", "café", ".", "..", "a" * 250, "a\n"])
def test_names_that_kafka_does_not_take_are_refused(name: str, value: str) -> None:
    """A name that no broker would take is told at the start, and not by a reader that finds nothing."""
    [line] = lines_for(name, value)
    assert line.startswith(f"{name}: may hold letters, digits, dots, underscores and hyphens only, at most 249")


@pytest.mark.parametrize("name", ["KAFKA_TOPIC", "KAFKA_DLQ_TOPIC", "KAFKA_GROUP_INSTANCE_ID"])
@pytest.mark.parametrize("value", ["...", "a.b_c-D9", "a" * 249])
def test_names_that_kafka_takes_are_taken(name: str, value: str) -> None:
    """Dots, underscores, hyphens, and 249 of them."""
    assert lines_for(name, value) == []


@pytest.mark.parametrize(
    "servers",
    [
        "kafka-1:99999",
        "kafka-1:0",
        "kafka-1:http",
        "kafka-1:",
        ":9092",
        "a:1 b:2",
        "a:1;b:2",
        "SSL://a:1",
        "u@a:1",
        ",",
    ],
)
def test_addresses_that_cannot_be_are_refused(servers: str) -> None:
    """A port that there is not, a missing host or a foreign form is told by the address's place in the list."""
    [line] = lines_for("KAFKA_BOOTSTRAP_SERVERS", servers)
    assert line.startswith("KAFKA_BOOTSTRAP_SERVERS: ")
    if servers != ",":
        [line] = lines_for("KAFKA_BOOTSTRAP_SERVERS", f"127.0.0.1:9092,{servers}")
        assert "address 2 is not host:port" in line


@pytest.mark.parametrize("servers", ["::1", "[::1]", "127.0.0.1:1,127.0.0.1:65535", "localhost:9092,"])
def test_addresses_in_every_usual_form_are_taken(servers: str) -> None:
    """With and without port, of both families, one or several."""
    assert settings(kafka_bootstrap_servers=servers, kafka_allow_plaintext=True).kafka_bootstrap_servers == servers


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("HTTP_PORT", "99999"),
        ("ZOHO_API_DOMAIN", "http://127.0.0.1:99999"),
        ("ZOHO_ACCOUNTS_DOMAIN", "http://127.0.0.1:0"),
        ("ZOHO_ORG_ID", "abc def"),
        ("ZOHO_ORG_ID", "crm/org1"),
        ("ZOHO_ASSIGNMENT_RULE_ID", "round robin"),
        ("ZOHO_MESSAGES_MODULE", "My Messages"),
        ("ADMIN_PANEL_ORIGINS", "admin.example.com"),
        ("ADMIN_PANEL_ORIGINS", "https://admin.example.com/inbox"),
    ],
)
def test_what_would_fail_later_is_refused_at_once(name: str, value: str) -> None:
    """One line for one variable, at the start of the service."""
    [line] = lines_for(name, value)
    assert line.startswith(f"{name}: ")


def test_an_origin_may_end_with_a_slash() -> None:
    """Copied from an address bar it means the same."""
    panel = settings(kafka_bootstrap_servers="localhost", admin_panel_origins="http://panel:3000/, https://a.example")
    assert panel.admin_panel_origins == ("http://panel:3000", "https://a.example")


def test_hosts_of_two_data_centers_are_refused() -> None:
    """Tokens of one data centre are worth nothing in another: the line names the host that belongs to the API's."""
    mixed = {"zoho_api_domain": "https://sandbox.zohoapis.in", "zoho_accounts_domain": "https://accounts.zoho.eu"}
    [line] = refusal(kafka_bootstrap_servers="localhost", **mixed)
    assert line.startswith("ZOHO_ACCOUNTS_DOMAIN: belongs to another data centre than ZOHO_API_DOMAIN")
    assert line.endswith("(example: ZOHO_ACCOUNTS_DOMAIN=https://accounts.zoho.in)")
    assert settings(kafka_bootstrap_servers="localhost", **mixed, zoho_crm_enabled=False).is_of_two_centers


@pytest.mark.parametrize(
    "hosts",
    [
        {"zoho_api_domain": "https://www.zohoapis.ca", "zoho_accounts_domain": "https://accounts.zohocloud.ca"},
        {"zoho_api_domain": "http://127.0.0.1:8080", "zoho_accounts_domain": "http://localhost:8081"},
        {"zoho_api_domain": "http://127.0.0.1:8080", "zoho_accounts_domain": "https://accounts.zoho.eu"},
        {"zoho_accounts_domain": "https://accounts.zoho.eu"},
    ],
)
def test_hosts_that_may_belong_together_are_taken(hosts: dict[str, str]) -> None:
    """One data centre, a stand-in on this machine, or a host that was not chosen."""
    assert not settings(kafka_bootstrap_servers="localhost", **hosts).is_of_two_centers


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
