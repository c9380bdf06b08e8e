"""What exporters themselves log: not exported, and heard in our log once in a while."""

import logging
import re
import threading
import time
from typing import Final

from agentws.telemetry.export_queue import is_exporting

_KEY: Final = re.compile("[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.I)
"""What the key for Application Insights looks like."""

_WARNING_PAUSE: Final = 60.0
"""Seconds between two warnings of a backend that is in trouble."""

_LONGEST_WARNING: Final = 300
"""Characters: some exporters would print what they could not send."""


class ExportersAside(logging.Filter):
    """Keeps what the exporters say to themselves, but for one warning in a while.

    It has to be asked in the thread that writes the line, as the filter of a handler or logger is.
    """

    def __init__(self, pause: float = _WARNING_PAUSE) -> None:
        super().__init__()
        self._pause = pause
        self._next_at = 0.0
        self._lock = threading.Lock()

    def filter(self, record: logging.LogRecord) -> bool:
        """Let all other lines through, and of theirs a warning now and then."""
        if not is_exporting():
            return True
        with self._lock:
            now = time.monotonic()
            if record.levelno < logging.WARNING or now < self._next_at:
                return False
            self._next_at = now + self._pause
        _soften(record)
        return True


class _Others(logging.Filter):
    """Lets through what does not come of as_exporter, which would otherwise go on for ever."""

    def filter(self, record: logging.LogRecord) -> bool:  # noqa: ARG002 - the signature is given
        return not is_exporting()


def _soften(record: logging.LogRecord) -> None:
    """Make one short warning of what an exporter has to say, without keys."""
    text = without_secrets(record.getMessage())
    record.name, record.levelno, record.levelname = "agentws.telemetry", logging.WARNING, "WARNING"
    record.msg, record.args = f"Telemetry does not get through: {text}", None
    record.exc_info = record.exc_text = None


def without_secrets(text: str) -> str:
    """Return the beginning of a text on one line, without keys, credentials and queries."""
    bare = _KEY.sub("***", " ".join(text.split()))
    bare = re.sub(r"\?\S+", "?***", re.sub(r"//[^/\s]*@", "//***@", bare))
    return bare[:_LONGEST_WARNING]


def keep_exporters_aside() -> None:
    """Have every handler of the log let through next to nothing of what exporters say."""
    for handler in logging.getLogger().handlers:
        handler.addFilter(ExportersAside())
