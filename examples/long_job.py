"""A job that takes its time: start it in the background, poll it, cancel it, on any replica.

How far it is stands in its record, and so does its result, for as long as the record is retained.
"""

import asyncio
from typing import Any

from agentws import Agent, InvocationContext, InvocationError

STEP = 0.1
MOST_STEPS = 36_000

agent = Agent()


@agent.invoke_handler
async def work(payload: Any, context: InvocationContext) -> dict[str, int]:
    """Work for `steps` steps of a tenth of a second, and report after each."""
    steps = steps_of(payload)
    for done in range(steps):
        context.report({"done": done, "steps": steps})
        await asyncio.sleep(STEP)
    context.report({"done": steps, "steps": steps})
    return {"steps": steps}


@agent.get_invocation_handler
async def poll(context: InvocationContext) -> dict[str, Any] | None:
    """Add to the record of a job that runs for how long it will; None leaves it as it is."""
    record = context.record
    if record is None or record["status"] != "running" or "progress" not in record:
        return None
    progress = record["progress"]
    return {**record, "seconds_left": (progress["steps"] - progress["done"]) * STEP}


def steps_of(payload: Any) -> int:
    """Return how many steps the payload asks for, a hundred where it does not say."""
    steps = payload.get("steps", 100) if isinstance(payload, dict) else None
    if type(steps) is not int or not 1 <= steps <= MOST_STEPS:  # True is an int, too
        raise InvocationError(
            "invalid_request", f"payload.steps must be a whole number from 1 to {MOST_STEPS}"
        )
    return steps
