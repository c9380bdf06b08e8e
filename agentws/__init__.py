"""agentws: an AI agent behind a WebSocket, with streams that survive the connection.

What an agent author needs is here; the daemon is in the modules below.
"""

from agentws.agent.class_style import InvocationWebSocketHandler
from agentws.agent.context import InvocationContext
from agentws.protocol.errors import InvocationError
from agentws.running import Agent
from agentws.version import __version__

__all__ = [
    "Agent",
    "InvocationContext",
    "InvocationError",
    "InvocationWebSocketHandler",
    "__version__",
]
