"""Dead letters on real brokers: looked at, and sent back."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaTimeoutError

from consumer.core.model import TopicPartition
from consumer.kafka.connection import KafkaConnection
from consumer.operations.dlq.desk import Desk, find, read_one, survey
from consumer.operations.dlq.letters import Place, Wanted
from consumer.operations.dlq.replay import ReplayOptions, ReplayReport, Verdict, plan, replay
from consumer.operations.errors import OperationError
from consumer.operations.topics import Span, group_offsets
from tests.kafka_server.cluster import Broker
from tests.operations.conftest import Letters, event

FAST = ReplayOptions(rate_per_s=10_000)


async def test_groups_by_reason_and_stage(letters: Letters) -> None:
    """The list tells how many wait for what reason, most first."""
    await letters.write([b"{oops"], reason="invalid_json", stage="parse")
    await letters.write([event("a"), event("b")])
    found = await survey(letters.desk)
    assert [(group.reason, group.stage, group.waiting) for group in found.groups] == [
        ("zoho.INVALID_DATA", "lead", 2),
        ("invalid_json", "parse", 1),
    ]
    assert found.groups[0].oldest is not None
    assert found.groups[0].newest is not None
    assert found.groups[0].oldest <= found.groups[0].newest


async def test_the_last_batch_counts_whole(letters: Letters) -> None:
    """Records that were written in one batch are all seen, on every kind of broker, and replayed once."""
    values = [event(f"m{number}") for number in range(7)]
    await letters.write(values, is_batch=True)
    assert (await survey(letters.desk)).count == 7
    assert (await replay(letters.desk, Wanted(), FAST)).replayed == 7
    assert (await survey(letters.desk)).waiting == 0
    assert [record.value for record in await letters.came_back()] == values


async def test_an_empty_topic_is_empty(letters: Letters) -> None:
    """Nothing there is an answer, not an error."""
    assert (await survey(letters.desk)).groups == []
    assert (await replay(letters.desk, Wanted(), FAST)).replayed == 0


async def test_sends_back_unchanged(letters: Letters) -> None:
    """Key, value, own headers and partition are the original ones; dlq.replays is raised by one, once."""
    value = b"\xff not even text"
    await letters.write([value], key=b"dialog-1", partition="2", replays="1")
    report = await replay(letters.desk, Wanted(), FAST)
    [record] = await letters.came_back()
    assert report.replayed == 1
    assert (record.key, record.value, record.tp.partition) == (b"dialog-1", value, 2)
    assert dict(record.headers) == {"trace": b"1", "dlq.replays": b"2"}


async def test_a_partition_that_is_gone_gives_way(letters: Letters) -> None:
    """A topic with fewer partitions than before takes the record all the same."""
    await letters.write([event("a")], partition="17")
    await replay(letters.desk, Wanted(), FAST)
    assert [record.value for record in await letters.came_back()] == [event("a")]


async def test_keeps_the_order_of_a_key(letters: Letters) -> None:
    """Messages of one dialog come back in the order in which they failed."""
    values = [event(f"m{number}") for number in range(20)]
    await letters.write(values)
    await replay(letters.desk, Wanted(), FAST)
    assert [record.value for record in await letters.came_back()] == values


async def test_a_second_run_sends_nothing_again(letters: Letters) -> None:
    """The place is remembered between runs."""
    await letters.write([event("a"), event("b")])
    await replay(letters.desk, Wanted(), FAST)
    second = await replay(letters.desk, Wanted(), FAST)
    assert second.replayed == 0
    assert second.left_alone == {Verdict.DONE: 2}
    assert len(await letters.came_back()) == 2
    assert (await survey(letters.desk)).waiting == 0


async def test_again_takes_what_was_replayed(letters: Letters) -> None:
    """Who asks for it gets a record sent once more."""
    await letters.write([event("a")])
    await replay(letters.desk, Wanted(), FAST)
    assert (await replay(letters.desk, Wanted(), replace(FAST, again=True))).replayed == 1


async def test_what_fails_again_waits_for_the_next_run(letters: Letters) -> None:
    """A record that comes back while the replay runs is not caught in a circle."""
    await letters.write([event("a"), event("b"), event("c")])
    loop = asyncio.get_running_loop()
    failing: list[asyncio.Task[None]] = []

    def comes_back(_report: ReplayReport) -> None:
        failing.append(loop.create_task(letters.write([event("a")], replays="1")))

    report = await replay(letters.desk, Wanted(), FAST, on_progress=comes_back)
    await asyncio.gather(*failing)
    assert report.replayed == 3
    assert (await survey(letters.desk)).waiting == 3


async def test_exhausted_records_do_not_hide_the_rest(letters: Letters) -> None:
    """What has come back too often is passed over, and told."""
    await letters.write([event("bad")], replays="3")
    await letters.write([event("good")])
    report = await replay(letters.desk, Wanted(), FAST)
    assert [record.value for record in await letters.came_back()] == [event("good")]
    assert report.left_alone == {Verdict.EXHAUSTED: 1}
    [group] = (await survey(letters.desk)).groups
    assert (group.waiting, group.exhausted, group.replayed) == (0, 1, 1)


async def test_leaves_alone_what_is_not_its_own(letters: Letters) -> None:
    """A record without its origin, one that names the dead-letter topic itself, and one whose topic is gone stay."""
    await letters.write([event("a")], topic="")
    await letters.write([event("b")], topic=letters.desk.topic)
    await letters.write([event("c")], topic="no-such-topic")
    report = await replay(letters.desk, Wanted(), FAST)
    assert report.replayed == 0
    assert report.left_alone == {Verdict.FOREIGN: 2, Verdict.NO_TOPIC: 1}


async def test_stops_when_told_and_goes_on_from_there(letters: Letters) -> None:
    """Cancelled after the third record, the first three have been sent once; the next run sends the rest, once."""
    values = [event(f"m{number}") for number in range(8)]
    await letters.write(values)
    cancel = asyncio.Event()

    def after_three(report: ReplayReport) -> None:
        if report.replayed == 3:
            cancel.set()

    first = await replay(letters.desk, Wanted(), FAST, on_progress=after_three, cancel=cancel)
    assert (first.replayed, first.total, first.is_cancelled) == (3, 8, True)
    assert (await survey(letters.desk)).waiting == 5
    second = await replay(letters.desk, Wanted(), FAST)
    assert second.replayed == 5
    assert [record.value for record in await letters.came_back()] == values


async def test_cancelling_does_not_wait_for_the_pace(letters: Letters) -> None:
    """At one record an hour, a cancelled replay ends at once."""
    await letters.write([event("a"), event("b")])
    cancel = asyncio.Event()
    slow = ReplayOptions(rate_per_s=1 / 3600)
    report = await replay(letters.desk, Wanted(), slow, on_progress=lambda _report: cancel.set(), cancel=cancel)
    assert (report.replayed, report.is_cancelled) == (1, True)


async def test_a_limit_is_kept(letters: Letters) -> None:
    """--limit sends so many and leaves the others waiting."""
    await letters.write([event("a"), event("b"), event("c")])
    limited = replace(FAST, limit=2)
    assert (await plan(letters.desk, Wanted(), limited)).total == 2
    assert (await replay(letters.desk, Wanted(), limited)).replayed == 2
    assert (await survey(letters.desk)).waiting == 1


async def test_a_filter_leaves_the_others_waiting(letters: Letters) -> None:
    """One reason replayed, the records before and between stay for a later run."""
    await letters.write([event("a")], reason="one")
    await letters.write([event("b")], reason="two")
    await letters.write([event("c")], reason="one")
    await replay(letters.desk, Wanted(reasons=("two",)), FAST)
    assert [record.value for record in await letters.came_back()] == [event("b")]
    await replay(letters.desk, Wanted(reasons=("one",)), FAST)
    assert sorted(record.value for record in await letters.came_back()) == [event("a"), event("b"), event("c")]


@pytest.mark.parametrize("broker", ["embedded_broker"], indirect=True)
async def test_a_broker_that_forgets_is_told_before_it_hurts(letters: Letters) -> None:
    """Where the broker loses the text of a commit, a replay by filter says what that means, and so does the next."""
    await letters.write([event("a")], reason="one")
    await letters.write([event("b")], reason="two")
    assert not (await plan(letters.desk, Wanted())).may_repeat
    assert (await replay(letters.desk, Wanted(reasons=("two",)), FAST)).will_repeat
    assert (await plan(letters.desk, Wanted())).may_repeat
    assert not (await replay(letters.desk, Wanted(), FAST)).will_repeat


@pytest.mark.parametrize("broker", ["kafka_4"], indirect=True)
@pytest.mark.apache_kafka
async def test_holes_are_remembered_between_runs(letters: Letters) -> None:
    """Where the broker keeps the text of a commit, a record replayed by filter is not sent again without one."""
    await letters.write([event("a")], reason="one")
    await letters.write([event("b")], reason="two")
    assert not (await replay(letters.desk, Wanted(reasons=("two",)), FAST)).will_repeat
    assert not (await plan(letters.desk, Wanted())).may_repeat
    report = await replay(letters.desk, Wanted(), FAST)
    assert report.replayed == 1
    assert len(await letters.came_back()) == 2


@pytest.mark.parametrize("broker", ["kafka_4"], indirect=True)
@pytest.mark.apache_kafka
async def test_retention_leaves_no_backlog_behind(broker: Broker, letters: Letters) -> None:
    """What retention has removed counts as gone: after a replay of the rest the group's lag is nothing."""
    await letters.write([event("a"), event("b"), event("c")])
    await broker.admin.delete_records(letters.desk.topic, before={0: 2})
    assert (await replay(letters.desk, Wanted(), FAST)).replayed == 1
    tp = TopicPartition(letters.desk.topic, 0)
    stored = await group_offsets(letters.desk.connection, letters.desk.group_id, {tp: Span(2, 3)})
    assert stored[tp].offset == 3


