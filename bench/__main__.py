"""The command: measure, report, and fail when a target is missed."""

import os
import resource
import sys
from collections.abc import Sequence
from pathlib import Path

import click

from bench import report
from bench.load import LoadError
from bench.measurements import MEASUREMENTS
from bench.servers import ServerError, Servers


@click.command()
@click.option(
    "--only",
    multiple=True,
    type=click.Choice(list(MEASUREMENTS)),
    help="Measure this, and what other --only name; without one, everything.",
)
@click.option(
    "--seconds",
    default=2.0,
    show_default=True,
    type=click.FloatRange(min=0, min_open=True),
    help="How long a server is measured at a time; each has several turns.",
)
@click.option("--json", "file", type=click.Path(path_type=Path), help="Write the results here.")
def main(only: Sequence[str], seconds: float, file: Path | None) -> None:
    """Measure the daemon against its targets; exit with 1 when one is missed.

    Servers run on one core and the load generator on another, so that neither takes time from
    the other. Rates are told as ratios to a bare aiohttp server, which is measured in turns with
    the daemon because machines are noisy.
    """
    _raise_file_limit()
    servers = Servers(_keep_to_one_core())
    try:
        results = [MEASUREMENTS[name](servers, seconds) for name in only or MEASUREMENTS]
    except (LoadError, OSError, ServerError) as error:
        raise click.ClickException(str(error)) from error
    report.show(results)
    if file is not None:
        report.write(results, file)
    sys.exit(not all(result.passed for result in results))


def _keep_to_one_core() -> int | None:
    """Leave the first core to the servers and return it; None where that cannot be done."""
    if not hasattr(os, "sched_setaffinity"):
        return None
    first, *others = sorted(os.sched_getaffinity(0))
    if not others:
        return None
    os.sched_setaffinity(0, {others[0]})
    return first


def _raise_file_limit() -> None:
    """Allow as many sockets as the system does, here and in the servers, which inherit it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


if __name__ == "__main__":
    main()
