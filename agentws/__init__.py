"""agentws: an AI agent behind a WebSocket, with streams that survive the connection.

What an agent author needs is here; the daemon is in the modules below.
"""

from agentws.handler import (
    Agent,
    InvocationContext,
    InvocationError,
    InvocationWebSocketHandler,
)

__all__ = [
    "Agent",
    "InvocationContext",
    "InvocationError",
    "InvocationWebSocketHandler",
    "__version__",
]

__version__ = "0.1.0"
