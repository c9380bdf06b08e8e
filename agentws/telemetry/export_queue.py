"""What waits to be exported: bounded, and sent off by a thread that holds nobody up.

The SDK's own processor is not used: it warns of every record that it drops and counts none, and its
end can be bounded by no time of ours.
"""

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from os import environ
from typing import Any, Final

from msgspec import Struct

_logger: Final = logging.getLogger("agentws.telemetry")

_exporting: Final[ContextVar[bool]] = ContextVar("exporting", default=False)


def is_exporting() -> bool:
    """Tell whether this thread exports, and logs what comes of that."""
    return _exporting.get()


@contextmanager
def as_exporter() -> Iterator[None]:
    """Have this thread be known for one that exports."""
    token = _exporting.set(True)
    try:
        yield
    finally:
        _exporting.reset(token)


class Limits(Struct, frozen=True):
    """How much is held, and when and how much of it is sent."""

    most_held: int = 50_000
    batch: int = 1024
    delay: float = 5.0
    """Seconds for which records wait for others to go with."""

    @classmethod
    def of(cls, prefix: str) -> "Limits":
        """Read the SDK's variables, `OTEL_BSP_…` for spans and `OTEL_BLRP_…` for log records.

        Raises `ValueError`, naming the variable, where one is no positive number.
        """
        usual = cls()
        return cls(
            most_held=_count(f"{prefix}_MAX_QUEUE_SIZE", usual.most_held),
            batch=_count(f"{prefix}_MAX_EXPORT_BATCH_SIZE", usual.batch),
            delay=_count(f"{prefix}_SCHEDULE_DELAY", int(usual.delay * 1000)) / 1000,
        )


def _count(variable: str, default: int) -> int:
    text = environ.get(variable)
    if not text:
        return default
    if not text.isdecimal() or not int(text):
        raise ValueError(f"environment {variable} should be a positive whole number, not {text!r}")
    return int(text)


class ExportQueue:
    """Records on their way to one exporter. What comes to a full queue is dropped and counted."""

    def __init__(self, name: str, export: Callable[[Sequence[Any]], bool], limits: Limits) -> None:
        """Start the thread; `export` tells whether the records were taken."""
        self.name = name
        self.lost = 0
        """How many records were dropped, or not taken."""
        self._export = export
        self._limits = limits
        self._records: deque[Any] = deque()
        self._due = threading.Event()
        self._closed = False
        self._thread = threading.Thread(
            target=self._run, name=f"agentws-export {name}", daemon=True
        )
        self._thread.start()

    def put(self, record: Any) -> None:
        """Take a record, in next to no time."""
        waiting = len(self._records)
        if waiting >= self._limits.most_held or self._closed:
            self.lost += 1
            return
        self._records.append(record)
        if waiting + 1 >= self._limits.batch and not self._due.is_set():
            self._due.set()

    def close(self) -> None:
        """Have the rest sent at once; what comes from now on is dropped."""
        self._closed = True
        self._due.set()

    def join(self, seconds: float) -> None:
        """Wait for the end of the thread after `close`, but not for longer than that."""
        self._thread.join(seconds)

    def _run(self) -> None:
        with as_exporter():
            self._send_all()

    def _send_all(self) -> None:
        while not self._closed:
            is_full = self._due.wait(self._limits.delay)
            self._due.clear()
            # What came while a batch was sent waits for others: a request costs what many spans do.
            self._send_while(self._limits.batch if is_full else 1)
        self._send_while(1)

    def _send_while(self, least: int) -> None:
        """Send batches as long as so many records are there."""
        while len(self._records) >= least:
            self._send()

    def _send(self) -> None:
        records, lost = self._records, self.lost
        batch = [records.popleft() for _ in range(min(len(records), self._limits.batch))]
        try:
            taken = self._export(batch)
        except Exception as error:
            taken = False
            _logger.warning("%s", error)
        if not taken:
            self.lost += len(batch)
        if self.lost > lost:
            _logger.warning("Telemetry is lost: %d %s so far", self.lost, self.name)
