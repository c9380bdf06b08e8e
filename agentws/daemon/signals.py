"""SIGTERM and SIGINT.

Imports next to nothing, so that they are handled before anything that takes time.
"""

import os
import signal
from collections.abc import Callable


class Stopped(KeyboardInterrupt):
    """A signal came before there was anything to drain.

    So it is for everybody between here and the command that knows of `KeyboardInterrupt` only.
    """


class Signals:
    """SIGTERM and SIGINT: the first one stops, the second one ends the process at once.

    To be made before the agent's code is imported: for process 1, the kernel drops signals that
    nobody handles. The handlers are Python's own, not the loop's, so that the second signal works
    while a handler blocks the loop.
    """

    def __init__(self) -> None:
        """Handle them from now on; until `on_stop`, the first one raises `Stopped`."""
        self.received = False
        """Whether one has come, even if the agent's code has swallowed what it raised."""
        self._stop: Callable[[], object] = _raise_stopped
        signal.signal(signal.SIGTERM, self._handle)
        signal.signal(signal.SIGINT, self._handle)

    def on_stop(self, stop: Callable[[], object]) -> None:
        """Have the first signal call `stop`."""
        self._stop = stop

    def _handle(self, number: int, _frame: object) -> None:
        if self.received:
            os._exit(128 + number)
        self.received = True
        self._stop()


def _raise_stopped() -> None:
    raise Stopped
