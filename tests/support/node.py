"""Node, and the packages of the client in JavaScript, which `make .venv/.node` brings."""

import asyncio
import functools
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.processes import ROOT

JAVASCRIPT = ROOT / "clients/javascript"
"""The folder of the client."""

OLDEST = 22
"""The first Node whose WebSocket needs no flag."""


def tool(name: str) -> str:
    """Return the path of a tool that the client's own packages bring; without it, skip the test.

    In CI, let the test fail.
    """
    path = JAVASCRIPT / "node_modules/.bin" / name
    if path.exists():
        return str(path)
    return _missing(f"{name} of clients/javascript: make .venv/.node")


@functools.cache
def node() -> str:
    """Return the path of a Node that is new enough: our own, else the machine's; see `tool`."""
    own = JAVASCRIPT / "node_modules/.bin/node"
    for path in (str(own), shutil.which("node")):
        if path is not None and Path(path).exists() and _major(path) >= OLDEST:
            return path
    return _missing(f"Node {OLDEST}: make .venv/.node")


def _major(path: str) -> int:
    version = subprocess.run([path, "--version"], capture_output=True, text=True, check=True)
    found = re.match(r"v(\d+)\.", version.stdout)
    return int(found[1]) if found else 0


def _missing(what: str) -> str:
    if "CI" in os.environ:
        pytest.fail(f"needs {what}")
    pytest.skip(f"needs {what}")


async def run_node(*arguments: str, stdin: str = "", patience: float = 60) -> str:
    """Run Node in the client's folder and see it succeed in time; return its output."""
    process = await asyncio.create_subprocess_exec(
        node(),
        *arguments,
        cwd=JAVASCRIPT,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        async with asyncio.timeout(patience):
            output, _ = await process.communicate(stdin.encode())
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, output.decode()
    return output.decode()
