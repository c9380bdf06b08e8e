"""The example of a client in Go, which is told in `docs/clients/writing-another.md`."""

import asyncio
import os
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from agentws import Agent, InvocationContext
from tests.conftest import PATIENCE, Serve
from tests.deploy.programs import need
from tests.support.agents import agent_of, echo
from tests.support.cutting import cutting
from tests.support.processes import ROOT

GO = {"GO111MODULE": "off", "GOPATH": "/usr/share/gocode"}
"""Has Go find the packages of the system."""

Play = Callable[..., AbstractAsyncContextManager[asyncio.subprocess.Process]]
"""Runs the client with these arguments."""


@pytest.fixture
async def play(tmp_path: Path) -> Play:
    need("go")
    client = tmp_path / "client"
    build = await asyncio.create_subprocess_exec(
        *("go", "build", "-o", str(client), "."),
        cwd=ROOT / "examples/clients/go",
        env=os.environ | GO,
    )
    assert await build.wait() == 0

    @asynccontextmanager
    async def run(*arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(client, *arguments, stdout=pipe, stderr=pipe)
        try:
            async with asyncio.timeout(PATIENCE):
                yield process
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()

    return run


async def test_it_reads_a_stream_to_its_end_though_it_is_cut_off(serve: Serve, play: Play) -> None:
    agent, go_on, runs = Agent(), asyncio.Event(), 0

    @agent.invoke_handler
    async def invoke(payload: Any, _: InvocationContext) -> AsyncGenerator[Any, None]:
        nonlocal runs
        runs += 1
        yield "one"
        await go_on.wait()
        yield "two"

    server = await serve(agent)
    async with cutting([server], seed=1) as front:
        front.is_calm = True
        async with play(f"{front.ws}/invocations_ws/ws", "{}") as client:
            assert client.stdout is not None
            assert await client.stdout.readline() == b'stream_chunk 1 "one"\n'
            front.cut_all()
            go_on.set()
            assert await client.stdout.read() == b'stream_chunk 2 "two"\nstream_end \n'
            assert await client.wait() == 0
    assert runs == 1


async def test_it_prints_a_result(serve: Serve, play: Play) -> None:
    server = await serve(agent_of(echo))
    async with play(f"{server.ws}/invocations_ws/ws", '{"a": 1}') as client:
        output, _ = await client.communicate()
    assert output == b'result {"a":1}\n'


async def test_it_does_not_try_again_what_is_refused_for_good(serve: Serve, play: Play) -> None:
    server = await serve(agent_of(echo), auth={"api_keys": ["secret"]})
    async with play(f"{server.ws}/invocations_ws/ws", "{}") as client:
        _, complaint = await client.communicate()
    assert b"bad handshake" in complaint
    assert client.returncode == 1
