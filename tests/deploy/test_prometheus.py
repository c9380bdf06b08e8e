"""Dashboard and alerts are of what a daemon serves, and Prometheus understands them."""

import asyncio
import itertools
import json
import re
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import PATIENCE
from tests.deploy.programs import need
from tests.deploy.prometheus import FOLDER, Prometheus, promtool, running_prometheus
from tests.support.processes import ROOT, Daemon, Start
from tests.support.receivers import otlp_over_http
from tests.support.scrapes import scrape

ALERTS = FOLDER / "alerts.yaml"
CASES = Path(__file__).with_name("alerts_test.yaml")
RULES: list[dict[str, Any]] = yaml.safe_load(ALERTS.read_text())["groups"][0]["rules"]
NAMES = {rule["alert"] for rule in RULES}

DASHBOARD: dict[str, Any] = json.loads((ROOT / "deploy/grafana/agentws.json").read_text())
PANELS: list[dict[str, Any]] = [it for it in DASHBOARD["panels"] if it["type"] != "row"]
WIDTH = 24

VARIABLES = {"job": "agentws", "instance": ".*", "__rate_interval": "2s"}
"""What Grafana puts into a query, here."""


def filled(query: str) -> str:
    """Return a query as Grafana sends it."""
    return re.sub(r"\$(\w+)", lambda found: VARIABLES[found[1]], query)


def queries() -> Iterator[tuple[str, str]]:
    """Yield title and query of everything that the dashboard shows."""
    for panel in PANELS:
        for target in panel["targets"]:
            yield panel["title"], filled(target["expr"])


def metrics_of(query: str) -> set[str]:
    """Return the metrics that a query names: what begins as ours do, and is no label."""
    bare = re.sub(r'"[^"]*"', "", re.sub(r"\bby \([^)]*\)", "", query))
    return set(re.findall(r"\b(?:agentws|gen_ai|websocket|process)_\w+(?!\w*\s*(?:=|!))", bare))


# --- the alerts -------------------------------------------------------------------------------


def test_each_alert_has_a_case_in_which_it_fires_and_one_in_which_not() -> None:
    tests = yaml.safe_load(CASES.read_text())["tests"]
    cases = [case for test in tests for case in test["alert_rule_test"]]
    assert {case["alertname"] for case in cases if case["exp_alerts"]} == NAMES
    quiet = {case["alertname"] for case in cases if not case["exp_alerts"]}
    assert NAMES - quiet == {"AgentwsNearItsLimit"}  # which is quiet of a replica


def test_each_alert_says_how_bad_it_is_and_what_it_is() -> None:
    for rule in RULES:
        assert rule["labels"]["severity"] in ("critical", "warning")
        assert rule["annotations"]["summary"]


@pytest.mark.prometheus
def test_promtool_finds_nothing_wrong() -> None:
    need("promtool")
    for arguments in (
        ("check", "rules", ALERTS),
        ("check", "config", FOLDER / "prometheus.yaml"),
        ("test", "rules", CASES),
    ):
        result = promtool(*arguments)
        assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.prometheus
@pytest.mark.parametrize(
    ("right", "wrong"), [("> 0.05", "> 0.95"), ("for: 1m", "for: 9m"), ("sum by (job)", "sum by")]
)
def test_a_mistake_would_be_found(tmp_path: Path, right: str, wrong: str) -> None:
    need("promtool")
    changed = tmp_path / "alerts.yaml"
    changed.write_text(ALERTS.read_text().replace(right, wrong))
    cases = tmp_path / "cases.yaml"
    cases.write_text(re.sub(r"- \S+alerts\.yaml", f"- {changed}", CASES.read_text()))
    assert promtool("test", "rules", cases).returncode != 0


# --- the dashboard ----------------------------------------------------------------------------


def cells(panel: Mapping[str, Any]) -> set[tuple[int, int]]:
    """Return the places of the grid that a panel takes."""
    at = panel["gridPos"]
    columns, rows = range(at["x"], at["x"] + at["w"]), range(at["y"], at["y"] + at["h"])
    return set(itertools.product(columns, rows))


def test_panels_lie_side_by_side() -> None:
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
    places = [cell for panel in DASHBOARD["panels"] for cell in cells(panel)]
    assert len(places) == len(set(places))
    assert {column for column, _ in places} == set(range(WIDTH))


def test_each_panel_says_what_it_shows_and_asks_the_chosen_source() -> None:
    assert len({panel["title"] for panel in PANELS}) == len(PANELS)
    source = {"type": "prometheus", "uid": "${datasource}"}
    for panel in PANELS:
        assert panel["description"].endswith(".")
        for asked in (panel, *panel["targets"]):
            assert asked["datasource"] == source


def test_each_query_is_of_the_chosen_replicas() -> None:
    variables = {variable["name"] for variable in DASHBOARD["templating"]["list"]}
    assert variables == {"datasource", "job", "instance"}
    for target in (target for panel in PANELS for target in panel["targets"]):
        selectors = re.findall(r"\{([^}]*)\}", target["expr"])
        assert selectors
        for selector in selectors:
            assert selector.startswith('job="$job", instance=~"$instance"')


