"""Where deliveries wait for their batch, and the batches of one stage that run."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from consumer.core.batching import Batcher

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Hashable, Iterable

    from consumer.core.model import Delivery, Stage

_WIND_UP_S = 5.0


class StageQueue:
    """Batches of one stage, a bounded number of them at once.

    Of the deliveries with one key, the first asks for all of them: the others follow it, and fill no batch.
    """

    def __init__(
        self,
        stage: Stage,
        run: Callable[[list[Delivery]], Coroutine[None, None, None]],
        *,
        max_records: int,
        linger_s: float,
        concurrency: int,
        key: Callable[[Delivery], Hashable],
        is_hurried: Callable[[], bool],
        on_fault: Callable[[BaseException], None],
    ) -> None:
        self.stage = stage
        self._run = run
        self._batcher: Batcher[Delivery] = Batcher(max_records=max_records, linger_s=linger_s)
        self._concurrency = concurrency
        self._key = key
        self._followers: dict[Hashable, tuple[Delivery, list[Delivery]]] = {}
        self._is_hurried = is_hurried
        self._on_fault = on_fault
        self._tasks: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._is_closed = False

    def add(self, delivery: Delivery) -> None:
        delivery.stage = self.stage
        leader, followers = self._followers.setdefault(self._key(delivery), (delivery, []))
        if leader is not delivery:
            followers.append(delivery)
            return
        now = asyncio.get_running_loop().time()
        self._batcher.add(delivery, now=now, is_bulk=delivery.event.origin == "campaign")
        self._start_due(now)

    def followers(self, leader: Delivery) -> list[Delivery]:
        """Deliveries that wait for this one."""
        found, followers = self._followers.get(self._key(leader), (None, []))
        return followers if found is leader else []

    def left(self, leader: Delivery) -> list[Delivery]:
        """The delivery is gone from this stage; returns those that waited for it."""
        key = self._key(leader)
        found, followers = self._followers.get(key, (None, []))
        if found is not leader:
            return []
        del self._followers[key]
        return followers

    def pump(self) -> None:
        """Start what is due; set a timer for the rest."""
        self._start_due(asyncio.get_running_loop().time())

    def _start_due(self, now: float) -> None:
        while not self._is_closed and len(self._tasks) < self._concurrency:
            wait_s = self._batcher.wait_s(now)
            if wait_s is None:
                return
            if wait_s > 0 and not self._is_hurried():
                self._wake_in(wait_s)
                return
            self._start(self._batcher.take())

    def _wake_in(self, wait_s: float) -> None:
        """One timer is enough: whatever is added later is due later."""
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(wait_s, self._on_time)

    def _on_time(self) -> None:
        self._timer = None
        self.pump()

    def _start(self, batch: list[Delivery]) -> None:
        task = asyncio.create_task(self._run(batch), name=f"stage-{self.stage}")
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()):
            self._on_fault(error)
        self.pump()

    def purge(self, is_wanted: Callable[[Delivery], bool]) -> list[Delivery]:
        """Remove and return queued deliveries that nobody wants."""
        dropped = self._batcher.purge(is_wanted)
        for _, followers in self._followers.values():
            dropped += [delivery for delivery in followers if not is_wanted(delivery)]
            followers[:] = filter(is_wanted, followers)
        return dropped

    def queued(self) -> int:
        return len(self._batcher) + sum(len(followers) for _, followers in self._followers.values())

    async def settle_down(self, timeout_s: float) -> None:
        """Wait for the batches that run now."""
        if self._tasks:
            await asyncio.wait(set(self._tasks), timeout=timeout_s)

    async def close(self) -> None:
        """Start nothing more, and stop what runs."""
        self._is_closed = True
        if self._timer is not None:
            self._timer.cancel()
        await cancelled(self._tasks)


async def cancelled(tasks: Iterable[asyncio.Future[Any]]) -> None:
    """Cancel and wait, for a while: what does not end then must not hold up the end of the process."""
    pending = {task for task in tasks if not task.done()}
    for task in pending:
        task.cancel()
    if pending:
        ended, _ = await asyncio.wait(pending, timeout=_WIND_UP_S)
        for task in ended:
            _ = task.cancelled() or task.exception()
