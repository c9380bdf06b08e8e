"""The smallest agent: a bare async function. It answers with what it got."""

from typing import Any

from agentws import InvocationContext


async def agent(payload: Any, context: InvocationContext) -> Any:
    """Return the payload."""
    return payload
