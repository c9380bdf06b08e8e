"""The container image: built from the Dockerfile, run, asked, stopped (`make image-test`)."""

import json
import os
import re
import signal
import socket
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from tests.deploy.containers import PYTHON, Builder, Container, Image
from tests.deploy.programs import need
from tests.support.processes import PATIENCE, ROOT

pytestmark = pytest.mark.image

LARGEST = 150_000_000
"""Bytes that the daemon and its packages may add to the base."""

MB = 1_000_000

SLOW_AGENT = """\
import asyncio
import websockets  # what the agent needs besides

async def agent(payload, context):
    yield 1
    await asyncio.Event().wait()
"""

LEAVING_AGENT = """\
import asyncio
from pathlib import Path

async def agent(payload, context):
    if payload != "zombies":  # a program whose child outlives it, for a moment
        program = await asyncio.create_subprocess_shell("sleep 0.1 & exit 0")
        return await program.wait()
    zombies = ["?"]
    async with asyncio.timeout(5):
        while zombies:
            await asyncio.sleep(0.05)
            stats = [path.read_text() for path in Path("/proc").glob("[0-9]*/stat")]
            zombies = [stat for stat in stats if ") Z " in stat or "(sleep)" in stat]
    return zombies
"""

SLOW_IMPORT = """\
import time

print('{"message": "importing"}', flush=True)
time.sleep(600)
"""

DOCKERFILE = """\
FROM localhost/agentws
USER root
RUN --mount=type=secret,id=pip,target=/etc/pip.conf \\
    --mount=type=secret,id=certificates,target=/etc/ssl/certs/ca-certificates.crt \\
    pip install --no-cache-dir --constraint /opt/agentws/constraints.txt websockets
USER 65532:65532
COPY slow.py /agent/
ENV AGENTWS_HANDLER__TARGET=slow:agent
"""


@pytest.fixture(scope="session")
def builder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Builder]:
    need("buildah", "unshare", as_root=True)
    builder = Builder(tmp_path_factory.mktemp("buildah"))
    yield builder
    builder.remove_all()


@pytest.fixture(scope="session")
def python(builder: Builder) -> str:
    """Return the image to build on: one that can be pulled, if it is named, or Debian's Python."""
    if name := os.environ.get("PYTHON_IMAGE"):
        return name
    need("debootstrap")
    cache = ROOT / ".image"
    cache.mkdir(exist_ok=True)
    builder.make_python(cache / "debian.tar")
    return PYTHON


@pytest.fixture(scope="session")
def image(builder: Builder, python: str) -> Image:
    return builder.build(ROOT, "agentws", PYTHON_IMAGE=python)


Start = Callable[..., Awaitable[Container]]


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    """Start containers; what is left of them at the end is killed."""
    containers: list[Container] = []

    async def start(image: Image, *command: str, **variables: str) -> Container:
        containers.append(await Container.start(image, *command, **variables))
        return containers[-1]

    yield start
    for container in containers:
        await container.kill()


def free_port() -> str:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return str(server.getsockname()[1])


# --- what is in it ----------------------------------------------------------------------------


def test_it_is_small(builder: Builder, python: str, image: Image) -> None:
    added = builder.size(image.name) - builder.size(python)
    print(f"\nthe image adds {added / MB:.0f} MB to its base")  # noqa: T201 - a figure to quote
    assert added < LARGEST


def test_every_package_in_it_is_of_the_version_that_was_tested(image: Image) -> None:
    pins = re.findall(r"^([\w.-]+==\S+)$", (ROOT / "constraints.txt").read_text(), re.M)
    installed = image.run("pip", "list", "--format=freeze").stdout.split()
    ours = [package for package in installed if package.startswith("agentws==")]
    assert len(ours) == 1
    assert {canonical(it) for it in installed if it not in ours} <= {canonical(it) for it in pins}


