"""Which session a message belongs to, and whose an invocation is (§2)."""

import pytest

from agentws import Agent, InvocationContext
from tests.conftest import Serve
from tests.support.agents import Gate, agent_of, echo, soon
from tests.transports.websocket.conftest import UUID, answer_to, assert_alive, told


@pytest.mark.parametrize(
    ("message", "configured", "query", "expected"),
    [
        ("m", "c", "q", "m"),
        (None, "c", "q", "c"),
        ("", "", "q", "q"),
        (None, "", "q", "q"),
        ("m", "", "", "m"),
    ],
)
async def test_the_session_is_the_messages_else_the_settings_else_the_querys(
    serve: Serve, message: str | None, configured: str, query: str, expected: str
) -> None:
    server = await serve(agent_of(echo), agent={"session_id": configured})
    async with server.connect(f"/invocations_ws/ws?agent_session_id={query}") as client:
        frame = await client.ask(action="invoke", session_id=message)
        assert frame["session_id"] == expected


async def test_without_any_the_session_is_one_uuid_for_the_connection(serve: Serve) -> None:
    server = await serve(agent_of(echo))
    sessions = set()
    for _ in range(2):
        async with server.connect() as client:
            assert client.connection.response is not None
            made = client.connection.response.headers["x-agent-session-id"]
            assert UUID.fullmatch(made)
            for _ in range(2):
                assert (await client.ask(action="invoke"))["session_id"] == made
            sessions.add(made)
    assert len(sessions) == 2


async def test_get_and_cancel_handlers_are_told_the_session(serve: Serve) -> None:
    agent = Agent()

    @agent.get_invocation_handler
    async def get(context: InvocationContext) -> list[str]:
        return [context.invocation_id, context.session_id]

    agent.cancel_invocation_handler(get)
    server = await serve(agent)
    async with server.connect("/invocations_ws/ws?agent_session_id=q") as client:
        for action in ("get_invocation", "cancel_invocation"):
            frame = await client.ask(action=action, invocation_id="i", session_id="s")
            assert frame == answer_to(action, "i", ["i", "s"])
            frame = await client.ask(action=action, invocation_id="i")
            assert frame["payload"] == ["i", "q"]


@pytest.mark.parametrize(
    ("owner", "stranger"), [("ann", "bob"), ("ann", None), (None, "bob"), ("ann", "Ann")]
)
async def test_to_a_stranger_an_invocation_does_not_exist(
    serve: Serve, owner: str | None, stranger: str | None
) -> None:
    gate = Gate()
    agent = agent_of(gate)
    asked: list[str | None] = []

    @agent.get_invocation_handler
    async def get(context: InvocationContext) -> str:
        asked.append(context.user_id)
        return "asked"

    agent.cancel_invocation_handler(get)
    plain = agent_of(gate)

    for served in (plain, agent):
        server = await serve(served)
        gate.entered.clear()
        gate.opened.clear()
        async with (
            server.connect(headers=named(owner)) as client,
            server.connect(headers=named(owner)) as same,
            server.connect(headers=named(stranger)) as other,
        ):
            await client.send(action="invoke", payload=1, invocation_id="i")
            await soon(gate.entered)
            for action in ("get_invocation", "cancel_invocation", "attach_invocation"):
                frame = await other.ask(action=action, invocation_id="i")
                assert told(frame)["error"] == "not_found"
            await same.send(action="attach_invocation", invocation_id="i")
            await assert_alive(same)
            gate.opened.set()
            assert (await client.receive())["payload"] == 1
            assert (await same.receive())["payload"] == 1
            for action in ("get_invocation", "cancel_invocation", "attach_invocation"):
                frame = await other.ask(action=action, invocation_id="i")
                assert told(frame)["error"] == "not_found"
            assert (await same.ask(action="get_invocation", invocation_id="i"))["type"] == "result"
    assert asked == [owner]


def named(user: str | None) -> dict[str, str]:
    return {} if user is None else {"x-agent-user-id": user}
