"""The command line, run as a process, beside servers that run in the tests' own."""

import asyncio
import os
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.support.processes import PATIENCE, ROOT


class Done(NamedTuple):
    """What came of a command."""

    code: int
    out: str
    err: str


Agentws = Callable[..., Awaitable[Done]]


@asynccontextmanager
async def started(
    *arguments: str, folder: Path, stdout: int = PIPE, environ: Mapping[str, str] = {}
) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run the command line without a terminal; it ends with the body, if it has not by then."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "agentws", *arguments),
        cwd=folder,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), **environ},
        stdin=PIPE,
        stdout=stdout,
        stderr=PIPE,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


@pytest.fixture
def agentws(tmp_path: Path) -> Agentws:
    """Run the command line to its end, in an empty folder."""

    async def run(*arguments: str, stdin: str = "", **environ: str) -> Done:
        async with started(*arguments, folder=tmp_path, environ=environ) as process:
            async with asyncio.timeout(PATIENCE):
                out, err = await process.communicate(stdin.encode())
            assert process.returncode is not None
            return Done(process.returncode, out.decode(), err.decode())

    return run
