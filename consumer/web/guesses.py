"""How often may somebody be wrong?  Bounds guesses of the token, whatever way they come.

Only a wrong value that is new counts: the same one again tells nobody anything, so a program with yesterday's token
shuts nobody out.  While a bound holds, values are not looked at, and not counted either; so it ends by itself, within
seconds, however many come.  Whoever shares an address with the guesser (a proxy that names nobody) has to hit that
moment; a session that was seen before goes past all bounds, and an address that has been right past the common one.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from typing import TYPE_CHECKING, Final, TypeVar

from consumer.web.bucket import TokenBucket

if TYPE_CHECKING:
    from aiohttp import web

_Key = TypeVar("_Key")
_Value = TypeVar("_Value")
_ADDRESS_BURST: Final = 10
_ADDRESS_PER_S: Final = 0.2
_COMMON_BURST: Final = 100
_COMMON_PER_S: Final = 2.0
_REMEMBERED: Final = 10_000


class Guesses:
    """Wrong values by address and in all, for one process.  `now` is in seconds."""

    def __init__(self) -> None:
        self._common = TokenBucket(burst=_COMMON_BURST, per_s=_COMMON_PER_S)
        self._by_address: OrderedDict[str, TokenBucket] = OrderedDict()
        self._wrong: OrderedDict[bytes, None] = OrderedDict()
        self._proven: OrderedDict[str, None] = OrderedDict()

    def wait_s(self, address: str, value: str, now: float) -> float:
        """How long until this value may be looked at; 0: now."""
        if _digest(value) in self._wrong:
            return 0.0
        own = self._by_address.get(address)
        own_s = own.empty_s(now) if own else 0.0
        return own_s if address in self._proven else max(own_s, self._common.empty_s(now))

    def was_wrong(self, address: str, value: str, now: float) -> None:
        """Count it, unless it was counted before."""
        digest = _digest(value)
        if digest in self._wrong:
            return
        _remember(self._wrong, digest, None)
        own = self._by_address.get(address) or TokenBucket(burst=_ADDRESS_BURST, per_s=_ADDRESS_PER_S)
        _remember(self._by_address, address, own)
        own.wait_s(now)
        if address not in self._proven:
            self._common.wait_s(now)

    def was_right(self, address: str) -> None:
        """Somebody there knows the token."""
        _remember(self._proven, address, None)


def address_of(request: web.Request) -> str:
    """The peer, and whom the proxy next to us names: the last entry, which no client can write behind it.

    Without a proxy anybody can write anything there, which evades the bound of an address but not the common one.
    """
    named = ",".join(request.headers.getall("X-Forwarded-For", ())).rpartition(",")[2]
    return f"{request.remote} {named.strip()[:64]}"


def _digest(value: str) -> bytes:
    return hashlib.sha256(value.encode("utf-8", "surrogatepass")).digest()


def _remember(kept: OrderedDict[_Key, _Value], key: _Key, value: _Value) -> None:
    kept[key] = value
    kept.move_to_end(key)
    if len(kept) > _REMEMBERED:
        kept.popitem(last=False)
