"""Structured logs: JSON lines for machines, or readable lines for a terminal.

No secret, phone number or message text may come out: events carry codes and counts, tracebacks carry no local
variables, and a last processor masks what looks like a number or a token, should one slip into a library's text.
"""

from __future__ import annotations

import logging
import re
import sys
from typing import TYPE_CHECKING, Any, TextIO

import structlog
from structlog.processors import ExceptionRenderer
from structlog.tracebacks import ExceptionDictTransformer

if TYPE_CHECKING:
    from structlog.typing import EventDict, Processor, WrappedLogger

_SENSITIVE = re.compile(
    r"1000\.[0-9a-f]{16,}\.[0-9a-f]{16,}|(?<=oauthtoken )\S+|(?<![\w.:])\+\d[\d ().-]{6,18}\d|(?<=phone=)[^&\s\"']+",
    re.IGNORECASE,
)
# While brokers are away aiokafka says so a hundred times a second; the Kafka room tells what matters of it.
# botocore tells of each token that it signs, with debug down to the signature; while a collector is away, OpenTelemetry
# tells of each retry, and once for each batch that it gives up.
_LIBRARIES = {
    "aiokafka": logging.CRITICAL,
    "aiohttp.access": logging.WARNING,
    "asyncio": logging.WARNING,
    "botocore": logging.WARNING,
    "opentelemetry.exporter": logging.ERROR,
}


def mask(text: str) -> str:
    """The text without tokens and telephone numbers."""
    return _SENSITIVE.sub("***", text)


def _masked(value: Any) -> Any:
    if isinstance(value, str):
        return mask(value)
    if isinstance(value, dict):
        return {key: _masked(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_masked(item) for item in value]
    return value


def _mask_event(_logger: WrappedLogger, _name: str, event: EventDict) -> EventDict:
    return {key: _masked(value) for key, value in event.items()}


def configure_logging(*, level: str, style: str, stream: TextIO | None = None) -> None:
    """Send structlog's and all libraries' logs through one chain."""
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.stdlib.PositionalArgumentsFormatter(),
    ]
    final: list[Processor] = [structlog.stdlib.ProcessorFormatter.remove_processors_meta, *_renderers(style)]
    handler = logging.StreamHandler(stream or sys.stdout)
    handler.setFormatter(structlog.stdlib.ProcessorFormatter(processors=final, foreign_pre_chain=shared))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for name, at_least in _LIBRARIES.items():
        logging.getLogger(name).setLevel(max(at_least, root.level))
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )


def _renderers(style: str) -> list[Processor]:
    without_locals = ExceptionRenderer(ExceptionDictTransformer(show_locals=False))
    if style == "console":
        return [
            structlog.processors.format_exc_info,
            _mask_event,
            structlog.dev.ConsoleRenderer(colors=sys.stdout.isatty()),
        ]
    return [without_locals, _mask_event, structlog.processors.JSONRenderer()]
