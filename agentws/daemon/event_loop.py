"""The event loop: which one, and that it goes on until the daemon's life is over."""

import asyncio
import logging
import socket
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Final

from agentws.config.values import EventLoop
from agentws.daemon.process import threads_are_left

_logger: Final = logging.getLogger("agentws.daemon")


class EventLoopError(Exception):
    """The event loop is not there; the text is one sentence that says so."""


_LAST_TASKS: Final = 0.2
"""Seconds that tasks which nobody awaits have to end when all else has."""


def run_to_the_end(loop: asyncio.AbstractEventLoop, life: Coroutine[Any, Any, int]) -> int:
    """Run the loop until `life` ends, whatever the agent's code does to it.

    asyncio lets `SystemExit` and `KeyboardInterrupt` of any task leave the loop; here, they come
    from the agent's code only, for signals are handled. `RuntimeError` says that it was stopped.
    """
    main = loop.create_task(life)
    while True:
        try:
            return loop.run_until_complete(main)
        except (SystemExit, KeyboardInterrupt) as error:
            if main.done():
                raise
            _logger.error("A task of the agent raised %s", type(error).__name__, exc_info=error)
        except RuntimeError:
            if main.done():
                raise
            _logger.error("The agent stopped the event loop, which goes on")


def wind_up(loop: asyncio.AbstractEventLoop) -> bool:
    """Cancel what still runs, and tell whether the process can end in the ordinary way."""
    leftovers = asyncio.all_tasks(loop)
    for task in leftovers:
        task.cancel()
    if leftovers:
        run_to_the_end(loop, _wait_for(leftovers))
    return not threads_are_left() and all(task.done() for task in leftovers)


async def _wait_for(tasks: set["asyncio.Task[Any]"]) -> int:
    _, pending = await asyncio.wait(tasks, timeout=_LAST_TASKS)
    return len(pending)


def new_event_loop(choice: EventLoop) -> asyncio.AbstractEventLoop:
    """Return the event loop of the settings. Raises `EventLoopError`."""
    if choice == "asyncio":
        return _AsyncioLoop()
    try:
        import uvloop
    except Exception as error:
        if choice == "auto":
            return _AsyncioLoop()
        raise EventLoopError(
            f"server.event_loop is uvloop, which cannot be imported ({error}): "
            "install agentws[uvloop]"
        ) from error
    return uvloop.new_event_loop()


class _AsyncioLoop(asyncio.SelectorEventLoop):
    """asyncio's event loop, with threads of its own to resolve names in, as uvloop has.

    An agent may keep those of `asyncio.to_thread` busy, and the store must find its server.
    """

    def __init__(self) -> None:
        super().__init__()
        self._resolvers = ThreadPoolExecutor(4, "agentws-names")

    async def getaddrinfo(self, host: Any, port: Any, **options: int) -> list[Any]:
        """Resolve a name, see `socket.getaddrinfo`."""
        resolve = partial(socket.getaddrinfo, host, port, **options)
        return await self.run_in_executor(self._resolvers, resolve)
