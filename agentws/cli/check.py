"""`agentws check`."""

from collections.abc import Sequence
from pathlib import Path

import click

from agentws.cli.options import configured, keyed
from agentws.cli.starting import load_config, load_handler

# A longer value runs over its column, so that one long value does not push all sources away.
_WIDEST_VALUE = 40


@click.command()
@configured
def check(file: Path | None, **flags: object) -> None:
    """Show the configuration in effect and import the handler.

    Prints a line for each key: name, value, and where the value came from. Secrets are shown
    as ***, and - stands for none. Exits with 2 if the configuration is wrong or the handler
    cannot be imported. What is set and has no effect is told on stderr.
    """
    chosen = keyed(flags)
    loaded = load_config(file, chosen)
    from agentws.config.sources import rows

    try:
        loaded = load_config(file, chosen, load_handler(loaded.settings).daemon_settings)
    finally:
        _print(list(rows(loaded)))
        for sentence in loaded.warnings:
            click.echo(f"agentws: warning: {sentence}", err=True)


def _print(table: Sequence[tuple[str, str, str]]) -> None:
    key_width = max(len(key) for key, _, _ in table)
    value_width = min(max(len(value) for _, value, _ in table), _WIDEST_VALUE)
    for key, value, origin in table:
        source = click.style(origin, dim=True)
        click.echo(f"{key:{key_width}}  {value:{value_width}}  {source}")
