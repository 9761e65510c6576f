"""What an answer, or none, means for each message of a batch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from consumer.core.errors import NotWantedError, RefusedError, SyncError, TransientError
from consumer.core.model import Deferred, Delivered, Rejected, Stage
from consumer.core.texts import units
from consumer.zoho import messages
from consumer.zoho.answers import UNKNOWN_ADVICE, Kind, RowAnswer, is_fault_of_ours, outcome_of_refusal

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from consumer.core.model import Delivery
    from consumer.core.phones import Phones
    from consumer.zoho.api import Halt, Operation
    from consumer.zoho.metadata import Schema
    from consumer.zoho.people import People

StageOutcome = Delivered | Rejected | Deferred
_TRIES_OF_A_LINK = 5
_LOOKUP_FIELDS = ("Lead", "Contact", "Parent_Id")


def outcome_of_error(error: SyncError, stage: Stage) -> Rejected | Deferred:
    """What a failed call means for each of its messages."""
    if isinstance(error, TransientError):
        is_blameless = isinstance(error, NotWantedError)
        return Deferred(
            error.code, wrote_maybe=error.wrote_maybe, halted=is_blameless, retry_after_s=error.retry_after_s
        )
    if isinstance(error, RefusedError):
        return Rejected(stage, f"zoho.{error.code}", error.field or "")
    # The cause is no fault of the record, but whether Zoho stored it nobody has said.
    return Deferred(error.code, wrote_maybe=True, halted=True)


def never_written(outcome: Rejected | Deferred) -> Rejected | Deferred:
    """The failed call was a look-up: it wrote nothing."""
    if isinstance(outcome, Rejected):
        return Deferred(outcome.reason, halted=True)
    return Deferred(outcome.code, halted=outcome.halted, retry_after_s=outcome.retry_after_s)


class Verdicts:
    """Judges the rows of messages and notes alike."""

    def __init__(self, people: People, phones: Phones, schema: Schema, on_halted: Halt) -> None:
        self._people = people
        self._phones = phones
        self._schema = schema
        self._on_halted = on_halted

    def hold(self, operation: Operation, code: str) -> Deferred:
        """Nobody knows the code, and it strikes more than one record: wait, and say so."""
        self._on_halted(operation, code, UNKNOWN_ADVICE)
        return Deferred(code, wrote_maybe=True, halted=True)

    def refused(self, delivery: Delivery, error: RefusedError, stage: Stage) -> Rejected | Deferred:
        """What becomes of the one message of a call that was refused as a whole."""
        is_lost = error.field in _LOOKUP_FIELDS and not error.is_unknown
        stale = self._stale(delivery) if is_lost else None
        return stale or outcome_of_refusal(error, stage, attempts=delivery.attempts)

    def judged(
        self,
        operation: Operation,
        deliveries: Sequence[Delivery],
        rows: list[dict[str, Any]],
        answers: list[RowAnswer],
        judge: Callable[[Delivery, dict[str, Any], RowAnswer], StageOutcome],
    ) -> list[StageOutcome]:
        """One outcome for each record; failures that strike most of a batch and that nobody knows are held."""
        is_held = is_fault_of_ours(answers)
        return [
            self.hold(operation, answer.code) if is_held and not answer.is_ok else judge(delivery, row, answer)
            for delivery, row, answer in zip(deliveries, rows, answers, strict=True)
        ]

    def stale_parent(self, delivery: Delivery, answer: RowAnswer) -> Deferred | None:
        """Zoho no longer knows the lead (deleted, merged, converted): look it up again, a few times.

        What is remembered instead may be as old: a person can lose one record after the other.
        """
        return self._stale(delivery) if _is_lost_link(answer) else None

    def _stale(self, delivery: Delivery) -> Deferred | None:
        """One that is found again and refused again is not gone: the link itself is at fault."""
        if delivery.parent is None:
            return None
        if delivery.parent != delivery.stale_parent:
            delivery.stale_parent, delivery.stale_tries = delivery.parent, 0
        if delivery.stale_tries >= _TRIES_OF_A_LINK:
            return None
        delivery.stale_tries += 1
        self._people.doubt(self._phones.person(delivery.phone, delivery.event.contact_name), delivery.parent)
        delivery.parent = None
        return Deferred("STALE_PARENT")

    def too_long(self, module: str, row: dict[str, Any], answer: RowAnswer) -> Deferred | None:
        """The organisation's field is shorter than we could know: cut to it from now on.  An id is never cut."""
        longest, name = answer.maximum_length, answer.field or ""
        text = row.get(name)
        if longest is None or name == messages.UNIQUE_FIELD or not isinstance(text, str) or units(text) <= longest:
            return None
        self._schema.learn_length(module, name, longest)
        return Deferred("LENGTH_LEARNED")


def _is_lost_link(answer: RowAnswer) -> bool:
    if answer.code in ("CONVERTED_RECORD", "ID_ALREADY_CONVERTED"):
        return True
    return answer.kind is Kind.REFUSED and (answer.field in _LOOKUP_FIELDS or answer.is_lost_link)
