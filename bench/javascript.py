"""What the client in JavaScript can take in Node, with the daemon on another core."""

import shutil
import subprocess
from pathlib import Path
from typing import Final

from bench.contenders import Server
from bench.load import LoadError

_IN_FLIGHT: Final = 50
_PATIENCE: Final = 60.0
_ROOT: Final = Path(__file__).parents[1]


def chunks(server: Server, count: int) -> float:
    """Return how many chunks of one stream a reader gets in a second. Raises `LoadError`."""
    return _rate(server, "chunks", count)


def invokes(server: Server, count: int) -> float:
    """Return how many results a second are awaited on one socket. Raises `LoadError`."""
    return _rate(server, "invokes", -(-count // _IN_FLIGHT) * _IN_FLIGHT, _IN_FLIGHT)


def _rate(server: Server, what: str, *numbers: int) -> float:
    script = Path(__file__).with_suffix(".mjs")
    command = [_node(), str(script), str(server.port), what, *map(str, numbers)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=_PATIENCE, check=False)
    if result.returncode != 0:
        raise LoadError(f"The client in JavaScript failed: {result.stderr}")
    return float(result.stdout)


def _node() -> str:
    own = _ROOT / "clients/javascript/node_modules/.bin/node"
    found = str(own) if own.exists() else shutil.which("node")
    if found is None:
        raise LoadError("The client in JavaScript needs Node; --only names what does not")
    return found
