"""Policies around a `Send`, each of the same shape.

The order is `gated(retried(authorized(limited(tokened(wanted(http))))))`.  Inside `limited` is what must be true when
the call goes, however long it waited: it is wanted, and its token lives.  `authorized` is around it, so that every
attempt pays for itself, and inside `retried`, so that a refresh is not counted as a failed attempt; `gated` is
outermost, so that nothing is tried while a cause outside the messages stands.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import replace
from typing import TYPE_CHECKING

from consumer.core.errors import HaltedError, NotWantedError, RefusedError, ThrottledError, TransientError
from consumer.core.limits import Permit, Wait

if TYPE_CHECKING:
    from collections.abc import Callable

    from consumer.core.backoff import Backoff
    from consumer.core.limits import Cost, Gate, Limiter
    from consumer.zoho.api import Call, Reply, Send

_LONGEST_NAP_S = 1.0
"""A waiter looks again at least this often: limits also change from outside (share, Zoho's own credit count)."""


class Turnstile:
    """Waits in the limiter's stead, first come first served; a heavy call that waits does not hold up light ones.

    The reason to wait is kept for readiness: concurrency, heavy, throttled, credits or budget.
    """

    def __init__(self, limiter: Limiter) -> None:
        self.limiter = limiter
        self._queue: deque[tuple[Cost, asyncio.Future[Permit]]] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self.reason: str | None = None
        """Why calls wait now; None when none does."""

    @property
    def waiting(self) -> int:
        """Calls that wait for a permit."""
        return len(self._queue)

    async def enter(self, cost: Cost) -> Permit:
        """Wait for a permit."""
        future: asyncio.Future[Permit] = asyncio.get_running_loop().create_future()
        self._queue.append((cost, future))
        self._admit()
        try:
            return await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled():
                self.leave(future.result())
            else:
                self._admit()
            raise

    def leave(self, permit: Permit) -> None:
        """Give the permit back."""
        self.limiter.release(permit)
        self._admit()

    def _admit(self) -> None:
        """Let in whoever may go; set a timer for the first who must wait for time to pass."""
        loop = asyncio.get_running_loop()
        waiting: deque[tuple[Cost, asyncio.Future[Permit]]] = deque()
        self.reason = None
        while self._queue:
            cost, future = self._queue.popleft()
            if future.done():
                continue
            verdict = self.limiter.acquire(cost, loop.time())
            if isinstance(verdict, Permit):
                future.set_result(verdict)
                continue
            waiting.append((cost, future))
            self.reason = self.reason or verdict.reason
            if verdict.reason != "heavy":
                self._wake_in(verdict)
                break
        waiting.extend(self._queue)
        self._queue = waiting

    def _wake_in(self, wait: Wait) -> None:
        if wait.seconds is None:
            return
        if self._timer is not None:
            self._timer.cancel()
        delay = min(max(wait.seconds, 0.001), _LONGEST_NAP_S)
        self._timer = asyncio.get_running_loop().call_later(delay, self._admit)


def limited(send: Send, turnstile: Turnstile, *, backoff: Backoff, random: Callable[[], float]) -> Send:
    """Every attempt takes a permit; a 429 pauses all calls, for as long as Zoho asks or with jittered backoff."""

    async def send_limited(call: Call) -> Reply:
        limiter = turnstile.limiter
        permit = await turnstile.enter(call.cost)
        try:
            reply = await send(call)
            limiter.succeeded(permit)
            return reply
        except ThrottledError as error:
            now = asyncio.get_running_loop().time()
            limiter.throttled(permit, now, backoff=backoff, random=random(), retry_after_s=error.retry_after_s)
            raise
        finally:
            turnstile.leave(permit)

    return send_limited


def wanted(send: Send) -> Send:
    """Raises NotWantedError for a call that nobody wants any more by the time that it may go; notes when it goes."""

    async def send_wanted(call: Call) -> Reply:
        if not call.is_wanted():
            raise NotWantedError
        sent_at = asyncio.get_running_loop().time()
        return replace(await send(call), sent_at=sent_at)

    return send_wanted


def retried(send: Send, *, backoff: Backoff, random: Callable[[], float], attempts: int = 4) -> Send:
    """Repeats what is harmless to repeat: reads, and writes that certainly did nothing.

    A throttled call is repeated without counting, for the limiter already makes it wait.  A write whose answer was
    lost is never repeated here: whoever asked for it has to look first.
    """

    async def send_retried(call: Call) -> Reply:
        failures = 0
        while True:
            try:
                return await send(call)
            except ThrottledError:
                continue
            except TransientError as error:
                failures += 1
                if error.wrote_maybe or failures >= attempts or not call.is_wanted():
                    raise
                await asyncio.sleep(backoff.wait_s(failures, random=random(), retry_after_s=error.retry_after_s))

    return send_retried


def gated(send: Send, gate: Gate) -> Send:
    """Waits while a halt stands; one call at a time asks whether its cause is gone."""

    async def send_gated(call: Call) -> Reply:
        loop = asyncio.get_running_loop()
        while (wait_s := gate.wait_s(call.operation, loop.time())) > 0:  # noqa: ASYNC110 - several may close it
            await asyncio.sleep(min(wait_s, _LONGEST_NAP_S))
        try:
            reply = await send(call)
        except HaltedError as error:
            if key := _halted_by(error, call):
                gate.close(key, error.code, error.advice, loop.time(), wait_s=error.retry_after_s)
            raise
        except RefusedError:
            gate.open(call.operation)
            raise
        gate.open(call.operation)
        return reply

    return send_gated


def _halted_by(error: HaltedError, call: Call) -> str | None:
    """What the cause stops: without a token everything, else calls of this kind; nothing waits for an optional one."""
    if error.code.startswith("TOKEN_"):
        return "*"
    return None if call.is_optional else call.operation.value
