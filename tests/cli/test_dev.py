"""`agentws dev` as it is typed: what it tells, and what is wrong with it in a sentence."""

import asyncio
import json
import os
import pty
import subprocess
from pathlib import Path

import aiohttp
import pytest

from tests.support.development import ANSWERS, Develop, until
from tests.support.ports import taken_port

AGENT = ANSWERS.format(answer="here")


async def test_it_tells_the_page_the_socket_and_a_command_to_try(develop: Develop) -> None:
    dev = await develop(None, target="")  # the built-in echo
    await dev.says(rf"^Socket   ws://127.0.0.1:{dev.port}/invocations_ws/ws$")
    command = (await dev.says(r"^Try      (.*)$"))[1]
    tried = await asyncio.to_thread(
        subprocess.run, ["bash", "-c", f"{command} -s"], capture_output=True, check=True
    )
    assert json.loads(tried.stdout) == {"message": "hello"}
    line = await dev.says(r" INFO    agentws.invocations: Invocation completed (.*)$")
    assert [field.partition("=")[0] for field in line[1].split()] == [
        "duration_ms",
        "chunks",
        "invocation_id",
    ]
    async with aiohttp.ClientSession() as session, session.get(f"{dev.http}/console/") as page:
        assert page.status == 200
        assert '<meta name="agentws-dev" content="1">' in await page.text()
    await dev.end_well()


async def test_pages_of_this_machine_may_call_and_no_others(develop: Develop) -> None:
    dev = await develop(AGENT)
    url, ask = f"{dev.http}/invocations", {"Access-Control-Request-Method": "POST"}
    async with aiohttp.ClientSession() as session:
        for own in ("http://localhost:5173", "https://127.0.0.1", "http://[::1]:1"):
            async with session.options(url, headers={"Origin": own, **ask}) as answer:
                assert answer.headers["Access-Control-Allow-Origin"] == own
            async with session.post(url, json={}, headers={"Origin": own}) as answer:
                assert answer.headers["Access-Control-Allow-Origin"] == own
                assert await answer.json() == "here"
        for foreign in ("https://elsewhere.example", "http://localhost.elsewhere.example", "null"):
            async with session.post(url, json={}, headers={"Origin": foreign}) as answer:
                assert answer.status == 403
        for host, status in (("localhost:1", 200), ("[::1]", 200), ("elsewhere.example", 421)):
            async with session.post(url, json={}, headers={"Host": host}) as answer:
                assert answer.status == status
    await dev.end_well()


@pytest.mark.parametrize(
    ("target", "complaint"),
    [
        ("nowhere.py:invoke", "handler.target 'nowhere.py:invoke': there is no file {}/nowhere.py"),
        (
            "nowhere:invoke",
            "handler.target 'nowhere:invoke': there is no module 'nowhere' in {} or among the "
            "packages",
        ),
        (
            "agent.py",
            "handler.target 'agent.py': must look like package.module:attribute or "
            "path/to/module.py:attribute",
        ),
    ],
)
async def test_a_target_that_there_is_not(begin: Develop, target: str, complaint: str) -> None:
    dev = await begin(AGENT, target=target)
    assert await dev.exit_code() == 2
    assert await rest_of(dev.process.stderr) == f"agentws: {complaint.format(dev.folder)}\n"
    assert await rest_of(dev.process.stdout) == ""


async def test_a_port_that_is_taken(begin: Develop) -> None:
    with taken_port() as port:
        dev = await begin(AGENT, "--port", str(port))
        assert await dev.exit_code() == 2
    sentence = f"agentws: cannot listen on 127.0.0.1 port {port}: Address already in use\n"
    assert await rest_of(dev.process.stderr) == sentence


@pytest.mark.parametrize(
    ("variables", "complaint"),
    [
        ("AGENTWS_STORE__LEASE=soon", "environment AGENTWS_STORE__LEASE: store.lease should be a"),
        ("AGENTWS_AUTH__API_KEYS=key", "auth.query_parameter should be set, as with console"),
        ("NAME=caf\udce9", ".env: should be UTF-8"),
    ],
)
async def test_an_environment_that_is_wrong(
    begin: Develop, tmp_path: Path, variables: str, complaint: str
) -> None:
    (tmp_path / ".env").write_text(variables, errors="surrogateescape")
    dev = await begin(AGENT)
    assert await dev.exit_code() == 2
    told = await rest_of(dev.process.stderr)
    assert complaint in told
    assert told.count("\n") == 1


async def rest_of(stream: asyncio.StreamReader | None) -> str:
    assert stream is not None
    return (await stream.read()).decode()


@pytest.mark.parametrize(
    ("arguments", "browser", "is_opened"),
    [([], "browser", True), (["--no-open"], "browser", False), ([], "nowhere", False)],
)
async def test_the_page_is_opened_on_a_terminal(
    begin: Develop, tmp_path: Path, arguments: list[str], browser: str, is_opened: bool
) -> None:
    script, opened = tmp_path / "browser", tmp_path / "opened.log"
    script.write_text(f'#!/bin/sh\necho "$1" >{opened}.tmp && mv {opened}.tmp {opened}\n')
    script.chmod(0o755)
    ours, its = pty.openpty()
    try:
        dev = await begin(AGENT, *arguments, stdout=its, BROWSER=str(tmp_path / browser))
        os.close(its)
        said = b""
        while b"Try " not in said:
            said += await asyncio.to_thread(os.read, ours, 1000)
        if is_opened:
            await until(opened.exists)
        await dev.end_well()
    finally:
        os.close(ours)
    assert opened.exists() == is_opened
    page = said.decode().partition("Console  ")[2].partition("\r")[0]
    assert not is_opened or opened.read_text() == f"{page}\n"
