"""What Kafka's facts mean for this service.  Decides; no input or output."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from consumer.operations.doctor.findings import Finding, failed, ok, unchecked, warning

if TYPE_CHECKING:
    from collections.abc import Iterator

    from consumer.operations.doctor.brokers import GroupFacts, KafkaFacts, TopicFacts
    from consumer.settings import Settings

_HORIZON = timedelta(days=3)
"""How long an outage may last over a long weekend before messages must not be gone yet."""
_DLQ_HORIZON = timedelta(days=14)
"""How long somebody may take to look into dead letters."""
_BEHIND_CONNECTION = ("kafka.topic", "kafka.dlq", "kafka.rights", "kafka.group")
_CLIENT_ID = "zoho-sync"
_DEFAULT_MAX_BYTES = 1_048_588


def kafka_findings(facts: KafkaFacts, settings: Settings, *, now: datetime) -> list[Finding]:
    """At least one row for each check."""
    found = list(_connection(facts, settings))
    if not facts.is_connected or "*" in facts.errors or (facts.unreachable and not facts.topics):
        return found + [unchecked(check, "kafka.connection") for check in _BEHIND_CONNECTION]
    for check, name, horizon in (
        ("kafka.topic", settings.kafka_topic, _HORIZON),
        ("kafka.dlq", settings.kafka_dlq_topic, _DLQ_HORIZON),
    ):
        found += _topic(check, name, facts, horizon)
    source, dead = facts.topics.get(settings.kafka_topic), facts.topics.get(settings.kafka_dlq_topic)
    if source and dead:
        found += _room(source, dead)
    found += _since(source, settings, now)
    found += _rights(facts, settings)
    found += _group(facts.group, settings)
    return found


def _connection(facts: KafkaFacts, settings: Settings) -> Iterator[Finding]:
    check = "kafka.connection"
    fail = warning if facts.is_connected else failed
    for obstacle in facts.obstacles:
        yield fail(check, obstacle.kind, server=obstacle.server, detail=obstacle.detail or "-")
    if not facts.is_connected:
        return
    if "*" in facts.errors:
        yield failed(check, "other", server=settings.kafka_bootstrap_servers, detail=facts.errors["*"])
    elif facts.unreachable:
        yield failed(check, "advertised", servers=", ".join(facts.unreachable))
    elif not facts.obstacles:
        yield ok(check, brokers=facts.brokers, protocol=settings.kafka_security_protocol)
    if settings.is_kafka_exposed:
        yield warning(check, "plaintext", protocol=settings.kafka_security_protocol)


def _topic(check: str, name: str, facts: KafkaFacts, horizon: timedelta) -> Iterator[Finding]:
    topic = facts.topics.get(name)
    if topic is None:
        error = facts.errors.get(name, "")
        yield failed(check, "forbidden" if "Authorization" in error else "missing", topic=name)
        return
    problems = [*_retention(check, topic, horizon), *_replicas(check, topic, facts)]
    yield from problems or [ok(check, topic=name, partitions=topic.partitions)]


def _replicas(check: str, topic: TopicFacts, facts: KafkaFacts) -> Iterator[Finding]:
    if topic.replicas == 1 and facts.brokers > 1:
        yield warning(check, "one_replica", topic=topic.name)


def _retention(check: str, topic: TopicFacts, horizon: timedelta) -> Iterator[Finding]:
    if topic.config is None:
        yield warning(check, "retention_unknown", topic=topic.name, partitions=topic.partitions)
        return
    if "compact" in topic.config.get("cleanup.policy", ""):
        yield failed(check, "compacted", topic=topic.name)
    kept = _kept(topic)
    if kept is not None and kept < horizon:
        yield warning(check, "retention_short", topic=topic.name, hours=_hours(kept), wanted=_hours(horizon))
    if topic.config.get("retention.bytes", "-1") not in ("-1", ""):
        yield warning(check, "retention_bytes", topic=topic.name, bytes=topic.config["retention.bytes"])


def _kept(topic: TopicFacts) -> timedelta | None:
    text = (topic.config or {}).get("retention.ms", "-1")
    return timedelta(milliseconds=min(int(text), 10**14)) if text.isdecimal() else None


def _hours(span: timedelta) -> int:
    return int(span.total_seconds() // 3600)


def _room(source: TopicFacts, dead: TopicFacts) -> Iterator[Finding]:
    """A dead letter is its record and some headers: the topic must take what the other one takes."""
    if source.config is None or dead.config is None:
        return
    sizes = [
        int(topic.config.get("max.message.bytes") or _DEFAULT_MAX_BYTES) for topic in (source, dead) if topic.config
    ]
    if sizes[1] < sizes[0]:
        yield warning("kafka.dlq", "too_small", topic=dead.name, bytes=sizes[1], wanted=sizes[0])


def _since(source: TopicFacts | None, settings: Settings, now: datetime) -> Iterator[Finding]:
    since, kept = settings.sync_messages_since, _kept(source) if source else None
    if since is not None and kept is not None and since.astimezone(UTC) < now - kept:
        yield warning("kafka.topic", "since_gone", since=since.isoformat(), hours=_hours(kept))


def _rights(facts: KafkaFacts, settings: Settings) -> Iterator[Finding]:
    check = "kafka.rights"
    needed = (
        ("READ", f"topic {settings.kafka_topic}", facts.topics.get(settings.kafka_topic)),
        ("WRITE", f"topic {settings.kafka_dlq_topic}", facts.topics.get(settings.kafka_dlq_topic)),
        ("READ", f"group {settings.kafka_group_id}", facts.group),
    )
    told = [(right, what, item.rights) for right, what, item in needed if item is not None and item.rights is not None]
    missing = [f"{right} on {what}" for right, what, rights in told if right not in rights]
    if facts.group.error and "Authorization" in facts.group.error:
        missing.append(f"READ on group {settings.kafka_group_id}")
    if missing:
        yield failed(check, "missing", missing="; ".join(dict.fromkeys(missing)))
    elif len(told) < len(needed):
        yield warning(check, "unknown")
    else:
        yield ok(check)


def _group(group: GroupFacts, settings: Settings) -> Iterator[Finding]:
    check, name = "kafka.group", settings.kafka_group_id
    if group.error:
        yield warning(check, "unknown", group=name, detail=group.error)
        return
    yield from _positions(group, name)
    strangers = sorted(group.client_ids - {_CLIENT_ID, ""})
    if strangers:
        yield warning(check, "strangers", group=name, clients=", ".join(strangers))
    if group.committed and group.members:
        yield ok(check, group=name, members=group.members, lag=group.lag)
    elif group.members:
        yield ok(check, "joined", group=name, members=group.members)
    elif group.committed:
        yield warning(check, "nobody", group=name, lag=group.lag)
    elif settings.sync_messages_since is None:
        yield ok(check, "fresh_end", group=name)
    else:
        yield ok(check, "fresh_since", group=name, since=settings.sync_messages_since.isoformat())


def _positions(group: GroupFacts, name: str) -> Iterator[Finding]:
    gone = [number for number, offset in group.committed.items() if offset < group.beginnings.get(number, 0)]
    beyond = [number for number, offset in group.committed.items() if offset > group.ends.get(number, offset)]
    for code, numbers in (("gone", gone), ("beyond", beyond)):
        if numbers:
            yield failed("kafka.group", code, group=name, partitions=", ".join(map(str, sorted(numbers))))