async def test_a_dry_run_foresees_and_changes_nothing(letters: Letters) -> None:
    """The plan tells what would be read, fail again, and be skipped; nothing is sent and no place moves."""
    await letters.write([event("a"), event("b", phone=None), b"{oops"])
    await letters.write([event("c")], replays="3")
    found = await plan(letters.desk, Wanted())
    assert (found.total, found.readable) == (3, 1)
    assert found.fails_again == {"invalid_json": 1}
    assert found.skips == {"no_phone": 1}
    assert found.verdicts[Verdict.EXHAUSTED] == 1
    assert await letters.came_back() == []
    assert (await survey(letters.desk)).waiting == 3


async def test_finds_by_message_and_by_time(letters: Letters) -> None:
    """One message's dead letters are found, and none from before a moment."""
    await letters.write([event("a"), event("b"), event("a")])
    found = await find(letters.desk, Wanted(message_ids=("a",)))
    assert [letter.place.offset for letter in found] == [2, 0]
    later = datetime.now(UTC) + timedelta(hours=1)
    assert await find(letters.desk, Wanted(since=later)) == []
    assert len(await find(letters.desk, Wanted(until=later))) == 3


async def test_reads_one_record_by_its_place(letters: Letters) -> None:
    """A place leads to its record, and a place without one is told."""
    await letters.write([event("a"), event("b")])
    assert (await read_one(letters.desk, Place(0, 1))).message_id() == "b"
    for place in (Place(0, 2), Place(9, 0)):
        with pytest.raises(OperationError) as caught:
            await read_one(letters.desk, place)
        assert caught.value.code == "dlq.no_such_record"


