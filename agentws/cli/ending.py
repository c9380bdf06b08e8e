"""How a command ends: at once, and with a sentence where something is wrong."""

import asyncio
import os
import signal
import sys
from collections.abc import Callable, Coroutine
from typing import IO, Any, NoReturn

import click

from agentws.cli.characters import harmless
from agentws.daemon.process import leave, let_go_of_stdout


class Complaint(click.ClickException):
    """Bad usage or no connection; a sentence a mistake, without the usage lines of a bad option."""

    exit_code = 2

    def show(self, file: IO[Any] | None = None) -> None:
        """Print each line on stderr."""
        for sentence in self.format_message().splitlines():
            click.echo(harmless(f"agentws: {sentence}"), file=file, err=True)


class Failure(Complaint):
    """It ran and failed."""

    exit_code = 1


class Interrupts:
    """Ctrl-C while the event loop runs: each one takes the next step, the last one ever again.

    SIGTERM takes the last step at once.
    """

    def __init__(self, *steps: Callable[[], object]) -> None:
        self._steps = list(steps)
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGINT, self._take)
        loop.add_signal_handler(signal.SIGTERM, steps[-1])

    def _take(self) -> None:
        step = self._steps.pop(0) if len(self._steps) > 1 else self._steps[0]
        step()


def run_to_exit(work: Coroutine[Any, Any, int]) -> NoReturn:
    """Run what a command does, and end the process with the code that it returns.

    Nothing is waited for after that, such as a name that is still being resolved in a thread.
    """
    loop = asyncio.new_event_loop()
    try:
        code = loop.run_until_complete(work)
    except Complaint as complaint:
        complaint.show()
        code = complaint.exit_code
    except BrokenPipeError:
        code = 1
    let_go_of_stdout()
    if asyncio.all_tasks(loop):
        sys.stderr.flush()
        os._exit(code)
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.close()
    leave(code)
