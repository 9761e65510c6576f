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
    "dlq.summary": Text("{count} dead letters, {waiting} of them waiting for a replay."),
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
    "dlq.plan": Text("{total} dead letters would be sent back to their topic:"),
    "dlq.plan.readable": Text("  {count} of them hold a message that can be read now."),
    "dlq.plan.fails_again": Text("  {count} would come back at once, their value is still at fault: {reason}."),
    "dlq.plan.skips": Text("  {count} would be skipped by the service: {reason}."),
    "dlq.plan.done": Text("  {count} left alone: replayed already (--again takes them too)."),
    "dlq.plan.exhausted": Text("  {count} left alone: came back too often (--max-replays with --again takes them)."),
    "dlq.plan.foreign": Text("  {count} left alone: no dead letters of this service."),
    "dlq.plan.no_topic": Text("  {count} left alone: their topic is gone."),
    "dlq.forecast.asked": Text("Zoho was asked about {count} messages:"),
    "dlq.forecast.already_there": Text("  {count} stand in Zoho already: nothing would be written twice."),
    "dlq.forecast.bad_number": Text("  {count} have no usable number: they would be skipped."),
    "dlq.forecast.known_people": Text("  {count} people are known: their lead or contact gets the messages."),
    "dlq.forecast.new_leads": Text("  {count} leads would be created."),
    "dlq.forecast.credits": Text("  about {count} API credits."),
    "dlq.forecast_failed": Text("Zoho could not be asked ({code}); the rest of the forecast stands."),
    "dlq.report": Text("{replayed} dead letters sent back in {seconds} s."),
    "dlq.report.refused": Text("  {count} refused by the broker as too large; they stay where they are."),
    "dlq.report.cancelled": Text("Stopped. {count} are left; the same command goes on from here."),
}