async def test_a_missing_topic_is_told(letters: Letters) -> None:
    """A mistyped topic is an error with its name, not an empty list, and is not created by looking."""
    for _ in range(2):
        with pytest.raises(OperationError) as caught:
            await survey(replace(letters.desk, topic="mistyped"))
        assert caught.value.code == "kafka.no_topic"


async def test_brokers_that_are_away_are_told(broker: Broker) -> None:
    """Without brokers the command says so."""
    with pytest.raises(OperationError) as caught:
        await survey(Desk(KafkaConnection("127.0.0.1:1"), "t.dlq", "g"))
    assert caught.value.code == "kafka.unreachable"


async def test_remembers_only_what_the_broker_acknowledged(letters: Letters, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the third record gets no acknowledgement, two are dealt with, and the third comes first in the next run."""
    values = [event(f"m{number}") for number in range(4)]
    await letters.write(values)
    send, calls = AIOKafkaProducer.send_and_wait, 0

    async def fails_third(self: Any, *args: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise KafkaTimeoutError
        return await send(self, *args, **options)

    monkeypatch.setattr(AIOKafkaProducer, "send_and_wait", fails_third)
    with pytest.raises(OperationError) as caught:
        await replay(letters.desk, Wanted(), FAST)
    assert caught.value.code == "kafka.unreachable"
    assert (await survey(letters.desk)).waiting == 2
    await replay(letters.desk, Wanted(), FAST)
    assert [record.value for record in await letters.came_back()] == values
