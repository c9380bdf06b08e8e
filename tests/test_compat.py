"""Modules written for the SDK run, by themselves and by `handler.target`."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from agentws import InvocationContext, InvocationError
from agentws.compat import (
    InvocationWSContext,
    InvocationWSError,
)
from tests.support.processes import running

MODULE = """
from agentws.compat import InvocationWSAgentServerHost

app = InvocationWSAgentServerHost(ws_ping_interval=7, graceful_shutdown_timeout=3)


@app.ws_invoke_handler
async def invoke(payload, context):
    return {"session": context.session_id}


app.run(port=9)
"""


@pytest.mark.parametrize(
    "command",
    [
        ("examples/sdk_style.py",),
        ("-m", "agentws", "serve", "--handler", "examples.sdk_style:app"),
    ],
)
async def test_a_module_runs_by_itself_and_by_target(command: tuple[str, ...]) -> None:
    async with running(*command, server__port=0) as daemon, daemon.connect() as client:
        frame = await client.ask(action="invoke", payload={"message": "hello"})
        assert frame["payload"] == {"token": "hello"}
        await client.until(type="stream_end")
        frame = await client.ask(action="invoke", payload={})
        assert frame["error"]["code"] == "invalid_request"


def check(folder: Path, *options: str, **variables: str) -> dict[str, tuple[str, str]]:
    """Return value and origin of each setting as `agentws check` tells them."""
    (folder / "sdk_module.py").write_text(MODULE)
    done = subprocess.run(
        [sys.executable, "-m", "agentws", "check", *options],
        cwd=folder,
        env={**os.environ, "AGENTWS_HANDLER__TARGET": "sdk_module:app", **variables},
        capture_output=True,
        text=True,
        check=True,
    )
    rows = [line.split(maxsplit=2) for line in done.stdout.splitlines()]
    return {row[0]: (row[1], row[2].strip()) for row in rows}


def test_its_keyword_arguments_are_settings(tmp_path: Path) -> None:
    rows = check(tmp_path)
    assert rows["websocket.app_ping_interval"] == ("7", "program")
    assert rows["server.shutdown_grace"] == ("3", "program")


def test_file_and_environment_rank_above_them(tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text("[websocket]\napp_ping_interval = 8\n")
    rows = check(
        tmp_path,
        "--config",
        str(config),
        AGENTSERVER_GRACEFUL_SHUTDOWN_TIMEOUT_SECONDS="4",
    )
    assert rows["websocket.app_ping_interval"][0] == "8"
    assert rows["server.shutdown_grace"][0] == "4"


def test_the_sdks_names_are_the_agents() -> None:
    assert InvocationWSContext is InvocationContext
    assert InvocationWSError is InvocationError
