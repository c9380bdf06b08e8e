"""Log lines: JSON for machines, text for a terminal; each knows the invocation it belongs to."""

import io
import json
import logging
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

import msgspec
from opentelemetry import trace
from opentelemetry.context import get_current, get_value
from pythonjsonlogger.json import JsonFormatter

from agentws.agent.context import InvocationContext
from agentws.telemetry.log_output import LogOutput
from agentws.telemetry.trace_context import INVOCATION

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
        if not get_current():  # where no handler runs, and no span is
            return True
        context = get_value(INVOCATION)
        if isinstance(context, InvocationContext):
            record.invocation_id = context.invocation_id
            record.session_id = context.session_id
        span = trace.get_current_span().get_span_context()
        if span.is_valid:
            record.trace_id = trace.format_trace_id(span.trace_id)
            record.span_id = trace.format_span_id(span.span_id)
        return True


_NO_FIELDS: Final = {*logging.makeLogRecord({}).__dict__, "asctime", "message", "taskName"}
"""What records have anyhow; what else they have, are fields of the line."""


class _JsonLines(JsonFormatter):
    def __init__(self) -> None:
        super().__init__(json_serializer=_serialize)

    def add_fields(
        self, log_data: dict[str, Any], record: logging.LogRecord, message_dict: dict[str, Any]
    ) -> None:
        """Say which fields a line has; by names that are known, in half of the time."""
        log_data |= {"level": record.levelname, "logger": record.name, "message": record.message}
        log_data |= message_dict
        log_data |= {k: value for k, value in record.__dict__.items() if k not in _NO_FIELDS}
        log_data["timestamp"] = datetime.fromtimestamp(record.created, UTC)


_CONTROLS: Final = (*range(0x20), *range(0x7F, 0xA0), 0x2028, 0x2029)
"""Characters that begin a line, or that a terminal obeys."""

_IN_TEXT: Final = {code: ascii(chr(code))[1:-1] for code in _CONTROLS}

_IN_JSON: Final = {code: f"\\u{code:04x}" for code in _CONTROLS}


def _serialize(fields: Mapping[str, object], **_: Any) -> str:
    """Return a line of JSON whatever was logged: no number that JSON lacks, no lone surrogate."""
    try:
        line = msgspec.json.encode(fields, enc_hook=str).decode()
    except Exception:
        line = json.dumps(fields, default=str, skipkeys=True)
    return line if line.isprintable() else line.translate(_IN_JSON)


_TOLD: Final = ("duration_ms", "chunks", "error_code", "reason", "invocation_id")
"""Fields of an invocation's end, or a request's, that are told in text, too."""


class _TextLines(logging.Formatter):
    """Lines for a terminal, in which nothing that was logged passes for a line or a command."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(name)s: %(message)s", "%H:%M:%S")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's
        return (super().formatMessage(record) + _particulars(record)).translate(_IN_TEXT)

    def formatException(self, ei: Any) -> str:  # noqa: N802 - logging's
        return _indented(super().formatException(ei))

    def formatStack(self, stack_info: str) -> str:  # noqa: N802 - logging's
        return _indented(super().formatStack(stack_info))


def _particulars(record: logging.LogRecord) -> str:
    """Return the fields that tell one line on the end of something from another."""
    fields = record.__dict__
    if "duration_ms" not in fields:
        return ""
    return "".join(f" {name}={fields[name]}" for name in _TOLD if name in fields)


def _indented(text: str) -> str:
    return "\n".join("  " + line.translate(_IN_TEXT) for line in text.split("\n"))


class _Lines(logging.Handler):
    """Gives each line to what writes it."""

    def __init__(self, output: LogOutput) -> None:
        super().__init__()
        self.output = output

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self.output.write(self.format(record) + "\n")
        except Exception:  # what was logged may be unable to tell its own text
            self.handleError(record)


def configure(level: str, line_format: str) -> LogOutput:
    """Send every log line of the process to stdout, until what is returned is closed.

    `level` is a name such as `info`; `line_format` is `json` or `text`.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a line is written whatever is in it
    output = LogOutput(sys.stdout)
    # Lines are formatted by those who log, for what they tell of the invocation is only there.
    handler = _Lines(output)
    handler.addFilter(InvocationFilter())
    handler.setFormatter(_JsonLines() if line_format == "json" else _TextLines())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    logging.captureWarnings(True)
    for name in _COMPLAINERS:
        logging.getLogger(name).setLevel(logging.ERROR)
    return output
