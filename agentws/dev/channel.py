"""What supervisor and process tell each other, over a pair of sockets."""

import os
import signal
import socket
import threading
from collections.abc import Sequence
from typing import Final

import msgspec
from msgspec import Struct

from agentws.agent.loading import ImportFailure
from agentws.daemon.signals import Signals

PATIENCE: Final = 1.0
"""Seconds that a process has to end."""

_MOST_SOCKETS: Final = 8
_ORDER_SIZE: Final = 64 * 1024


class Order(Struct):
    """What a process should serve, on the sockets that come with it."""

    target: str | None
    port: int | None
    folder: str | None
    is_first: bool
    failure: ImportFailure | None = None
    """Why there is nothing to serve, where there is not."""


class Importing(Struct, tag=True):
    """The agent's own code runs from now on, however long that takes."""


class Serving(Struct, tag=True):
    """The agent is served."""


class Failed(Struct, tag=True):
    """The agent cannot be imported, and is stood in for."""

    sentence: str


class Refused(Struct, tag=True):
    """Nothing can be served as told: the process ends."""

    sentence: str


Report = Importing | Serving | Failed | Refused


def send_order(sock: socket.socket, order: Order, listening: Sequence[socket.socket]) -> None:
    """Tell a process what to serve."""
    descriptors = [each.fileno() for each in listening]
    socket.send_fds(sock, [msgspec.json.encode(order) + b"\n"], descriptors)


def read_report(line: bytes) -> Report:
    """Return what a process has said."""
    report: Report = msgspec.json.decode(line, type=Report)
    return report


class Channel:
    """The end of the process that serves."""

    def __init__(self, descriptor: int) -> None:
        os.set_inheritable(descriptor, False)  # what the agent starts must not hold it open
        self._socket = socket.socket(fileno=descriptor)

    def receive_order(self) -> tuple[Order, list[socket.socket]]:
        """Wait for what to serve. Raises `EOFError` if the supervisor ends before."""
        data, descriptors = b"", list[int]()
        while not data.endswith(b"\n"):
            part, received, *_ = socket.recv_fds(self._socket, _ORDER_SIZE, _MOST_SOCKETS)
            if not part:
                raise EOFError
            data += part
            descriptors += received
        listening = [socket.socket(fileno=descriptor) for descriptor in descriptors]
        return msgspec.json.decode(data, type=Order), listening

    def report(self, report: Report) -> None:
        """Tell the supervisor, unless it is gone."""
        try:
            self._socket.sendall(msgspec.json.encode(report) + b"\n")
        except OSError:
            return  # the guard knows

    def end_with_supervisor(self, signals: Signals) -> None:
        """End the process when the supervisor has, whatever the agent does."""
        threading.Thread(target=self._guard, args=[signals], name="dev-guard", daemon=True).start()

    def _guard(self, signals: Signals) -> None:
        try:
            while self._socket.recv(1):
                pass
        except OSError:
            pass
        if not signals.received:
            os.kill(os.getpid(), signal.SIGTERM)
            threading.Event().wait(PATIENCE)
        os._exit(1)
