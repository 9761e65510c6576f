"""What a delivery remembers of its attempts, and who waits for it."""

from __future__ import annotations

from consumer.core.model import Deferred, Stage
from consumer.core.offsets import OffsetTracker
from tests.builders import delivery, partition, record


def test_a_lost_answer_makes_the_next_attempt_look() -> None:
    """For the message record, or for the note, by the stage."""
    each = delivery()
    each.stage = Stage.MESSAGE
    each.put_off(Deferred("TIMEOUT", wrote_maybe=True))
    assert (each.may_exist, each.note_maybe) == (True, False)
    each.stage = Stage.NOTE
    each.put_off(Deferred("TIMEOUT", wrote_maybe=True))
    assert each.note_maybe


def test_a_halt_is_no_attempt() -> None:
    """It prolongs the pause, but brings no message nearer to the dead-letter topic."""
    each = delivery()
    each.put_off(Deferred("NO_PERMISSION", halted=True))
    each.put_off(Deferred("RECORD_LOCKED"))
    assert (each.attempts, each.deferrals) == (1, 2)


def test_it_is_wanted_while_any_of_its_records_is_ours() -> None:
    """A duplicate on another partition keeps it alive."""
    tracker = OffsetTracker()
    each = delivery(tracker=tracker)
    twin = record(0, number=1)
    each.waiting.append((twin, tracker.issue(twin.tp, 0)))
    tracker.fence([partition(0)])
    assert each.is_wanted()
    tracker.fence([partition(1)])
    assert not each.is_wanted()


def test_settling_it_pays_for_its_duplicates() -> None:
    """All of their offsets move."""
    tracker = OffsetTracker()
    each = delivery(tracker=tracker)
    twin = record(0, number=1)
    each.waiting.append((twin, tracker.issue(twin.tp, 0)))
    each.settle()
    assert tracker.committable() == {partition(0): 1, partition(1): 1}
