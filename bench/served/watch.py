"""What every server under test carries: a warm allocator, and a watch on its garbage collector.

It needs nothing but Python, as the peer's environment has nothing of ours.
"""

import gc
import mmap
import os
import struct
import time
from pathlib import Path
from typing import Final

FILE: Final = "BENCH_PAUSES"
"""The variable that names the file in which the pauses are told, where they are to be."""

PAUSES: Final = struct.Struct("=dI")
"""The longest pause in seconds of CPU time, which neighbours do not lengthen, and how many full
collections there were."""

_OLDEST: Final = 2
_WARMING: Final = 16 * 1024**2


def begin() -> None:
    """Warm the allocator up, and tell of pauses from now on; their reader may set them to 0."""
    path = os.environ.get(FILE)
    if path is None:
        return
    # glibc maps a block of that size; once it is freed, smaller ones come from the heap. Before, it
    # maps and unmaps the buffer of each read, which nearly doubles what a small message costs.
    bytes(_WARMING)
    with Path(path).open("r+b") as file:
        gc.callbacks.append(_Watch(mmap.mmap(file.fileno(), PAUSES.size)))


class _Watch:
    """Is called by the collector before and after."""

    def __init__(self, shared: mmap.mmap) -> None:
        self._shared = shared
        self._began = 0.0

    def __call__(self, phase: str, info: dict[str, int]) -> None:
        if phase == "start":
            self._began = time.thread_time()
            return
        took = time.thread_time() - self._began
        longest, full = PAUSES.unpack_from(self._shared)
        PAUSES.pack_into(
            self._shared, 0, max(longest, took), full + (info["generation"] == _OLDEST)
        )
