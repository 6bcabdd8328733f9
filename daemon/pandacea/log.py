"""Logging with structlog: one event on each line, values as fields, without secrets and control characters."""

from __future__ import annotations

import logging
import re
import sys
from typing import Final, TextIO

import structlog
from structlog.typing import EventDict, Processor

from pandacea.domain.printable import printable
from pandacea_sdk.protocol.redaction import redact_urls_in

SECRET_NAMES: Final = re.compile(
    r"pass(word|phrase)|secret|private_key|token|signature$|commitment_key|authorization", re.IGNORECASE
)


def configure_logging(level: str = "info", fmt: str = "auto", stream: TextIO | None = None) -> None:
    """Configure structlog and the standard library's logging to write to one stream (default: stderr)."""
    out = stream or sys.stderr
    console = fmt == "console" or (fmt == "auto" and out.isatty())
    threshold = getattr(logging, level.upper())
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        redact,
    ]
    if console:
        renderer: Processor = structlog.dev.ConsoleRenderer(colors=out.isatty())
    else:
        renderer = structlog.processors.JSONRenderer()
    structlog.configure(
        processors=[*shared, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        logger_factory=structlog.PrintLoggerFactory(out),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(out)
    handler.setFormatter(structlog.stdlib.ProcessorFormatter(processor=renderer, foreign_pre_chain=shared))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    # Libraries log at warning and above: at debug they would print requests, which contain signatures and URLs with keys.
    root.setLevel(max(threshold, logging.WARNING))


def redact(_logger: object, _method: str, event: EventDict) -> EventDict:
    """Hide secrets by name, shorten URLs to their host, and make hostile text printable."""
    for name, value in list(event.items()):
        if SECRET_NAMES.search(name):
            event[name] = "[redacted]"
        elif isinstance(value, str):
            text = redact_urls_in(value)
            event[name] = text if name == "exception" else printable(text, limit=4096)
    return event
