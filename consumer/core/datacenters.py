"""Zoho's data centres and their hosts (Zoho "Multi-DC" page; Canada's and China's hosts are odd ones)."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from urllib.parse import urlsplit


@dataclass(frozen=True, slots=True)
class DataCenter:
    """Base URLs of one data centre; `location` is Zoho's own short name."""

    location: str
    accounts: str
    api: str
    crm: str


def _data_center(location: str, domain: str, *, zoho: str | None = None) -> DataCenter:
    zoho = zoho or f"zoho.{domain}"
    return DataCenter(location, f"https://accounts.{zoho}", f"https://www.zohoapis.{domain}", f"https://crm.{zoho}")


DATA_CENTERS = (
    _data_center("us", "com"),
    _data_center("eu", "eu"),
    _data_center("in", "in"),
    _data_center("au", "com.au"),
    _data_center("jp", "jp"),
    _data_center("ca", "ca", zoho="zohocloud.ca"),
    _data_center("sa", "sa"),
    _data_center("uk", "uk"),
    _data_center("cn", "com.cn"),
)
"""All nine; sandbox. and developer. stand in for www. in the API host."""

_API_PREFIXES = ("www", "sandbox", "developer")


def of_api_domain(url: str) -> DataCenter | None:
    """The data centre that an API base URL belongs to, sandbox and developer hosts included."""
    host = urlsplit(url).hostname or ""
    for center in DATA_CENTERS:
        domain = center.api.removeprefix("https://www.")
        if host in {f"{prefix}.{domain}" for prefix in _API_PREFIXES}:
            return center
    return None


def of_accounts_domain(url: str) -> DataCenter | None:
    """The data centre that an accounts base URL belongs to."""
    host = urlsplit(url).hostname
    return next((center for center in DATA_CENTERS if urlsplit(center.accounts).hostname == host), None)


def of_location(location: str) -> DataCenter | None:
    """The data centre with Zoho's short name, as in the `location` parameter of a redirect."""
    return next((center for center in DATA_CENTERS if center.location == location.lower()), None)


def is_loopback(url: str) -> bool:
    """True for a host that never leaves this machine."""
    host = urlsplit(url).hostname or ""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def is_trusted_api(url: str) -> bool:
    """May this base URL be given an access token?  Zoho's own hosts over https, or loopback."""
    return is_loopback(url) or (_is_https(url) and of_api_domain(url) is not None)


def is_trusted_accounts(url: str) -> bool:
    """May this base URL be given the client secret?  Zoho's own hosts over https, or loopback."""
    return is_loopback(url) or (_is_https(url) and of_accounts_domain(url) is not None)


def _is_https(url: str) -> bool:
    parts = urlsplit(url)
    return parts.scheme == "https" and parts.port in (None, 443) and parts.username is None
