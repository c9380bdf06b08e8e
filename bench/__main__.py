"""The command: measure, show, and write down what all came to."""

import os
import resource
import sys
from collections.abc import Sequence

import click

from bench import report
from bench.contenders import ServerError, Servers
from bench.load import LoadError
from bench.measuring import Effort, Result
from bench.scenarios import SCENARIOS
from bench.targets import verdicts


@click.command()
@click.option(
    "--only",
    multiple=True,
    metavar="NAME",
    help=f"Measure scenarios whose names begin so, and write nothing down: {', '.join(SCENARIOS)}.",
)
@click.option(
    "--seconds",
    default=Effort.seconds,
    show_default=True,
    type=click.FloatRange(min=0, min_open=True),
    help="How long a server is measured at a time.",
)
@click.option(
    "--rounds", default=Effort.rounds, show_default=True, type=click.IntRange(1), help="How often."
)
def main(only: Sequence[str], seconds: float, rounds: int) -> None:
    """Compare the daemon with others, and hold it to its targets; exit with 1 when one is missed.

    Servers run on one core and the load generator on another, so that neither takes time from
    the other; contenders are measured in turns, and by their CPU time, because machines are noisy.
    """
    chosen = [name for name in SCENARIOS if not only or name.startswith(tuple(only))]
    if not chosen:
        raise click.BadParameter(f"it is none of {', '.join(SCENARIOS)}", param_hint="--only")
    _raise_file_limit()
    servers = Servers(_keep_to_one_core())
    results: list[Result] = []
    try:
        for name in chosen:
            click.echo(name, err=True)
            results += SCENARIOS[name](servers, Effort(seconds, rounds))
    except (LoadError, OSError, ServerError) as error:
        raise click.ClickException(str(error)) from error
    found = verdicts(results)
    report.show(results, found)
    if not only:
        report.write(results, found)
    sys.exit(not all(it.met for it in found))


def _keep_to_one_core() -> int | None:
    """Leave the first core to the servers and return it; None where there is but one."""
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
