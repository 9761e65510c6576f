"""May this call go?  Concurrency, heavy calls, credits, 429 - and what halts work."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.core.backoff import Backoff
from consumer.core.limits import DAY_S, Cost, CreditLedger, Gate, Limiter, Permit, Wait

LIGHT, HEAVY = Cost(), Cost(credits=10, is_heavy=True)
BACKOFF = Backoff(base_s=0.5, cap_s=30.0)


def take(limiter: Limiter, cost: Cost, count: int, now: float = 0.0) -> list[Permit]:
    """As many permits as there are, at most `count`."""
    verdicts = [limiter.acquire(cost, now) for _ in range(count)]
    return [verdict for verdict in verdicts if isinstance(verdict, Permit)]


def reason(limiter: Limiter, cost: Cost, now: float = 0.0) -> str:
    verdict = limiter.acquire(cost, now)
    assert isinstance(verdict, Wait)
    return verdict.reason


def throttle(limiter: Limiter, permit: Permit, now: float, retry_after_s: float | None = None) -> None:
    limiter.throttled(permit, now, backoff=BACKOFF, random=0.5, retry_after_s=retry_after_s)
    limiter.release(permit)


def test_no_more_calls_at_once_than_allowed() -> None:
    """The limit of all calls holds for light and heavy ones together."""
    limiter = Limiter(max_concurrency=7)
    assert len(take(limiter, LIGHT, 4) + take(limiter, HEAVY, 4)) == 7
    assert reason(limiter, LIGHT) == "concurrency"


def test_at_most_ten_heavy_calls_and_light_ones_beside_them() -> None:
    """Zoho's sub-concurrency is ten in every edition."""
    limiter = Limiter(max_concurrency=25)
    assert len(take(limiter, HEAVY, 25)) == 10
    assert reason(limiter, HEAVY) == "heavy"
    assert len(take(limiter, LIGHT, 25)) == 15


@pytest.mark.parametrize(
    ("share", "calls", "heavy"), [(1.0, 20, 10), (0.5, 10, 5), (0.25, 5, 2), (0.01, 1, 1), (0.0, 1, 1)]
)
def test_a_process_takes_its_share_and_at_least_one_call(share: float, calls: int, heavy: int) -> None:
    """Shares are rounded down, so that the group stays within the limit as a whole."""
    limiter = Limiter(max_concurrency=20)
    limiter.set_share(share)
    assert (limiter.capacity(0.0), limiter.capacity(0.0, is_heavy=True)) == (calls, heavy)


@given(st.lists(st.integers(1, 12), min_size=1, max_size=8), st.integers(8, 40))
def test_the_shares_of_a_group_never_exceed_the_limit(partitions: list[int], limit: int) -> None:
    """Whoever owns how many partitions: together they stay within the limit (each has at least one call)."""
    total = sum(partitions)
    capacities = []
    for owned in partitions:
        limiter = Limiter(max_concurrency=limit)
        limiter.set_share(owned / total)
        capacities.append(limiter.capacity(0.0))
    floor = sum(owned * limit < total for owned in partitions)
    assert sum(capacities) <= limit + floor


def test_one_flight_of_429_halves_once() -> None:
    """Ten calls that were in flight together and are all refused halve the window once, and pause once."""
    limiter = Limiter(max_concurrency=20)
    flight = take(limiter, LIGHT, 20)
    for index, permit in enumerate(flight):
        throttle(limiter, permit, 1.0 + index / 100)
    assert limiter.capacity(1.2) == 10
    wait = limiter.acquire(LIGHT, 1.2)
    assert isinstance(wait, Wait)
    assert wait.reason == "throttled"
    assert 0 < (wait.seconds or 0) < 1.0
    assert limiter.throttles == 20


def test_the_next_flight_halves_again_and_pauses_longer() -> None:
    """Refused in a row: half of half, down to one, and longer pauses up to their cap."""
    limiter = Limiter(max_concurrency=16)
    now, pauses = 0.0, []
    for _ in range(12):
        [permit, *rest] = take(limiter, LIGHT, 1, now)
        assert not rest
        throttle(limiter, permit, now + 0.5)
        wait = limiter.acquire(LIGHT, now + 0.5)
        assert isinstance(wait, Wait)
        pauses.append(round(wait.seconds or 0, 6))
        now += 0.6 + pauses[-1]
    assert pauses == sorted(pauses)
    assert pauses[-1] <= 30
    assert limiter.capacity(now - 30) == 1


