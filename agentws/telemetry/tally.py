"""A tally of what the instruments measure, for whoever asks this replica itself."""

import time
from collections import Counter, deque
from collections.abc import Mapping
from math import ceil, exp, log
from typing import Final

WINDOW: Final = 60.0
"""Seconds that percentiles look back."""

_SLOT: Final = 5.0
"""Of these, how many are forgotten at a time."""

_STEP: Final = log(1.02)
"""A time is known to 1 %, so that a minute of thousands a second takes a few kilobytes."""

_LEAST: Final = 1e-6


class RecentTimes:
    """How long things took in the last minute."""

    def __init__(self) -> None:
        self._slots: deque[tuple[float, Counter[int]]] = deque()
        self._next_slot_at = float("-inf")
        self._newest: Counter[int] = Counter()

    def add(self, seconds: float) -> None:
        """Note how long something took."""
        now = time.monotonic()
        if now >= self._next_slot_at:
            self._begin_slot(now)
        self._newest[round(log(max(seconds, _LEAST)) / _STEP)] += 1

    def percentiles(self, *wanted: int) -> Mapping[str, float | None]:
        """Return seconds by the names of percentiles, such as `p99`; None where nothing was."""
        self._forget(time.monotonic())
        counts = sum((counts for _, counts in self._slots), Counter[int]())
        return {f"p{percent}": _percentile(counts, percent) for percent in wanted}

    def _begin_slot(self, now: float) -> None:
        self._forget(now)
        self._newest = Counter()
        self._slots.append((now, self._newest))
        self._next_slot_at = now + _SLOT

    def _forget(self, now: float) -> None:
        while self._slots and self._slots[0][0] < now - WINDOW:
            self._slots.popleft()


def _percentile(counts: Counter[int], percent: int) -> float | None:
    rank = ceil(counts.total() * percent / 100)
    for step in sorted(counts):
        rank -= counts[step]
        if rank <= 0:
            return float(f"{exp(step * _STEP):.3g}")
    return None


class Tally:
    """Counts since the start, and times of the last minute."""

    def __init__(self) -> None:
        self.ended: Counter[str] = Counter(completed=0, failed=0, cancelled=0)
        """How many invocations have ended, by how they did."""
        self.errors: Counter[str] = Counter()
        """How many errors there were, by their codes."""
        self.durations = RecentTimes()
        self.first_chunks = RecentTimes()

    def invocation_ended(self, seconds: float, error_code: str | None) -> None:
        """Note how long an invocation ran, and how it failed if it did."""
        self.durations.add(seconds)
        if error_code is None:
            self.ended["completed"] += 1
        else:
            self.ended["cancelled" if error_code == "cancelled" else "failed"] += 1

    def first_chunk(self, seconds: float) -> None:
        """Note how long an invocation took to its first chunk."""
        self.first_chunks.add(seconds)

    def error(self, code: str) -> None:
        """Count an error."""
        self.errors[code] += 1


class _Silent(Tally):
    """One that nobody asks for."""

    def invocation_ended(self, seconds: float, error_code: str | None) -> None:
        """Forget it."""

    def first_chunk(self, seconds: float) -> None:
        """Forget it."""

    def error(self, code: str) -> None:
        """Forget it."""


SILENT: Final[Tally] = _Silent()
