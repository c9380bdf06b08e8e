"""Where tests of the configuration get theirs from: variables or a file, never a terminal."""

import contextlib
import io
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from agentws.config.settings import Settings
from agentws.config.sources import load, rows
from tests.support.processes import ROOT

EXAMPLE = ROOT / "config.example.toml"

JWT = {
    "AGENTWS_AUTH__JWT_ISSUER": "https://issuer.example",
    "AGENTWS_AUTH__JWT_AUDIENCE": "agents",
    "AGENTWS_AUTH__JWKS_URL": "https://issuer.example/keys",
}


@pytest.fixture(autouse=True)
def _no_terminal() -> Iterator[None]:
    """Hold the default of server.log_format still, also for tests run with their output shown."""
    with contextlib.redirect_stdout(io.StringIO()):
        yield


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Where a test may write a file of settings."""
    return tmp_path / "config.toml"


def value(settings: Settings, key: str) -> object:
    """Return the setting that a key such as `server.port` names."""
    section, name = key.split(".")
    return getattr(getattr(settings, section), name)


def from_variables(**environ: str) -> Settings:
    """Load from these variables alone."""
    return load(environ=environ).settings


def from_text(file: Path, text: str) -> Settings:
    """Load from a file with this text alone."""
    file.write_text(text)
    return load(file, environ={}).settings


def printed(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the rows that are shown of these variables, by their keys."""
    return {key: text for key, text, _ in rows(load(environ=environ))}
