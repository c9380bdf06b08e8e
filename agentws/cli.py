"""The commands. What they run is imported when they run, which keeps `--help` quick."""

import os
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeVar

import click

from agentws import __version__
from agentws.config.otel_variables import forget_empty
from agentws.process import Signals, Stopped, leave, open_streams

if TYPE_CHECKING:
    from agentws.agent.loading import Served
    from agentws.config.settings import Settings
    from agentws.config.sources import Loaded

_PAGE = """\
Serve an AI agent over WebSocket and HTTP.

An agent is a Python async function, or an async generator function whose values are streamed
as they come. agentws runs it for every client that connects, keeps each invocation for a while,
and lets a client that lost its connection take up the stream where it broke off.

\b
Write an agent, agent.py:
    async def invoke(payload, context):
        for word in payload["message"].split():
            yield {"token": word}

\b
Serve it, and see what it is configured with:
    agentws serve --handler ./agent.py:invoke
    agentws check --config config.toml

Configuration comes from flags, from AGENTWS_SECTION__KEY environment variables (such as
AGENTWS_SERVER__PORT), from variables that hosting platforms set (such as PORT), from the
configuration file and from defaults; the first of these that has a value wins.

Exit codes: 0 all is well; 1 it ran and failed; 2 bad usage or configuration.
"""

# A longer value runs over its column, so that one long value does not push all sources away.
_WIDEST_VALUE = 40


class StartError(click.ClickException):
    """The daemon cannot start as told; shown as a sentence a mistake, and exit code 2."""

    exit_code = 2

    def show(self, file: IO[Any] | None = None) -> None:
        """Print each line on stderr, without the usage lines that click has for a bad option."""
        for sentence in self.format_message().splitlines():
            click.echo(f"agentws: {sentence}", file=file, err=True)


_OPTIONS = (
    click.option(
        "--config",
        "file",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="Configuration file (TOML). Without one, environment and defaults apply.",
    ),
    click.option("--host", metavar="ADDRESS", help="Address to listen on.  [server.host]"),
    click.option("--port", type=int, metavar="PORT", help="TCP port, 0 for any.  [server.port]"),
    click.option(
        "--handler",
        metavar="TARGET",
        help="The agent: package.module:attribute or path/module.py:attribute.  [handler.target]",
    ),
)

_Command = TypeVar("_Command", bound=Callable[..., None])


def _configured(command: _Command) -> _Command:
    """Give a command the options that make the configuration."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


@click.group(
    help=_PAGE, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.version_option(__version__, prog_name="agentws")
def main() -> None:
    """Run the command line; the process ends with its exit code."""
    open_streams()
    forget_empty(os.environ)


@main.command()
@_configured
def serve(file: Path | None, **flags: object) -> None:
    """Run the daemon until SIGTERM or SIGINT.

    Without a handler it serves a built-in agent that echoes what it is sent. On the signal it
    stops accepting work and gives running invocations server.shutdown_grace seconds to finish;
    log lines go to stdout.
    """
    try:
        code = _serve(file, _keyed(flags), Signals())
    except Stopped:
        code = 0
    except StartError as error:
        error.show()
        code = error.exit_code
    leave(code)


@main.command()
@_configured
def check(file: Path | None, **flags: object) -> None:
    """Show the configuration in effect and import the handler.

    Prints a line for each key: name, value, and where the value came from. Secrets are shown
    as ***, and - stands for none. Exits with 2 if the configuration is wrong or the handler
    cannot be imported. What is set and has no effect is told on stderr.
    """
    keyed = _keyed(flags)
    loaded = _load_config(file, keyed)
    from agentws.config.sources import rows

    try:
        loaded = _load_config(file, keyed, _load_handler(loaded.settings).daemon_settings)
    finally:
        _print(list(rows(loaded)))
        for sentence in loaded.warnings:
            click.echo(f"agentws: warning: {sentence}", err=True)


@contextmanager
def _needed() -> Iterator[None]:
    from agentws.config.requirements import PackageError, needed

    try:
        with needed():
            yield
    except PackageError as error:
        raise StartError(str(error)) from error


def _keyed(flags: Mapping[str, object]) -> Mapping[str, object]:
    """Return the values of flags by the dotted keys that they set."""
    keys = {"host": "server.host", "port": "server.port", "handler": "handler.target"}
    return {keys[name]: value for name, value in flags.items()}


def _serve(file: Path | None, flags: Mapping[str, object], signals: Signals) -> int:
    served = _load_handler(_load_config(file, flags).settings)
    if signals.received:
        return 0
    return _run(_load_config(file, flags, served.daemon_settings), served, signals)


def _load_config(
    file: Path | None, flags: Mapping[str, object], program: Mapping[str, object] | None = None
) -> "Loaded":
    with _needed():
        from agentws.config.sources import ConfigError, load
    try:
        return load(file, flags=flags, program=program or {})
    except ConfigError as error:
        raise StartError(str(error)) from error


def _load_handler(settings: "Settings") -> "Served":
    from agentws.agent.loading import LoadError, load

    try:
        return load(settings.handler.target or None)
    except LoadError as error:
        if error.__cause__ and settings.server.log_level == "debug":
            traceback.print_exception(error.__cause__)
        raise StartError(str(error)) from error


def _run(loaded: "Loaded", served: "Served", signals: Signals) -> int:
    with _needed():
        from agentws.daemon import START_ERRORS, run
    try:
        return run(loaded, served, signals)
    except START_ERRORS as error:
        raise StartError(str(error)) from error


def _print(table: Sequence[tuple[str, str, str]]) -> None:
    key_width = max(len(key) for key, _, _ in table)
    value_width = min(max(len(value) for _, value, _ in table), _WIDEST_VALUE)
    for key, value, origin in table:
        source = click.style(origin, dim=True)
        click.echo(f"{key:{key_width}}  {value:{value_width}}  {source}")
