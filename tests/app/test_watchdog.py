"""When the service makes its Kafka client anew, when it ends itself, and when it must do neither."""

from __future__ import annotations

from consumer.core.model import Deferred, Stage
from consumer.telemetry.health import State
from tests.app.stage import Rig, running
from tests.builders import record

QUARTER_S = 900


def _locked(rig: Rig, stage: Stage, message_id: str) -> None:
    """Zoho answers for this message, again and again, that another process holds its record."""
    rig.sink.answers[stage, message_id] = Deferred("RECORD_LOCKED")


def _is_at_peace(rig: Rig) -> bool:
    return not rig.recreations() and rig.service.exit_code == 0 and State.STUCK not in rig.states


async def test_the_first_message_after_a_quiet_time_finds_it_well() -> None:
    """Hours without a message are no standstill, however long Zoho takes with the next one."""
    async with running() as rig:
        for offset in range(3):
            await rig.watch(QUARTER_S)
            zoho = rig.sink.hold(Stage.MESSAGE)
            rig.publish(record(offset))
            await rig.watch(20)
            zoho.set()
        await rig.watch(5)
        assert _is_at_peace(rig)
        assert rig.sink.messages.total() == 3


async def test_the_end_of_a_halt_is_no_standstill() -> None:
    """Work that had to wait for a quarter of an hour has its five minutes, counted from the end of the wait."""
    async with running() as rig:
        zoho = rig.sink.hold(Stage.MESSAGE)
        rig.service.zoho.gate.close("*", "TOKEN_INVALID_CODE", "Run auth.", 0.0)
        rig.publish(record(0))
        await rig.watch(QUARTER_S)
        rig.service.zoho.gate.open("*")
        await rig.watch(60)
        zoho.set()
        await rig.watch(5)
        assert _is_at_peace(rig)
        assert State.HALTED in rig.states


async def test_the_end_of_an_outage_of_the_brokers_is_no_standstill() -> None:
    """What could not be read while no broker answered is not held against the client that reads again."""
    async with running() as rig:
        rig.kafka.unread, rig.kafka.is_joined, rig.kafka.waits_for = 5, False, "brokers"
        await rig.watch(QUARTER_S)
        rig.kafka.is_joined, rig.kafka.waits_for = True, ""
        await rig.watch(60)
        assert _is_at_peace(rig)


async def test_a_blocked_message_with_all_that_waits_for_it_is_no_standstill() -> None:
    """A locked record holds up its person's next message and its own duplicate; a new client or process would change
    nothing."""
    async with running() as rig:
        _locked(rig, Stage.LEAD, "m0-0")
        rig.publish(record(0), record(1), record(2, message_id="m0-0"))
        await rig.watch(QUARTER_S)
        assert _is_at_peace(rig)
        assert rig.service.pipeline.tracker.in_flight() == 3


async def test_a_window_full_behind_a_blocked_message_is_no_standstill() -> None:
    """What is settled behind a locked record cannot be committed, so there is no room to read more."""
    async with running(max_in_flight=20) as rig:
        _locked(rig, Stage.MESSAGE, "m0-0")
        rig.publish(*(record(offset) for offset in range(40)))
        rig.kafka.unread = 20
        await rig.watch(QUARTER_S)
        assert _is_at_peace(rig)
        assert len(rig.kafka.waiting) > 0


async def test_a_standstill_brings_a_new_client_once_and_then_a_new_process() -> None:
    """Something is in flight, nothing excuses it, and nothing moves."""
    async with running() as rig:
        rig.sink.hold(Stage.MESSAGE)
        rig.publish(record(0))
        await rig.watch(QUARTER_S)
        assert State.STUCK in rig.states
        assert len(rig.recreations()) == 1
        assert rig.service.exit_code == 70
        assert rig.stop.is_set()


async def test_a_silent_client_is_noticed_beside_a_blocked_message() -> None:
    """There is room and there are records to read, but no poll brings them."""
    async with running() as rig:
        _locked(rig, Stage.MESSAGE, "m0-0")
        rig.publish(record(0))
        await rig.watch(60)
        rig.kafka.unread = 5
        await rig.watch(QUARTER_S)
        assert len(rig.recreations()) == 1
        assert rig.service.exit_code == 70


async def test_a_hung_stage_is_noticed_beside_a_blocked_message() -> None:
    """One message is locked; another one went out and never comes back."""
    async with running() as rig:
        _locked(rig, Stage.LEAD, "m0-0")
        rig.publish(record(0), record(1, phone="+4915112345679"))
        rig.sink.hold(Stage.MESSAGE)
        await rig.watch(QUARTER_S)
        assert rig.service.exit_code == 70
