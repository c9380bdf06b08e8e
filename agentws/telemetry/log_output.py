"""Log lines on their way out of the process."""

import logging
import threading
import time
from queue import SimpleQueue
from typing import Final, TextIO

_logger: Final = logging.getLogger("agentws.logs")

MOST_WAITING: Final = 4 * 1024**2
"""How many characters of lines may wait for whoever reads the log."""

_BATCH: Final = 4096
"""How many lines are written at a time, at most."""

_PAUSE: Final = 0.01
"""Seconds after a write in which lines gather: a write costs more than a line."""


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
