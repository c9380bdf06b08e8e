"""What can be told of the Dockerfiles without building them."""

import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from agentws.config.options import OPTIONS
from tests.support.processes import ROOT

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


@pytest.mark.parametrize("host", ["", "*", "::", "0.0.0.0", "127.0.0.1"])
def test_the_health_check_finds_a_daemon_on_every_address(host: str) -> None:
    script = str(ROOT / "deploy/healthcheck.py")
    with socket.create_server(("127.0.0.1", 0)) as server:
        environ = {"AGENTWS_SERVER__HOST": host, "PORT": str(server.getsockname()[1])}
        check = subprocess.Popen([sys.executable, "-I", script], env=environ)
        connection, _ = server.accept()
        connection.recv(1024)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        assert check.wait() == 0
        connection.close()


def test_the_container_listens_where_it_says() -> None:
    assert f"EXPOSE {OPTIONS['server.port'].field.default}\n" in (ROOT / "Dockerfile").read_text()
