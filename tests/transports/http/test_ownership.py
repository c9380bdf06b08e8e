"""Whose an invocation is: to others, it does not exist."""

from typing import Any

import pytest

from agentws import Agent, InvocationContext
from tests.conftest import Serve
from tests.support.agents import Gate, agent_of, echo, soon
from tests.support.http_client import (
    SSE,
    Session,
    begin,
    chunk,
    event,
    named,
    record_of,
    refusal,
    run,
)

ANN, BOB, NOBODY = {"x-agent-user-id": "ann"}, {"x-agent-user-id": "bob"}, dict[str, str]()


@pytest.mark.parametrize(
    ("owner", "others"), [(ANN, [BOB, NOBODY]), (NOBODY, [ANN, BOB])], ids=["ann's", "nobody's"]
)
async def test_to_others_an_invocation_does_not_exist(
    serve: Serve,
    session: Session,
    owner: dict[str, str],
    others: list[dict[str, str]],
) -> None:
    gate = Gate()
    server = await serve(agent_of(gate.stream))
    url = f"{server.http}/invocations"
    await begin(server, session, "i", ["a"], headers=owner)
    await soon(gate.entered)

    async def asked_by(user: dict[str, str]) -> list[tuple[int, Any]]:
        answers = []
        for answering in (
            session.get(f"{url}/i", headers=user),
            session.get(f"{url}/i", headers={**user, **SSE}),
            session.post(f"{url}/i/cancel", headers=user),
        ):
            async with answering as answer:
                answers.append((answer.status, await answer.json()))
        return answers

    async with session.get(f"{url}/unknown") as answer:
        unknown = (answer.status, await answer.json())
    for other in others:
        assert await asked_by(other) == [unknown] * 3
    assert not gate.cancelled.is_set()
    async with session.get(f"{url}/i", headers={**owner, **SSE}) as answer:
        assert await event(answer) == chunk(1, "a")
        async with session.post(f"{url}/i/cancel", headers=owner) as cancelled:
            assert cancelled.status == 200
    for other in others:  # nor does it when it has ended
        assert await asked_by(other) == [unknown] * 3


async def test_the_agents_own_handlers_are_not_asked_about_anothers(
    serve: Serve, session: Session
) -> None:
    asked: list[str] = []
    agent = Agent()
    gate = Gate()
    agent.invoke_handler(gate)

    @agent.get_invocation_handler
    async def get(context: InvocationContext) -> None:
        asked.append(f"get by {context.user_id}")

    @agent.cancel_invocation_handler
    async def cancel(context: InvocationContext) -> None:
        asked.append(f"cancel by {context.user_id}")

    server = await serve(agent)
    url = f"{server.http}/invocations"
    await begin(server, session, "i", headers=ANN)
    await soon(gate.entered)
    for user, status in ((BOB, 404), (NOBODY, 404), (ANN, 200)):
        async with session.get(f"{url}/i", headers=user) as answer:
            assert answer.status == status
        async with session.post(f"{url}/i/cancel", headers=user) as answer:
            assert answer.status == status
    assert asked == ["get by ann", "cancel by ann"]


async def test_an_id_of_anothers_is_taken_all_the_same(serve: Serve, session: Session) -> None:
    server = await serve(agent_of(echo))
    url = f"{server.http}/invocations"
    await run(server, session, "i", 1, headers=ANN)
    async with session.post(url, json=2, headers=named("i", **BOB)) as answer:
        await refusal(answer, 409, "already_exists")
    assert (await record_of(server, session, "i", ANN))["result"] == 1


async def test_a_socket_of_the_same_user_is_the_owner_too(serve: Serve, session: Session) -> None:
    gate = Gate()
    server = await serve(agent_of(gate))
    await begin(server, session, "i", headers=ANN)
    for user, found in ((ANN, True), (BOB, False), (NOBODY, False)):
        async with server.connect(headers=user) as client:
            frame = await client.ask(action="get_invocation", invocation_id="i")
            assert (frame["type"] == "result") == found
