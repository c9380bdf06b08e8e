"""The agents that are served while measuring. They do nothing, so that the daemon is measured."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

from msgspec import Struct

from agentws import InvocationContext
from bench.served import watch


class Message(Struct):
    """The payload of `echo_typed`."""

    message: str


async def echo(payload: Any, _context: object) -> Any:
    """Answer with the payload."""
    return payload


async def echo_typed(payload: Message, _context: object) -> Message:
    """Answer with the payload, which was checked."""
    return payload


async def stream(payload: Any, _context: object) -> AsyncGenerator[dict[str, str], None]:
    """Yield as many small chunks as asked for, as fast as they are taken or with pauses between."""
    for _ in range(payload["chunks"]):
        if "pause" in payload:
            await asyncio.sleep(payload["pause"])
        yield {"token": "word"}


async def talk(_payload: Any, context: InvocationContext) -> AsyncGenerator[Any, None]:
    """Say that it hears, then what it hears."""
    yield "ready"
    async for message in context.inputs:
        yield message.payload


async def wait(_payload: Any, _context: object) -> None:
    """Wait for nothing in particular."""
    await asyncio.Event().wait()


async def wait_for_input(_payload: Any, context: InvocationContext) -> None:
    """Wait for what a client says."""
    await context.receive()


async def pause(payload: float, _context: object) -> AsyncGenerator[int, None]:
    """Yield once, and again after so many seconds."""
    yield 1
    await asyncio.sleep(payload)
    yield 2


async def mixed(payload: Any, _context: object) -> AsyncGenerator[Any, None]:
    """Stream what the soak asks for: so many chunks of so many characters, or none in an hour."""
    if payload["chunks"] is None:
        await asyncio.sleep(3600)
        return
    for number in range(1, payload["chunks"] + 1):
        yield {"number": number, "text": "x" * payload.get("size", 4)}
        if number % 10 == 0:
            await asyncio.sleep(0.001)


watch.begin()  # in the process that serves one of these, and in no other
