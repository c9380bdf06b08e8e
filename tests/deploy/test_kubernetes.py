"""The manifests keep to the published schemas, and to what the daemon asks for."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import kubernetes_validate  # type: ignore[import-untyped]
import pytest
import yaml

from agentws.config.settings import OPTIONS
from agentws.config.sources import load
from agentws.daemon.server import CANCEL_TIME, CLOSING_TIME
from agentws.transports.http.probes import PROBES
from tests.support.processes import ROOT

FILES = sorted((ROOT / "deploy/kubernetes").glob("*.yaml"))

VERSIONS = ["1.30", "1.33", kubernetes_validate.latest_version()]
"""From the first one on that knows all that is used, to the newest."""


def manifest(kind: str) -> Any:
    documents = [yaml.safe_load(file.read_text()) for file in FILES]
    (found,) = [document for document in documents if document["kind"] == kind]
    return found


def pod() -> Any:
    return manifest("Deployment")["spec"]["template"]["spec"]


@pytest.fixture
def container() -> Any:
    (container,) = pod()["containers"]
    return container


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_it_keeps_to_the_schema(file: Path, version: str) -> None:
    kubernetes_validate.validate(yaml.safe_load(file.read_text()), version, strict=True)


def test_a_mistake_would_be_found() -> None:
    service = manifest("Service")
    service["spec"]["prots"] = []
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(service, VERSIONS[-1], strict=True)


def test_the_pod_has_more_time_to_end_than_the_daemon_takes(container: Any) -> None:
    settings = load(environ=values(container)).settings
    takes = container["lifecycle"]["preStop"]["sleep"]["seconds"]
    takes += settings.server.shutdown_grace + CANCEL_TIME + CLOSING_TIME
    assert pod()["terminationGracePeriodSeconds"] > takes


def test_its_variables_are_settings(container: Any) -> None:
    known = {name for option in OPTIONS.values() for name in (option.variable, option.platform)}
    assert {variable["name"] for variable in container["env"]} <= known
    load(environ=values(container))


def values(container: Mapping[str, Any]) -> dict[str, str]:
    return {it["name"]: it["value"] for it in container["env"] if "value" in it}


def test_it_asks_where_the_daemon_answers(container: Any) -> None:
    routes = set(PROBES)
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert container[probe]["httpGet"]["path"] in routes
        assert container[probe]["httpGet"]["port"] == container["ports"][0]["name"]
    port = load(environ=values(container)).settings.server.port
    assert container["ports"][0]["containerPort"] == port


def test_it_runs_without_rights(container: Any) -> None:
    assert pod()["securityContext"]["runAsNonRoot"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


def test_all_speak_of_the_same_pods(container: Any) -> None:
    labels = manifest("Deployment")["spec"]["template"]["metadata"]["labels"]
    assert manifest("Deployment")["spec"]["selector"]["matchLabels"] == labels
    assert manifest("Service")["spec"]["selector"] == labels
    assert manifest("PodDisruptionBudget")["spec"]["selector"]["matchLabels"] == labels
    assert manifest("NetworkPolicy")["spec"]["podSelector"]["matchLabels"] == labels
    target = manifest("HorizontalPodAutoscaler")["spec"]["scaleTargetRef"]["name"]
    assert target == manifest("Deployment")["metadata"]["name"]
    assert manifest("Service")["spec"]["ports"][0]["targetPort"] == container["ports"][0]["name"]
