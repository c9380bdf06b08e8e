"""Has the garbage collector look where there is garbage, and not at all that lives.

What it finds, objects that refer to each other in a circle, is made by agents and their libraries;
the daemon's own are freed without it. Python's rule is to look through all objects whenever a
quarter of them is new, and new sockets are: with 4,000, every stream stands still for 0.1 to 0.3 s
each time, for nothing. Garbage does no harm but the memory that it takes, so here it is memory that
has the old looked through, and time and the count of objects the young alone.
"""

import asyncio
import gc
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final, Self

LOOK_INTERVAL: Final = 0.25
"""Seconds between two looks at the young, and at how much memory is in use."""

_YOUNG: Final = 25_000
"""How many objects are made, beyond those that ended, before the young are looked through.

With Python's own 700, what thousands of running invocations hold is taken for old. More than this,
and looking through them takes longer than a frame may be late.
"""

_NEVER: Final = 2**31 - 1

_MOST_GARBAGE: Final = 256 * 1024**2
"""How many bytes of it there may be, at most."""

_SHARE: Final = 4
"""Of the memory that a container may use, one part of so many is left to garbage, at most."""


def resident_memory() -> int | None:
    """Return how many bytes of memory the process has in use, or None where that is not told."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except (OSError, ValueError, IndexError):
        return None
    return pages * os.sysconf("SC_PAGE_SIZE")


def most_garbage(limit: Path = Path("/sys/fs/cgroup/memory.max")) -> int:
    """Return how many bytes of garbage there may be: 256 MiB, less in a small container.

    `limit` is the file that holds how many bytes it may use.
    https://docs.kernel.org/admin-guide/cgroup-v2.html
    """
    try:
        return min(_MOST_GARBAGE, int(limit.read_text()) // _SHARE)
    except (OSError, ValueError):  # it has no limit, and says "max"
        return _MOST_GARBAGE


class GarbageCollection:
    """Says when garbage is collected, inside `with`, on an event loop that runs.

    The young are looked through often, everything once the process has grown by what garbage may
    take, since that was done last. Where the system does not tell how much memory is in use,
    Python's rule stays.
    """

    def __init__(
        self,
        memory: Callable[[], int | None] = resident_memory,
        room: int | None = None,
        interval: float = LOOK_INTERVAL,
    ) -> None:
        """Ask `memory` for the bytes in use, every `interval` seconds.

        There may be `room` bytes of garbage, None for `most_garbage()`.
        """
        self._memory = memory
        self._room = most_garbage() if room is None else room
        self._interval = interval
        self._least: int | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._thresholds = gc.get_threshold()

    def __enter__(self) -> Self:
        gc.freeze()  # what is there now stays: the collector need not look at it again
        self._least = self._memory()
        if self._least is None:
            gc.set_threshold(_YOUNG)
        else:
            gc.set_threshold(_YOUNG, _NEVER, _NEVER)
            self._schedule()
        return self

    def __exit__(self, *_: object) -> None:
        if self._timer is not None:
            self._timer.cancel()
        gc.set_threshold(*self._thresholds)
        gc.unfreeze()

    def _schedule(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(self._interval, self._look)

    def _look(self) -> None:
        self._schedule()
        # The count of objects falls with each old one that ends: where thousands of sockets come in
        # place of others, or streams end as others begin, it tells of the young too late.
        gc.collect(0)
        memory = self._memory()
        if memory is None or self._least is None:
            return
        if memory - self._least > self._room:
            gc.collect()
            memory = self._least = self._memory() or memory
        self._least = min(self._least, memory)
