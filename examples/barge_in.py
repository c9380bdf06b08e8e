"""One turn at a time: who speaks while the agent does, interrupts it, as people do.

Two invocations of one session would run side by side by default. For an agent like this one, the
daemon is told that a new one ends the one before:

    export AGENTWS_INVOCATIONS__IF_SESSION_BUSY=interrupt
    agentws serve --handler examples/barge_in.py:agent

or by `if_session_busy = "interrupt"` under `[invocations]` in its configuration file; and a client
can say it of one invoke, by the field `if_session_busy`. Whoever listened to the interrupted one is
told `cancelled`, with the reason `superseded` and the id of the new one. That begins when the old
one has cleaned up: it finds in the conversation what was said until then, and no more.
"""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator
from typing import Any

from agentws import Agent, InvocationContext, InvocationError

PAUSE = 0.05

agent = Agent()
conversations: defaultdict[str, list[str]] = defaultdict(list)


@agent.invoke_handler
async def reply(payload: Any, context: InvocationContext) -> AsyncIterator[dict[str, str]]:
    """Repeat what was said so far, then the words of `message`, slowly."""
    match payload:
        case {"message": str(message)}:
            pass
        case _:
            raise InvocationError("invalid_request", "payload.message must be a string")
    conversation = conversations[context.session_id]
    said: list[str] = []
    try:
        yield {"so_far": " / ".join(conversation)}
        for word in message.split():
            said.append(word)
            yield {"token": word}
            await asyncio.sleep(PAUSE)
    finally:  # reached when it is interrupted, too
        conversation.append(" ".join(said))
