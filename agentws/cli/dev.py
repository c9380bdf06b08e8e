"""`agentws dev`."""

import contextlib
import os
import sys
import threading
import time
from typing import TYPE_CHECKING, Final

import click

from agentws.cli.options import files
from agentws.cli.starting import StartError, needed_packages
from agentws.daemon.process import leave
from agentws.daemon.signals import Signals, Stopped

if TYPE_CHECKING:
    import socket

    from agentws.config.settings import Settings


_PAGE: Final = """\
Serve TARGET while you write it, and serve it anew at each save.

TARGET is the agent: package.module:attribute or path/module.py:attribute; without one, it is a
built-in agent that echoes what it is sent. It is served on 127.0.0.1, together with a console at
/console/, which opens in the browser.

When a file of the agent's folder is saved, its process is replaced by another one, and what ran is
over. An agent that cannot be imported is told here and in the console, with file and line, until it
is saved again. Variables are read from .env in the agent's folder and in the current one; those of
the environment rank above them.

\b
    agentws dev ./agent.py:agent
    agentws dev package.module:invoke --port 8000 --no-open
"""


@click.command(help=_PAGE, short_help="Serve an agent while you write it.")
@click.argument("target", required=False, shell_complete=files)
@click.option("--port", type=int, metavar="PORT", help="TCP port, 0 for any.  [server.port]")
@click.option("--no-open", is_flag=True, help="Leave the console closed.")
def dev(target: str | None, port: int | None, no_open: bool) -> None:
    """Serve until a signal; the process ends with its exit code."""
    try:
        code = _dev(target, port, Signals(), opens=not no_open and sys.stdout.isatty())
    except Stopped:
        code = 0
    except StartError as error:
        error.show()
        code = error.exit_code
    leave(code)


def _dev(target: str | None, port: int | None, signals: Signals, *, opens: bool) -> int:
    with needed_packages():
        from agentws.config.sources import ConfigError
        from agentws.daemon.listening import BindError
        from agentws.dev.environment import EnvironmentFileError, with_env_files
        from agentws.dev.settings import load_settings
        from agentws.dev.supervisor import Supervisor, listen, serve
        from agentws.dev.watching import agent_folder
    try:
        environ = with_env_files(agent_folder(target or ""))
        settings = load_settings(target, port, environ).settings
        listening = listen(settings.server.port)
    except (BindError, ConfigError, EnvironmentFileError) as error:
        raise StartError(str(error)) from error
    supervisor = Supervisor(
        target,
        port,
        folder=agent_folder(settings.handler.target),
        listening=listening,
        terminal=_Terminal(settings, listening, opens=opens),
    )
    return serve(supervisor, signals)


class _Terminal:
    """Tells whoever sits at the terminal."""

    def __init__(
        self, settings: "Settings", listening: "list[socket.socket]", *, opens: bool
    ) -> None:
        self._settings = settings
        self._address = f"{settings.server.host}:{listening[0].getsockname()[1]}"
        self._opens = opens

    def serving(self) -> None:
        """Tell where, and open the page."""
        page = f"http://{self._address}/console/"
        key = "-H 'api-key: …' " if self._settings.auth.is_on else ""
        click.echo(f"Console  {page}")
        click.echo(f"Socket   ws://{self._address}/invocations_ws/ws")
        click.echo(
            f"""Try      curl {self._address}/invocations {key}-d '{{"message": "hello"}}'"""
        )
        if self._opens:
            _open(page)

    def restarted(self, changed: str, seconds: float) -> None:
        """Tell when, why and how soon."""
        now = time.strftime("%H:%M:%S")
        click.echo(f"{now} restarted in {seconds:.2f} s: {changed} has changed")

    def waiting(self, seconds: float) -> None:
        """Tell why nothing answers."""
        told = f"the agent is still starting after {seconds:g} s; whoever connects waits"
        click.echo(f"agentws: {told}", err=True)

    def failed(self, sentence: str) -> None:
        """Tell why."""
        click.echo(f"agentws: {sentence}", err=True)


def _open(page: str) -> None:
    """Open a page where there is a desktop: a browser of text would take the terminal."""
    if sys.platform.startswith("linux") and not (
        {"BROWSER", "DISPLAY", "WAYLAND_DISPLAY"} & os.environ.keys()
    ):
        return

    def open_page() -> None:
        import webbrowser

        with contextlib.suppress(Exception):
            webbrowser.open(page)

    threading.Thread(target=open_page, daemon=True).start()
