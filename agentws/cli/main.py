"""The commands. What they run is imported when they run, which keeps `--help` quick."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import click

from agentws.cli.bench import bench
from agentws.cli.check import check
from agentws.cli.dev import dev
from agentws.cli.ending import Failure
from agentws.cli.invoke import invoke
from agentws.cli.serve import serve
from agentws.config.otel_variables import forget_empty
from agentws.daemon.process import let_go_of_stdout, open_streams
from agentws.version import __version__

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
Serve it while you write it, with a page to try it on:
    agentws dev ./agent.py:invoke

\b
Serve it, and see what it is configured with, and whether that answers:
    agentws serve --handler ./agent.py:invoke
    agentws check --config config.toml --connect

\b
Talk to it, and see how much it bears:
    agentws invoke localhost:8088 "What is new?"
    agentws bench localhost:8088 "What is new?" --sockets 50

Configuration comes from flags, from AGENTWS_SECTION__KEY environment variables (such as
AGENTWS_SERVER__PORT), from variables that hosting platforms set (such as PORT), from the
configuration file and from defaults; the first of these that has a value wins.

Exit codes: 0 all is well; 1 it ran and failed; 2 bad usage or configuration, or no connection.

\b
Commands and options are completed by the shell once it was told:
    eval "$(_AGENTWS_COMPLETE=bash_source agentws)"      # in ~/.bashrc
    eval "$(_AGENTWS_COMPLETE=zsh_source agentws)"       # in ~/.zshrc
    _AGENTWS_COMPLETE=fish_source agentws | source       # in ~/.config/fish/config.fish
"""


_FULL: Final = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO}
"""What is wrong where a file takes no more, or a terminal is gone."""


class _Commands(click.Group):
    """The commands, of which each ends with a sentence if what it prints cannot be written."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command that was chosen. Raises `Failure`."""
        with _full_disks_told():
            return super().invoke(ctx)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read the arguments, or print the page of help. Raises `Failure`."""
        with _full_disks_told():
            return super().parse_args(ctx, args)


@contextmanager
def _full_disks_told() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        let_go_of_stdout()
        raise Failure(f"what is to be printed cannot be written: {error.strerror}") from error


@click.group(
    cls=_Commands,
    help=_PAGE,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, prog_name="agentws")
def main() -> None:
    """Run the command line; the process ends with its exit code."""
    open_streams()
    forget_empty(os.environ)


for command in (serve, dev, invoke, bench, check):
    main.add_command(command)
