"""The process that serves: it waits with everything imported but the agent, and serves once."""

import contextlib
import logging
import os
import signal
import socket
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from agentws.agent.context import InvocationContext
from agentws.agent.loading import ImportFailure, LoadError, Served, TargetError, agent_of, load
from agentws.config.otel_variables import forget_empty
from agentws.config.sources import ConfigError, Loaded
from agentws.console.state import Development
from agentws.daemon.process import leave, open_streams, start_without_pauses
from agentws.daemon.run import START_ERRORS, run
from agentws.daemon.signals import Signals, Stopped
from agentws.daemon.supervision import Supervision
from agentws.dev.channel import Channel, Failed, Importing, Order, Refused, Serving
from agentws.dev.environment import EnvironmentFileError, with_env_files
from agentws.dev.settings import load_settings
from agentws.protocol.errors import InvocationError


def main() -> None:
    """Wait for what to serve, serve it until told to end, and exit."""
    _leave_keyboard_to_supervisor()
    open_streams()
    start_without_pauses()
    with contextlib.suppress(ImportError):
        import uvloop  # noqa: F401 - which takes a moment
    channel = Channel(int(sys.argv[1]))
    try:
        order, listening = channel.receive_order()
    except EOFError:
        leave(0)
    try:
        signals = Signals()
        _leave_keyboard_to_supervisor()
        channel.end_with_supervisor(signals)
        code = _serve_or_refuse(order, listening, channel, signals)
    except Stopped:
        code = 0
    leave(code)


def _leave_keyboard_to_supervisor() -> None:
    """Take no notice of Ctrl-C; what the agent starts, does, as this is not `SIG_IGN`."""
    signal.signal(signal.SIGINT, lambda *_: None)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


def _serve_or_refuse(
    order: Order, listening: Sequence[socket.socket], channel: Channel, signals: Signals
) -> int:
    try:
        return _serve(order, listening, channel, signals)
    except (ConfigError, EnvironmentFileError, TargetError, *START_ERRORS) as error:
        signals.on_stop(lambda: None)  # the supervisor's answer may be the signal to end
        channel.report(Refused(str(error)))
        return 2


def _serve(
    order: Order, listening: Sequence[socket.socket], channel: Channel, signals: Signals
) -> int:
    """Serve the agent, or what stands in for it. Raises `START_ERRORS` and those of the start."""
    loaded = _load_settings(order)
    failure, served = order.failure, None
    if failure is None:
        try:
            channel.report(Importing())
            served = _load(loaded.settings.handler.target)
            loaded = _load_settings(order, served)
        except LoadError as error:
            failure = _told(error, order, loaded, channel)
    supervision = Supervision(
        listening, Development(failure), on_listening=lambda: channel.report(Serving())
    )
    if loaded.settings.server.log_level != "debug":
        logging.getLogger("agentws.server").setLevel(logging.WARNING)  # the supervisor tells it
    return run(loaded, served or _stand_in(failure), signals, supervision)


def _load(target: str) -> Served:
    """Import the agent. Raises `LoadError`, and `Stopped` alone where a signal came."""
    try:
        return load(target or None)
    except Stopped:
        raise
    except KeyboardInterrupt as error:  # the agent's own, as the keyboard is the supervisor's
        raise LoadError(target, "KeyboardInterrupt was raised") from error


def _load_settings(order: Order, served: Served | None = None) -> Loaded:
    """Read the settings, with those that the agent wants.

    Where there is nothing to serve, what is wrong may be the environment, which is left out then.
    """
    program = served.daemon_settings if served is not None else {}
    try:
        folder = Path(order.folder) if order.folder else None
        os.environ.update(with_env_files(folder))
        forget_empty(os.environ)
        return load_settings(order.target, order.port, os.environ, program)
    except (ConfigError, EnvironmentFileError):
        if order.failure is None:
            raise
        return load_settings(order.target, order.port, {})


def _told(error: LoadError, order: Order, loaded: Loaded, channel: Channel) -> ImportFailure:
    """Tell why the agent cannot be served; raise it again where the command is wrong."""
    if isinstance(error, TargetError) and order.is_first:
        raise error
    if error.__cause__ and loaded.settings.server.log_level == "debug":
        traceback.print_exception(error.__cause__)
    channel.report(Failed(str(error)))
    return error.failure


def _stand_in(failure: ImportFailure | None) -> Served:
    """Return an agent that says why there is no other."""
    assert failure is not None
    place = f"{failure.file}, line {failure.line}: " if failure.line is not None else ""

    async def invoke(_payload: Any, _context: InvocationContext) -> None:
        raise InvocationError("import_failed", f"{place}{failure.message}")

    return agent_of(invoke)


if __name__ == "__main__":
    main()
