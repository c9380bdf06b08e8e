"""The class names of the azure-ai-agentserver SDK over `Agent`.

A WebSocket handler module that was written for that SDK runs with only its import line changed,
by itself (`app.run()`) and by `handler.target`. New code is better off with `Agent`.
"""

import sys
from collections.abc import Mapping
from typing import Any

from agentws.agent.context import InvocationContext
from agentws.agent.handlers import Agent
from agentws.agent.loading import is_loading
from agentws.daemon.process import leave, open_streams
from agentws.daemon.signals import Signals, Stopped
from agentws.protocol.errors import InvocationError

__all__ = ["InvocationWSAgentServerHost", "InvocationWSContext", "InvocationWSError"]

InvocationWSContext = InvocationContext
InvocationWSError = InvocationError


class InvocationWSAgentServerHost(Agent):
    """An agent that can also start its daemon.

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

    def run(self, host: str | None = None, port: int | None = None) -> None:
        """Serve this agent until a signal, then exit the process.

        `host` and `port` rank as flags do. While a daemon imports the module, it serves the agent
        itself, and this returns at once.
        """
        if is_loading():
            return
        open_streams()
        try:
            code = self._serve({"server.host": host, "server.port": port}, Signals())
        except Stopped:
            code = 0
        leave(code)

    def _serve(self, flags: Mapping[str, object], signals: Signals) -> int:
        from agentws.config.requirements import PackageError, needed

        try:
            with needed():
                from agentws.config.sources import ConfigError, load
                from agentws.daemon.run import START_ERRORS, run
        except PackageError as error:
            return _refuse(error)
        try:
            loaded = load(flags=flags, program=self.daemon_settings)
            return run(loaded, self, signals)
        except (ConfigError, *START_ERRORS) as error:
            return _refuse(error)


def _refuse(error: Exception) -> int:
    for sentence in str(error).splitlines():
        print(f"agentws: {sentence}", file=sys.stderr)  # noqa: T201 - the start-up error
    return 2
