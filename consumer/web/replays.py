"""Replays started from a page: one at a time, in the background, with progress and a way to stop."""

from __future__ import annotations

import asyncio
import secrets
from collections import OrderedDict
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from consumer.web.texts import LANGUAGES, teller
from consumer.web.view import ReplayStep, UnavailableError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from consumer.web.view import Selection, ServiceView

_REMEMBERED: Final = 20


class JobState(StrEnum):
    """Where a replay is."""

    RUNNING = "running"
    DONE = "done"
    CANCELLED = "cancelled"
    BROKEN = "broken"


@dataclass(slots=True)
class ReplayJob:
    """One replay."""

    selection: Selection
    id: str = field(default_factory=lambda: secrets.token_hex(8))
    state: JobState = JobState.RUNNING
    step: ReplayStep = field(default_factory=lambda: ReplayStep(0, 0))
    cancel: asyncio.Event = field(default_factory=asyncio.Event, repr=False)
    problem: Mapping[str, str] = field(default_factory=dict)
    """By language."""


class Replays:
    """Jobs of this process, and the one that runs."""

    def __init__(self, view: ServiceView) -> None:
        self._view = view
        self._jobs: OrderedDict[str, ReplayJob] = OrderedDict()
        self._running: asyncio.Task[None] | None = None

    def start(self, selection: Selection) -> ReplayJob:
        """Start a replay; while one runs, it is that one, so that a second click does no harm."""
        if self._running is not None and not self._running.done():
            return next(reversed(self._jobs.values()))
        job = ReplayJob(selection)
        self._jobs[job.id] = job
        if len(self._jobs) > _REMEMBERED:
            self._jobs.popitem(last=False)
        self._running = asyncio.create_task(self._run(job))
        return job

    def find(self, job_id: str) -> ReplayJob | None:
        """A job of this process."""
        return self._jobs.get(job_id)

    def cancel(self, job: ReplayJob) -> None:
        """Stop after the letter at hand.  What was replayed stays replayed."""
        job.cancel.set()

    async def _run(self, job: ReplayJob) -> None:
        def on_step(step: ReplayStep) -> None:
            job.step = step

        try:
            await self._view.replay(job.selection, on_step=on_step, cancel=job.cancel)
            job.state = JobState.CANCELLED if job.cancel.is_set() else JobState.DONE
        except UnavailableError as error:
            job.problem = error.texts
            job.state = JobState.BROKEN
        except Exception as error:  # noqa: BLE001 - nobody else hears of it, and the page would say for ever that it runs
            job.problem = _fault(error)
            job.state = JobState.BROKEN

    async def close(self) -> None:
        """Stop at once."""
        if self._running is not None:
            self._running.cancel()
            await asyncio.gather(self._running, return_exceptions=True)


def _fault(error: Exception) -> dict[str, str]:
    """Only its kind: the text of an exception may hold anything."""
    return {language: teller(language)("job.fault", error=type(error).__name__) for language in LANGUAGES}
