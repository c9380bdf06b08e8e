"""The life of the process: log, loop and server, from the start to the exit code."""

import asyncio
import contextlib
import logging
import os
from typing import Final

from agentws.agent.loading import Served
from agentws.config.requirements import PackageError
from agentws.config.sources import Loaded
from agentws.daemon.event_loop import EventLoopError, new_event_loop, run_to_the_end, wind_up
from agentws.daemon.garbage import GarbageCollection
from agentws.daemon.listening import BindError
from agentws.daemon.process import let_go_of_stdout, raise_file_limit
from agentws.daemon.server import Server, StartupError
from agentws.daemon.signals import Signals
from agentws.daemon.stalls import StallWatch
from agentws.daemon.supervision import Supervision
from agentws.stores.store import StoreError
from agentws.telemetry import logs
from agentws.telemetry.operations import TelemetryError

_logger: Final = logging.getLogger("agentws.daemon")

START_ERRORS: Final = (BindError, EventLoopError, PackageError, StoreError, TelemetryError)
"""What `run` raises where the daemon cannot start as told; their texts are one sentence each."""

_LAST_LINES: Final = 0.5
"""Seconds that whoever reads the log has for the rest of it."""


def run(
    loaded: Loaded, served: Served, signals: Signals, supervision: Supervision | None = None
) -> int:
    """Serve until a signal, and return the exit code: 0, or 1 if the agent would not start.

    Raises `START_ERRORS`. The process ends at once, with the proper code, when a handler holds on
    to it.
    """
    server = loaded.settings.server
    log = logs.configure(server.log_level, server.log_format)
    for sentence in loaded.warnings:  # here, too, as whoever operates the daemon looks here
        _logger.warning("%s", sentence)
    try:
        code, all_ended = _run(loaded, served, signals, supervision)
    finally:
        is_written = log.close(_LAST_LINES)
    if not (all_ended and is_written):
        os._exit(code)
    let_go_of_stdout()
    return code


def _run(
    loaded: Loaded, served: Served, signals: Signals, supervision: Supervision | None
) -> tuple[int, bool]:
    """Serve, and return the exit code, and whether the process can end in the ordinary way."""
    raise_file_limit()
    loop = new_event_loop(loaded.settings.server.event_loop)
    asyncio.set_event_loop(loop)
    stop = asyncio.Event()
    signals.on_stop(lambda: loop.call_soon_threadsafe(stop.set))
    code = run_to_the_end(loop, _serve(loaded, served, stop, supervision))
    return code, wind_up(loop)


async def _serve(
    loaded: Loaded, served: Served, stop: asyncio.Event, supervision: Supervision | None
) -> int:
    """Start, wait for the signal, drain."""
    origin = {"config_file": str(loaded.file or ""), "settings": loaded.differing()}
    server = Server(loaded.settings, served, origin, supervision)
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
    with StallWatch(server.metrics.loop_delay), GarbageCollection():
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
