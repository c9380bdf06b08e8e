"""The documents that describe an agent: those that it registered, else what its types make (§1)."""

from collections.abc import Mapping
from functools import cached_property
from typing import Any

from aiohttp import hdrs, web

from agentws.agent.handlers import Agent
from agentws.config.settings import AgentSettings
from agentws.protocol import asyncapi, openapi
from agentws.protocol.errors import InvocationError
from agentws.transports.http.answers import json_response
from agentws.version import __version__


class Documents:
    """Answers the routes of documents, for an agent that has handlers."""

    def __init__(self, agent: Agent, settings: AgentSettings) -> None:
        """Describe an agent, under the name and the version that the settings give it."""
        self._agent = agent
        self._settings = settings

    def openapi(self) -> web.Response:
        """Answer the description of the routes.

        Raises `InvocationError` (`not_found`) for an agent that has neither registered one nor
        declared types.
        """
        if self._agent.openapi is None and not self._agent.contract.is_typed:
            raise InvocationError(
                "not_found", "The agent has registered no OpenAPI document, and declares no types"
            )
        return json_response(self._openapi)

    def asyncapi(self, request: web.Request) -> web.Response:
        """Answer the description of the sockets; where it is ours, of the server asked for it."""
        if self._agent.asyncapi is not None:
            return json_response(self._agent.asyncapi)
        return json_response({**self._asyncapi, "servers": _servers(request)})

    @cached_property
    def _openapi(self) -> Mapping[str, Any]:
        agent = self._agent
        if agent.openapi is not None:
            return agent.openapi
        return openapi.describe(
            agent.contract,
            title=self._settings.name or "Agent",
            version=self._settings.version or "0",
            has_own_polls=agent.get is not None,
            has_own_cancels=agent.cancel is not None,
        )

    @cached_property
    def _asyncapi(self) -> Mapping[str, Any]:
        return asyncapi.describe(__version__, self._agent.contract)


def _servers(request: web.Request) -> Mapping[str, Any]:
    """Return where the client has found us; TLS may have ended in front of us."""
    host = request.headers.get(hdrs.HOST) or "localhost"
    scheme, *_ = request.headers.get("X-Forwarded-Proto", request.scheme).split(",")
    return asyncapi.servers(host, is_secure=scheme.strip().lower() == "https")
