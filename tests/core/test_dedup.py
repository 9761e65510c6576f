"""Fresh, in flight, or settled: against a model of three sets."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, rule

from consumer.core.dedup import Dedup, Seen
from consumer.core.model import Delivery
from tests.builders import delivery, value_of

IDS = st.sampled_from(["a", "b", "c", "d"])


def test_other_content_under_the_same_id_is_told() -> None:
    """The first one wins, and the difference is counted."""
    dedup = Dedup(horizon=10)
    first = delivery(message_id="a", text="one")
    dedup.start(first)
    assert dedup.look_up("a", value_of("a", text="two")).differs
    dedup.settle(first)
    assert dedup.look_up("a", value_of("a", text="two")).differs
    assert not dedup.look_up("a", value_of("a", text="one")).differs


def test_the_horizon_forgets_the_oldest() -> None:
    """Memory is bounded; what is forgotten is fresh again."""
    dedup = Dedup(horizon=2)
    for name in "abc":
        dedup.start(each := delivery(message_id=name))
        dedup.settle(each)
    assert [dedup.find(name).seen for name in "abc"] == [Seen.FRESH, Seen.SETTLED, Seen.SETTLED]


def test_who_was_replaced_forgets_only_itself() -> None:
    """A delivery that was taken away must not free the id of the one that came after it."""
    dedup = Dedup(horizon=10)
    old, new = delivery(message_id="a"), delivery(message_id="a")
    dedup.start(old)
    dedup.start(new)
    dedup.forget(old)
    assert dedup.look_up("a", None).delivery is new


class Dedups(RuleBasedStateMachine):
    """Starts, settles and forgets in any order."""

    running = Bundle("running")

    @initialize()
    def begin(self) -> None:
        self.dedup = Dedup(horizon=1000)
        self.in_flight: dict[str, Delivery] = {}
        self.settled: set[str] = set()

    @rule(target=running, name=IDS)
    def start(self, name: str) -> Delivery:
        self.in_flight[name] = each = delivery(message_id=name)
        self.dedup.start(each)
        return each

    @rule(each=consumes(running))
    def settle(self, each: Delivery) -> None:
        self.dedup.settle(each)
        self.settled.add(each.event.message_id)
        self._gone(each)

    @rule(each=consumes(running))
    def forget(self, each: Delivery) -> None:
        self.dedup.forget(each)
        self._gone(each)

    def _gone(self, each: Delivery) -> None:
        if self.in_flight.get(each.event.message_id) is each:
            del self.in_flight[each.event.message_id]

    @invariant()
    def agrees(self) -> None:
        for name in "abcd":
            verdict = self.dedup.look_up(name, None)
            assert verdict.delivery is self.in_flight.get(name)
            if verdict.delivery is None:
                assert (verdict.seen is Seen.SETTLED) == (name in self.settled)
        assert self.dedup.in_flight() == len(self.in_flight)


TestDedups = Dedups.TestCase
