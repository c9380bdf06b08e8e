"""`agentws bench`."""

from __future__ import annotations

import asyncio
import sys
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any, Final

import click

from agentws.cli.connecting import Reach, connection_advice, entered, payload_of, reaching
from agentws.cli.ending import Complaint, Failure, Interrupts, run_to_exit
from agentws.daemon.process import raise_file_limit

if TYPE_CHECKING:
    from agentws.cli.load import Load, Measured
    from agentws.client import Client

_PAGE: Final = """\
Put load on an agent, and measure how it answers.

Each of the sockets invokes the agent with PAYLOAD, reads all that comes, and invokes again; with
--rate, so many invocations begin in a second, on all sockets together, whatever becomes of those
before. After --seconds none begins any more, and those under way have as long again to end.
Ctrl-C ends it early, and what was measured is shown.

URL and PAYLOAD are as for `agentws invoke`. The time to the first chunk of an agent that returns a
value is the time to that. Sockets that are lost are made again, and count as resumes.

\b
    agentws bench localhost:8088 "What is new?"
    agentws bench https://agents.example - --sockets 100 --rate 20 --seconds 60 <question.json
    agentws bench localhost:8088 --json | jq .duration.p99

\b
With --json, a line with all durations in seconds:
    {"invocations_per_second": 812.4, "chunks_per_second": 40620.0,
     "time_to_first_chunk": {"p50": 0.002, "p99": 0.011},
     "duration": {"p50": 0.012, "p99": 0.031}, "errors": {}, "reconnects": 0}

Errors are counted by their code; besides those of the server there are connection_failed,
input_required for an agent that asks, and unfinished for what took too long.

Exit codes: 0 it was measured; 1 not one invocation completed; 2 bad usage, or no connection.
"""


@click.command(help=_PAGE, short_help="Put load on an agent, and measure it.")
@reaching
@click.option(
    "--sockets",
    type=click.IntRange(min=1),
    default=10,
    show_default=True,
    metavar="N",
    help="How many sockets there are.",
)
@click.option(
    "--rate",
    type=click.FloatRange(min=0, min_open=True),
    metavar="R",
    help="How many invocations begin in a second; else as many as can be.",
)
@click.option(
    "--seconds",
    type=click.FloatRange(min=0, min_open=True),
    default=10.0,
    show_default=True,
    metavar="S",
    help="For how long.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON in place of a table.")
def bench(
    reach: Reach,
    payload: str | None,
    sockets: int,
    rate: float | None,
    seconds: float,
    as_json: bool,
) -> None:
    """Do what the flags say; the process ends with its exit code."""
    raise_file_limit()
    run_to_exit(_bench(reach, payload_of(payload), sockets, rate, seconds, as_json))


async def _bench(
    reach: Reach, payload: Any, sockets: int, rate: float | None, seconds: float, as_json: bool
) -> int:
    from agentws.cli import load_report
    from agentws.cli.load import Load, Measured
    from agentws.cli.screens import json_line

    measured = Measured()
    async with AsyncExitStack() as stack:
        opening = asyncio.create_task(_open_all(reach, sockets, stack, measured))
        Interrupts(opening.cancel)
        try:
            clients = await opening
        except asyncio.CancelledError:
            raise Failure("interrupted before there was a connection") from None
        load = Load(clients, payload, rate, measured)
        Interrupts(load.interrupt)
        await _run(load, seconds)
        if as_json:
            click.echo(json_line(load_report.as_json(measured)))
        else:
            load_report.print_table(measured)
    if not measured.completed:
        raise Failure("not one invocation has completed")
    return 0


async def _run(load: Load, seconds: float) -> None:
    from agentws.cli import load_report

    showing = asyncio.create_task(load_report.show(load)) if sys.stderr.isatty() else None
    try:
        await load.run(seconds)
    finally:
        if showing is not None:
            showing.cancel()
            await asyncio.wait({showing})


async def _open_all(
    reach: Reach, sockets: int, stack: AsyncExitStack, measured: Measured
) -> list[Client]:
    """Return the clients that are connected: the first one has to be. Raises `Complaint`."""
    from agentws.cli.load import UNCONNECTED
    from agentws.client import ConnectionFailed

    clients = [await reach.client() for _ in range(sockets)]
    try:
        await _open(clients[0], stack)
    except ConnectionFailed as failure:
        raise Complaint(connection_advice(failure)) from failure
    others = await asyncio.gather(
        *(_open(client, stack) for client in clients[1:]), return_exceptions=True
    )
    open_ones = clients[:1]
    for client, outcome in zip(clients[1:], others, strict=True):
        if isinstance(outcome, ConnectionFailed):
            measured.errors[UNCONNECTED] += 1
        elif outcome is not None:
            raise outcome
        else:
            open_ones.append(client)
    return open_ones


async def _open(client: Client, stack: AsyncExitStack) -> None:
    """Wait until a client is connected. Raises `ConnectionFailed`."""
    is_decided = asyncio.Event()
    client.on_state(lambda _: is_decided.set())
    await stack.enter_async_context(entered(client))
    await is_decided.wait()
    if client.state == "closed":
        client.attach("any")  # raises why
