"""The settings under `agentws dev`."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from agentws.config.sources import Loaded, load

HOST: Final = "127.0.0.1"

_CALM: Final = {"server.log_format": "text", "server.access_log": False}
"""What the environment may change: a line in text for each invocation, and no other."""


def load_settings(
    target: str | None,
    port: int | None,
    environ: Mapping[str, str],
    program: Mapping[str, object] = MappingProxyType({}),
) -> Loaded:
    """Read the configuration; `program` is what the agent wants of it. Raises `ConfigError`."""
    flags = {
        "handler.target": target,
        "server.host": HOST,
        "server.port": port,
        "server.shutdown_grace": 0.0,
        "console.enabled": True,
    }
    return load(flags=flags, program={**program, **_CALM}, environ=environ)
