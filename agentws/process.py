"""The process itself: its standard streams, the signals that end it, and its end.

Imports next to nothing, so that all of it is in place before anything that takes time.
"""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable
from typing import NoReturn


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


def open_streams() -> None:
    """Put /dev/null in the place of standard streams that were closed (`agentws serve >&-`).

    Otherwise they are None, which nobody expects, and a socket would get their numbers.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115 - for as long as the process


def leave(code: int) -> NoReturn:
    """End the process, whatever threads the agent has left behind."""
    if threads_are_left():
        with contextlib.suppress(OSError):
            sys.stdout.flush()
        os._exit(code)
    sys.exit(code)


def threads_are_left() -> bool:
    """Tell whether there are threads that Python would wait for at its end."""
    others = set(threading.enumerate()) - {threading.main_thread()}
    return any(not thread.daemon for thread in others)
