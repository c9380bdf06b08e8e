"""Agents that do what a test says."""

from collections.abc import AsyncGenerator
from typing import Any

from agentws import InvocationContext, InvocationError


async def count(payload: Any, context: InvocationContext) -> AsyncGenerator[Any, None]:
    """Yield the numbers from 1 to `payload`."""
    for number in range(1, payload + 1):
        yield number


async def act(payload: Any, context: InvocationContext) -> AsyncGenerator[Any, None]:
    """Do what each step says: ask and yield the answer, receive and yield, fail, or yield it."""
    for step in payload:
        match step:
            case {"ask": question}:
                schema, patience = step.get("schema"), step.get("timeout")
                try:
                    yield await context.ask(question, schema=schema, timeout=patience)
                except TimeoutError:
                    yield "nobody answered"
            case "receive":
                yield (await context.receive()).payload
            case {"raise": code}:
                raise InvocationError(code, "As you like")
            case _:
                yield step
