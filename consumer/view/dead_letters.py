"""The operations on dead letters, in the words of the console."""

from __future__ import annotations

from collections import Counter, deque
from contextlib import aclosing, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from consumer.operations.dlq import desk as desks
from consumer.operations.dlq import replay as replays
from consumer.operations.dlq.letters import Wanted
from consumer.operations.errors import OperationError
from consumer.operations.texts import LANGS, text_of
from consumer.telemetry.log import mask
from consumer.web.view import DeadLetterPage, DeadLetterRow, Place, ReplayPlan, ReplayStep, UnavailableError

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterator

    from consumer.operations.dlq.desk import Desk
    from consumer.operations.dlq.letters import DeadLetter
    from consumer.operations.dlq.replay import ReplayReport
    from consumer.web.view import Selection


@dataclass(frozen=True, slots=True)
class _Selected(Wanted):
    """Also by place: in the dead-letter topic, or where the record came from."""

    place: Place | None = None
    source: Place | None = None

    def includes(self, letter: DeadLetter) -> bool:
        here = Place(letter.place.partition, letter.place.offset)
        return (
            Wanted.includes(self, letter)
            and (self.place is None or self.place == here)
            and (self.source is None or self.source == _source(letter))
        )


class DeadLetterView:
    """Browse, plan, replay."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    async def browse(self, selection: Selection, *, limit: int) -> DeadLetterPage:
        """Those that wait: what a replay has dealt with is not shown."""
        wanted = _wanted(selection)
        latest: deque[DeadLetter] = deque(maxlen=limit)
        reasons: Counter[str] = Counter()
        with _translated():
            async with desks.opened(self._desk) as sheet, aclosing(sheet.letters(wanted)) as letters:
                async for letter in letters:
                    if not sheet.is_done(letter):
                        latest.append(letter)
                        reasons[letter.reason] += 1
        rows = sorted(map(_row, latest), key=lambda row: row.failed_at, reverse=True)
        return DeadLetterPage(tuple(rows), reasons.total(), tuple(reasons.most_common()))

    async def plan(self, selection: Selection) -> ReplayPlan:
        """A dry run."""
        with _translated():
            plan = await replays.plan(self._desk, _wanted(selection))
        return ReplayPlan(
            plan.total,
            tuple(Counter(plan.reasons).most_common()),
            may_repeat=plan.may_repeat,
            fails_again=sum(plan.fails_again.values()),
            left_alone=sum(count for verdict, count in plan.verdicts.items() if verdict is not replays.Verdict.REPLAY),
        )

    async def replay(
        self, selection: Selection, *, on_step: Callable[[ReplayStep], None], cancel: asyncio.Event
    ) -> None:
        """For good."""

        def told(report: ReplayReport) -> None:
            on_step(ReplayStep(report.replayed, report.total, report.refused))

        with _translated():
            report = await replays.replay(self._desk, _wanted(selection), on_progress=told, cancel=cancel)
        told(report)


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except OperationError as error:
        texts = {lang: text_of(lang, error.code, error.facts) for lang in LANGS}
        raise UnavailableError({lang: f"{text.what} {text.fix}".strip() for lang, text in texts.items()}) from None


def _wanted(selection: Selection) -> Wanted:
    return _Selected(
        reasons=(selection.reason,) if selection.reason else (),
        stages=(selection.stage,) if selection.stage else (),
        place=selection.place,
        source=selection.source,
    )


def _source(letter: DeadLetter) -> Place | None:
    known = letter.partition is not None and letter.offset is not None
    return Place(letter.partition or 0, letter.offset or 0) if known else None


def _row(letter: DeadLetter) -> DeadLetterRow:
    return DeadLetterRow(
        place=Place(letter.place.partition, letter.place.offset),
        source=_source(letter),
        reason=letter.reason,
        stage=letter.stage,
        detail=mask(letter.detail),
        failed_at=letter.failed_at.isoformat(),
        attempts=letter.attempts,
        replays=letter.replays,
    )
