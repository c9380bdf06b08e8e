"""A process that serves, or waits to, as the supervisor sees it."""

import asyncio
import contextlib
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from typing import Self

from msgspec import Struct

from agentws.dev.channel import PATIENCE, Order, Report, read_report, send_order


class Said(Struct):
    """A process has said something."""

    child: "Child"
    report: Report


class Ended(Struct):
    """A process has ended."""

    child: "Child"
    code: int
    """As of `subprocess`: negative for a signal."""


class Child:
    """One process."""

    def __init__(
        self,
        process: asyncio.subprocess.Process,
        channel: socket.socket,
        tell: Callable[[Said | Ended], object],
    ) -> None:
        self._process = process
        self._channel = channel
        self._tell = tell
        self._listening = asyncio.create_task(self._listen())
        self._ending: asyncio.Task[None] | None = None

    @classmethod
    async def start(cls, tell: Callable[[Said | Ended], object]) -> Self:
        """Start one, which waits for its order; `tell` is called with what becomes of it."""
        ours, its = socket.socketpair()
        ours.setblocking(False)
        # Until it takes no notice of Ctrl-C, it should not be hit by one.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-P", "-m", "agentws.dev.worker", str(its.fileno())),
                pass_fds=[its.fileno()],
            )
        except BaseException:
            ours.close()
            raise
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            its.close()
        return cls(process, ours, tell)

    @property
    def has_ended(self) -> bool:
        """Whether it has."""
        return self._process.returncode is not None

    def order(self, order: Order, listening: Sequence[socket.socket]) -> None:
        """Have it serve."""
        with contextlib.suppress(OSError):  # its end is told
            send_order(self._channel, order, listening)

    def end(self) -> "asyncio.Task[None]":
        """Have it end, within a second; return what is done when it has."""
        if self._ending is None:
            self._ending = asyncio.create_task(self._end())
        return self._ending

    def kill(self) -> None:
        """End it at once."""
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()

    async def _end(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.terminate()
        try:
            async with asyncio.timeout(PATIENCE):
                await self._process.wait()
        except TimeoutError:
            self.kill()
            await self._process.wait()
        await self._listening

    async def _listen(self) -> None:
        """Tell what it says, and its end."""
        reader, writer = await asyncio.open_connection(sock=self._channel)
        with contextlib.suppress(OSError):
            while line := await reader.readline():
                self._tell(Said(self, read_report(line)))
        code = await self._process.wait()
        writer.close()
        self._tell(Ended(self, code))