def canonical(pin: str) -> str:
    return re.sub("[-_.]", "-", pin.partition("==")[0]).lower() + pin.partition("==")[2]


@pytest.mark.parametrize("program", ["cc", "gcc", "make", "curl"])
def test_it_holds_no_tools_that_it_does_not_need(image: Image, program: str) -> None:
    assert image.run("sh", "-c", f"command -v {program}").returncode != 0


def test_nothing_of_the_build_stays_in_it(image: Image) -> None:
    assert not (image.folder / "source").exists()
    assert not (image.folder / "etc/pip.conf").exists()


def test_its_user_can_change_no_file_of_it(image: Image) -> None:
    found = image.run(
        *("find", "/opt", "/agent", "-not", "-type", "l"),
        *("(", "-not", "-user", "root", "-o", "-perm", "/022", ")"),
    )
    assert (found.returncode, found.stdout) == (0, "")


# --- its life ---------------------------------------------------------------------------------


async def test_it_serves_and_ends_with_0_on_sigterm(start: Start, image: Image) -> None:
    port = free_port()
    container = await (await start(image, PORT=port)).listening()
    async with container.connect() as client:
        assert (await client.ask(action="invoke", payload="hi"))["payload"] == "hi"
        health = image.healthcheck(PORT=port)
        assert (health.returncode, health.stderr) == (0, "")
        container.send(signal.SIGTERM)
        assert (await client.receive())["type"] == "going_away"
        assert await client.closed() == 1001
    assert await container.exit_code() == 0
    assert await container.complaints() == ""


async def test_it_runs_as_a_user_without_rights(start: Start, image: Image) -> None:
    container = await (await start(image, PORT=free_port())).listening()
    status = container.status()
    assert set(status["Uid"]) == {"65532"}
    assert set(status["Gid"]) == {"65532"}
    assert status["NSpid"][-1] == "1"
    assert int(status["CapEff"][0], 16) == 0


async def test_what_its_programs_leave_behind_is_reaped(
    start: Start, builder: Builder, image: Image, tmp_path: Path
) -> None:
    (tmp_path / "leaving.py").write_text(LEAVING_AGENT)
    (tmp_path / "Dockerfile").write_text(
        "FROM localhost/agentws\nCOPY leaving.py /agent/\n"
        "ENV AGENTWS_HANDLER__TARGET=leaving:agent\n"
    )
    container = await (
        await start(builder.build(tmp_path, "leaving"), PORT=free_port())
    ).listening()
    async with container.connect() as client:
        for _ in range(5):
            assert (await client.ask(action="invoke"))["payload"] == 0
        assert (await client.ask(action="invoke", payload="zombies"))["payload"] == []
    container.send(signal.SIGTERM)
    assert await container.exit_code() == 0


async def test_a_signal_while_the_agent_is_imported_ends_it_with_0(
    start: Start, builder: Builder, image: Image, tmp_path: Path
) -> None:
    (tmp_path / "slow.py").write_text(SLOW_IMPORT)
    (tmp_path / "Dockerfile").write_text(
        "FROM localhost/agentws\nCOPY slow.py /agent/\nENV AGENTWS_HANDLER__TARGET=slow:agent\n"
    )
    container = await start(builder.build(tmp_path, "importing"), PORT=free_port())
    await container.line(message="importing")
    container.send(signal.SIGTERM)
    assert await container.exit_code() == 0
    assert await container.complaints() == ""


async def test_an_agent_is_added_by_a_dockerfile_of_its_own(
    start: Start, builder: Builder, image: Image
) -> None:
    folder = ROOT / "examples" / "container"
    mine = builder.build(folder, "my-agent", AGENTWS_IMAGE=f"localhost/{image.name}")
    container = await (await start(mine, PORT=free_port())).listening()
    async with container.connect() as client:
        await client.send(action="invoke", payload={"message": "from inside"})
        assert (await client.receive())["payload"] == {"token": "from"}
        assert (await client.receive())["payload"] == {"token": "inside"}
        assert (await client.receive())["type"] == "stream_end"
    container.send(signal.SIGTERM)
    assert await container.exit_code() == 0


