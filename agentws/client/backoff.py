"""How long to wait before the next attempt, and how long to go on trying."""

import random
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

SHORTEST: Final = 0.1
"""Seconds within which the first attempt is made again."""


class Backoff:
    """Delays with full jitter: anything up to a bound that doubles each time."""

    def __init__(self, longest: float, chance: Callable[[], float] = random.random) -> None:
        """Let the bound be `longest` seconds at most; `chance` returns a number from 0 to 1."""
        self._longest = longest
        self._chance = chance
        self._bound = SHORTEST

    def next(self, retry_after: float | None = None) -> float:
        """Return how many seconds to wait now; what the server says wins."""
        bound = min(self._bound, self._longest)
        self._bound = min(2 * self._bound, max(self._longest, SHORTEST))
        return self._chance() * bound if retry_after is None else retry_after

    def reset(self) -> None:
        """Begin anew: something has succeeded."""
        self._bound = SHORTEST


class Patience:
    """How long something may take that began to go wrong at some moment."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._since: float | None = None

    def begin(self, now: float) -> None:
        """Count from now on, unless it is counted already."""
        if self._since is None:
            self._since = now

    def reset(self) -> None:
        """Count no longer: all is well."""
        self._since = None

    def extend(self, seconds: float) -> None:
        """Have it last longer, where it is counted."""
        if self._since is not None:
            self._since += seconds

    def left(self, now: float) -> float:
        """Return how many seconds are left; none or less when it is over."""
        return self._seconds if self._since is None else self._since + self._seconds - now


def parse_retry_after(value: str | None, now: datetime | None = None) -> float | None:
    """Return the seconds of a `Retry-After` (RFC 9110 §10.2.3), None for none that makes sense."""
    text = (value or "").strip()
    if text.isascii() and text.isdigit():
        return float(text) if len(text) < 10 else None
    from email.utils import parsedate_to_datetime  # hardly ever needed, and slow to import

    try:
        moment = parsedate_to_datetime(text)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, (moment - (now or datetime.now(UTC))).total_seconds())
