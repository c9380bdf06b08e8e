"""Agents of one handler, and handlers that wait until a test lets them go."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from typing import Any

from agentws import Agent, InvocationContext
from agentws.agent.handlers import InvokeHandler
from tests.conftest import PATIENCE

Raiser = Callable[[], BaseException]
"""Makes what a handler is to raise."""


def agent_of(invoke: InvokeHandler) -> Agent:
    """Return an agent that has this handler alone."""
    agent = Agent()
    agent.invoke_handler(invoke)
    return agent


async def echo(payload: Any, context: InvocationContext) -> Any:
    """A handler that returns its payload."""
    return payload


async def each(payload: Any, context: InvocationContext) -> AsyncGenerator[Any, None]:
    """A handler that streams what the payload lists."""
    for value in payload:
        yield value


class Gate:
    """A handler that returns its payload when it is let go, and tells when it was cancelled."""

    def __init__(self) -> None:
        self.entered = asyncio.Event()
        self.opened = asyncio.Event()
        self.cancelled = asyncio.Event()

    async def __call__(self, payload: Any, _context: InvocationContext) -> Any:
        await self.passed()
        return payload

    async def passed(self) -> None:
        """Wait at the gate."""
        self.entered.set()
        try:
            await self.opened.wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise

    async def stream(self, payload: Any, _: InvocationContext) -> AsyncGenerator[Any, None]:
        """A handler that streams the payload's first value, then the rest when it is let go."""
        first, *rest = payload
        yield first
        await self.passed()
        for value in rest:
            yield value

    async def stream_late(self, payload: Any, _: InvocationContext) -> AsyncGenerator[Any, None]:
        """A handler that streams nothing until it is let go."""
        await self.passed()
        for value in payload:
            yield value


async def soon(event: asyncio.Event) -> None:
    """Wait for an event that has to come."""
    async with asyncio.timeout(PATIENCE):
        await event.wait()
