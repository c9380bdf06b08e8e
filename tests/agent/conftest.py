"""Handlers that fit and that do not, and how the daemon calls them."""

from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any, cast

from agentws.agent.context import InvocationContext
from agentws.agent.handlers import Agent

CONTEXT = InvocationContext("i", "s")


async def no_arguments() -> None: ...


async def one_argument(context: InvocationContext) -> None: ...


async def two_arguments(first: Any, second: Any) -> None: ...


def not_async(*arguments: Any) -> None: ...


ROLES: list[tuple[str, str, Callable[..., Any], str]] = [
    ("invoke_handler", "invoke", two_arguments, "(payload, context)"),
    ("get_invocation_handler", "get", one_argument, "(context)"),
    ("cancel_invocation_handler", "cancel", one_argument, "(context)"),
    ("ws_handler", "serve_socket", two_arguments, "(ws, context)"),
    ("startup_handler", "startup", no_arguments, "()"),
    ("shutdown_handler", "shutdown", no_arguments, "()"),
    ("readiness_handler", "readiness", no_arguments, "()"),
]
"""The decorators: the attribute of each, a function that fits, and how its arguments are told."""


async def outcome_of(agent: Agent, payload: str) -> object:
    """Call the invoke handler as the daemon does."""
    assert agent.invoke is not None
    called = agent.invoke(payload, CONTEXT)
    if agent.streams:
        return [chunk async for chunk in cast(AsyncGenerator[Any, None], called)]
    return await cast(Awaitable[Any], called)
