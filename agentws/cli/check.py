"""`agentws check`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from agentws.cli.ending import run_to_exit
from agentws.cli.options import configured, keyed
from agentws.cli.starting import StartError, load_config, load_handler, needed_packages
from agentws.cli.terminal import styled

if TYPE_CHECKING:
    from agentws.config.settings import Settings
    from agentws.daemon.backends import Attempt

# A longer value runs over its column, so that one long value does not push all sources away.
_WIDEST_VALUE = 40

_PAGE: Final = """\
Show the configuration in effect and import the handler.

Prints a line for each key: name, value, and where the value came from. Secrets are shown as ***,
and - stands for none. Exits with 2 if the configuration is wrong or the handler cannot be imported.
What is set and has no effect is told on stderr.

With --connect, the store, the key server, the OpenTelemetry collector and Application Insights are
tried, those that are configured, each for 3 seconds; there is a line for each, and if one does not
answer as it should, the exit code is 2.

\b
    agentws check
    agentws check --config config.toml --handler ./agent.py:agent
    agentws check --config config.toml --connect
"""


@click.command(help=_PAGE, short_help="Show the configuration, and try what it names.")
@configured
@click.option("--connect", is_flag=True, help="Try whether what is configured can be reached.")
def check(file: Path | None, connect: bool, **flags: object) -> None:
    """Do what the flags say."""
    chosen = keyed(flags)
    loaded = load_config(file, chosen)
    from agentws.config.sources import rows

    try:
        loaded = load_config(file, chosen, load_handler(loaded.settings).daemon_settings)
    finally:
        _print(list(rows(loaded)))
        for sentence in loaded.warnings:
            click.echo(f"agentws: warning: {sentence}", err=True)
    if connect:
        run_to_exit(_connect(loaded.settings))


def _print(table: Sequence[tuple[str, str, str]]) -> None:
    key_width = max(len(key) for key, _, _ in table)
    value_width = min(max(len(value) for _, value, _ in table), _WIDEST_VALUE)
    for key, value, origin in table:
        click.echo(f"{key:{key_width}}  {value:{value_width}}  {styled(origin, dim=True)}")


async def _connect(settings: Settings) -> int:
    """Try what is configured, and print a line for each. Raises `StartError`."""
    with needed_packages():
        from agentws.daemon.backends import try_all
    attempts = await try_all(settings)
    lines = [(each.key, each.target, _told(each)) for each in attempts]
    if settings.store.url == "memory://":
        lines.insert(0, ("store.url", "memory://", "nothing to try"))
    click.echo()
    _print(lines)
    if troubles := [f"{each.key}: {each.trouble}" for each in attempts if each.trouble]:
        raise StartError("\n".join(troubles))
    return 0


def _told(attempt: Attempt) -> str:
    return f"failed: {attempt.trouble}" if attempt.trouble else f"ok, {attempt.seconds:.2f} s"
