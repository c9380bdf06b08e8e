"""A job that takes its time: start it in the background, poll it, cancel it.

The agent answers polls itself, because it knows how far the job is.
"""

import asyncio
from typing import Any

from agentws import Agent, InvocationContext, InvocationError

agent = Agent()
progress: dict[str, float] = {}


@agent.invoke_handler
async def work(payload: Any, context: InvocationContext) -> dict[str, int]:
    """Work for `steps` steps of a tenth of a second; clean up however it ends."""
    steps = payload.get("steps", 100)
    try:
        for step in range(steps):
            progress[context.invocation_id] = step / steps
            await asyncio.sleep(0.1)
    finally:
        del progress[context.invocation_id]
    return {"steps": steps}


@agent.get_invocation_handler
async def poll(context: InvocationContext) -> dict[str, float]:
    """Tell how far a job is."""
    if context.invocation_id not in progress:
        raise InvocationError("not_running", "There is no such job any more", status=404)
    return {"progress": progress[context.invocation_id]}
