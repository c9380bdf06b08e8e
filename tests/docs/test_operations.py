"""Operations are told of what is deployed."""

import re

from tests.docs.conftest import page
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