@pytest.mark.prometheus
def test_each_query_can_be_read(tmp_path: Path) -> None:
    need("promtool")
    rules = [{"record": f"q{number}", "expr": query} for number, (_, query) in enumerate(queries())]
    file = tmp_path / "queries.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))
    result = promtool("check", "rules", file)
    assert result.returncode == 0, result.stderr


# --- both, of a daemon under load -------------------------------------------------------------

AGENT = """
    from agentws import InvocationError

    @agent.readiness_handler
    async def ready():
        return None

    @agent.invoke_handler
    async def invoke(payload, context):
        if payload == "fail":
            raise ValueError("no")
        yield payload
"""

KEY = "sesame"


@asynccontextmanager
async def under_load(start: Start) -> AsyncIterator[Daemon]:
    """Run a daemon that exports as well as it is scraped, and keep it busy."""
    async with otlp_over_http() as collector:
        daemon = await start(
            AGENT,
            telemetry__prometheus=True,
            telemetry__otlp_endpoint=collector.url,
            auth__api_keys=KEY,
        )
        await daemon.listening()
        await daemon.ready()
        load = asyncio.create_task(keep_busy(daemon))
        try:
            yield daemon
        finally:
            load.cancel()
            await asyncio.wait({load})
            await daemon.end_well()


async def keep_busy(daemon: Daemon) -> None:
    """Invoke, fail and leave, over and over."""
    async with daemon.connect(additional_headers={"api-key": KEY}) as stays:
        while True:
            async with daemon.connect(additional_headers={"api-key": KEY}) as leaves:
                for client in (stays, leaves):
                    await client.send(action="invoke", payload="hello")
                    await client.until(type="stream_end")
                    await client.send(action="invoke", payload="fail")
                    await client.until(type="error")
            await asyncio.sleep(0.01)


async def test_a_daemon_serves_every_metric_that_is_asked_for(start: Start) -> None:
    named = set().union(*(metrics_of(query) for _, query in queries()))
    named |= set().union(*(metrics_of(rule["expr"]) for rule in RULES))
    assert {"agentws_errors_total", "process_open_fds"} <= named
    assert not {"websocket_close_code"} & named
    async with under_load(start) as daemon, asyncio.timeout(PATIENCE):
        authorization = f"Bearer {KEY}"
        while missing := named - (await scrape(daemon.port, authorization=authorization)).names:
            pass
    assert not missing


def documented() -> dict[str, set[str]]:
    """Return the metrics of the guide's table, and the labels of each."""
    guide = (ROOT / "docs/telemetry.md").read_text()
    table = guide.partition("| metric |")[2].partition("\n\n")[0]
    rows = [row.strip("|").split("|") for row in table.splitlines()[2:]]
    return {
        name: set(re.findall(r"`(\w+)`", labels.partition(":")[0]))
        for names, labels, *_ in rows
        for name in re.findall(r"`(\w+)`", names)
    }


UNTOLD = {"process_virtual_memory_bytes"}
"""What is served and not worth a line."""


async def test_the_guide_tells_every_metric_and_its_labels(start: Start) -> None:
    served: dict[str, set[str]] = {}
    async with under_load(start) as daemon, asyncio.timeout(PATIENCE):
        while served.keys() - UNTOLD != documented().keys():
            for sample in (await scrape(daemon.port, authorization=f"Bearer {KEY}")).samples:
                name = re.sub("_(bucket|count|sum)$", "", sample.name)
                labels = {it for it in sample.labels if not it.startswith(("otel_", "telemetry_"))}
                served.setdefault(name, set()).update(labels - {"le"})
    for name, labels in documented().items():
        assert served[name] <= labels, name


async def empty_panels(prometheus: Prometheus) -> set[str]:
    """Return the titles of the panels that have nothing to show."""
    return {title for title, query in queries() if await prometheus.value(query) is None}


@pytest.mark.prometheus
async def test_prometheus_shows_something_in_every_panel(start: Start, tmp_path: Path) -> None:
    need("prometheus")
    folder = tmp_path / "prometheus"
    folder.mkdir()
    async with (
        under_load(start) as daemon,
        running_prometheus(folder, [daemon.port], KEY) as prometheus,
    ):
        async with asyncio.timeout(4 * PATIENCE):
            while empty := await empty_panels(prometheus):
                pass
        assert not empty
        (target,) = (await prometheus.get("targets"))["activeTargets"]
        assert (target["health"], target["lastError"]) == ("up", "")
        (group,) = (await prometheus.get("rules"))["groups"]
        assert {rule["name"] for rule in group["rules"]} == NAMES
        assert {rule["health"] for rule in group["rules"]} == {"ok"}
        assert await prometheus.value("agentws_ready{job='agentws', check='agent'}") == 1
        alerts = (await prometheus.get("alerts"))["alerts"]
        assert not [alert for alert in alerts if alert["state"] == "firing"]
