"""Tells who blocks the event loop: one agent that waits without `await` starves all."""

import asyncio
import logging
import os
import sys
import sysconfig
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Final, Self

_logger: Final = logging.getLogger("agentws.stalls")

BEAT: Final = 0.25
"""Seconds between two signs of life of the event loop, and between two looks at them."""

LONGEST_PAUSE: Final = 0.5
"""Seconds that the event loop may be busy with one thing before that is told of."""

REPORT_PAUSE: Final = 60.0
"""Seconds between two reports, at least."""

_DEEPEST: Final = 30
"""How many frames of the stack are told."""


class StallWatch:
    """Watches an event loop from a thread of its own, inside `with`.

    The thread sees where the loop's thread is while it is stuck, which costs the loop nothing but
    its heartbeat; it ends with the process.
    """

    def __init__(self, note_delay: Callable[[float], object]) -> None:
        """Tell `note_delay` with each heartbeat how many seconds late it is."""
        self._note_delay = note_delay
        self._loop = asyncio.get_running_loop()
        self._thread_id = threading.get_ident()
        self._over = threading.Event()
        self._beaten_at = self._looked_at = time.monotonic()
        self._cpu_time = time.process_time()
        self._reported_at = float("-inf")
        self._heartbeat: asyncio.TimerHandle | None = None
        folders = {sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib")}
        folders.add(str(Path(__file__).parent))
        self._not_the_agents = (*(folder + os.sep for folder in folders), "<frozen")

    def __enter__(self) -> Self:
        self._schedule_beat()
        threading.Thread(target=self._watch, name="stall-watch", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        if self._heartbeat is not None:
            self._heartbeat.cancel()

    def _beat(self) -> None:
        self._note_delay(max(0.0, time.monotonic() - self._beaten_at - BEAT))
        self._schedule_beat()

    def _schedule_beat(self) -> None:
        self._beaten_at = time.monotonic()
        self._heartbeat = self._loop.call_later(BEAT, self._beat)

    def _watch(self) -> None:
        while not self._over.wait(BEAT):
            self._look()

    def _look(self) -> None:
        now, cpu_time = time.monotonic(), time.process_time()
        asleep = now - self._looked_at
        if asleep > 2 * BEAT and cpu_time - self._cpu_time < asleep / 2:
            self._beaten_at = now  # the whole process stood still, stopped or starved
        self._looked_at, self._cpu_time = now, cpu_time
        blocked_for = now - self._beaten_at - BEAT
        if blocked_for > LONGEST_PAUSE and now > self._reported_at + REPORT_PAUSE:
            self._reported_at = now
            self._report(blocked_for)

    def _report(self, seconds: float) -> None:
        frame = sys._current_frames().get(self._thread_id)  # noqa: SLF001 - there is no other way
        if frame is None:
            return
        stack = list(traceback.walk_stack(frame))
        agents = (place for place in stack if self._is_the_agents(place[0]))
        where = _told(*next(agents, stack[0]))
        _logger.warning(
            "The event loop has been blocked for %.1f s, and all clients with it, by %s",
            seconds,
            where,
            extra={
                "blocked_by": where,
                "stack": [_told(*place) for place in stack[:_DEEPEST]],
            },
        )

    def _is_the_agents(self, frame: FrameType) -> bool:
        return not frame.f_code.co_filename.startswith(self._not_the_agents)


def _told(frame: FrameType, line: int) -> str:
    return f"{frame.f_code.co_filename}:{line} in {frame.f_code.co_qualname}"
