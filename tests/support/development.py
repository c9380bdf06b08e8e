"""`agentws dev` as a process, and somebody who saves files and asks."""

import asyncio
import contextlib
import os
import re
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import psutil
import pytest

from tests.conftest import Address
from tests.support.processes import PATIENCE, ROOT

ANSWERS = """
async def invoke(payload, context):
    return {answer!r}
"""
"""An agent, to be told its answer."""


class Development(Address):
    """One `agentws dev`, its folder, and what it says."""

    def __init__(self, process: asyncio.subprocess.Process, folder: Path) -> None:
        super().__init__(0)
        self.process = process
        self.folder = folder

    def save(self, source: str, name: str = "agent.py") -> None:
        """Save a file as editors do: another one takes its name."""
        file = self.folder / name
        other = file.with_name(f".{file.name}.tmp")
        other.write_text(source)
        other.replace(file)

    async def says(self, pattern: str) -> re.Match[str]:
        """Return what the next line on stdout that has it says."""
        return await _said(self.process.stdout, pattern)

    async def complains(self, pattern: str) -> re.Match[str]:
        """Return what the next line on stderr that has it says."""
        return await _said(self.process.stderr, pattern)

    async def serving(self) -> "Development":
        """Wait until it tells where it serves."""
        super().__init__(int((await self.says(r"Console  http://127.0.0.1:(\d+)/console/$"))[1]))
        return self

    async def ask(self, payload: object = None) -> Any:
        """Invoke, over a connection of its own; return the answer, or the error's code."""
        async with aiohttp.ClientSession() as session:
            return await self._ask(session, payload)

    async def answers(self, expected: object) -> list[Any]:
        """Ask until it answers so; return the other answers. Whoever asks is never refused.

        What the old process has taken on, and not answered, is over with it.
        """
        others: list[Any] = []
        async with asyncio.timeout(PATIENCE), aiohttp.ClientSession() as session:
            while True:
                with contextlib.suppress(aiohttp.ServerDisconnectedError):
                    answer = await self._ask(session, None)
                    if answer == expected:
                        return others
                    others.append(answer)

    async def state(self) -> Any:
        """Return what the console is told."""
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"{self.http}/console/state") as answer,
        ):
            return await answer.json()

    async def _ask(self, session: aiohttp.ClientSession, payload: object) -> Any:
        headers = {"Connection": "close"}
        url = f"{self.http}/invocations"
        async with session.post(url, json=payload, headers=headers) as answer:
            body = await answer.json()
        return body["error"]["code"] if answer.status != 200 else body

    @property
    def children(self) -> list[psutil.Process]:
        """The processes that it has started."""
        return psutil.Process(self.process.pid).children()

    async def exit_code(self) -> int:
        """Wait for its end, and for that of all it has started."""
        children = self.children if self.process.returncode is None else []
        async with asyncio.timeout(PATIENCE):
            code = await self.process.wait()
            await ended(children)
        return code

    async def end_well(self) -> None:
        """End it by Ctrl-C, and see that nothing is left of it."""
        self.interrupt()
        assert await self.exit_code() == 0

    def interrupt(self) -> None:
        """Press Ctrl-C, which all processes of a terminal hear."""
        os.killpg(self.process.pid, signal.SIGINT)

    async def kill(self) -> None:
        """End it, if it has not ended."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        await self.process.communicate()


async def ended(processes: list[psutil.Process]) -> None:
    """Wait until none of them is there."""
    await until(lambda: not any(map(_runs, processes)))


def _runs(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


async def until(is_so: Callable[[], object]) -> None:
    """Wait for what nobody tells."""
    async with asyncio.timeout(PATIENCE):
        while True:
            if is_so():
                return
            await asyncio.sleep(0.01)


async def _said(stream: asyncio.StreamReader | None, pattern: str) -> re.Match[str]:
    assert stream is not None
    lines = []
    async with asyncio.timeout(PATIENCE):
        while line := await stream.readline():
            lines.append(line.decode())
            if match := re.search(pattern, lines[-1].rstrip()):
                return match
    raise AssertionError(f"It ended without {pattern}: {lines}")


Develop = Callable[..., Awaitable[Development]]


@contextlib.asynccontextmanager
async def developing(folder: Path) -> AsyncIterator[Develop]:
    """Let begin to develop what is in a file of a folder, until the end of the body."""
    begun: list[Development] = []

    async def begin(
        source: str | None,
        *arguments: str,
        target: str = "agent.py:invoke",
        stdout: int = asyncio.subprocess.PIPE,
        **environ: str,
    ) -> Development:
        if source is not None:
            (folder / "agent.py").write_text(source)
        kept = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)}
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "agentws", "dev", *filter(None, [target]), *arguments),
            cwd=folder,
            env={**kept, "AGENTWS_SERVER__PORT": "0", **environ},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=stdout,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
        development = Development(process, folder)
        begun.append(development)
        return development

    try:
        yield begin
    finally:
        for development in begun:
            await development.kill()


@pytest.fixture
async def begin(tmp_path: Path) -> AsyncIterator[Develop]:
    """Begin to develop what is in a file; keywords add to an environment of ours."""
    async with developing(tmp_path) as begin:
        yield begin


@pytest.fixture
def develop(begin: Develop) -> Develop:
    """Do what `begin` does, and wait until it serves."""

    async def develop(source: str | None, *arguments: str, **options: str) -> Development:
        return await (await begin(source, *arguments, **options)).serving()

    return develop