def test_a_success_between_ends_the_row() -> None:
    """A pause is short again after a call has come through."""
    limiter = Limiter(max_concurrency=4)
    now = 0.0
    for _ in range(6):
        [permit] = take(limiter, LIGHT, 1, now)
        throttle(limiter, permit, now)
        now += 40
    [permit] = take(limiter, LIGHT, 1, now)
    limiter.succeeded(permit)
    limiter.release(permit)
    [permit] = take(limiter, LIGHT, 1, now + 1)
    throttle(limiter, permit, now + 1)
    wait = limiter.acquire(LIGHT, now + 1)
    assert isinstance(wait, Wait)
    assert (wait.seconds or 0) <= 1.0


def test_retry_after_wins() -> None:
    """What Zoho asks for is never shortened."""
    limiter = Limiter(max_concurrency=4)
    [permit] = take(limiter, LIGHT, 1)
    throttle(limiter, permit, 0.0, retry_after_s=77.0)
    assert reason(limiter, LIGHT, 76.9) == "throttled"
    assert take(limiter, LIGHT, 1, 79.0)


def test_it_comes_back_fast_then_slowly_then_fast() -> None:
    """Most of the way within ten seconds, where it broke after twenty, beyond it only then, all after a minute."""
    limiter = Limiter(max_concurrency=40)
    limiter.set_share(0.25)
    [permit] = take(limiter, LIGHT, 1)
    throttle(limiter, permit, 0.0)
    limiter.set_share(1.0)
    pause = limiter.acquire(LIGHT, 0.0)
    assert isinstance(pause, Wait)
    end = pause.seconds or 0
    curve = {seconds: limiter.capacity(end + seconds) for seconds in (0, 10, 20, 30, 40, 60, 600)}
    assert curve == {0: 5, 10: 9, 20: 10, 30: 10, 40: 15, 60: 40, 600: 40}


def test_credits_roll_over_24_hours() -> None:
    """A call counts from its start for a whole day, not until midnight."""
    ledger = CreditLedger()
    ledger.spend(100, 10.0)
    ledger.spend(50, 7200.0)
    assert ledger.used(DAY_S - 1) == 150
    assert ledger.used(DAY_S + 120) == 50
    assert ledger.used(DAY_S + 7400) == 0


def test_the_budget_waits_and_never_drops() -> None:
    """At the day's limit a call learns when it may go."""
    limiter = Limiter(max_concurrency=5, daily_credits=25)
    permits = [limiter.acquire(HEAVY, 0.0), limiter.acquire(HEAVY, 3600.0)]
    assert all(isinstance(permit, Permit) for permit in permits)
    wait = limiter.acquire(HEAVY, 3601.0)
    assert isinstance(wait, Wait)
    assert wait.reason == "budget"
    assert isinstance(limiter.acquire(HEAVY, 3601.0 + (wait.seconds or 0)), Permit)


def test_every_attempt_pays() -> None:
    """A refused call has used its credits, as far as anybody knows."""
    limiter = Limiter(max_concurrency=5)
    [permit] = take(limiter, HEAVY, 1)
    throttle(limiter, permit, 0.0)
    assert limiter.ledger.used(1.0) == 10


def test_what_zoho_says_of_credits_is_believed() -> None:
    """With three credits left, a call of ten waits and a call of one goes; after a minute somebody asks again."""
    limiter = Limiter(max_concurrency=5)
    limiter.credits_reported(3, 0.0)
    assert reason(limiter, HEAVY) == "credits"
    assert take(limiter, LIGHT, 1)
    assert take(limiter, HEAVY, 1, 61.0)


def test_the_forecast() -> None:
    """At the pace of the last hour, this many seconds are left; without a limit or a pace there is no forecast."""
    limiter = Limiter(max_concurrency=5, daily_credits=1000)
    assert limiter.exhausted_in_s(0.0) is None
    take(limiter, Cost(credits=100), 1, 100.0)
    assert limiter.exhausted_in_s(200.0) == pytest.approx(900 / 100 * 3600)
    limiter.credits_reported(50, 200.0)
    assert limiter.exhausted_in_s(200.0) == pytest.approx(50 / 100 * 3600)
    assert Limiter(max_concurrency=5).exhausted_in_s(0.0) is None


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["light", "heavy", "end", "throttle", "share", "report", "succeed"]),
        st.one_of(st.floats(0, 5), st.floats(0, 3 * DAY_S)),
        st.integers(0, 30),
    ),
    max_size=120,
)


