"""Debian's nginx as the gateway: the configuration that is deployed, with its times scaled down."""

import asyncio
import os
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from tests.conftest import PATIENCE, Address
from tests.support.processes import ROOT
from tests.support.redis_server import free_port

MAIN = ROOT / "deploy/nginx/nginx.conf"
SITE = ROOT / "deploy/nginx/agentws.conf"

HERE = """\
    log_format tries '$msec $request_method $uri $status $upstream_addr $upstream_status';
    access_log {folder}/access.log tries;
    client_body_temp_path {folder}/bodies;
    proxy_temp_path {folder}/proxied;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    include {folder}/agentws.conf;
"""
"""What keeps it in a folder of its own."""


class Nginx(Address):
    """One nginx, and the address that it listens on."""

    def __init__(self, folder: Path, replicas: Sequence[int], changes: dict[str, str]) -> None:
        super().__init__(free_port())
        self._folder = folder
        self._write(replicas, changes)
        self._process: asyncio.subprocess.Process | None = None

    @property
    def errors(self) -> str:
        """What it has complained of."""
        return (self._folder / "error.log").read_text()

    async def check(self) -> None:
        """Let nginx check its configuration."""
        process = await self._run("-t")
        _, complaints = await process.communicate()
        assert process.returncode == 0, complaints.decode()

    async def start(self) -> None:
        """Start it, and wait until it listens."""
        self._process = await self._run()
        async with asyncio.timeout(PATIENCE):
            while not await self._listens():
                assert self._process.returncode is None, self.errors

    async def reload(self) -> None:
        """Let new workers take over; the old ones cut what they hold open."""
        process = await self._run("-s", "reload")
        assert await process.wait() == 0

    async def stop(self) -> None:
        """End it."""
        if self._process is not None and self._process.returncode is None:
            self._process.terminate()
            await self._process.communicate()

    def _write(self, replicas: Sequence[int], changes: dict[str, str]) -> None:
        site = SITE.read_text()
        placeholders = dict.fromkeys(re.findall(r"agentws-\d:8088", site))
        addresses = [f"127.0.0.1:{port}" for port in replicas]
        changes = {
            **dict(zip(placeholders, addresses, strict=True)),
            "listen 80;": f"listen 127.0.0.1:{self.port};",
            **changes,
        }
        (self._folder / "agentws.conf").write_text(changed(site, changes))
        main = {
            "user nginx;": "user root;" if os.geteuid() == 0 else "",
            "pid /run": f"daemon off; worker_shutdown_timeout 100ms; pid {self._folder}",
            "/dev/stderr": f"{self._folder}/error.log",
            "    access_log /dev/stdout;\n": "",
            "    include /etc/nginx/conf.d/*.conf;\n": HERE.format(folder=self._folder),
        }
        (self._folder / "nginx.conf").write_text(changed(MAIN.read_text(), main))

    async def _run(self, *options: str) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            *("nginx", "-p", str(self._folder), "-c", str(self._folder / "nginx.conf")),
            *options,
            stderr=asyncio.subprocess.PIPE,
        )

    async def _listens(self) -> bool:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", self.port)
        except OSError:
            await asyncio.sleep(0.01)
            return False
        writer.close()
        return True


def changed(text: str, changes: dict[str, str]) -> str:
    """Replace what is deployed by what a test needs; all of it has to be there."""
    for old, new in changes.items():
        assert old in text, old
        text = text.replace(old, new)
    return text


@asynccontextmanager
async def running_nginx(
    folder: Path, *replicas: int, changes: dict[str, str] | None = None
) -> AsyncIterator[Nginx]:
    """Run nginx in front of replicas on these ports, with changes to what is deployed."""
    nginx = Nginx(folder, replicas, changes or {})
    await nginx.check()
    await nginx.start()
    try:
        yield nginx
    finally:
        await nginx.stop()
