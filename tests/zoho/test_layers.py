"""Policies around a call: who goes first, what is repeated, what waits."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.core.backoff import Backoff
from consumer.core.errors import HaltedError, RefusedError, ThrottledError, TransientError
from consumer.core.limits import Cost, Gate, Limiter
from consumer.zoho.api import Call, Operation, Reply
from consumer.zoho.layers import Turnstile, gated, limited, retried
from tests.zoho.room import run

BACKOFF = Backoff(base_s=0.5, cap_s=30.0)
READ = Call(Operation.FIND_PEOPLE, "POST", "/coql")
LIGHT, HEAVY = Cost(), Cost(credits=10, is_heavy=True)


class Script:
    """A `Send` that fails as told, then answers."""

    def __init__(self, *errors: Exception, takes_s: float = 0.1) -> None:
        self.errors = list(errors)
        self.takes_s = takes_s
        self.calls = 0
        self.at: list[float] = []

    async def __call__(self, _call: Call) -> Reply:
        self.calls += 1
        self.at.append(asyncio.get_running_loop().time())
        await asyncio.sleep(self.takes_s)
        if self.errors:
            raise self.errors.pop(0)
        return Reply(200, {"data": []})


def calm(send: Any, limiter: Limiter | None = None) -> Any:
    return limited(send, Turnstile(limiter or Limiter(max_concurrency=10)), backoff=BACKOFF, random=lambda: 0.5)


def patient(send: Any) -> Any:
    return retried(send, backoff=BACKOFF, random=lambda: 0.5)


def test_first_come_first_served() -> None:
    """Calls of one kind go in the order in which they came."""

    async def scenario() -> None:
        turnstile = Turnstile(Limiter(max_concurrency=2))
        order: list[int] = []

        async def call(index: int) -> None:
            permit = await turnstile.enter(LIGHT)
            order.append(index)
            await asyncio.sleep(1)
            turnstile.leave(permit)

        await asyncio.gather(*map(call, range(20)))
        assert order == list(range(20))

    run(scenario())


def test_light_calls_pass_heavy_ones_that_wait() -> None:
    """When heavy calls are full, a light call behind a waiting heavy one goes at once."""

    async def scenario() -> None:
        turnstile = Turnstile(Limiter(max_concurrency=25))
        for _ in range(10):
            await turnstile.enter(HEAVY)
        heavy = asyncio.create_task(turnstile.enter(HEAVY))
        await asyncio.sleep(0)
        async with asyncio.timeout(1):
            await turnstile.enter(LIGHT)
        assert not heavy.done()
        assert turnstile.reason == "heavy"
        heavy.cancel()

    run(scenario())


def test_a_heavy_call_is_not_starved_by_light_ones() -> None:
    """The heavy call that waits longest takes the first heavy place, however many light ones pass."""

    async def scenario() -> None:
        turnstile = Turnstile(Limiter(max_concurrency=11))
        held = [await turnstile.enter(HEAVY) for _ in range(10)]
        heavy = asyncio.create_task(turnstile.enter(HEAVY))

        async def light() -> None:
            for _ in range(50):
                permit = await turnstile.enter(LIGHT)
                await asyncio.sleep(0.1)
                turnstile.leave(permit)

        crowd = [asyncio.create_task(light()) for _ in range(5)]
        await asyncio.sleep(1)
        turnstile.leave(held.pop())
        await asyncio.sleep(0.2)
        assert heavy.done()
        await asyncio.gather(*crowd)

    run(scenario())


@given(
    st.lists(
        st.tuples(st.floats(0, 5), st.booleans(), st.floats(0.05, 3), st.one_of(st.none(), st.floats(0, 6))),
        max_size=60,
    ),
    st.integers(1, 12),
)
def test_cancelled_waiters_leak_nothing(arrivals: list[tuple[float, bool, float, float | None]], limit: int) -> None:
    """For any arrivals and cancellations: the limit holds, all who stay get through, and in the end nothing is held."""

    async def scenario() -> None:
        limiter = Limiter(max_concurrency=limit)
        turnstile = Turnstile(limiter)
        inside = 0
        through: list[int] = []

        async def call(index: int, at: float, *, is_heavy: bool, takes: float) -> None:
            nonlocal inside
            await asyncio.sleep(at)
            permit = await turnstile.enter(HEAVY if is_heavy else LIGHT)
            inside += 1
            assert inside <= limit
            try:
                await asyncio.sleep(takes)
            finally:
                inside -= 1
                turnstile.leave(permit)
            through.append(index)

        tasks = []
        for index, (at, is_heavy, takes, cancel_at) in enumerate(arrivals):
            task = asyncio.create_task(call(index, at, is_heavy=is_heavy, takes=takes))
            if cancel_at is not None:
                asyncio.get_running_loop().call_later(cancel_at, task.cancel)
            tasks.append(task)
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert not [each for each in results if isinstance(each, Exception)]
        assert set(through) >= {index for index, each in enumerate(arrivals) if each[3] is None}
        assert (limiter.in_flight, limiter.heavy_in_flight, turnstile.waiting) == (0, 0, 0)
        assert turnstile.reason is None

    run(scenario())


def test_a_permit_that_comes_with_the_cancellation_is_given_back() -> None:
    """A waiter that is cancelled in the moment of its turn leaves the turn to the next."""

    async def scenario() -> None:
        turnstile = Turnstile(Limiter(max_concurrency=1))
        held = await turnstile.enter(LIGHT)
        unlucky, next_one = (asyncio.create_task(turnstile.enter(LIGHT)) for _ in range(2))
        await asyncio.sleep(0)
        turnstile.leave(held)
        unlucky.cancel()
        async with asyncio.timeout(1):
            await next_one
        assert turnstile.limiter.in_flight == 1

    run(scenario())


def test_a_flight_of_429_pauses_once_and_shortly() -> None:
    """Ten calls refused together cost about a second, not ten backoffs on top of each other."""

    async def scenario() -> None:
        limiter = Limiter(max_concurrency=10)
        send = Script(*[ThrottledError("TOO_MANY_REQUESTS")] * 10, takes_s=0.5)
        call = patient(calm(send, limiter))
        started = asyncio.get_running_loop().time()
        await asyncio.gather(*(call(READ) for _ in range(10)))
        assert asyncio.get_running_loop().time() - started < 4
        assert limiter.throttles == 10

    run(scenario())


def test_a_throttled_call_is_repeated_without_counting_and_a_read_four_times() -> None:
    """429 is no failure; without an answer a read is tried four times, with growing waits."""

    async def scenario() -> None:
        send = Script(*[ThrottledError("TOO_MANY_REQUESTS")] * 7)
        assert (await patient(calm(send))(READ)).status == 200
        send = Script(*[TransientError("TIMEOUT")] * 3)
        assert (await patient(send)(READ)).status == 200
        assert send.at[3] - send.at[2] > send.at[1] - send.at[0]
        send = Script(*[TransientError("TIMEOUT")] * 4)
        with pytest.raises(TransientError):
            await patient(send)(READ)

    run(scenario())


def test_a_write_whose_answer_was_lost_is_not_repeated_blindly() -> None:
    """Only a write that certainly did nothing goes again by itself."""

    async def scenario() -> None:
        send = Script(TransientError("CONNECTION_LOST", wrote_maybe=True))
        with pytest.raises(TransientError):
            await patient(send)(READ)
        assert send.calls == 1
        send = Script(TransientError("CONNECT_FAILED"))
        await patient(send)(READ)
        assert send.calls == 2

    run(scenario())


def test_while_a_halt_stands_one_call_asks_and_the_others_wait() -> None:
    """Twenty waiting calls cost one call for each look, and all go on when the cause is gone."""

    async def scenario() -> None:
        send = Script(*[HaltedError("NO_PERMISSION", advice="give rights")] * 4)
        gate = Gate()
        call = gated(send, gate)

        async def until_done() -> None:
            while True:
                try:
                    await call(READ)
                except HaltedError:
                    continue
                return

        await until_done_all(until_done)
        assert send.calls <= 4 + 20
        assert gate.halts() == []
        assert send.at[4] >= 2 + 4 + 8

    async def until_done_all(work: Any) -> None:
        first = asyncio.create_task(work())
        await asyncio.sleep(0.5)
        await asyncio.gather(first, *(work() for _ in range(19)))

    run(scenario())


def test_a_refusal_shows_that_the_cause_is_gone() -> None:
    """Whoever judges the content has let the call in."""

    async def scenario() -> None:
        gate = Gate()
        gate.close(READ.operation, "NO_PERMISSION", "advice", asyncio.get_running_loop().time())
        with pytest.raises(RefusedError):
            await gated(Script(RefusedError("INVALID_DATA")), gate)(READ)
        assert gate.halts() == []

    run(scenario())


def test_an_optional_call_halts_nothing_but_a_lost_token_halts_all() -> None:
    """Nobody waits for a right to read settings; without a token nothing goes."""

    async def scenario() -> None:
        gate = Gate()
        optional = Call(Operation.METADATA, "GET", "/settings/fields", is_optional=True)
        with pytest.raises(HaltedError):
            await gated(Script(HaltedError("OAUTH_SCOPE_MISMATCH")), gate)(optional)
        assert gate.halts() == []
        with pytest.raises(HaltedError):
            await gated(Script(HaltedError("TOKEN_INVALID_CODE", retry_after_s=3.0)), gate)(optional)
        assert [halt[0] for halt in gate.halts()] == ["*"]

    run(scenario())
