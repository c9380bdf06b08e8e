"""Who watches the agent's files, and has each version of it served by a process of its own."""

import asyncio
import contextlib
import socket
import time
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Final, Protocol

from msgspec import Struct

from agentws.agent.loading import ImportFailure
from agentws.daemon.listening import bind
from agentws.daemon.signals import Signals
from agentws.dev.channel import Failed, Importing, Order, Refused, Report, Serving
from agentws.dev.children import Child, Ended, Said
from agentws.dev.settings import HOST
from agentws.dev.watching import changes, forget_compiled, in_words

FAILED: Final = 1
"""The exit code where no process can be kept up."""

REFUSED: Final = 2
"""The exit code where nothing can be served as told."""

_BACKLOG: Final = 1024
"""How many connections wait while no process accepts them."""


_SLOW: Final = 2.0
"""Seconds after which it is told that the agent is still starting."""


class Terminal(Protocol):
    """Whom to tell what happens."""

    def serving(self) -> None:
        """The agent is served for the first time, or stood in for."""

    def restarted(self, changed: str, seconds: float) -> None:
        """It is served again, so many seconds after a file was seen to have changed."""

    def waiting(self, seconds: float) -> None:
        """It is not served after so many seconds, and has not failed either."""

    def failed(self, sentence: str) -> None:
        """It cannot be served."""


class _Changed(Struct):
    paths: Collection[Path]


class _Stopped(Struct):
    pass


class Supervisor:
    """Serves an agent, and serves it anew when it has changed; see the wing's docstring."""

    def __init__(
        self,
        target: str | None,
        port: int | None,
        *,
        folder: Path | None,
        listening: Sequence[socket.socket],
        terminal: Terminal,
    ) -> None:
        """Serve on sockets that are listened on; `folder` is watched, if there is one."""
        self._target, self._port = target, port
        self._folder = folder.resolve() if folder else None
        self._sockets = listening
        self._terminal = terminal
        self._events: asyncio.Queue[Said | Ended | _Changed | _Stopped] = asyncio.Queue()
        self._children: set[Child] = set()
        self._current: Child | None = None
        self._next: Child | None = None
        self._is_first = True
        self._failure: ImportFailure | None = None
        self._stands_in = False
        self._slow: asyncio.TimerHandle | None = None
        self._changed = ""
        self._changed_at = time.monotonic()

    async def run(self, signals: Signals) -> int:
        """Serve until a signal, and return the exit code."""
        loop = asyncio.get_running_loop()
        signals.on_stop(lambda: loop.call_soon_threadsafe(self._events.put_nowait, _Stopped()))
        if signals.received:
            return 0
        watching = asyncio.create_task(self._watch())
        try:
            await self._serve(None)
            return await self._attend()
        finally:
            self._is_slow_no_more()
            watching.cancel()
            await asyncio.gather(*(child.end() for child in self._children))
            await asyncio.gather(watching, return_exceptions=True)

    async def _attend(self) -> int:
        """Do what is due, until that is to end."""
        while True:
            match await self._events.get():
                case _Stopped():
                    return 0
                case _Changed(paths):
                    await self._serve_changed(paths)
                case Said(child, report) if child is self._current:
                    code = await self._hear(report)
                    if code is not None:
                        return code
                case Ended(child, code):
                    self._children.discard(child)
                    if child is self._current:
                        if self._failure is not None:
                            return FAILED
                        await self._stand_in_for(code)

    async def _watch(self) -> None:
        if self._folder is None or not self._folder.is_dir():
            return
        try:
            async for paths in changes(self._folder):
                self._events.put_nowait(_Changed(paths))
        except (OSError, RuntimeError) as error:  # such as too many of them
            self._terminal.failed(f"{self._folder} cannot be watched: {error}")

    async def _serve_changed(self, paths: Collection[Path]) -> None:
        """Serve what the agent is now."""
        forget_compiled(paths)
        assert self._folder is not None
        self._changed = in_words(paths, self._folder)
        self._changed_at = time.monotonic()
        if self._current is not None:
            self._current.end()
        await self._serve(None)

    async def _serve(self, failure: ImportFailure | None) -> None:
        """Have the process that waits serve the agent, or say why it cannot be."""
        self._current = await self._waiting()
        self._next = None
        self._failure = failure
        self._stands_in = failure is not None
        order = Order(
            self._target,
            self._port,
            str(self._folder) if self._folder else None,
            self._is_first,
            failure,
        )
        self._current.order(order, self._sockets)
        self._is_slow_no_more()
        await self._waiting()

    def _is_slow_no_more(self) -> None:
        if self._slow is not None:
            self._slow.cancel()

    async def _waiting(self) -> Child:
        """Return a process that waits for its order."""
        if self._next is None or self._next.has_ended:
            self._next = await Child.start(self._events.put_nowait)
            self._children.add(self._next)
        return self._next

    async def _hear(self, report: Report) -> int | None:
        """Take note of what the process says that serves; return a code to exit with, if any."""
        self._is_slow_no_more()
        match report:
            case Importing():
                loop = asyncio.get_running_loop()
                self._slow = loop.call_later(_SLOW, self._terminal.waiting, _SLOW)
            case Failed(sentence):
                self._terminal.failed(sentence)
                self._stands_in = True
            case Refused(sentence) if self._is_first or self._stands_in:
                self._terminal.failed(sentence)
                return REFUSED
            case Refused(sentence):
                self._terminal.failed(sentence)
                await self._serve(ImportFailure(sentence))
            case Serving():
                self._tell_served()
        return None

    def _tell_served(self) -> None:
        if self._is_first:
            self._is_first = False
            self._terminal.serving()
        elif not self._stands_in:
            self._terminal.restarted(self._changed, time.monotonic() - self._changed_at)

    async def _stand_in_for(self, code: int) -> None:
        """Say to whoever invokes that the process has ended by itself."""
        how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
        sentence = f"the agent's process {how}"
        self._terminal.failed(f"{sentence}; it is started again when a file is saved")
        await self._serve(ImportFailure(sentence))


def listen(port: int) -> list[socket.socket]:
    """Listen on a port of this machine. Raises `BindError`."""
    listening = bind(HOST, port)
    for sock in listening:
        sock.listen(_BACKLOG)
    return listening


def serve(supervisor: Supervisor, signals: Signals) -> int:
    """Run a supervisor until a signal, and return the exit code."""
    with contextlib.closing(asyncio.new_event_loop()) as loop:
        asyncio.set_event_loop(loop)
        return loop.run_until_complete(supervisor.run(signals))
