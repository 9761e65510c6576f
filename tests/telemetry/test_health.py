"""Who may restart us, who may send us work: the table of the probes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from consumer.core.errors import Halt
from consumer.telemetry.health import Limits, Snapshot, State, assess, is_stuck, merged

LIMITS = Limits(poll_s=180.0, progress_s=300.0)
WELL = Snapshot(
    now=10_000.0,
    is_joined=True,
    has_token=True,
    assigned=3,
    last_poll_at=9_999.0,
    last_progress_at=9_990.0,
    assigned_at=9_000.0,
)
HALT = Halt("OAUTH_SCOPE_MISMATCH", "Run auth again.", 1.0)


@pytest.mark.parametrize(
    ("changes", "state", "is_live", "is_ready"),
    [
        ({}, State.IDLE, True, True),
        ({"lag": 5, "in_flight": 5}, State.SYNCING, True, True),
        ({"lag": 5_000_000, "in_flight": 5}, State.SYNCING, True, True),
        ({"assigned": 0, "assigned_at": None}, State.STANDBY, True, True),
        ({"waiting_for": "throttled", "in_flight": 5}, State.THROTTLED, True, True),
        (
            {"waiting_for": "budget", "in_flight": 5, "last_progress_at": 1.0, "assigned_at": 1.0},
            State.THROTTLED,
            True,
            False,
        ),
        ({"waiting_for": "budget", "assigned": 0, "assigned_at": None}, State.STANDBY, True, True),
        ({"waiting_for": "concurrency", "in_flight": 5}, State.SYNCING, True, True),
        ({"is_joined": False, "assigned": 0}, State.STARTING, True, False),
        ({"is_joined": False, "assigned": 0, "last_poll_at": None, "has_token": False}, State.STARTING, True, False),
        ({"has_token": False}, State.IDLE, True, False),
        ({"is_draining": True}, State.DRAINING, True, False),
        ({"halts": (HALT,)}, State.HALTED, True, False),
        ({"halts": (HALT,), "in_flight": 5, "last_progress_at": 1.0, "assigned_at": 1.0}, State.HALTED, True, False),
        ({"in_flight": 5, "last_progress_at": 1.0, "assigned_at": 1.0}, State.STUCK, True, False),
        ({"last_poll_at": 1.0}, State.STUCK, False, False),
        (
            {"is_enabled": False, "is_joined": False, "has_token": False, "last_poll_at": None},
            State.DISABLED,
            True,
            True,
        ),
    ],
)
def test_probes(changes: dict[str, Any], state: State, is_live: bool, is_ready: bool) -> None:
    """Only our own loops make us dead; lag and an empty assignment make us neither dead nor unready; causes outside
    make us unready, never dead."""
    health = assess(replace(WELL, **changes), LIMITS)
    assert (health.state, health.is_live, health.is_ready) == (state, is_live, is_ready)


STILL = replace(WELL, in_flight=5, last_progress_at=1.0, assigned_at=1.0)


@pytest.mark.parametrize(
    ("changes", "is_still"),
    [
        ({}, True),
        ({"in_flight": 0, "lag": 5}, True),
        ({"in_flight": 0}, False),
        ({"assigned_at": 9_800.0}, False),
        ({"excused_at": 9_800.0}, False),
        ({"excused_at": 9_600.0}, True),
        ({"is_joined": False}, False),
        ({"is_rebalancing": True}, False),
        ({"assigned": 0}, False),
        ({"halts": (HALT,)}, False),
        ({"waiting_for": "credits"}, False),
        ({"waiting_for": "concurrency"}, True),
        ({"blocked": 5}, False),
        ({"blocked": 4}, True),
        ({"blocked": 1, "behind": 4}, False),
        ({"behind": 5}, True),
        ({"blocked": 5, "lag": 5}, True),
        ({"blocked": 5, "lag": 5, "has_room": False}, False),
        ({"in_flight": 0, "lag": 5, "has_room": False}, True),
    ],
)
def test_stuck_is_what_stands_still_without_excuse(changes: dict[str, Any], is_still: bool) -> None:
    """There is work that nothing outside forbids and no blocked record holds up, and for five minutes, not counting the
    time in which that was otherwise, nothing has moved."""
    assert is_stuck(replace(STILL, **changes), LIMITS) == is_still


def test_every_check_has_a_reason() -> None:
    """Who reads /readyz sees each check, and for a halt its code and what to do."""
    health = assess(replace(WELL, halts=(HALT,), has_token=False), LIMITS)
    assert all(check.reason for check in health.checks)
    failed = {check.name: check.reason for check in health.checks if not check.is_ok}
    assert failed.keys() == {"token", "halted.OAUTH_SCOPE_MISMATCH"}
    assert "access token" in failed["token"]
    assert failed["halted.OAUTH_SCOPE_MISMATCH"] == "Run auth again."


def test_a_cause_that_holds_up_everything_says_so_once() -> None:
    """Where one of several halts with one cause holds up everything, no part is named; different advice is all told."""
    part = Halt("NO_PERMISSION", "Ask the administrator.", 5.0, ("calls notes.create",))
    every = Halt("NO_PERMISSION", "Give the right.", 2.0)
    assert merged([part, HALT, every, part]) == (
        Halt("NO_PERMISSION", "Ask the administrator. Give the right.", 2.0),
        HALT,
    )


@pytest.mark.parametrize(
    ("changes", "named", "unnamed"),
    [
        ({"is_joined": False, "kafka_waits_for": "brokers"}, ["KAFKA_BOOTSTRAP_SERVERS"], ["group", "token"]),
        ({"is_joined": False, "kafka_waits_for": "answers"}, ["errors"], ["group", "token"]),
        ({"is_joined": False, "kafka_waits_for": "group", "has_token": False}, ["group", "access token"], ["errors"]),
        ({"has_token": False}, ["access token"], ["brokers", "group"]),
        ({"has_token": False, "assigned": 0}, ["access token"], ["brokers", "group"]),
    ],
)
def test_says_what_it_waits_for(changes: dict[str, Any], named: list[str], unnamed: list[str]) -> None:
    """While it cannot work yet, the sentence and the failed checks name what is missing, and nothing else."""
    health = assess(replace(WELL, **changes), LIMITS)
    told = " ".join([health.sentence, *(check.reason for check in health.checks if not check.is_ok)])
    assert health.sentence.startswith("Waiting for")
    assert [word for word in named if word not in health.sentence] == []
    assert [word for word in unnamed if word in told] == []
