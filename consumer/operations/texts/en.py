"""English."""

from __future__ import annotations

from consumer.operations.texts import Text

TEXTS: dict[str, Text] = {
    # -- all commands
    "settings.bad": Text(
        "The configuration is wrong:\n  {lines}",
        "The service would not start with it.",
        "Correct each variable in the environment or in .env, then repeat the command.",
    ),
    "moment.bad": Text(
        "“{text}” is no time.",
        "",
        "Write it as 2026-01-31T08:00:00Z, or as how long ago: 30m, 6h, 2d.",
    ),
    "kafka.not_set": Text(
        "KAFKA_BOOTSTRAP_SERVERS is not set.",
        "Without it nothing is known about where the messages come from.",
        "Set it to the addresses of the brokers, e.g. KAFKA_BOOTSTRAP_SERVERS=kafka-1:9092,kafka-2:9092.",
    ),
    "kafka.unreachable": Text(
        "Kafka cannot be reached at {servers} ({detail}).",
        "Nothing can be read or sent; the service itself waits and loses nothing.",
        "Run `zoho-sync doctor`: it tells which step fails (name, connection, TLS, password).",
    ),
    "kafka.forbidden": Text(
        "Kafka refuses: {detail}.",
        "The Kafka user of this service may not do this.",
        "Ask Kafka's administrator for the rights in docs/setup.en.md, section “Kafka”.",
    ),
    "kafka.no_topic": Text(
        "There is no topic {topic}, or the Kafka user may not see it.",
        "",
        "Compare the name with KAFKA_TOPIC and KAFKA_DLQ_TOPIC; `zoho-sync doctor` shows both.",
    ),
    # -- dead letters
    "dlq.bad_place": Text("“{text}” is no place.", "", "Write partition:offset, as in the last column of `dlq list`."),
    "dlq.no_such_record": Text(
        "There is no record {place} in {topic}.",
        "It may have been removed by the topic's retention.",
        "`zoho-sync dlq list` shows an example of each group that is there.",
    ),
    "dlq.nothing_found": Text("No dead letter in {topic} fits.", "", "`zoho-sync dlq list` shows what is there."),
    "dlq.place_not_stored": Text(
        "The replay's place could not be stored ({detail}).",
        "The records were sent; the next replay sends the last of them once more, which writes nothing twice.",
        "Give the Kafka user the right READ on the group …-dlq-replay, then run the replay again.",
    ),
    "dlq.empty": Text("No dead letters."),
    "dlq.summary": Text("Dead letters: {count}; waiting for a replay: {waiting}."),
    "dlq.masked": Text("Phone and text are masked; --reveal shows them."),
    "dlq.replaying": Text("Replaying"),
    "dlq.column.reason": Text("Reason"),
    "dlq.column.stage": Text("Stage"),
    "dlq.column.waiting": Text("Waiting"),
    "dlq.column.replayed": Text("Replayed"),
    "dlq.column.exhausted": Text("Exhausted"),
    "dlq.column.oldest": Text("Oldest"),
    "dlq.column.newest": Text("Newest"),
    "dlq.column.example": Text("Example"),
    "dlq.plan": Text("Would be sent back to their topic: {total}"),
    "dlq.plan.readable": Text("  can be read now: {count}"),
    "dlq.plan.fails_again": Text("  would come back at once, the value is still at fault ({reason}): {count}"),
    "dlq.plan.skips": Text("  would be skipped by the service ({reason}): {count}"),
    "dlq.plan.done": Text("Left alone, replayed already (--again takes them): {count}"),
    "dlq.plan.exhausted": Text("Left alone, came back too often (--max-replays and --again take them): {count}"),
    "dlq.plan.foreign": Text("Left alone, no dead letters of this service: {count}"),
    "dlq.plan.no_topic": Text("Left alone, their topic is gone: {count}"),
    "dlq.forecast.asked": Text("Zoho was asked about so many messages: {count}"),
    "dlq.forecast.already_there": Text("  stand in Zoho already, nothing would be written twice: {count}"),
    "dlq.forecast.bad_number": Text("  without a usable number, would be skipped: {count}"),
    "dlq.forecast.known_people": Text("  people whose lead or contact is known: {count}"),
    "dlq.forecast.new_leads": Text("  leads that would be created: {count}"),
    "dlq.forecast.credits": Text("  API credits, about: {count}"),
    "dlq.forecast_failed": Text("Zoho could not be asked ({code}); the rest of the forecast stands."),
    "dlq.report": Text("Sent back to their topic: {replayed}, in {seconds} s."),
    "dlq.report.refused": Text("Refused by the broker as too large, they stay where they are: {count}"),
    "dlq.report.cancelled": Text("Stopped; the same command goes on from here. Left: {count}"),
}
