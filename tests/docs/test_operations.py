"""Operations are told of what is deployed."""

import re

from agentws.cli.main import main
from tests.docs.conftest import names, page, rows, section
from tests.support.processes import ROOT


def test_every_alert_that_is_deployed_is_explained() -> None:
    deployed = (ROOT / "deploy/azure/monitoring.bicep").read_text()
    alerts, _, _ = deployed.partition("resource workspace")
    rules = (ROOT / "deploy/prometheus/alerts.yaml").read_text()
    of_azure = re.findall(r"name: '([\w-]+)'", alerts)
    of_prometheus = re.findall(r"- alert: (\w+)", rules)
    assert of_azure
    assert of_prometheus
    for name in (*of_azure, *of_prometheus):
        assert f"*{name}*" in page("operations.md"), name


def test_all_commands_are_told() -> None:
    told = {
        name
        for row in rows(section(page("operations.md"), "## Commands"))
        for name in names(row[0])
    }
    assert {f"agentws {command}" for command in main.commands} <= {
        " ".join(name.split()[:2]) for name in told
    }
