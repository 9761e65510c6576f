"""Answers for links, sparing with credits: what is known costs nothing, the rest is remembered, shared and rationed."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING, Final

from consumer.web.bucket import TokenBucket
from consumer.web.view import DialogLink, LinkReason, LinkState

if TYPE_CHECKING:
    from consumer.web.view import LinkView, Subject

_LOOK_UP_TIMEOUT_S: Final = 8.0
_REMEMBERED: Final = 10_000
_FOUND_HOLDS_S: Final = 600.0
_NOT_FOUND_HOLDS_S: Final = 15.0
_UNAVAILABLE_HOLDS_S: Final = 3.0


@dataclass(frozen=True, slots=True)
class _Remembered:
    link: DialogLink
    until: float


class LinkDesk:
    """Looks links up, once for all who ask at the same time."""

    def __init__(self, view: LinkView, *, burst: int = 60, per_s: float = 2.0) -> None:
        self._view = view
        self._bucket = TokenBucket(burst=burst, per_s=per_s)
        self._remembered: OrderedDict[Subject, _Remembered] = OrderedDict()
        self._running: dict[Subject, asyncio.Task[DialogLink]] = {}

    async def answer(self, subject: Subject, *, is_click: bool) -> DialogLink:
        """Where the dialog is.  A click is worth asking Zoho again now and then: leads become contacts."""
        remembered = self._recall(subject)
        if remembered is not None and remembered.state is LinkState.LINKED:
            return remembered
        known = self._view.known_link(subject)
        if known is not None and (not is_click or known.state is not LinkState.LINKED):
            return known
        if known is None:
            return remembered or await self._shared(subject)
        found = await self._shared(subject)
        return known if found.reason in _NO_NEWS else found

    def _recall(self, subject: Subject) -> DialogLink | None:
        kept = self._remembered.get(subject)
        return kept.link if kept and kept.until > asyncio.get_running_loop().time() else None

    async def _shared(self, subject: Subject) -> DialogLink:
        task = self._running.get(subject)
        if task is None:
            wait_s = self._bucket.wait_s(asyncio.get_running_loop().time())
            if wait_s:
                return DialogLink(LinkState.UNKNOWN, LinkReason.BUSY, retry_after_s=ceil(wait_s))
            task = self._running[subject] = asyncio.create_task(self._look_up(subject))
        return await asyncio.shield(task)

    async def _look_up(self, subject: Subject) -> DialogLink:
        try:
            async with asyncio.timeout(_LOOK_UP_TIMEOUT_S):
                link = await self._view.find_link(subject)
        except TimeoutError:
            link = DialogLink(LinkState.UNKNOWN, LinkReason.UNAVAILABLE, retry_after_s=30)
        finally:
            del self._running[subject]
        self._remember(subject, link)
        return link

    def _remember(self, subject: Subject, link: DialogLink) -> None:
        holds_s = _NOT_FOUND_HOLDS_S
        if link.state is LinkState.LINKED:
            holds_s = _FOUND_HOLDS_S
        elif link.reason in _NO_NEWS:
            holds_s = _UNAVAILABLE_HOLDS_S
        self._remembered.pop(subject, None)
        self._remembered[subject] = _Remembered(link, asyncio.get_running_loop().time() + holds_s)
        if len(self._remembered) > _REMEMBERED:
            self._remembered.popitem(last=False)

    async def close(self) -> None:
        """Stop looking."""
        tasks = list(self._running.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


_NO_NEWS = frozenset({LinkReason.UNAVAILABLE, LinkReason.HALTED, LinkReason.BUSY})
