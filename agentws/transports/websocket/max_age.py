"""Sockets that are closed because of their age (§8)."""

import asyncio
import random
from typing import Final, Protocol

from agentws.protocol.frames import Farewell

AGE_JITTER: Final = 0.1
"""By which share of its maximal age a socket may be closed earlier or later."""

AGE_WARNING: Final = 30.0
"""How many seconds before its maximal age a socket is told of it."""


class Aging(Protocol):
    """A socket that may become too old."""

    def going_away(self, reason: Farewell, grace: float) -> None:
        """Tell the client that the socket will be closed within `grace` seconds."""

    def retire(self) -> None:
        """Close the socket because of its age."""


class AgeClock:
    """Tells one socket of its end, and then ends it."""

    __slots__ = ("_socket", "_timer")

    def __init__(self, socket: Aging, seconds: float) -> None:
        """End `socket` in that many seconds, about: those that came at once shall not come back so.

        0 stands for never.
        """
        self._socket = socket
        self._timer: asyncio.TimerHandle | None = None
        if seconds:
            seconds = lifetime(seconds)
            notice = min(AGE_WARNING, seconds)
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(seconds - notice, self._give_notice, notice)

    def stop(self) -> None:
        """Leave the socket alone."""
        if self._timer is not None:
            self._timer.cancel()

    def _give_notice(self, notice: float) -> None:
        self._socket.going_away("max_age", notice)
        self._timer = asyncio.get_running_loop().call_later(notice, self._socket.retire)


def lifetime(age: float) -> float:
    """Return after how many seconds to close a socket whose maximal age is `age`."""
    return age * random.uniform(1 - AGE_JITTER, 1 + AGE_JITTER)
