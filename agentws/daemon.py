"""The process around the server: event loop, signals, exit code."""

import asyncio
import contextlib
import gc
import logging
import os
import resource
import socket
import sys
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Final

from agentws.agent.loading import Served
from agentws.config.requirements import PackageError
from agentws.config.settings import EventLoop
from agentws.config.sources import Loaded
from agentws.process import Signals, threads_are_left
from agentws.server import BindError, Server, StartupError, StoreError
from agentws.stalls import StallWatch
from agentws.telemetry import logs
from agentws.telemetry.operations import TelemetryError

_logger: Final = logging.getLogger("agentws.daemon")


class EventLoopError(Exception):
    """The event loop is not there; the text is one sentence that says so."""


START_ERRORS: Final = (BindError, EventLoopError, PackageError, StoreError, TelemetryError)
"""What `run` raises where the daemon cannot start as told; their texts are one sentence each."""

_LAST_TASKS: Final = 0.2
"""Seconds that tasks which nobody awaits have to end when all else has."""

_LAST_LINES: Final = 0.5
"""Seconds that whoever reads the log has for the rest of it."""


def run(loaded: Loaded, served: Served, signals: Signals) -> int:
    """Serve until a signal, and return the exit code: 0, or 1 if the agent would not start.

    Raises `START_ERRORS`. The process ends at once, with the proper code, when a handler holds on
    to it.
    """
    server = loaded.settings.server
    log = logs.configure(server.log_level, server.log_format)
    for sentence in loaded.warnings:  # here, too, as whoever operates the daemon looks here
        _logger.warning("%s", sentence)
    try:
        code, all_ended = _run(loaded, served, signals)
    finally:
        is_written = log.close(_LAST_LINES)
    if not (all_ended and is_written):
        os._exit(code)
    _let_go_of_stdout()
    return code


def _run(loaded: Loaded, served: Served, signals: Signals) -> tuple[int, bool]:
    """Serve, and return the exit code, and whether the process can end in the ordinary way."""
    _raise_file_limit()
    loop = _new_event_loop(loaded.settings.server.event_loop)
    asyncio.set_event_loop(loop)
    stop = asyncio.Event()
    signals.on_stop(lambda: loop.call_soon_threadsafe(stop.set))
    code = _run_to_the_end(loop, _serve(loaded, served, stop))
    return code, _wind_up(loop)


async def _serve(loaded: Loaded, served: Served, stop: asyncio.Event) -> int:
    """Start, wait for the signal, drain."""
    origin = {"config_file": str(loaded.file or ""), "settings": loaded.differing()}
    server = Server(loaded.settings, served, origin)
    starting = asyncio.create_task(server.start())
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait({starting, stopping}, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if not starting.done():
        starting.cancel()
        return 0
    try:
        starting.result()
    except StartupError as error:
        _logger.error("%s", error, exc_info=error.__cause__)
        return 1
    except asyncio.CancelledError:
        _logger.error("The agent cancelled the start")
        return 1
    gc.freeze()  # what is there now stays: the collector need not look at it again
    with StallWatch():
        await _set(stop)
        await _drain(server)
    return 0


async def _drain(server: Server) -> None:
    """Have the server end, though the agent's code cancels all tasks that it finds."""
    draining = asyncio.create_task(server.drain())
    while not draining.done():
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait({draining})
    if draining.cancelled():
        _logger.error("The agent cancelled the end, which is cut short")
    else:
        draining.result()


async def _set(stop: asyncio.Event) -> None:
    """Wait until the event is set, though the agent's code cancels all tasks that it finds."""
    while not stop.is_set():
        with contextlib.suppress(asyncio.CancelledError):
            await stop.wait()


def _run_to_the_end(loop: asyncio.AbstractEventLoop, life: Coroutine[Any, Any, int]) -> int:
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


def _wind_up(loop: asyncio.AbstractEventLoop) -> bool:
    """Cancel what still runs, and tell whether the process can end in the ordinary way."""
    leftovers = asyncio.all_tasks(loop)
    for task in leftovers:
        task.cancel()
    if leftovers:
        _run_to_the_end(loop, _wait_for(leftovers))
    return not threads_are_left() and all(task.done() for task in leftovers)


async def _wait_for(tasks: set["asyncio.Task[Any]"]) -> int:
    _, pending = await asyncio.wait(tasks, timeout=_LAST_TASKS)
    return len(pending)


def _let_go_of_stdout() -> None:
    """Whoever read the log may be gone, which is no failure of ours; Python would say it is."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _raise_file_limit() -> None:
    """Allow as many sockets as the system does; the usual soft limit is 1024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _new_event_loop(choice: EventLoop) -> asyncio.AbstractEventLoop:
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
