"""Zoho's data centres, and which hosts may see a secret."""

from __future__ import annotations

import pytest

from consumer.core.datacenters import (
    DATA_CENTERS,
    is_loopback,
    is_trusted_accounts,
    is_trusted_api,
    of_api_domain,
    of_location,
)

HOSTS = {
    "us": ("https://accounts.zoho.com", "https://www.zohoapis.com", "https://crm.zoho.com"),
    "eu": ("https://accounts.zoho.eu", "https://www.zohoapis.eu", "https://crm.zoho.eu"),
    "in": ("https://accounts.zoho.in", "https://www.zohoapis.in", "https://crm.zoho.in"),
    "au": ("https://accounts.zoho.com.au", "https://www.zohoapis.com.au", "https://crm.zoho.com.au"),
    "jp": ("https://accounts.zoho.jp", "https://www.zohoapis.jp", "https://crm.zoho.jp"),
    "ca": ("https://accounts.zohocloud.ca", "https://www.zohoapis.ca", "https://crm.zohocloud.ca"),
    "sa": ("https://accounts.zoho.sa", "https://www.zohoapis.sa", "https://crm.zoho.sa"),
    "uk": ("https://accounts.zoho.uk", "https://www.zohoapis.uk", "https://crm.zoho.uk"),
    "cn": ("https://accounts.zoho.com.cn", "https://www.zohoapis.com.cn", "https://crm.zoho.com.cn"),
}


def test_all_nine_with_canadas_odd_hosts() -> None:
    """As Zoho's pages on data centres name them."""
    assert {center.location: (center.accounts, center.api, center.crm) for center in DATA_CENTERS} == HOSTS


@pytest.mark.parametrize("location", HOSTS)
@pytest.mark.parametrize("kind", ["www", "sandbox", "developer"])
def test_sandbox_and_developer_hosts_belong_to_their_data_centre(location: str, kind: str) -> None:
    """They have API hosts of their own, and the accounts host of all."""
    url = HOSTS[location][1].replace("www.", f"{kind}.")
    center = of_api_domain(url)
    assert center is not None
    assert center.location == location
    assert is_trusted_api(url)
    assert is_trusted_accounts(center.accounts)
    assert of_location(location.upper()) == center


@pytest.mark.parametrize(
    "url",
    [
        "https://zohoapis.com",
        "https://www.zohoapis.com.evil.example",
        "https://wwwzohoapis.com",
        "https://evil.www.zohoapis.com",
        "https://www.zohoapis.ae",
        "http://www.zohoapis.com",
        "https://www.zohoapis.com:8443",
        "https://user@www.zohoapis.com",
        "https://www.zohoapis.com@evil.example",
        "https://evil.example/www.zohoapis.com",
        "https://evil.example#www.zohoapis.com",
        "https://accounts.zoho.com",
        "ftp://www.zohoapis.com",
        "www.zohoapis.com",
        "",
    ],
)
def test_no_token_for_strangers(url: str) -> None:
    """Only https, only Zoho's own API hosts."""
    assert not is_trusted_api(url)


@pytest.mark.parametrize(
    "url",
    [
        "https://accounts.zoho.ca",
        "https://accounts.zoho.com.evil.example",
        "http://accounts.zoho.eu",
        "https://www.zohoapis.eu",
        "https://accounts.zoho.eu:444",
    ],
)
def test_no_client_secret_for_strangers(url: str) -> None:
    """Only https, only Zoho's own accounts hosts."""
    assert not is_trusted_accounts(url)


@pytest.mark.parametrize(
    ("url", "is_local"),
    [
        ("http://127.0.0.1:9000", True),
        ("http://127.8.8.8", True),
        ("http://localhost", True),
        ("http://[::1]:9000", True),
        ("http://localhost.evil.example", False),
        ("http://127.0.0.1.evil.example", False),
        ("http://10.0.0.1", False),
        ("http://0.0.0.0", False),
    ],
)
def test_loopback_hosts_never_leave_this_machine(url: str, is_local: bool) -> None:
    """For the sandbox, which has no certificate."""
    assert is_loopback(url) == is_local
    assert is_trusted_api(url) == is_local
