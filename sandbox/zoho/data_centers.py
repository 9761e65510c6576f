"""Zoho's data centres and their hosts [MDC]."""

from __future__ import annotations

from dataclasses import dataclass

API_PREFIXES = {"www": "production", "developer": "developer", "sandbox": "sandbox"}


@dataclass(frozen=True, slots=True)
class DataCenter:
    """`api_suffix` is what stands behind `www.`, `developer.` or `sandbox.`."""

    name: str
    accounts_host: str
    api_suffix: str

    @property
    def api_domain(self) -> str:
        """Always the production host, as token answers name it."""
        return f"https://www.{self.api_suffix}"


DATA_CENTERS = {
    each.name: each
    for each in (
        DataCenter("us", "accounts.zoho.com", "zohoapis.com"),
        DataCenter("eu", "accounts.zoho.eu", "zohoapis.eu"),
        DataCenter("in", "accounts.zoho.in", "zohoapis.in"),
        DataCenter("au", "accounts.zoho.com.au", "zohoapis.com.au"),
        DataCenter("jp", "accounts.zoho.jp", "zohoapis.jp"),
        DataCenter("ca", "accounts.zohocloud.ca", "zohoapis.ca"),
        DataCenter("sa", "accounts.zoho.sa", "zohoapis.sa"),
        DataCenter("uk", "accounts.zoho.uk", "zohoapis.uk"),
        DataCenter("cn", "accounts.zoho.com.cn", "zohoapis.com.cn"),
    )
}


def accounts_dc(host: str) -> str | None:
    """The data centre of an accounts host; None for another host."""
    return next((dc.name for dc in DATA_CENTERS.values() if dc.accounts_host == host), None)


def api_host(host: str) -> tuple[str, str] | None:
    """Data centre and organisation type of an API host; None for another host."""
    prefix, _, suffix = host.partition(".")
    dc = next((each.name for each in DATA_CENTERS.values() if each.api_suffix == suffix), None)
    if dc is None or prefix not in API_PREFIXES:
        return None
    return dc, API_PREFIXES[prefix]
