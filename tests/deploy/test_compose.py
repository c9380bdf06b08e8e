"""The Compose file keeps to the published schema, and its parts fit together."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from agentws.config.sources import load
from agentws.daemon.server import CANCEL_TIME, CLOSING_TIME
from tests.support.processes import ROOT

FILE = ROOT / "deploy/compose.yaml"
SERVICES: dict[str, Any] = yaml.safe_load(FILE.read_text())["services"]
REPLICAS = [name for name in SERVICES if name.startswith("agentws-")]


def check_schema(file: Path, schema: str) -> "subprocess.CompletedProcess[str]":
    """Check a file against one of the schemas that check-jsonschema brings along."""
    program = str(Path(sys.executable).with_name("check-jsonschema"))
    command = [program, "--builtin-schema", schema, str(file)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_it_keeps_to_the_schema() -> None:
    result = check_schema(FILE, "vendor.compose-spec")
    assert result.returncode == 0, result.stdout


def test_a_mistake_would_be_found(tmp_path: Path) -> None:
    wrong = tmp_path / "compose.yaml"
    wrong.write_text(FILE.read_text().replace("cap_drop:", "cap_dorp:"))
    assert check_schema(wrong, "vendor.compose-spec").returncode == 1


@pytest.mark.parametrize("name", REPLICAS)
def test_a_replica_is_configured_rightly(name: str) -> None:
    replica = SERVICES[name]
    environ = {variable: given(str(value)) for variable, value in replica["environment"].items()}
    settings = load(environ=environ).settings
    assert settings.store.url == "redis://redis:6379"
    assert settings.telemetry.otlp_endpoint.startswith("http://collector:")
    takes = settings.server.shutdown_grace + CANCEL_TIME + CLOSING_TIME
    assert replica["init"] is True
    assert int(replica["stop_grace_period"].removesuffix("s")) > takes


def given(value: str, **environ: str) -> str:
    """Return a value as Compose reads it, with these variables set."""
    return re.sub(r"\$\{(\w+):-([^}]*)\}", lambda it: environ.get(it[1]) or it[2], value)


def test_only_this_machine_reaches_it_unless_told_otherwise() -> None:
    published = [port for service in SERVICES.values() for port in service.get("ports", [])]
    assert [given(port) for port in published] == ["127.0.0.1:8080:80"]
    assert [given(port, ADDRESS="0.0.0.0") for port in published] == ["0.0.0.0:8080:80"]


def test_a_key_is_asked_for_where_there_is_one() -> None:
    key = SERVICES[REPLICAS[0]]["environment"]["AGENTWS_AUTH__API_KEYS"]
    for environ, keys in (({}, ()), ({"AGENTWS_KEY": "k" * 32}, ("k" * 32,))):
        assert (
            load(environ={"AGENTWS_AUTH__API_KEYS": given(key, **environ)}).settings.auth.api_keys
            == keys
        )


def test_the_gateway_knows_the_replicas() -> None:
    config = (ROOT / "deploy/nginx/agentws.conf").read_text()
    port = load(environ={}).settings.server.port
    for upstream in re.findall(r"upstream \w+ {.*?}", config, re.DOTALL):
        servers = re.findall(r"server (\S+) max_fails=0;", upstream)
        assert servers == [f"{name}:{port}" for name in REPLICAS]
    assert set(re.findall(r"http://(\w+);", config)) == set(re.findall(r"upstream (\w+) {", config))


def test_the_files_that_it_mounts_are_there() -> None:
    volumes = [volume for service in SERVICES.values() for volume in service.get("volumes", [])]
    for volume in volumes:
        assert (FILE.parent / volume.split(":")[0]).is_file()


def test_the_collector_serves_the_metrics_where_prometheus_is_told_to_look() -> None:
    config = yaml.safe_load((ROOT / "deploy/collector/collector.yaml").read_text())
    address = config["exporters"]["prometheus"]["endpoint"]
    example = (ROOT / "deploy/prometheus/prometheus.yaml").read_text()
    assert f"[collector:{address.split(':')[-1]}]" in example
    assert "prometheus" in config["service"]["pipelines"]["metrics"]["exporters"]


def test_prometheus_looks_for_the_replicas() -> None:
    example = yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yaml").read_text())
    port = load(environ={}).settings.server.port
    (job,) = example["scrape_configs"]
    assert job["static_configs"] == [{"targets": [f"{name}:{port}" for name in REPLICAS]}]


def test_the_collector_listens_where_the_replicas_send_to() -> None:
    config = yaml.safe_load((ROOT / "deploy/collector/collector.yaml").read_text())
    address = config["receivers"]["otlp"]["protocols"]["http"]["endpoint"]
    endpoint = SERVICES[REPLICAS[0]]["environment"]["OTEL_EXPORTER_OTLP_ENDPOINT"]
    assert address.split(":")[-1] == endpoint.split(":")[-1]
    for pipeline in config["service"]["pipelines"].values():
        for kind in ("receivers", "processors", "exporters"):
            assert set(pipeline[kind]) <= set(config[kind])