async def test_its_health_tells_the_truth_from_the_start_to_the_end(
    start: Start, builder: Builder, image: Image, tmp_path: Path
) -> None:
    (tmp_path / "slow.py").write_text(SLOW_AGENT)
    (tmp_path / "Dockerfile").write_text(DOCKERFILE)
    slow = builder.build(tmp_path, "slow")
    port = free_port()
    assert "no answer" in slow.healthcheck(PORT=port).stderr
    container = await (await start(slow, PORT=port)).listening()
    async with container.connect() as client:
        assert (await client.ask(action="invoke", invocation_id="i"))["type"] == "stream_chunk"
        assert slow.healthcheck(PORT=port).returncode == 0
        container.send(signal.SIGTERM)
        await client.until(type="going_away")
        health = slow.healthcheck(PORT=port)
        said = '{"status":"draining","checks":{"store":"ok"}}\n'
        assert (health.returncode, health.stderr) == (1, said)
        await client.send(action="cancel_invocation", invocation_id="i")
    assert await container.exit_code() == 0
    assert slow.healthcheck(PORT=port).returncode == 1


# --- what can be wrong ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("variables", "sentence"),
    [
        ({"PORT": "eighty"}, "platform variable PORT: server.port should .*"),
        ({"AGENTWS_SERVER__PRT": "1"}, ".*AGENTWS_SERVER__PRT.*AGENTWS_SERVER__PORT"),
        ({"AGENTWS_HANDLER__TARGET": "absent:agent"}, ".*absent.*"),
        ({"AGENTWS_AUTH__JWT_ISSUER": "https://issuer.example"}, ".*auth.jwt_audience.*"),
        ({"AGENTWS_STORE__URL": "mysql://db"}, ".*AGENTWS_STORE__URL.*memory://.*"),
        ({"AGENTWS_SERVER__HOST": "192.0.2.1"}, "cannot listen on 192.0.2.1 .*"),
    ],
    ids=str,
)
def test_a_wrong_variable_is_one_sentence_and_exit_code_2(
    image: Image, variables: dict[str, str], sentence: str
) -> None:
    result = image.run(*image.command, **variables)
    assert result.returncode == 2
    assert result.stdout == ""
    assert re.fullmatch(f"agentws: {sentence}\n", result.stderr), result.stderr


def test_a_port_that_is_taken_is_one_sentence_and_exit_code_2(image: Image) -> None:
    with socket.create_server(("0.0.0.0", 0)) as server:
        port = str(server.getsockname()[1])
        result = image.run(*image.command, PORT=port)
    assert result.returncode == 2
    assert result.stderr == (
        f"agentws: cannot listen on 0.0.0.0 port {port}: Address already in use\n"
    )


def test_a_port_that_needs_rights_is_one_sentence_and_exit_code_2(image: Image) -> None:
    # In a network of its own, where ports below 1024 are root's; Docker gives them to all.
    command = ["unshare", "--net", *image.inside(*image.command, PORT="80")]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE)
    assert result.returncode == 2
    assert result.stderr == "agentws: cannot listen on 0.0.0.0 port 80: Permission denied\n"


async def test_without_its_redis_it_runs_and_waits_and_is_not_healthy(
    start: Start, image: Image
) -> None:
    variables = {"PORT": free_port(), "AGENTWS_STORE__URL": f"redis://127.0.0.1:{free_port()}"}
    container = await (await start(image, **variables)).listening()
    health = image.healthcheck(**variables)
    told = {"status": "unavailable", "checks": {"store": "Redis cannot be reached"}}
    assert (health.returncode, json.loads(health.stderr)) == (1, told)
    container.send(signal.SIGTERM)
    assert await container.exit_code() == 0
