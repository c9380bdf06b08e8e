"""A stream that is steered in mid-flight: what clients say to it changes how it goes on.

One task listens, the handler goes on talking. `send_input` takes `{"style": "loud"}` or `"quiet"`,
and `{"stop": true}`; what it does not understand, it says.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from agentws import Agent, InvocationContext, InvocationError

STYLES: Final = {"loud": str.upper, "quiet": str.lower}
PAUSE: Final = 0.05
MOST_WORDS: Final = 1000

agent = Agent()


@dataclass
class Course:
    """How the story is to go on."""

    style: str = "quiet"
    stop: bool = False
    remarks: list[str] = field(default_factory=list)


@agent.invoke_handler
async def tell(payload: Any, context: InvocationContext) -> AsyncIterator[dict[str, str]]:
    """Tell the words of `message`, over and over, until somebody says stop."""
    match payload:
        case {"message": str(message)} if words := message.split():
            pass
        case _:
            raise InvocationError("invalid_request", "payload.message must be a text")
    async with steered(context) as course:
        for number in range(MOST_WORDS):
            if course.stop:
                return
            while course.remarks:
                yield {"remark": course.remarks.pop(0)}
            yield {"token": STYLES[course.style](words[number % len(words)])}
            await asyncio.sleep(PAUSE)


@asynccontextmanager
async def steered(context: InvocationContext) -> AsyncIterator[Course]:
    """Let clients set the course, for as long as the story goes on."""
    course = Course()
    listening = asyncio.create_task(listen(context, course))
    try:
        yield course
    finally:
        listening.cancel()


async def listen(context: InvocationContext, course: Course) -> None:
    """Take what clients say, as it comes."""
    async for message in context.inputs:
        match message.payload:
            case {"stop": True}:
                course.stop = True
            case {"style": ("loud" | "quiet") as style}:
                course.style = style
            case other:
                course.remarks.append(f"I do not understand {other}")
