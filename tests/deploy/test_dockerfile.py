"""What can be told of the Dockerfiles without building them."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from agentws.settings import OPTIONS
from tests.processes import ROOT

DOCKERFILES = [ROOT / "Dockerfile", ROOT / "examples/container/Dockerfile"]


@pytest.mark.parametrize("file", DOCKERFILES, ids=lambda file: file.parent.name)
def test_hadolint_finds_nothing(file: Path) -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    result = subprocess.run([hadolint, file], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout) == (0, "")


def test_the_health_check_asks_where_the_daemon_listens() -> None:
    source = (ROOT / "deploy/healthcheck.py").read_text()
    port, host = OPTIONS["server.port"], OPTIONS["server.host"]
    names = re.findall(r'environ\.get\("(\w+)"\)', source)
    assert names == [host.variable, port.variable, port.platform]
    assert f'or "{port.field.default}"' in source


def test_the_container_listens_where_it_says() -> None:
    assert f"EXPOSE {OPTIONS['server.port'].field.default}\n" in (ROOT / "Dockerfile").read_text()
