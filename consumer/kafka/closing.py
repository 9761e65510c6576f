"""aiokafka's clients, closed within a time limit, whatever state they are in."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable


class Closer:
    """Stops consumers and producers.  One that does not stop in time goes on stopping by itself."""

    def __init__(self, *, timeout_s: float, on_failure: Callable[[BaseException], None] = lambda _error: None) -> None:
        self._timeout_s = timeout_s
        self._on_failure = on_failure
        self._closing: set[asyncio.Task[None]] = set()

    async def close(self, client: Any) -> None:
        """Stop; bounded, never raises."""
        await asyncio.wait({self._begun(client)}, timeout=self._timeout_s)

    def begin(self, client: Any) -> None:
        """Stop, without waiting for it."""
        _ = self._begun(client)

    def _begun(self, client: Any) -> asyncio.Task[None]:
        """Never cancelled: a consumer whose stop() is cut short keeps its place in the group, and reads nothing."""
        task = asyncio.create_task(self._stop(client))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)
        return task

    async def _stop(self, client: Any) -> None:
        """When a fetch waits out its backoff, stop() raises CancelledError of its own and leaves connections open."""
        stopping = asyncio.ensure_future(client.stop())
        await asyncio.wait({stopping})
        if stopping.cancelled():
            await _connections(client).close()
        elif error := stopping.exception():
            self._on_failure(error)
            await _connections(client).close()


def _connections(client: Any) -> Any:
    return getattr(client, "_client", None) or client.client
