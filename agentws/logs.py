"""Log lines: JSON for machines, text for a terminal; each knows the invocation it belongs to."""

import io
import json
import logging
import sys
import threading
import time
from collections.abc import Mapping
from queue import SimpleQueue
from typing import Any, Final, TextIO

import msgspec
from opentelemetry import trace
from opentelemetry.context import create_key, get_value
from pythonjsonlogger.json import JsonFormatter

from agentws.agent.context import InvocationContext

_logger: Final = logging.getLogger("agentws.logs")

MOST_WAITING: Final = 4 * 1024**2
"""How many characters of lines may wait for whoever reads the log."""

_BATCH: Final = 4096
"""How many lines are written at a time, at most."""

_PAUSE: Final = 0.01
"""Seconds after a write in which lines gather: a write costs more than a line."""

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


class _TextLines(logging.Formatter):
    """Lines for a terminal, in which nothing that was logged passes for a line or a command."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(name)s: %(message)s", "%H:%M:%S")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's
        return super().formatMessage(record).translate(_IN_TEXT)

    def formatException(self, ei: Any) -> str:  # noqa: N802 - logging's
        return _indented(super().formatException(ei))

    def formatStack(self, stack_info: str) -> str:  # noqa: N802 - logging's
        return _indented(super().formatStack(stack_info))


def _indented(text: str) -> str:
    return "\n".join("  " + line.translate(_IN_TEXT) for line in text.split("\n"))


class LogOutput:
    """Lines on their way to a stream, which a thread writes: nobody waits for who reads the log.

    What comes while `MOST_WAITING` waits is dropped, and so is what the stream does not take; how
    many lines is told in the log as soon as it is read again. A process that was forked off has no
    such thread, nor has ours after `close`: there, lines are written at once.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._lines: SimpleQueue[str | None] = SimpleQueue()  # put() may be called in a signal
        # The first of each pair is counted by those who log, in turn, the other one by the thread.
        self._taken = self._written = 0
        self._dropped = self._failed = 0
        self._thread = threading.Thread(target=self._run, name="agentws-log", daemon=True)
        self._thread.start()

    def write(self, line: str) -> None:
        """Take a line."""
        if not self._thread.is_alive():
            self._put(line)
        elif self._taken - self._written < MOST_WAITING or self._is_its_own():
            self._taken += len(line)
            self._lines.put(line)
        else:
            self._dropped += 1

    def close(self, seconds: float) -> bool:
        """Have the rest written within so many seconds, and tell whether it was."""
        self._lines.put(None)
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def _is_its_own(self) -> bool:
        """Tell whether the thread itself has something to say: how many lines were lost."""
        return threading.current_thread() is self._thread

    def _run(self) -> None:
        told = 0
        while True:
            waiting = [self._lines.get() for _ in range(min(self._lines.qsize(), _BATCH) or 1)]
            lines = [line for line in waiting if line is not None]
            if not self._put("".join(lines)):
                self._failed += len(lines)
            elif (lost := self._dropped + self._failed) > told:
                _logger.warning("%d log lines were lost, as nobody read them", lost - told)
                told = lost
            self._written += sum(map(len, lines))
            if len(lines) < len(waiting):
                return
            if self._lines.empty():
                time.sleep(_PAUSE)

    def _put(self, text: str) -> bool:
        try:
            self._stream.write(text)
            self._stream.flush()  # what was printed, too
        except (OSError, ValueError):  # whoever read it is gone, the disk is full
            return False
        return True


def configure(level: str, line_format: str) -> LogOutput:
    """Send every log line of the process to stdout, until what is returned is closed.

    `level` is a name such as `info`; `line_format` is `json` or `text`.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a line is written whatever is in it
    output = LogOutput(sys.stdout)
    # Lines are formatted by those who log, for what they tell of the invocation is only there.
    handler = logging.StreamHandler(output)
    handler.addFilter(InvocationFilter())
    handler.setFormatter(_JsonLines() if line_format == "json" else _TextLines())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    logging.captureWarnings(True)
    for name in _COMPLAINERS:
        logging.getLogger(name).setLevel(logging.ERROR)
    return output
