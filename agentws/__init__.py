"""agentws: an AI agent behind a WebSocket, with streams that survive the connection.

What an agent author needs is here; the daemon is in the modules below.
"""

from agentws.agent.class_style import InvocationWebSocketHandler
from agentws.agent.context import InvocationContext
from agentws.agent.handlers import Agent
from agentws.protocol.errors import InvocationError

__all__ = [
    "Agent",
    "InvocationContext",
    "InvocationError",
    "InvocationWebSocketHandler",
    "__version__",
]

__version__ = "0.1.0"
