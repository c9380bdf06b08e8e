"""The soak: mixed load for a while, and afterwards nothing may have grown.

The server is in this process, so that its tasks and its table can be counted; its clients are in
another.
"""

import asyncio
import gc
import json
import logging
import signal
import sys
from collections import Counter
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any, Final, Self

import click
import psutil
from rich.console import Console
from rich.table import Table

from agentws.agent.handlers import Agent
from agentws.config.settings import Settings
from agentws.daemon.server import Server
from agentws.stores.memory import MemoryStore
from bench.loops import run
from bench.served.agents import mixed

_ROOT: Final = Path(__file__).parents[1]
_WARM_UP: Final = 15.0
"""Seconds of load before the first look: buffers grow to what they need."""

_QUIET: Final = 30.0
"""Seconds within which all that was asked for is over when nobody asks any more."""

_MOST_GROWTH: Final = 0.15
"""By how much memory may differ, as a share: what was used is not all given back to the system."""

_SETTINGS: Final[dict[str, Any]] = {
    "server": {
        "host": "127.0.0.1",
        "port": 0,
        "shutdown_grace": 0,
        "access_log": False,
        "invocation_log": False,
    },
    "websocket": {"send_timeout": 1, "heartbeat": 2},
    "invocations": {"retention": 1, "disconnect_grace": 0.5, "replay_bytes": 64 * 1024},
}


@dataclass(frozen=True)
class Reading:
    """What a server at rest holds."""

    memory: int
    """Resident, in bytes."""
    open_files: int
    tasks: int
    table: int
    """Invocations, running and ended."""

    @classmethod
    def take(cls, store: MemoryStore) -> Self:
        """Look at this process."""
        gc.collect()
        process = psutil.Process()
        rss = int(process.memory_info().rss)
        return cls(rss, process.num_fds(), len(asyncio.all_tasks()), len(store))

    def is_flat_since(self, start: "Reading") -> bool:
        """Tell whether nothing has grown."""
        fits = self.memory <= start.memory * (1 + _MOST_GROWTH)
        return fits and astuple(self)[1:] == astuple(start)[1:]


async def _load(port: int, seconds: float) -> Counter[str]:
    """Let the clients loose; return how often each kind has done its thing."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bench.clients", str(port)),
        cwd=_ROOT,
        stdout=asyncio.subprocess.PIPE,
    )
    ending = asyncio.create_task(process.communicate())
    await asyncio.wait({ending}, timeout=seconds)
    if not ending.done():
        process.send_signal(signal.SIGTERM)
    said, _ = await ending
    if process.returncode:
        raise click.ClickException("a client was served wrong, see above")
    return Counter(json.loads(said))


async def _at_rest(store: MemoryStore) -> Reading:
    """Wait until sockets and invocations of the load are gone, then look."""
    deadline = asyncio.get_running_loop().time() + _QUIET
    while asyncio.get_running_loop().time() < deadline:
        reading = Reading.take(store)
        if (reading.tasks, reading.table) == (1, 0):
            break
        await asyncio.sleep(0.5)
    return reading


async def _soak(seconds: float) -> tuple[Reading, Reading, Counter[str]]:
    agent = Agent()
    agent.invoke_handler(mixed)
    server = Server(Settings(**_SETTINGS), agent)
    store = server._parts.store  # noqa: SLF001 - to look inside is what it is for
    assert isinstance(store, MemoryStore)
    await server.start()
    try:
        await _load(server.port, min(_WARM_UP, seconds))
        start = await _at_rest(store)
        done = await _load(server.port, seconds)
        return start, await _at_rest(store), done
    finally:
        await server.drain()


@click.command()
@click.option(
    "--seconds", default=300.0, show_default=True, help="How long the load is kept up.", type=float
)
def main(seconds: float) -> None:
    """Keep up echoes, streams, cuts, cancels, slow readers and events; fail if anything grew."""
    logging.disable(logging.INFO)
    start, end, done = run(_soak(seconds))
    table = Table("", "Start", "End")
    table.add_row("Memory, MiB", *(f"{it.memory / 1024**2:.1f}" for it in (start, end)))
    for name in ("open_files", "tasks", "table"):
        row = (str(getattr(it, name)) for it in (start, end))
        table.add_row(name.replace("_", " ").capitalize(), *row)
    console = Console()
    console.print(", ".join(f"{count} x {kind}" for kind, count in done.items()))
    console.print(table)
    flat = end.is_flat_since(start)
    console.print("[green]flat" if flat else "[red]not flat")
    sys.exit(not flat)


if __name__ == "__main__":
    main()
