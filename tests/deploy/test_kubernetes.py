"""The manifests keep to the published schemas, and to what the daemon asks for."""

import base64
import subprocess
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import kubernetes_validate  # type: ignore[import-untyped]
import pytest
import yaml

from agentws.config.options import OPTIONS
from agentws.config.sources import load
from agentws.daemon.parts import FRAMED_PATH
from agentws.daemon.server import CANCEL_TIME, CLOSING_TIME
from agentws.transports.http.probes import PROBES
from tests.deploy.programs import need
from tests.support.processes import ROOT

FOLDER = ROOT / "deploy/kubernetes"
FILES = [file for file in sorted((FOLDER / "base").glob("*.yaml")) if file.stem != "kustomization"]
OVERLAYS = ["production", "try"]

OTHERS = {"HTTPRoute", "ServiceMonitor"}
"""Kinds that come with what is installed in a cluster, whose schemas no package here has."""

VERSIONS = ["1.30", "1.33", kubernetes_validate.latest_version()]
"""From the first one on that knows all that is used, to the newest."""


def manifest(kind: str) -> Any:
    documents = [yaml.safe_load(file.read_text()) for file in FILES]
    (found,) = [document for document in documents if document["kind"] == kind]
    return found


@cache
def built(overlay: str) -> tuple[Any, ...]:
    """Return what kustomize makes of an overlay."""
    need("kubectl")
    command = ["kubectl", "kustomize", str(FOLDER / "overlays" / overlay)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return tuple(yaml.safe_load_all(result.stdout))


def one(overlay: str, kind: str, name: str = "agentws") -> Any:
    """Return one object of an overlay, by the beginning of its name."""
    (found,) = (
        it
        for it in built(overlay)
        if it["kind"] == kind and it["metadata"]["name"].startswith(name)
    )
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


# --- overlays ---------------------------------------------------------------------------------


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_what_an_overlay_comes_to_keeps_to_the_schema(overlay: str) -> None:
    documents = built(overlay)
    assert {document["kind"] for document in documents} >= {"Deployment", "Service"}
    for document in documents:
        if document["kind"] not in OTHERS:
            kubernetes_validate.validate(document, VERSIONS[-1], strict=True)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_an_overlay_is_configured_rightly(overlay: str) -> None:
    (container,) = one(overlay, "Deployment")["spec"]["template"]["spec"]["containers"]
    load(environ=values(container))
    assert "my-agent:latest" not in container["image"]


def test_the_one_for_trying_brings_what_the_replicas_are_told() -> None:
    secret, redis = one("try", "Secret"), one("try", "Service", "redis")
    (container,) = one("try", "Deployment")["spec"]["template"]["spec"]["containers"]
    wanted = [
        variable["valueFrom"]["secretKeyRef"]
        for variable in container["env"]
        if "valueFrom" in variable and not variable["valueFrom"]["secretKeyRef"].get("optional")
    ]
    assert {it["name"] for it in wanted} == {secret["metadata"]["name"]}
    assert {it["key"] for it in wanted} == set(secret["data"])
    url = base64.b64decode(secret["data"]["store-url"]).decode()
    assert url == f"redis://{redis['metadata']['name']}:{redis['spec']['ports'][0]['port']}"


def test_a_route_lasts_and_leads_to_all_but_the_metrics() -> None:
    (rule,) = one("production", "HTTPRoute")["spec"]["rules"]
    assert rule["timeouts"] == {"request": "0s", "backendRequest": "0s"}
    paths = [match["path"]["value"] for match in rule["matches"]]
    assert paths == ["/invocations", FRAMED_PATH.rpartition("/")[0], "/readiness"]
    service = one("production", "Service")
    (backend,) = rule["backendRefs"]
    assert backend == {
        "name": service["metadata"]["name"],
        "port": service["spec"]["ports"][0]["port"],
    }


def test_prometheus_finds_what_it_may_ask() -> None:
    spec, service = one("production", "ServiceMonitor")["spec"], one("production", "Service")
    assert spec["selector"]["matchLabels"] == service["metadata"]["labels"]
    assert spec["endpoints"][0]["port"] == service["spec"]["ports"][0]["name"]
    (container,) = one("production", "Deployment")["spec"]["template"]["spec"]["containers"]
    assert load(environ=values(container)).settings.telemetry.prometheus
    sources = one("production", "NetworkPolicy")["spec"]["ingress"][0]["from"]
    assert len(sources) == 2  # the gateway, and Prometheus
