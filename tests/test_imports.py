"""The picture of who imports whom holds; its contracts stand in pyproject.toml."""

import re
import shutil
import subprocess
import sys
import tomllib
from itertools import pairwise
from pathlib import Path

import pytest

from tests.support.processes import ROOT


def lint_imports(folder: Path) -> "subprocess.CompletedProcess[str]":
    """Check the package in `folder`, which comes before an installed one."""
    lint = str(Path(sys.executable).with_name("lint-imports"))
    command = [lint, "--no-cache", "--no-logo"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def wings() -> list[list[str]]:
    """Return the rows of wings, the uppermost first, without what is not written yet."""
    rules = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    (contract,) = (each for each in rules["contracts"] if each["id"] == "wings")
    rows = [[name.strip() for name in row.split("|")] for row in contract["layers"]]
    return [[name for name in row if not name.startswith("(")] for row in rows]


def drawn(rows: list[list[str]]) -> str:
    """Return the rows as a Mermaid flowchart: each may use all that is below it."""
    lines = ["flowchart TD"]
    names = [" & ".join(name.strip("_") for name in row) for row in rows]
    lines += [f"    {above} --> {below}" for above, below in pairwise(names)]
    return "\n".join(lines)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    shutil.copytree(ROOT / "agentws", tmp_path / "agentws")
    return tmp_path


def test_imports_keep_to_the_picture() -> None:
    result = lint_imports(ROOT)

    assert result.returncode == 0, result.stdout + result.stderr


def test_the_picture_for_contributors_is_drawn_from_the_rules() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text()
    pictures = re.findall(r"```mermaid\n(.*?)\n```", text, re.DOTALL)

    assert drawn(wings()) in pictures


WAYS_IN = {"client", "testing"}
"""The wings whose `__init__.py` names what users import."""


def test_every_wing_says_what_it_is() -> None:
    for name in {name for row in wings() for name in row}:
        folder = ROOT / "agentws" / name
        if folder.is_dir():
            said = (folder / "__init__.py").read_text()
            assert said.startswith('"""'), name
            if name not in WAYS_IN:
                assert said.rstrip().endswith('"""'), f"{name} holds code beside its files"


@pytest.mark.parametrize(
    ("module", "forbidden"),
    [
        ("protocol.errors", "config.settings"),
        ("protocol.errors", "protocol.frames"),
        ("config.sources", "agent.handlers"),
        ("agent.handlers", "transports.websocket.framed_ws"),
        ("stores.memory", "invocations.table"),
        ("stores.log", "transports.websocket.connection"),
        ("invocations.table", "transports.request_fields"),
        ("telemetry.operations", "invocations.caller"),
        ("transports.websocket.framed_ws", "transports.http.http_api"),
        ("transports.websocket.connection", "transports.websocket.framed_ws"),
        ("transports.http.http_api", "auth.access"),
        ("cli.serve", "invocations.table"),
        ("client.run", "client.client"),
        ("client.wire", "config.settings"),
        ("stores.store", "stores.redis.scripts"),
    ],
)
def test_an_import_against_the_picture_is_found(copy: Path, module: str, forbidden: str) -> None:
    path = copy / "agentws" / f"{module.replace('.', '/')}.py"
    path.write_text(f"{path.read_text()}\nimport agentws.{forbidden}\n")

    result = lint_imports(copy)

    assert result.returncode == 1
    assert f"agentws.{module} -> agentws.{forbidden}" in " ".join(result.stdout.split())


@pytest.mark.parametrize("place", ["", "transports", "transports/http"])
def test_a_module_that_has_no_place_in_the_picture_is_found(copy: Path, place: str) -> None:
    (copy / "agentws" / place / "newcomer.py").touch()

    result = lint_imports(copy)

    assert result.returncode == 1
    assert f"- {'.'.join(['agentws', *filter(None, place.split('/')), 'newcomer'])}" in " ".join(
        result.stdout.split()
    )
