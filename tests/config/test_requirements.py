"""Packages that do not fit: a sentence and exit code 2, whichever it is, wherever it is needed."""

import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from agentws.config.requirements import unmet
from tests.support.processes import ROOT
from tests.support.receivers import KEY

AGENT = """\
from agentws.compat import InvocationWSAgentServerHost
app = InvocationWSAgentServerHost()
if __name__ == "__main__":
    app.run()
"""

OTLP = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"}
TOKENS = {
    "AGENTWS_AUTH__JWT_ISSUER": "i",
    "AGENTWS_AUTH__JWT_AUDIENCE": "a",
    "AGENTWS_AUTH__JWKS_URL": "http://127.0.0.1:9",
}


@pytest.mark.parametrize("command", [("-m", "agentws", "serve"), ("main.py",)], ids=["cli", "sdk"])
@pytest.mark.parametrize(
    ("broken", "variables"),
    [
        ("requests", OTLP),
        ("grpc", {**OTLP, "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}),
        ("prometheus_client", {**OTLP, "AGENTWS_TELEMETRY__PROMETHEUS": "true"}),
        ("jwt", TOKENS),
        ("redis", {"AGENTWS_STORE__URL": "redis://127.0.0.1:9"}),
        ("aiohttp_cors", {"AGENTWS_HTTP__CORS_ORIGINS": "https://app.example"}),
        ("pydantic_settings", {}),
    ],
)
def test_a_package_that_is_broken_is_one_sentence(
    tmp_path: Path, command: tuple[str, ...], broken: str, variables: dict[str, str]
) -> None:
    (tmp_path / f"{broken}.py").write_text("raise AttributeError('of another\\nversion')")
    (tmp_path / "main.py").write_text(AGENT)
    done = serve(tmp_path, *command, **variables)
    assert done.returncode == 2
    assert done.stderr.startswith("agentws: ")
    assert "packages do not fit: AttributeError: of another version" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_package_of_application_insights_is_named_as_well(tmp_path: Path) -> None:
    (tmp_path / "azure").mkdir()
    (tmp_path / "azure/__init__.py").touch()  # which hides the installed ones
    done = serve(
        tmp_path,
        *("-m", "agentws", "serve"),
        APPLICATIONINSIGHTS_CONNECTION_STRING=f"InstrumentationKey={KEY}",
    )
    assert done.returncode == 2
    assert done.stderr.startswith("agentws: packages do not fit: ModuleNotFoundError: ")
    assert len(done.stderr.splitlines()) == 1


def serve(folder: Path, *command: str, **variables: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, *command],
        cwd=folder,
        env={
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(ROOT),
            "AGENTWS_SERVER__PORT": "0",
            **variables,
        },
        capture_output=True,
        text=True,
        check=False,
    )


METADATA = """\
Metadata-Version: 2.4
Name: hypothetical
Version: 1
Requires-Dist: msgspec>=0.1
Requires-Dist: PyJWT[crypto]>=999.1
Requires-Dist: no-such-package>=2.0.1
Requires-Dist: redis[hiredis]>=999; extra == "redis"
Requires-Dist: no-such-extra>=1; (sys_platform != "win32") and extra == "extra"
"""


def test_requirements_that_are_not_met_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "hypothetical-1.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text(METADATA)
    monkeypatch.syspath_prepend(tmp_path)
    assert list(unmet("hypothetical")) == [
        f"PyJWT is {metadata.version('pyjwt')}, 999.1 or newer is needed",
        "no-such-package is missing, 2.0.1 or newer is needed",
        f"redis is {metadata.version('redis')}, 999 or newer is needed",
    ]


def test_all_of_ours_are_met() -> None:
    assert list(unmet()) == []


def test_a_package_that_runs_from_its_sources_names_none() -> None:
    assert list(unmet("no-such-package")) == []
