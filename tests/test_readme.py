"""What the README shows works as it stands."""

import asyncio
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple, get_args

import pytest

from agentws.config.sources import load
from agentws.protocol.decoding import decode_frame
from agentws.protocol.records import Status
from tests.conftest import PATIENCE
from tests.support.processes import ROOT, running

README = (ROOT / "README.md").read_text()


class Block(NamedTuple):
    language: str
    text: str


def blocks() -> Iterator[Block]:
    for match in re.finditer(r"^```(\w*)\n(.*?)^```$", README, re.M | re.S):
        yield Block(match[1], match[2])


def texts(language: str) -> list[str]:
    return [block.text for block in blocks() if block.language == language]


def shell_lines(command: str) -> list[str]:
    lines = [line for text in texts("sh") for line in text.splitlines()]
    return [line for line in lines if line.startswith(command)]


@asynccontextmanager
async def port_of(target: str, folder: Path = ROOT) -> AsyncIterator[str]:
    """Serve an agent in a process of its own, and yield its port."""
    command = ("-m", "agentws", "serve", "--handler", target, "--port", "0")
    async with running(*command, folder=folder) as daemon:
        yield str(daemon.port)


async def output(*command: str) -> str:
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    async with asyncio.timeout(2 * PATIENCE):
        out, _ = await process.communicate()
    assert process.returncode == 0
    return out.decode()


def pattern_of(sample: str) -> str:
    """Return a pattern of a sample in which … stands for anything."""
    return re.escape(sample).replace("…", ".*")


def test_every_block_is_of_a_kind_that_is_run_here() -> None:
    kinds = {block.language for block in blocks()}
    assert kinds == {"sh", "python", "text", "json", "toml", "mermaid"}
    commands = {text.split()[0] for text in texts("sh") for text in text.splitlines()}
    assert commands == {"make", "curl", "agentws", "docker"}  # docker: tests/deploy/test_image.py


async def test_the_first_snippet_prints_what_it_is_said_to() -> None:
    snippet, (sample,) = texts("python")[0], texts("text")
    async with port_of("examples.streaming:agent") as port:
        printed = await output(sys.executable, "-c", snippet.replace("8088", port))
    assert re.fullmatch(pattern_of(sample), printed), printed


async def test_the_curl_lines_work() -> None:
    if shutil.which("curl") is None and "CI" not in os.environ:
        pytest.skip("curl is not installed")
    async with port_of("examples.streaming:agent") as port:
        stream, array = [
            await output("bash", "-c", line.replace("8088", port)) for line in shell_lines("curl")
        ]
    assert stream.count("event: stream_chunk") == 3
    assert "event: stream_end" in stream
    assert array == '[{"token":"as"},{"token":"one"},{"token":"array"}]'


async def test_the_agent_that_it_writes_can_be_served_as_it_says(tmp_path: Path) -> None:
    agent = texts("python")[1]
    name = agent.splitlines()[0].removeprefix("# ")
    (tmp_path / name).write_text(agent)
    (line,) = [line for line in shell_lines("agentws serve") if "--handler" in line]
    async with port_of(line.split()[-1], tmp_path) as port:
        url = f"http://localhost:{port}/invocations"
        printed = await output("curl", "-sN", url, "-d", '{"message": "hello"}')
    assert 'data: {"token":"hello"}' in printed


async def test_the_types_that_it_declares_are_checked_as_it_says(tmp_path: Path) -> None:
    agent = texts("python")[2]
    name = agent.splitlines()[0].removeprefix("# ")
    (tmp_path / name).write_text(agent)
    async with port_of(f"./{name}:agent", tmp_path) as port:
        url = f"http://localhost:{port}/invocations"
        refused = await output("curl", "-s", url, "-d", '{"message": 5}')
        said = await output("curl", "-s", url, "-d", '{"message": "hello"}')
    complaint = json.loads(refused)["error"]["message"]
    assert complaint in " ".join(README.split())
    assert 'data: {"token":"hello"}' in said


def test_the_make_targets_exist() -> None:
    for line in shell_lines("make"):
        target = line.split()[1]
        subprocess.run(["make", "--dry-run", target], cwd=ROOT, check=True, capture_output=True)


def test_the_other_commands_exist(tmp_path: Path) -> None:
    shutil.copy(ROOT / "config.example.toml", tmp_path / "config.toml")
    for line in shell_lines("agentws check"):
        command = [sys.executable, "-m", *line.split("#")[0].split()]
        subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    assert any("--config config.toml" in line for line in shell_lines("agentws serve"))


def test_the_message_that_it_shows_is_one() -> None:
    (message,) = texts("json")
    decode_frame(message)


def test_the_settings_that_it_shows_are_settings(tmp_path: Path) -> None:
    for number, text in enumerate(texts("toml")):
        file = tmp_path / f"{number}.toml"
        file.write_text(text)
        load(file, environ={})


def test_the_picture_shows_the_life_of_an_invocation() -> None:
    (picture,) = texts("mermaid")
    assert picture.startswith("stateDiagram-v2")
    assert set(re.findall(r"running --> (\w+)", picture)) == set(get_args(Status)) - {"running"}


def test_its_links_lead_somewhere() -> None:
    for document in ("README.md", "CONTRIBUTING.md", "SECURITY.md"):
        for link in re.findall(r"\]\(([^)#]+)\)", (ROOT / document).read_text()):
            assert link.startswith("https://") or (ROOT / link).exists(), link


def test_every_example_is_told_of() -> None:
    for example in (ROOT / "examples").glob("[a-z]*.py"):
        assert f"examples/{example.name}" in README
