"""What is simulated, and which faults each scenario must have met, or it would have proved nothing."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

from consumer.core.model import NotePolicy
from tests.simulation.world import Scenario

_QUIET: dict[str, Any] = {name.name: 0.0 for name in fields(Scenario) if name.name.endswith("_per_min")}
CALM = replace(Scenario(name="calm"), **_QUIET, chaos=0.0, commit_trouble=0.0, letter_trouble=0.0)


@dataclass(frozen=True, slots=True)
class Named:
    """A scenario, and what must have happened over some seeds of it."""

    scenario: Scenario
    must_fire: tuple[str, ...]


def _calm(name: str, **changes: Any) -> Scenario:
    return replace(CALM, name=name, **changes)


_CHAOS = (
    "commit_then_drop",
    "drop_before_commit",
    "late_effect",
    "server_error",
    "throttled",
    "garbled",
    "row_fault",
    "token_fault",
)

ALL: dict[str, Named] = {
    named.scenario.name: named
    for named in (
        Named(
            Scenario(),
            (
                *("death", "redelivery", "rebalance", "duplicate", "record.poison", "record.skip", "curse"),
                *("_kill", "_stop", "_kick", "_meddle", "_expire_tokens", "_cut", "_replay"),
                *("_broker_outage", "_letter_outage", "commit_fails", "commit_late", "commit_answer_lost"),
                *("dead_letter_fails", "dead_letter_answer_lost"),
                *_CHAOS,
            ),
        ),
        Named(CALM, ("duplicate", "record.poison", "record.skip", "curse")),
        Named(_calm("zoho", chaos=0.35, cuts_per_min=1.0), _CHAOS),
        Named(
            _calm("crashes", kills_per_min=6.0, stops_per_min=2.0, people=(1, 3)),
            ("death", "redelivery", "_stop"),
        ),
        Named(
            _calm("rebalances", kicks_per_min=15.0, members=(2, 4), partitions=(3, 5), commit_trouble=0.2),
            ("rebalance", "redelivery", "commit_fails", "commit_late", "commit_answer_lost"),
        ),
        Named(
            _calm(
                "notes",
                kicks_per_min=6.0,
                kills_per_min=2.0,
                chaos=0.1,
                people=(1, 2),
                policies=(NotePolicy.PER_MESSAGE,),
            ),
            ("death", "rebalance", "commit_then_drop"),
        ),
        Named(
            _calm(
                "letters",
                poison=0.3,
                cursed=0.3,
                cursed_notes=0.1,
                letter_trouble=0.3,
                kills_per_min=4.0,
                replays_per_min=2.0,
            ),
            ("dead_letter_fails", "dead_letter_answer_lost", "death", "_replay", "curse", "curse.note"),
        ),
        Named(
            _calm("tokens", token_deaths_per_min=4.0, revocations_per_min=1.0, chaos=0.05),
            ("_expire_tokens", "_revoke", "token_fault"),
        ),
        Named(
            _calm("meddling", meddles_per_min=12.0, people=(2, 4), kicks_per_min=2.0),
            ("_meddle", "meddle.delete", "meddle.convert", "meddle.merge", "meddle.retype"),
        ),
    )
}
