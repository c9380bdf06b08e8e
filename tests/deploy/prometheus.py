"""Debian's Prometheus, with the configuration that is deployed, its times scaled down."""

import asyncio
import math
import subprocess
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

from tests.support.processes import PATIENCE, ROOT
from tests.support.redis_server import free_port

FOLDER = ROOT / "deploy/prometheus"


def promtool(*arguments: str | Path) -> "subprocess.CompletedProcess[str]":
    """Let promtool check something."""
    command = ["promtool", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


class Prometheus:
    """One Prometheus, to be asked."""

    def __init__(self, url: str, session: aiohttp.ClientSession) -> None:
        self._url = url
        self._session = session

    async def get(self, path: str, **query: str) -> Any:
        """Return what the HTTP API answers."""
        async with self._session.get(f"{self._url}/api/v1/{path}", params=query) as answer:
            body = await answer.json()
            assert body["status"] == "success", body
            return body["data"]

    async def value(self, query: str) -> float | None:
        """Return one value of those that a query comes to, a number if there is one."""
        found = (await self.get("query", query=query))["result"]
        values = [float(sample["value"][1]) for sample in found]
        return next((it for it in values if not math.isnan(it)), None)

    async def listening(self) -> None:
        """Wait until it answers."""
        async with asyncio.timeout(PATIENCE):
            while not await self._is_ready():  # noqa: ASYNC110 - nothing tells
                await asyncio.sleep(0.05)

    async def _is_ready(self) -> bool:
        try:
            async with self._session.get(f"{self._url}/-/ready") as answer:
                return answer.status == 200
        except aiohttp.ClientConnectionError:
            return False


@asynccontextmanager
async def running_prometheus(
    folder: Path, targets: Sequence[int], key: str
) -> AsyncIterator[Prometheus]:
    """Run one that scrapes these ports with a key, five times a second."""
    (folder / "key").write_text(key)
    config = (FOLDER / "prometheus.yaml").read_text()
    for line, scaled in (
        ("_interval: 15s", "_interval: 200ms"),
        ("- alerts.yaml", f"- {FOLDER / 'alerts.yaml'}"),
        ("    # authorization:", "    authorization:"),
        ("    #   credentials_file: /etc/prometheus/agentws.key", "      credentials_file: key"),
        ("[agentws-1:8088, agentws-2:8088]", str([f"127.0.0.1:{port}" for port in targets])),
    ):
        assert line in config, line
        config = config.replace(line, scaled)
    (folder / "prometheus.yaml").write_text(config)
    port = free_port()
    process = await asyncio.create_subprocess_exec(
        *("prometheus", f"--config.file={folder / 'prometheus.yaml'}"),
        *(f"--storage.tsdb.path={folder / 'data'}", f"--web.listen-address=127.0.0.1:{port}"),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        async with aiohttp.ClientSession() as session:
            prometheus = Prometheus(f"http://127.0.0.1:{port}", session)
            await prometheus.listening()
            yield prometheus
    finally:
        process.terminate()
        await process.wait()
