"""The process itself: its standard streams, its limits, and its end.

Imports next to nothing, so that all of it is in place before anything that takes time.
"""

import contextlib
import gc
import os
import resource
import sys
import threading
from typing import Final, NoReturn

_YOUNG_AT_START: Final = 200_000
"""How many objects are made before garbage is looked for: as many as nearly every start makes."""


def start_without_pauses() -> None:
    """Have the garbage collector leave alone what imports make: it stays.

    Looking through it again and again took a tenth of the start.
    """
    gc.set_threshold(_YOUNG_AT_START)


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


def let_go_of_stdout() -> None:
    """Whoever read the log may be gone, which is no failure of ours; Python would say it is."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def raise_file_limit() -> None:
    """Allow as many sockets as the system does; the usual soft limit is 1024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
