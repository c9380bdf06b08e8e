"""The guides speak of what there is."""

import re
import signal
from pathlib import Path

import aiohttp
import pytest

from agentws.config.settings import OPTIONS, SECTIONS
from tests.support.processes import ROOT, Start

GUIDES = [ROOT / "deploy/operations.md", ROOT / "deploy/azure/README.md"]

each_guide = pytest.mark.parametrize("guide", GUIDES, ids=lambda it: it.parent.name)


@each_guide
def test_its_links_lead_somewhere(guide: Path) -> None:
    for link in re.findall(r"\]\(([^)#]+)\)", guide.read_text()):
        assert link.startswith("https://") or (guide.parent / link).exists(), link


@each_guide
def test_the_settings_that_it_names_are_there(guide: Path) -> None:
    sections = "|".join(SECTIONS)
    for key in re.findall(rf"`((?:{sections})\.\w+)`", guide.read_text()):
        assert key in OPTIONS, key


def test_every_alert_that_is_deployed_is_explained() -> None:
    deployed = (ROOT / "deploy/azure/monitoring.bicep").read_text()
    alerts, _, _ = deployed.partition("resource workspace")
    rules = (ROOT / "deploy/prometheus/alerts.yaml").read_text()
    of_azure = re.findall(r"name: '([\w-]+)'", alerts)
    of_prometheus = re.findall(r"- alert: (\w+)", rules)
    assert of_azure
    assert of_prometheus
    for name in (*of_azure, *of_prometheus):
        assert f"*{name}*" in GUIDES[0].read_text(), name


COMMON = {"timestamp", "level", "logger", "message", "trace_id", "span_id"}

AGENT = """
    @agent.invoke_handler
    async def invoke(payload, context):
        if payload == "fail":
            raise ValueError("no")
        await asyncio.sleep(payload)
"""


def documented_fields() -> dict[str, set[str]]:
    """Return the fields that the table of log lines names, by logger."""
    rows = re.findall(r"^\| `(agentws\.\w+)` \|.*?\| (.*) \|$", GUIDES[0].read_text(), re.M)
    fields: dict[str, set[str]] = {}
    for logger, cell in rows:
        fields.setdefault(logger, set()).update(re.findall(r"`([\w.]+)`", cell))
    return fields


async def test_the_fields_of_log_lines_are_those_of_the_table(start: Start) -> None:
    daemon = await start(AGENT, server__shutdown_grace=0, server__log_level="debug")
    lines = [await daemon.line(logger="agentws.server")]
    daemon.port = lines[0]["port"]
    async with daemon.connect() as client, aiohttp.ClientSession() as session:
        for payload in (0, "fail"):
            await client.ask(action="invoke", payload=payload)
        await client.send(action="invoke", payload=600)
        async with session.get(f"http://127.0.0.1:{daemon.port}/invocations/i") as response:
            assert response.status == 404
        daemon.send(signal.SIGTERM)
        await client.closed()
    lines += await daemon.rest()
    documented = documented_fields()
    assert {line["logger"] for line in lines} >= documented.keys() - {"agentws.store"}
    for line in lines:
        if line["logger"] in documented and "exc_info" not in line:
            assert line.keys() - COMMON <= documented[line["logger"]], line
