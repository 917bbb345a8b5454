"""Structured logs. Never prompts, outputs or keys: callers log ids, codes, counts and times."""

from __future__ import annotations

import logging
import sys
from traceback import format_tb

import structlog
from structlog.typing import EventDict, ExcInfo


def place_of(exc_info: ExcInfo) -> str:
    """An exception as logs may have it: where and what kind. What it says is left out: messages of
    databases and parsers quote what they were given, which may be a tenant's text."""
    kind, _, traceback = exc_info
    return "".join(format_tb(traceback)) + kind.__qualname__


def configure_logging(level: str, log_format: str, *, process: str) -> None:
    """Sets up structlog over stderr; ``process`` (api, worker, …) is on every line."""
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer()
        if log_format == "json"
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    )
    number = logging.getLevelNamesMapping().get(level.upper(), logging.INFO)
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="%(name)s: %(message)s")

    def name_process(_logger: object, _method: str, event: EventDict) -> EventDict:
        # A processor, since context variables are each thread's own.
        return {"process": process, **event}

    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            name_process,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.ExceptionRenderer(place_of),
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
