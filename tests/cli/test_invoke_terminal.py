"""`agentws invoke` with a person before a terminal: questions, Ctrl-C, what is shown beside."""

import asyncio
import enum
import os
import re
from collections.abc import AsyncGenerator
from typing import Any, Literal

from msgspec import Struct

from agentws import InvocationContext, InvocationError
from agentws.client import Question, connect
from tests.conftest import Serve
from tests.support.agents import Gate, agent_of, each, echo, soon
from tests.support.ports import taken_port
from tests.support.terminal import terminal

INVOKE = ("-m", "agentws", "invoke")


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Booking(Struct):
    name: str
    seats: int
    colour: Colour
    note: str | None = None


async def test_questions_are_asked_by_their_schema(serve: Serve) -> None:
    async def invoke(payload: Any, context: InvocationContext) -> AsyncGenerator[Any, None]:
        yield "Well"
        yield f"{await context.ask('May I?', type=bool)}, "
        yield f"{await context.ask({'text': 'How much?'}, type=Literal['all', 'half'])}, "
        yield f"{await context.ask('What else?')}, "
        yield f"{await context.ask('Book', type=Booking)}, "
        yield f"{await context.ask('Which?', type=list[int])}"

    server = await serve(agent_of(invoke))
    async with terminal(*INVOKE, server.http) as it:
        await it.until("Well\nMay I?\n[y/n]: ")
        it.type("perhaps")
        await it.until("Type y or n.\n[y/n]: ")
        it.type("y")
        await it.until("True, \nHow much?\n  1) all\n  2) half\n[1-2]: ")
        it.type("2")
        await it.until("half, \nWhat else?\n[text or JSON]: ")
        it.type("a song")
        await it.until("a song, \nBook\nname [text]: ")
        it.type("")
        await it.until("Type an answer")
        await it.until("name [text]: ")
        it.type("Zoë")
        await it.until("seats [whole number]: ")
        it.type("two")
        await it.until("Type a whole number.\nseats [whole number]: ")
        it.type("2")
        await it.until("1) blue\n  2) red\ncolour [1-2]: ")
        it.type("red")
        await it.until("note [text, or nothing]: ")
        it.type("")
        await it.until("name='Zoë', seats=2, colour=<Colour.RED: 'red'>, note=None")
        await it.until("Which?\n[JSON]: ")
        it.type("1, 2")
        await it.until("Type an answer in JSON, on one line.\n[JSON]: ")
        it.type("[1, 2]")
        await it.until("[1, 2]\nagentws: completed, 6 chunks, ")
        assert await it.exit_code() == 0


async def test_an_answer_that_the_server_refuses_is_asked_for_again(serve: Serve) -> None:
    async def invoke(payload: Any, context: InvocationContext) -> Any:
        return await context.ask("Which?", type=list[int])

    server = await serve(agent_of(invoke))
    async with terminal(*INVOKE, server.http) as it:
        await it.until("Which?\n[JSON]: ")
        it.type('["one"]')
        await it.until("agentws: invalid_request: ")
        await it.until("[JSON]: ")
        it.type("[1]")
        await it.until("[1]\n[1]\n")  # what was typed, and the result
        assert await it.exit_code() == 0


async def test_a_question_that_somebody_else_answers_is_taken_away(serve: Serve) -> None:
    async def invoke(payload: Any, context: InvocationContext) -> AsyncGenerator[Any, None]:
        first = asyncio.create_task(context.ask("First?", type=bool))
        second = asyncio.create_task(context.ask("Second?", type=bool))
        yield await first
        yield await second

    server = await serve(agent_of(invoke))
    async with terminal(*INVOKE, server.http, "--id", "i1") as it, connect(server.http) as other:
        await it.until("First?\n[y/n]: ")
        async for event in other.attach("i1").events():
            if isinstance(event, Question) and event.payload == "First?":
                await event.answer(True)
                break
        await it.until("agentws: the question was answered elsewhere\n")
        await it.until("Second?\n[y/n]: ")
        it.type("n")
        await it.until("false\n")
        assert await it.exit_code() == 0


async def test_what_comes_while_somebody_types_waits(serve: Serve) -> None:
    gate = Gate()

    async def invoke(payload: Any, context: InvocationContext) -> AsyncGenerator[Any, None]:
        asking = asyncio.create_task(context.ask("Name?", type=str))
        await gate.passed()
        yield "meanwhile "
        yield await asking

    server = await serve(agent_of(invoke))
    async with terminal(*INVOKE, server.http, "--id", "i1") as it, connect(server.http) as other:
        await it.until("Name?\n[text]: ")
        gate.opened.set()
        assert await anext(aiter(other.attach("i1"))) == "meanwhile "
        it.type("Ada")
        await it.until("Ada\nmeanwhile Ada\n")
        assert await it.exit_code() == 0


async def test_who_will_not_answer_is_told_how_to_later(serve: Serve) -> None:
    async def invoke(payload: Any, context: InvocationContext) -> Any:
        return await context.ask("May I?", type=bool)

    server = await serve(agent_of(invoke))
    async with terminal(*INVOKE, server.http, "--id", "i1") as it:
        await it.until("[y/n]: ")
        assert it.raw.endswith("\x1b[2m[y/n]\x1b[0m: ")
        it.press("D")
        await it.until("agentws: the agent asks: May I?\nagentws: answer with: agentws invoke ")
        await it.until("--attach i1 --answer ")
        assert await it.exit_code() == 1


