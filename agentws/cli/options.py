"""Options that make the configuration, the same for every command that has one."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

import click
from click.shell_completion import CompletionItem


def files(
    _context: click.Context, _parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Have the shell complete a file, as a target may begin with one."""
    return [CompletionItem(incomplete, type="file")]


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
        shell_complete=files,
        help="The agent: package.module:attribute or path/module.py:attribute.  [handler.target]",
    ),
)

_Command = TypeVar("_Command", bound=Callable[..., None])


def configured(command: _Command) -> _Command:
    """Give a command the options that make the configuration."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def keyed(flags: Mapping[str, object]) -> Mapping[str, object]:
    """Return the values of flags by the dotted keys that they set."""
    keys = {"host": "server.host", "port": "server.port", "handler": "handler.target"}
    return {keys[name]: value for name, value in flags.items()}
