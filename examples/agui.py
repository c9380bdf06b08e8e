"""AG-UI (https://docs.ag-ui.com) over a stream that can be resumed: its events are the chunks.

AG-UI says what an agent tells its page, and not what becomes of a run whose connection is lost.
Here each event has a number: a page that comes back attaches with the last one that it saw and gets
the rest, none twice. The payload is AG-UI's own `RunAgentInput`; its thread is a session here, its
run an invocation, so a page names both when it invokes:

    {"action": "invoke", "session_id": THREAD_ID, "invocation_id": RUN_ID, "payload": INPUT}

Needs `pip install ag-ui-protocol`, whose module is `ag_ui`: so this one is called otherwise.
"""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from ag_ui.core import (
    Event,
    RunAgentInput,
    RunFinishedEvent,
    RunStartedEvent,
    TextMessageContentEvent,
    TextMessageEndEvent,
    TextMessageStartEvent,
    UserMessage,
)
from pydantic import ValidationError

from agentws import Agent, InvocationContext, InvocationError

PAUSE = 0.05

agent = Agent()


@agent.invoke_handler
async def run(payload: Any, context: InvocationContext) -> AsyncIterator[dict[str, Any]]:
    """Run the agent as AG-UI has it, its fields spelt as on AG-UI's wire."""
    wanted = input_of(payload)
    yield on_wire(RunStartedEvent(thread_id=wanted.thread_id, run_id=wanted.run_id))
    async for event in say(f"{wanted.run_id}.1", last_words(wanted)):
        yield on_wire(event)
    yield on_wire(RunFinishedEvent(thread_id=wanted.thread_id, run_id=wanted.run_id))


async def say(message_id: str, text: str) -> AsyncIterator[Event]:
    """Say a text word by word, as a model would."""
    yield TextMessageStartEvent(message_id=message_id, role="assistant")
    for word in text.split():
        yield TextMessageContentEvent(message_id=message_id, delta=f"{word} ")
        await asyncio.sleep(PAUSE)
    yield TextMessageEndEvent(message_id=message_id)


def input_of(payload: Any) -> RunAgentInput:
    """Return what the page wants, or say what is wrong with it."""
    try:
        return RunAgentInput.model_validate(payload)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, ("payload", *first["loc"])))
        raise InvocationError("invalid_request", f"{place}: {first['msg']}") from None


def last_words(wanted: RunAgentInput) -> str:
    """Return what the user said last."""
    for message in reversed(wanted.messages):
        if isinstance(message, UserMessage) and isinstance(message.content, str):
            return message.content
    raise InvocationError("invalid_request", "payload.messages must hold a text of the user's")


def on_wire(event: Event) -> dict[str, Any]:
    """Return an event as AG-UI's clients read it: camelCase, and nothing that has no value."""
    return event.model_dump(mode="json", by_alias=True)