# --- Ctrl-C ---


async def test_ctrl_c_cancels(serve: Serve) -> None:
    gate = Gate()
    server = await serve(agent_of(gate.stream))
    async with terminal(*INVOKE, server.http, '["one", "two"]') as it:
        await it.until("one")
        it.press("C")
        await it.until("\nagentws: cancelling; Ctrl-C again leaves it running\n")
        await it.until("agentws: cancelled, 1 chunk, ")
        assert await it.exit_code() == 1
        assert gate.cancelled.is_set()


async def test_a_second_ctrl_c_leaves_it_running(serve: Serve) -> None:
    cancelled, released = asyncio.Event(), asyncio.Event()

    async def invoke(payload: Any, context: InvocationContext) -> AsyncGenerator[Any, None]:
        yield "one"
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            await released.wait()

    server = await serve(agent_of(invoke))
    async with terminal(*INVOKE, server.http, "--id", "i1") as it:
        await it.until("one")
        it.press("C")
        await soon(cancelled)
        it.press("C")
        command = f"agentws invoke {server.http} --attach i1 --starting-after 1"
        await it.until(f"agentws: left running; attach with: {command}\n")
        assert await it.exit_code() == 1
    released.set()


async def test_ctrl_c_at_a_question_cancels(serve: Serve) -> None:
    async def invoke(payload: Any, context: InvocationContext) -> Any:
        return await context.ask("May I?", type=bool)

    server = await serve(agent_of(invoke))
    async with terminal(*INVOKE, server.http) as it:
        await it.until("[y/n]: ")
        it.press("C")
        await it.until("agentws: cancelled, ")
        assert await it.exit_code() == 1


async def test_ctrl_c_before_there_is_a_connection() -> None:
    with taken_port() as port:
        async with terminal(*INVOKE, f"localhost:{port}", "--connect-timeout", "30") as it:
            await it.until("connecting, 0 chunks, ")
            it.press("C")
            await it.until("agentws: interrupted before there was a connection; nothing ran\n")
            assert await it.exit_code() == 1


# --- what is shown beside the output ---


async def test_the_status_is_shown_while_nothing_comes_and_leaves_no_trace(serve: Serve) -> None:
    gate = Gate()
    server = await serve(agent_of(gate.stream))
    async with terminal(*INVOKE, server.http, '[{"a": 1}, {"b": 2}]') as it:
        await it.until('{"a":1}\n')
        await it.until("running, 1 chunk, ")
        gate.opened.set()
        await it.until('{"b":2}\n')
        assert await it.exit_code() == 0
    last_status = it.raw.rfind("running, 1 chunk")
    assert "\x1b[2K" in it.raw[last_status : it.raw.index('{"b":2}')]


async def test_it_never_comes_between_texts_of_a_line(serve: Serve) -> None:
    gate = Gate()
    server = await serve(agent_of(gate.stream))
    async with terminal(*INVOKE, server.http, '["half ", "a line"]') as it:
        await it.until("half ")
        await soon(gate.entered)
        gate.opened.set()
        await it.until("a line\n")
        assert await it.exit_code() == 0
    assert "half a line\r\n" in it.raw


async def test_output_that_goes_elsewhere_is_output_alone(serve: Serve) -> None:
    server = await serve(agent_of(each))
    reader, writer = os.pipe()
    async with terminal(*INVOKE, server.http, '["a", "b"]', stdout=writer) as it:
        os.close(writer)
        assert await it.exit_code() == 0
        assert it.text.splitlines()[-1].startswith("agentws: completed, 2 chunks, ")
        assert "ab" not in it.text
    with os.fdopen(reader) as out:
        assert out.read() == "ab\n"


async def test_a_terminal_is_shown_and_does_not_obey_what_agents_say(serve: Serve) -> None:
    escapes = "\x1b]0;title\x07\x1b[31mred\rwhite\x9b2J"

    async def invoke(payload: Any, context: InvocationContext) -> AsyncGenerator[Any, None]:
        yield {"token": f"{escapes}\n\ttab\n"}
        choice = {"enum": [escapes], "description": escapes}
        schema = {"type": "object", "properties": {escapes: choice}}
        yield str(await context.ask(escapes, schema=schema))
        raise InvocationError("bad", escapes)

    server = await serve(agent_of(invoke))
    async with terminal(*INVOKE, server.http, NO_COLOR="1") as it:
        await it.until("␛]0;title␇␛[31mredwhite�2J\n\ttab\n")
        await it.until("1) ␛]0;title")
        await it.until("[1-1]: ")
        it.type("1")
        assert await it.exit_code() == 1
        assert "agentws: bad: ␛]0;title␇␛[31mred white�2J. " in it.text
    assert not [each for each in ("\x1b]", "\x1b[31m", "\x07", "\x9b") if each in it.raw]


async def test_no_color(serve: Serve) -> None:
    server = await serve(agent_of(echo))
    async with terminal(*INVOKE, server.http, NO_COLOR="1") as it:
        assert await it.exit_code() == 0
        assert not re.search(r"\x1b\[[0-9;]*m", it.raw)
    async with terminal(*INVOKE, server.http) as it:
        assert await it.exit_code() == 0
        assert "\x1b[2m" in it.raw
