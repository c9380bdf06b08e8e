"""Answers that the agent gives itself: to polls and to cancels."""

import asyncio
import logging
from typing import Final

import msgspec
from msgspec.structs import replace

from agentws.agent.context import InvocationContext
from agentws.agent.handlers import ContextHandler
from agentws.agent.own_task import is_destroyed, run_apart
from agentws.protocol.encoding import encode
from agentws.protocol.errors import InvocationError, internal_error
from agentws.stores.log import Snapshot

_logger: Final = logging.getLogger("agentws.invocations")

NO_ANSWER: Final = encode(None)
"""What a get handler returns that has nothing of its own to say."""


async def ask_agent(
    handler: ContextHandler, context: InvocationContext, found: Snapshot | None
) -> bytes:
    """Call a get or cancel handler of the agent on what was found, and encode its answer.

    Raises `InvocationError`: the handler's own, or `internal_error`.
    """
    try:
        return encode(await run_apart(handler(_about(context, found))))
    except (InvocationError, asyncio.CancelledError):  # the latter where whoever asked has left
        raise
    except BaseException as error:
        if is_destroyed(error):
            raise
        _logger.error("The agent's handler raised", exc_info=error)
        raise internal_error() from error


def _about(context: InvocationContext, found: Snapshot | None) -> InvocationContext:
    """Return the context for a handler that is asked about an invocation: its record is in it."""
    if found is None:
        return context
    return replace(context, record=msgspec.json.decode(found.describe()))
