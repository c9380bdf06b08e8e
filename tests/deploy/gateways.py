"""Caddy and Traefik as the gateway: what is deployed, its times scaled down."""

import asyncio
import os
import re
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp

from tests.conftest import PATIENCE, Address
from tests.deploy.nginx import changed
from tests.support.processes import ROOT
from tests.support.redis_server import free_port

CADDYFILE = ROOT / "deploy/caddy/Caddyfile"
TRAEFIK_MAIN = ROOT / "deploy/traefik/traefik.yaml"
TRAEFIK_SITE = ROOT / "deploy/traefik/agentws.yaml"

TRAEFIK = str(Path(sys.executable).with_name("traefik"))
"""The program, which a package of the development group brings."""

PROBED = "100ms"
"""What the two seconds between questions for readiness are scaled to."""


class Gateway(Address):
    """A gateway in a process of its own."""

    def __init__(self, folder: Path, *command: str) -> None:
        super().__init__(free_port())
        self._folder = folder
        self._command = command
        self._process: asyncio.subprocess.Process | None = None

    @property
    def log(self) -> str:
        """What it has written."""
        return (self._folder / "gateway.log").read_text()

    async def start(self) -> None:
        """Start it, and wait until it has found the replicas ready."""
        with (self._folder / "gateway.log").open("w") as log:
            self._process = await asyncio.create_subprocess_exec(
                *self._command,
                cwd=self._folder,
                env={"PATH": os.environ["PATH"], "HOME": str(self._folder)},
                stdout=log,
                stderr=log,
            )
        async with asyncio.timeout(PATIENCE), aiohttp.ClientSession(self.http) as session:
            while not await self._finds_a_replica(session):
                assert self._process.returncode is None, self.log

    async def stop(self) -> None:
        """End it, with all that goes through it."""
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()

    async def noticed(self) -> None:
        """Wait until it has learnt that a replica is not ready."""
        async with asyncio.timeout(PATIENCE):
            while not re.search(r'code"?: ?503', self.log):  # noqa: ASYNC110 - nothing tells
                await asyncio.sleep(0.01)

    async def _finds_a_replica(self, session: aiohttp.ClientSession) -> bool:
        try:
            async with session.get("/readiness") as answer:
                if answer.status == 200:
                    return True
        except aiohttp.ClientConnectionError:
            pass
        await asyncio.sleep(0.01)
        return False


def pointed_at(config: str, replicas: Sequence[int]) -> str:
    """Return a configuration with the addresses of these replicas."""
    placeholders = dict.fromkeys(re.findall(r"agentws-\d:8088", config))
    addresses = [f"127.0.0.1:{port}" for port in replicas]
    return changed(config, dict(zip(placeholders, addresses, strict=True)))


@asynccontextmanager
async def running_caddy(folder: Path, idle: str, *replicas: int) -> AsyncIterator[Gateway]:
    """Run Debian's Caddy, which lets nothing be silent for longer than `idle`."""
    command = ("caddy", "run", "--adapter", "caddyfile", "--config", "Caddyfile")
    gateway = Gateway(folder, *command)
    edits = {
        "\n:80 {": f"\nhttp://127.0.0.1:{gateway.port} {{",
        "grace_period 30s": "admin off",
        "240s": idle,
        "health_interval 2s": f"health_interval {PROBED}",
    }
    config = changed(pointed_at(CADDYFILE.read_text(), replicas), edits)
    (folder / "Caddyfile").write_text(config)
    await gateway.start()
    try:
        yield gateway
    finally:
        await gateway.stop()


@asynccontextmanager
async def running_traefik(folder: Path, idle: str, *replicas: int) -> AsyncIterator[Gateway]:
    """Run Traefik, none of whose time-outs is longer than `idle`."""
    gateway = Gateway(folder, TRAEFIK, "--configfile=traefik.yaml")
    edits = {
        '":80"': f'"127.0.0.1:{gateway.port}"',
        "60s": idle,
        "240s": idle,
        "/etc/traefik/dynamic": str(folder / "dynamic"),
    }
    (folder / "traefik.yaml").write_text(changed(TRAEFIK_MAIN.read_text(), edits))
    config = pointed_at(TRAEFIK_SITE.read_text(), replicas)
    edits = {"240s": idle, "60s": idle, "interval: 2s": f"interval: {PROBED}"}
    (folder / "dynamic").mkdir()
    (folder / "dynamic/agentws.yaml").write_text(changed(config, edits))
    await gateway.start()
    try:
        yield gateway
    finally:
        await gateway.stop()
