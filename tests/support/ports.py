"""Ports that a daemon cannot have."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def taken_port(host: str = "127.0.0.1") -> Iterator[int]:
    """Listen on a port during the body, and yield it."""
    with socket.create_server((host, 0)) as server:
        yield server.getsockname()[1]
