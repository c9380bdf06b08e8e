"""An agent's module is a program: `python my_agent.py` serves it."""

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from agentws import Agent
from agentws.agent.loading import load
from tests.support.ports import taken_port
from tests.support.processes import running

AGENT = """
from agentws import Agent

agent = Agent()


@agent.invoke_handler
async def invoke(payload, context):
    return {"heard": payload}


agent.run(host="127.0.0.1")
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "my_agent.py").write_text(AGENT)
    return tmp_path


@pytest.mark.parametrize(
    "command",
    [("my_agent.py",), ("-m", "agentws", "serve", "--handler", "my_agent:agent")],
    ids=["by itself", "by target"],
)
async def test_a_module_is_served(folder: Path, command: tuple[str, ...]) -> None:
    serving = running(*command, folder=folder, server__port=0)
    async with serving as daemon, daemon.connect() as client:
        frame = await client.ask(action="invoke", payload="hello")
        assert frame["payload"] == {"heard": "hello"}


async def test_its_arguments_rank_above_the_environment(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    (tmp_path / "my_agent.py").write_text(AGENT.replace("run(", f"run(port={port}, "))
    async with running("my_agent.py", folder=tmp_path, server__port=1) as daemon:
        assert daemon.port == port


async def test_an_empty_variable_of_opentelemetry_counts_as_not_set(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_PROPAGATORS", "")
    async with running("my_agent.py", folder=folder, server__port=0) as daemon:
        assert daemon.port


def test_it_returns_while_a_daemon_imports_the_module(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(folder)
    assert isinstance(load("my_agent:agent"), Agent)


@pytest.mark.parametrize("problem", ["PORT", "taken"])
def test_a_start_that_fails_is_one_sentence(folder: Path, problem: str) -> None:
    with taken_port() as taken:
        port = "many" if problem == "PORT" else str(taken)
        done = subprocess.run(
            [sys.executable, "my_agent.py"],
            cwd=folder,
            env={**os.environ, "PORT": port},
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 2
    assert re.fullmatch(r"agentws: [^\n]*\n", done.stderr)
    assert ("PORT" if problem == "PORT" else port) in done.stderr


def test_the_daemon_is_imported_when_it_is_to_run() -> None:
    program = "import agentws, sys; sys.exit('agentws.daemon.run' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)
