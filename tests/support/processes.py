"""The daemon as a process of its own."""

import asyncio
import contextlib
import json
import os
import signal
import sys
import textwrap
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import websockets

from tests.conftest import Client, Frame

ROOT = Path(__file__).parents[2]

PATIENCE = 20.0
"""Seconds that a process may take to start or end on a busy machine."""


class Daemon:
    """A process that serves an agent, and what it writes."""

    def __init__(self, process: asyncio.subprocess.Process, port: int = 0) -> None:
        self.process = process
        self.port = port

    async def line(self, **fields: Any) -> Frame:
        """Return the next line of its log with these fields."""
        assert self.process.stdout is not None
        async with asyncio.timeout(PATIENCE):
            while text := await self.process.stdout.readline():
                line = json.loads(text)
                assert isinstance(line, dict)
                if fields.items() <= line.items():
                    return line
        raise AssertionError(f"the log ended without {fields}: {await self.complaints()}")

    async def rest(self) -> list[Frame]:
        """Return the lines of its log up to its end."""
        assert self.process.stdout is not None
        async with asyncio.timeout(PATIENCE):
            return [json.loads(text) for text in (await self.process.stdout.read()).splitlines()]

    async def listening(self) -> "Daemon":
        """Wait until it listens."""
        line = await self.line(logger="agentws.server")
        self.port = line["port"]
        return self

    async def ready(self) -> None:
        """Wait until it answers on the port that it was told."""
        async with asyncio.timeout(PATIENCE), aiohttp.ClientSession() as session:
            while True:
                with contextlib.suppress(aiohttp.ClientConnectionError):
                    async with session.get(f"http://127.0.0.1:{self.port}/readiness") as answer:
                        assert answer.status == 200
                        return
                await asyncio.sleep(0.02)

    @asynccontextmanager
    async def connect(self, **options: Any) -> AsyncIterator[Client]:
        """Open a framed socket."""
        url = f"ws://127.0.0.1:{self.port}/invocations_ws/ws"
        async with websockets.connect(url, close_timeout=0.1, **options) as connection:
            yield Client(connection)

    def send(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self.process.send_signal(number)

    async def insist(self, number: signal.Signals) -> None:
        """Send a signal until it ends, as two that come too close are one."""
        while self.process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self.send(number)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.process.wait(), 0.1)

    async def exit_code(self) -> int:
        """Wait for its end."""
        async with asyncio.timeout(PATIENCE):
            # What it writes is read on, or it might wait for that.
            if self.process.stdout is not None:
                await self.process.stdout.read()
            return await self.process.wait()

    async def exit_code_unread(self) -> int:
        """Wait for its end, and read nothing of what it writes."""
        async with asyncio.timeout(PATIENCE):
            while self.process.returncode is None:  # wait() alone would wait for its pipes, too
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self.process.wait(), 0.1)
        return self.process.returncode

    async def end_well(self) -> None:
        """Tell it to end, and see that it does as it should, without a complaint."""
        self.send(signal.SIGTERM)
        assert await self.exit_code() == 0
        assert await self.complaints() == ""

    async def kill(self) -> None:
        """End it, if it has not ended."""
        with contextlib.suppress(ProcessLookupError):
            self.send(signal.SIGKILL)
        await self.process.communicate()  # its end is told once its pipes are read

    async def complaints(self) -> str:
        """Return what it wrote on stderr."""
        assert self.process.stderr is not None
        async with asyncio.timeout(PATIENCE):
            return (await self.process.stderr.read()).decode()


def variables(options: Mapping[str, object]) -> dict[str, str]:
    """Return the variables that set options, such as server__port."""
    return {f"AGENTWS_{name}".upper(): str(value) for name, value in options.items()}


async def serving(*command: str, folder: Path = ROOT, **options: Any) -> Daemon:
    """Run Python with a command that serves, and wait until it listens."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *command,
        cwd=folder,
        env={**os.environ, **variables(options)},
        stdout=asyncio.subprocess.PIPE,
    )
    return await Daemon(process).listening()


@asynccontextmanager
async def running(*command: str, folder: Path = ROOT, **options: Any) -> AsyncIterator[Daemon]:
    """Do what `serving` does, and see that the daemon ends as it should at the end of the body."""
    daemon = await serving(*command, folder=folder, **options)
    try:
        yield daemon
        daemon.send(signal.SIGTERM)
        assert await daemon.exit_code() == 0
    finally:
        await daemon.kill()


Start = Callable[..., Awaitable[Daemon]]


HEAD = """\
import asyncio, logging, sys, threading, time
from agentws import Agent

agent = Agent()
log = logging.getLogger("test")

"""


@pytest.fixture
async def start(tmp_path: Path) -> AsyncIterator[Start]:
    """Make daemons run the source of an agent; keywords set options, such as server__port."""
    daemons: list[Daemon] = []

    async def start(
        source: str, port: int = 0, prefix: Sequence[str] = (), **options: object
    ) -> Daemon:
        (tmp_path / "agent.py").write_text(HEAD + textwrap.dedent(source))
        kept = {name: os.environ[name] for name in ("PATH", "SYSTEMROOT") if name in os.environ}
        process = await asyncio.create_subprocess_exec(
            *(*prefix, sys.executable, "-m", "agentws", "serve", "--host", "127.0.0.1"),
            *("--port", str(port), "--handler", "agent:agent"),
            cwd=tmp_path,
            env={**kept, "PYTHONPATH": str(ROOT), **variables(options)},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        daemon = Daemon(process, port)
        daemons.append(daemon)
        return daemon

    yield start
    for daemon in daemons:
        await daemon.kill()


@pytest.fixture
def launch(start: Start) -> Start:
    """Do what `start` does, and wait until the daemon listens."""

    async def launch(source: str, **options: Any) -> Daemon:
        return await (await start(source, **options)).listening()

    return launch