class Machine:
    """A limiter, and what it must never do."""

    def __init__(self, limit: int, budget: int | None) -> None:
        self.limit = limit
        self.budget = budget
        self.limiter = Limiter(max_concurrency=limit, daily_credits=budget)
        self.flight: list[Permit] = []
        self.spent: list[tuple[float, int]] = []

    def step(self, what: str, now: float, pick: int) -> None:
        """One thing happens."""
        if what in ("light", "heavy"):
            self._call(Cost(credits=1 + pick, is_heavy=what == "heavy"), now)
        elif what == "share":
            self.limiter.set_share(pick / 30 if self.budget is None else 1.0)
        elif what == "report":
            self.limiter.credits_reported(pick, now)
        elif self.flight:
            self._end(what, self.flight.pop(pick % len(self.flight)), now)

    def _call(self, cost: Cost, now: float) -> None:
        calls, heavy = self.limiter.capacity(now), self.limiter.capacity(now, is_heavy=True)
        verdict = self.limiter.acquire(cost, now)
        if isinstance(verdict, Wait):
            assert self.flight if verdict.seconds is None else verdict.seconds > 0
            return
        self.flight.append(verdict)
        self.spent.append((now, cost.credits))
        assert len(self.flight) <= calls
        assert not cost.is_heavy or sum(each.cost.is_heavy for each in self.flight) <= min(10, heavy)
        in_a_day = sum(amount for at, amount in self.spent if at > now - DAY_S)
        assert self.budget is None or in_a_day <= self.budget

    def _end(self, what: str, permit: Permit, now: float) -> None:
        if what == "throttle":
            self.limiter.throttled(permit, now, backoff=BACKOFF, random=0.3)
        elif what == "succeed":
            self.limiter.succeeded(permit)
        self.limiter.release(permit)

    def check(self, now: float) -> None:
        """Holds at any time."""
        assert self.limiter.in_flight == len(self.flight)
        assert self.limiter.heavy_in_flight == sum(permit.cost.is_heavy for permit in self.flight)
        assert 1 <= self.limiter.capacity(now) <= self.limit


@given(STEPS, st.integers(1, 30), st.one_of(st.none(), st.integers(1, 500)))
def test_whatever_comes_the_limits_hold(steps: list[tuple[str, float, int]], limit: int, budget: int | None) -> None:
    """For any order of calls, ends, 429s, changing shares and jumping clocks."""
    machine = Machine(limit, budget)
    now = 0.0
    for what, gap, pick in steps:
        now += gap
        machine.step(what, now, pick)
        machine.check(now)


# -- halts --------------------------------------------------------------------------------------------------------


def test_a_halt_stops_its_own_kind_and_no_other() -> None:
    """A missing scope for one operation says nothing about another; `*` stops all."""
    gate = Gate()
    gate.close("notes.create", "OAUTH_SCOPE_MISMATCH", "do this", 0.0)
    assert gate.wait_s("notes.create", 0.5) > 0
    assert gate.wait_s("messages.upsert", 0.5) == 0
    gate.close("*", "TOKEN_THROTTLED", "wait", 0.0)
    assert gate.wait_s("messages.upsert", 0.5) > 0


def test_one_call_at_a_time_asks_whether_the_cause_is_gone() -> None:
    """After the wait one probe goes; whoever comes next waits for it."""
    gate = Gate(first_wait_s=2.0)
    gate.close("x", "CODE", "advice", 0.0)
    assert gate.wait_s("x", 2.0) == 0
    assert gate.wait_s("x", 2.0) > 0


def test_waits_grow_with_each_probe_that_fails_up_to_the_cap() -> None:
    """Asking costs credits, so it is done less and less often, but never less than once a minute."""
    gate = Gate(first_wait_s=2.0, cap_s=60.0)
    now, waits = 0.0, []
    for _ in range(8):
        gate.close("x", "CODE", "advice", now)
        waits.append(gate.wait_s("x", now))
        now += waits[-1]
        assert gate.wait_s("x", now) == 0
    assert waits == [2, 4, 8, 16, 32, 60, 60, 60]
    assert gate.halts() == [("x", "CODE", "advice", 0.0)]


def test_a_probe_that_comes_through_opens() -> None:
    """Nothing is left of a halt whose cause is gone."""
    gate = Gate()
    gate.close("x", "CODE", "advice", 0.0)
    gate.close("*", "CODE", "advice", 0.0)
    gate.open("x")
    assert gate.wait_s("x", 0.0) == 0
    assert gate.halts() == []


def test_a_change_is_looked_at_at_once() -> None:
    """A new secret file need not wait for the next probe."""
    gate = Gate()
    gate.close("*", "TOKEN_INVALID_CODE", "advice", 0.0, wait_s=300.0)
    gate.probe_now()
    assert gate.wait_s("x", 1.0) == 0
