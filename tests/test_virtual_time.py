"""The clock of the tests: it jumps, it repeats itself, and it says when nobody can move."""

from __future__ import annotations

import asyncio

import pytest

from tests.virtual_time import DeadlockError, Life, MortalLoop, run


def test_a_day_takes_no_time() -> None:
    """Sleeping moves the clock by just as much."""

    async def sleep() -> float:
        await asyncio.sleep(86_400)
        return asyncio.get_running_loop().time()

    assert run(sleep()) == pytest.approx(86_400)


def test_timers_fire_in_order() -> None:
    """Whoever waits less comes first, however they were started."""
    seen: list[int] = []

    async def note(seconds: int) -> None:
        await asyncio.sleep(seconds)
        seen.append(seconds)

    async def all_of_them() -> None:
        await asyncio.gather(*(note(seconds) for seconds in (5, 1, 3, 2, 4)))

    run(all_of_them())
    assert seen == [1, 2, 3, 4, 5]


def test_a_deadlock_is_told() -> None:
    """A wait that nothing can end does not hang the test."""

    async def wait() -> None:
        await asyncio.Event().wait()

    with pytest.raises(DeadlockError, match="wait"):
        run(wait())


def test_the_dead_do_nothing_more() -> None:
    """No step, no timer and no clean-up of a life runs after its end; others go on."""
    seen: list[str] = []

    async def work(name: str) -> None:
        try:
            while True:
                await asyncio.sleep(1)
                seen.append(name)
        finally:
            seen.append(f"{name} cleaned up")

    async def watch(loop: MortalLoop) -> list[str]:
        victim = Life("victim")
        loop.spawn(work("victim"), victim)
        other = loop.spawn(work("other"), Life("other"))
        await asyncio.sleep(1.5)
        victim.end()
        await asyncio.sleep(1)
        other.cancel()
        await asyncio.sleep(0)
        return list(seen)

    loop = MortalLoop()
    assert loop.run_until_complete(watch(loop)) == ["victim", "other", "other", "other cleaned up"]
    loop.bury()
    loop.close()
