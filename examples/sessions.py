"""A conversation of several turns: the session id says which one a message belongs to.

What is kept here in memory belongs in a database as soon as there is more than one replica.
"""

from collections import defaultdict
from typing import Any

from agentws import Agent, InvocationContext, InvocationError

agent = Agent()
conversations: defaultdict[str, list[str]] = defaultdict(list)


@agent.invoke_handler
async def reply(payload: Any, context: InvocationContext) -> dict[str, Any]:
    """Remember the message, and tell what was said in this session so far."""
    match payload:
        case {"message": str(message)}:
            turns = conversations[context.session_id]
            turns.append(message)
            return {"turn": len(turns), "so_far": list(turns)}
        case _:
            raise InvocationError("invalid_request", "payload.message must be a string")
