"""The whole view, over a service that is built but not started, and without one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import aiohttp
import pytest

from consumer.app import Service
from consumer.core.model import Record, Rejected, Stage, TopicPartition
from consumer.kafka.source import HaltedPartition
from consumer.settings import load_settings
from consumer.telemetry import metrics as m
from consumer.telemetry.recorder import Recorder
from consumer.view.service_view import View
from consumer.web.view import LinkReason, LinkState, Selection, Subject, SubjectKind, UnavailableError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

PERSON = Subject(SubjectKind.PHONE, "+79161234567")
ENABLED = {
    "zoho_crm_enabled": True,
    "zoho_client_id": "c",
    "zoho_client_secret": "s",
    "zoho_refresh_token": "r",
    "zoho_daily_credits": 4000,
    "kafka_bootstrap_servers": "127.0.0.1:1",
}


def _view(recorder: Recorder, service: Service | None, **settings: Any) -> View:
    return View(load_settings(_env_file=None, **settings), recorder, service, None)


@pytest.fixture
def recorder() -> Recorder:
    return Recorder(m.Metrics(version="1"), wall_clock=lambda: 1000.0)


@pytest.fixture
async def service(recorder: Recorder) -> AsyncIterator[Service]:
    async with aiohttp.ClientSession() as session:
        yield Service(load_settings(_env_file=None, **ENABLED), session, recorder)


async def test_page_of_a_service_that_starts(recorder: Recorder, service: Service) -> None:
    """Everything that the page shows can be had from the first moment on."""
    status = _view(recorder, service, **ENABLED).status()
    assert (status.state, status.received, status.partitions, status.oldest_s) == ("starting", 0, (), None)
    assert status.not_yet == ("brokers", "token")
    assert status.zoho is not None
    assert (status.zoho.has_token, status.zoho.credits_used, status.zoho.latency_median_s) == (False, 0, None)


async def test_page_counts_what_happened(recorder: Recorder, service: Service) -> None:
    """Counts by reason, failures by kind, latency of the latest calls; numbers in details are masked."""
    view = _view(recorder, service, **ENABLED)
    record = Record(TopicPartition("t", 2), 17, 0, None, b'{"message_id": "m-1", "phone": "+79161234567"}')
    for reason in ("no_phone", "no_phone", "before_since"):
        recorder.record_skipped(record, reason)
    recorder.record_rejected(record, Rejected(Stage.MESSAGE, "zoho.INVALID_DATA", "+79161234567"))
    for seconds in (0.1, 0.2, 5.0):
        recorder.called("coql", credits_used=1, code="ok", seconds=seconds, credits_remaining=None)
    status = view.status()
    assert status.skipped == (("no_phone", 2), ("before_since", 1))
    assert status.dead_letters == (("zoho.INVALID_DATA", 1),)
    assert status.zoho is not None
    assert (status.zoho.calls, status.zoho.latency_median_s, status.zoho.latency_p95_s) == (3, 0.2, 5.0)
    [failure] = status.failures
    assert (failure.kind, failure.code, failure.example) == ("rejected", "zoho.INVALID_DATA", "2/17")
    assert "+7916" not in failure.detail


async def test_causes_outside_are_shown(recorder: Recorder, service: Service) -> None:
    """A halt stands on the page with its advice, and in readiness as a check of its own."""
    view = _view(recorder, service, **ENABLED)
    service.zoho.gate.close("*", "TOKEN_INVALID_CODE", "Run auth.", 0.0)
    status = view.status()
    assert [(halt.code, halt.advice) for halt in status.halts] == [("TOKEN_INVALID_CODE", "Run auth.")]
    is_ready, body = view.readiness()
    assert not is_ready
    assert {"name": "halted.TOKEN_INVALID_CODE", "ok": False, "reason": "Run auth."} in body["checks"]
    assert view.is_live()


async def test_a_cause_is_shown_once_with_all_that_it_holds_up(recorder: Recorder, service: Service) -> None:
    """Several calls or partitions that wait for one cause are one check that names them."""
    view = _view(recorder, service, **ENABLED)
    for operation in ("messages.upsert", "notes.create"):
        service.zoho.gate.close(operation, "NO_PERMISSION", "Give the user the right.", 0.0)
    for number in (5, 3):
        service.source.halted[TopicPartition("t", number)] = HaltedPartition("RECORD_CORRUPT", "See the runbook.", 0.0)
    shown = [(row["name"], row["reason"]) for row in view.readiness()[1]["checks"] if not row["ok"]]
    assert [row for row in shown if row[0].startswith("halted.")] == [
        ("halted.NO_PERMISSION", "Give the user the right. (holds up: calls messages.upsert, calls notes.create)"),
        ("halted.RECORD_CORRUPT", "See the runbook. (holds up: partition 3, partition 5)"),
    ]
    assert [halt.code for halt in view.status().halts] == ["NO_PERMISSION", "RECORD_CORRUPT"]


async def test_link_requests_are_counted(recorder: Recorder) -> None:
    """The metric names state and reason, nothing else."""
    view = _view(recorder, None)
    view.link_answered(LinkState.LINKED, LinkReason.FOUND)
    assert b'zoho_sync_link_requests_total{reason="found",state="linked"} 1.0' in view.metrics_text()


async def test_switched_off_is_well(recorder: Recorder) -> None:
    """Without ZOHO_CRM_ENABLED: alive, ready, a page that says so, and links only where the number is enough."""
    view = _view(recorder, None)
    assert (view.is_live(), view.readiness()[0], view.status().state) == (True, True, "disabled")
    for link in (view.known_link(PERSON), await view.find_link(PERSON)):
        assert link is not None
        assert (link.state, link.reason) == (LinkState.UNKNOWN, LinkReason.DISABLED)
    assert view.computed_link(PERSON.value) is None
    with_org = _view(recorder, None, zoho_org_id="org1", zoho_crm_url="https://crm.zoho.eu")
    assert with_org.computed_link(PERSON.value) == "https://crm.zoho.eu/crm/org1/tab/Messages?phone=%2B79161234567"
    with pytest.raises(UnavailableError):
        await view.dead_letters(Selection(), limit=1)
