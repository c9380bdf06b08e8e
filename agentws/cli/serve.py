"""`agentws serve`."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from agentws.cli.options import configured, keyed
from agentws.cli.starting import StartError, load_config, load_handler, needed_packages
from agentws.daemon.process import leave, start_without_pauses
from agentws.daemon.signals import Signals, Stopped

if TYPE_CHECKING:
    from agentws.agent.loading import Served
    from agentws.config.sources import Loaded


_PAGE: Final = """\
Run the daemon until SIGTERM or SIGINT.

Without a handler it serves a built-in agent that echoes what it is sent. On the signal it stops
accepting work and gives running invocations server.shutdown_grace seconds to finish; log lines go
to stdout.

\b
    agentws serve
    agentws serve --handler ./agent.py:agent --port 8000
    agentws serve --config config.toml
"""


@click.command(help=_PAGE, short_help="Run the daemon until SIGTERM or SIGINT.")
@configured
def serve(file: Path | None, **flags: object) -> None:
    """Run the daemon; the process ends with its exit code."""
    start_without_pauses()
    try:
        code = _serve(file, keyed(flags), Signals())
    except Stopped:
        code = 0
    except StartError as error:
        error.show()
        code = error.exit_code
    leave(code)


def _serve(file: Path | None, flags: Mapping[str, object], signals: Signals) -> int:
    served = load_handler(load_config(file, flags).settings)
    if signals.received:
        return 0
    return _run(load_config(file, flags, served.daemon_settings), served, signals)


def _run(loaded: "Loaded", served: "Served", signals: Signals) -> int:
    with needed_packages():
        from agentws.daemon.run import START_ERRORS, run
    try:
        return run(loaded, served, signals)
    except START_ERRORS as error:
        raise StartError(str(error)) from error
