"""The class names of the azure-ai-agentserver SDK over `Agent`.

A WebSocket handler module that was written for that SDK runs with only its import line changed,
by itself (`app.run()`) and by `handler.target`. New code is better off with `Agent`.
"""

from collections.abc import Mapping
from typing import Any

from agentws.agent.context import InvocationContext
from agentws.protocol.errors import InvocationError
from agentws.running import Agent

__all__ = ["InvocationWSAgentServerHost", "InvocationWSContext", "InvocationWSError"]

InvocationWSContext = InvocationContext
InvocationWSError = InvocationError


class InvocationWSAgentServerHost(Agent):
    """An agent under the SDK's name for it.

    `ws_ping_interval` sets `websocket.app_ping_interval`, `graceful_shutdown_timeout` sets
    `server.shutdown_grace`, both in seconds; file, environment and flags rank above them.
    """

    def __init__(
        self,
        *,
        openapi_spec: Mapping[str, Any] | None = None,
        ws_ping_interval: float | None = None,
        graceful_shutdown_timeout: float | None = None,
    ) -> None:
        super().__init__(openapi=openapi_spec)
        self.daemon_settings = {
            key: value
            for key, value in {
                "websocket.app_ping_interval": ws_ping_interval,
                "server.shutdown_grace": graceful_shutdown_timeout,
            }.items()
            if value is not None
        }

    ws_invoke_handler = Agent.invoke_handler
    ws_get_invocation_handler = Agent.get_invocation_handler
    ws_cancel_invocation_handler = Agent.cancel_invocation_handler
