"""An event loop whose clock jumps to the next timer when nothing is left to do.

Code that sleeps runs as written and takes no time; the order of events is the same in each run; a wait that nothing
can end is reported as a deadlock.  No threads, no sockets, no child processes.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from contextvars import ContextVar, copy_context
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from contextvars import Context

T = TypeVar("T")


class DeadlockError(Exception):
    """Everybody waits for something that nobody will do."""


class _Clock:
    """Stands where a loop has its selector: in place of waiting for sockets it lets time jump."""

    def __init__(self, loop: VirtualTimeLoop) -> None:
        self._loop = loop

    def select(self, timeout: float | None) -> list[Any]:
        if timeout is None:
            raise DeadlockError(self._loop.describe_waits())
        if timeout > 0:
            self._loop.jump()
        return []

    def close(self) -> None:
        """Nothing to close."""


class VirtualTimeLoop(asyncio.BaseEventLoop):
    """`time()` starts at `start_s` and moves only when all is idle."""

    def __init__(self, *, start_s: float = 0.0) -> None:
        super().__init__()
        self._now_s = start_s
        self._selector = _Clock(self)
        self._clock_resolution = 1e-6  # at the epoch of today, floats are this coarse
        self.errors: list[dict[str, Any]] = []
        """What background work raised; a test should find it empty."""
        self.set_exception_handler(lambda _loop, context: self.errors.append(context))

    def time(self) -> float:
        """Virtual seconds."""
        return self._now_s

    def jump(self) -> None:
        """To the next timer."""
        scheduled: list[asyncio.TimerHandle] = self._scheduled  # type: ignore[attr-defined]
        self._now_s = max(self._now_s, scheduled[0].when())

    def describe_waits(self) -> str:
        """The tasks that are left."""
        return "deadlock of " + "; ".join(sorted(repr(task) for task in asyncio.all_tasks(self)))

    def _process_events(self, event_list: list[Any]) -> None:
        """There are no sockets."""

    def _write_to_self(self) -> None:
        """There are no threads to wake it."""


def run(work: Coroutine[Any, Any, T], *, start_s: float = 0.0) -> T:
    """Run to the end in virtual time; raises what background tasks raised."""
    with asyncio.Runner(loop_factory=lambda: VirtualTimeLoop(start_s=start_s)) as runner:
        result = runner.run(work)
        loop = runner.get_loop()
        assert isinstance(loop, VirtualTimeLoop)
        assert not loop.errors, loop.errors
        return result


class Life:
    """What belongs to one process in the simulation.  When it ends, nothing of it ever runs again."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.is_alive = True
        self.ended_at = float("inf")
        """When its process ended, by force or in good order."""
        self.fuse: int | None = None
        """Steps that are left to it: it ends between two of them, at whatever await it had come to."""
        self.on_end: Callable[[], None] = lambda: None

    def end(self) -> None:
        """As with SIGKILL: no clean-up, no timer, no finally."""
        if self.is_alive:
            self.is_alive = False
            self.on_end()

    def burn(self) -> bool:
        """One step more; False when it may not be done."""
        if self.is_alive and self.fuse is not None:
            self.fuse -= 1
            if self.fuse < 0:
                self.end()
        return self.is_alive


_LIFE: ContextVar[Life | None] = ContextVar("life", default=None)


class MortalLoop(VirtualTimeLoop):
    """A virtual loop on which several lives run side by side.

    What is scheduled belongs to the life of whoever schedules it; `spawn` starts work of another life, or of none.
    """

    def __init__(self, *, start_s: float = 0.0) -> None:
        super().__init__(start_s=start_s)
        self._left: dict[asyncio.Task[Any], None] = {}

    def call_soon(  # type: ignore[override]  # asyncio's own types bind the arguments to the callback
        self, callback: Any, *args: Any, context: Context | None = None
    ) -> asyncio.Handle:
        """See asyncio."""
        context = context or copy_context()
        return super().call_soon(_step_of(callback, context), *args, context=context)

    def call_at(  # type: ignore[override]  # the same
        self, when: float, callback: Any, *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """See asyncio."""
        context = context or copy_context()
        return super().call_at(when, _step_of(callback, context), *args, context=context)

    def create_task(  # type: ignore[override]  # a name is a text
        self, coro: Any, *, name: str | None = None, context: Context | None = None
    ) -> asyncio.Task[Any]:
        """See asyncio.  Tasks are kept, for one that is frozen must not be finished by the garbage collector."""
        task = super().create_task(coro, name=name, context=context)
        self._left[task] = None
        task.add_done_callback(self._forget)
        return task

    def _forget(self, task: asyncio.Task[Any]) -> None:
        self._left.pop(task, None)

    def spawn(self, work: Coroutine[Any, Any, T], life: Life | None, *, name: str | None = None) -> Any:
        """Start work of this life, whoever asks for it."""
        context = copy_context()
        context.run(_LIFE.set, life)
        return self.create_task(work, name=name, context=context)

    def bury(self) -> None:
        """At the very end: close what the dead left behind, so that nothing is said of it later."""
        while self._left:
            task, _ = self._left.popitem()
            task._log_destroy_pending = False  # type: ignore[attr-defined]
            with suppress(Exception):
                task.get_coro().close()


def _step_of(callback: Callable[..., Any], context: Context) -> Callable[..., Any]:
    life = context.get(_LIFE)
    if life is None:
        return callback

    def step(*args: Any) -> None:
        if life.burn():
            callback(*args)

    return step
