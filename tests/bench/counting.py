"""How much Python a server executes for an operation: the same each time, on any machine."""

import asyncio
import inspect
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from agentws.agent.handlers import Agent
from agentws.config.settings import Settings
from agentws.daemon.server import Server
from bench.loops import new_event_loop

SETTINGS: dict[str, Any] = {
    "server": {"host": "127.0.0.1", "port": 0, "access_log": False, "invocation_log": False},
    "websocket": {"heartbeat": 0, "app_ping_interval": 0},
}


class _Instructions:
    """Counts what a thread executes, as its tracer."""

    def __init__(self) -> None:
        self.count = 0

    def call(self, frame: FrameType, _event: str, _arg: object) -> Any:
        """Count what a frame that was called executes."""
        frame.f_trace_opcodes = True
        frame.f_trace_lines = False
        return self._step

    def _step(self, _frame: FrameType, event: str, _arg: object) -> Any:
        self.count += event == "opcode"
        return self._step


def _trace_this_thread(tracer: Any) -> None:
    frame = inspect.currentframe()
    assert frame is not None
    frame.f_trace_opcodes = True  # Python 3.12 has some frame ask for them beforehand
    sys.settrace(tracer)


def instructions_here(operation: Callable[[], object]) -> int:
    """Return how many this thread executes while an operation is done."""
    counted = _Instructions()
    _trace_this_thread(counted.call)
    try:
        operation()
    finally:
        sys.settrace(None)
    return counted.count


class Counted:
    """A server in a thread of its own, whose bytecode instructions can be counted."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self._loop = new_event_loop()
        self._started = threading.Event()
        self._stop = asyncio.Event()
        self._counted = _Instructions()
        self.port = 0

    def serve(self) -> None:
        """Serve until stopped."""
        self._loop.run_until_complete(self._serve())
        self._loop.close()

    def wait_until_started(self) -> None:
        """Wait until it listens."""
        assert self._started.wait(20)

    def stop(self) -> None:
        """Have it end."""
        self._loop.call_soon_threadsafe(self._stop.set)

    def instructions(self, operation: Callable[[], None]) -> int:
        """Return how many its thread executes while an operation is done with it."""
        before = self._trace(self._counted.call)
        operation()
        return self._trace(None) - before

    def _trace(self, tracer: Any) -> int:
        """Set what traces its thread; return how many instructions were counted so far."""

        async def trace() -> int:
            _trace_this_thread(tracer)
            return self._counted.count

        return asyncio.run_coroutine_threadsafe(trace(), self._loop).result(20)

    async def _serve(self) -> None:
        server = Server(Settings(**SETTINGS), self._agent)
        await server.start()
        self.port = server.port
        self._started.set()
        await self._stop.wait()
        await server.drain()


@contextmanager
def counted(agent: Agent) -> Iterator[Counted]:
    """Run a server whose instructions can be counted."""
    server = Counted(agent)
    thread = threading.Thread(target=server.serve)
    thread.start()
    try:
        server.wait_until_started()
        yield server
    finally:
        server.stop()
        thread.join()
