"""Asks before it does what cannot be undone, waits for the answer, and goes on or does not.

The question goes to whoever listens, now or later: a client that lost its socket is asked again
when it attaches, and any of them may answer. Meanwhile neither the time for which a client may be
away runs out nor that of the invocation: only the question's own, an hour where
`invocations.input_timeout` does not say otherwise. A restart of the server ends it, though: that
waits for `server.shutdown_grace`, and not for an answer.
"""

from collections.abc import AsyncIterator
from typing import Any

from msgspec import Struct

from agentws import Agent, InvocationContext, InvocationError

agent = Agent()
files = {"notes.txt", "draft.txt", "old.log"}  # they stand for a disk


class Approval(Struct):
    """What is to be answered; whatever else comes is refused, and the question stays open."""

    approved: bool
    reason: str = ""


@agent.invoke_handler
async def clean_up(payload: Any, context: InvocationContext) -> AsyncIterator[dict[str, str]]:
    """Delete the files that `delete` names, if somebody approves."""
    names = names_of(payload)
    question = {"text": f"Delete {len(names)} files?", "files": names}
    try:
        answer = await context.ask(question, type=Approval)
    except TimeoutError:
        answer = Approval(approved=False, reason="nobody answered")
    if not answer.approved:
        yield {"kept": ", ".join(names), "reason": answer.reason}
        return
    for name in names:
        files.discard(name)
        yield {"deleted": name}


def names_of(payload: Any) -> list[str]:
    """Return the names of the files that are meant."""
    names = payload.get("delete") if isinstance(payload, dict) else None
    if isinstance(names, list) and names and all(isinstance(name, str) for name in names):
        return names
    raise InvocationError("invalid_request", "payload.delete must be a list of names")
