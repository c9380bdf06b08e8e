"""Log lines: JSON for machines, text for a terminal; each knows the invocation it belongs to."""

import io
import json
import logging
import sys
from collections.abc import Mapping
from typing import Any, Final

import msgspec
from opentelemetry import trace
from opentelemetry.context import create_key, get_value
from pythonjsonlogger.json import JsonFormatter

from agentws.handler import InvocationContext

INVOCATION: Final = create_key("invocation")
"""Under which key a trace context holds the invocation whose handler runs in it.

There, and not in a variable of its own, because each variable that a task sets costs it something.
"""


_COMPLAINERS: Final = (
    "opentelemetry.baggage.propagation",
    "opentelemetry.trace.span",  # of a `tracestate`
    "aiohttp.websocket",  # of subprotocols that are offered and not spoken
)
"""Loggers that warn of what a caller sent, each time, and in the caller's own words."""


class InvocationFilter(logging.Filter):
    """Adds to whatever is logged while a handler runs which invocation and which span it is of."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Add the fields, and let every line through."""
        context = get_value(INVOCATION)
        if isinstance(context, InvocationContext):
            record.invocation_id = context.invocation_id
            record.session_id = context.session_id
        span = trace.get_current_span().get_span_context()
        if span.is_valid:
            record.trace_id = trace.format_trace_id(span.trace_id)
            record.span_id = trace.format_span_id(span.span_id)
        return True


class _JsonLines(JsonFormatter):
    def __init__(self) -> None:
        super().__init__(
            "%(levelname)s %(name)s %(message)s",
            rename_fields={"levelname": "level", "name": "logger"},
            timestamp=True,
            json_serializer=_serialize,
        )


def _serialize(fields: Mapping[str, object], **_: Any) -> str:
    """Return a line of JSON whatever was logged: no number that JSON lacks, no lone surrogate."""
    try:
        return msgspec.json.encode(fields, enc_hook=str).decode()
    except Exception:
        return json.dumps(fields, default=str, skipkeys=True)


def configure(level: str, line_format: str) -> None:
    """Send every log line of the process to stdout.

    `level` is a name such as `info`; `line_format` is `json` or `text`.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a line is written whatever is in it
    handler = logging.StreamHandler(sys.stdout)
    handler.addFilter(InvocationFilter())
    handler.setFormatter(_JsonLines() if line_format == "json" else _text_lines())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    logging.captureWarnings(True)
    for name in _COMPLAINERS:
        logging.getLogger(name).setLevel(logging.ERROR)


def _text_lines() -> logging.Formatter:
    return logging.Formatter("%(asctime)s %(levelname)-7s %(name)s: %(message)s", "%H:%M:%S")
