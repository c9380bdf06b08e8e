"""What a process that watches over this one hands to it."""

import socket
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from msgspec import Struct

if TYPE_CHECKING:
    from agentws.console.state import Development


class Supervision(Struct, frozen=True):
    """The sockets to serve on, which outlive this process, and whom to tell."""

    sockets: Sequence[socket.socket]
    """Listened on already; the process after this one listens, too, before this one has ended."""
    development: "Development"
    on_listening: Callable[[], object]
    """Called when all is served."""
