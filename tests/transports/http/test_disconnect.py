"""Clients that leave: who listens no more, and what becomes of the invocation (§6)."""

import asyncio

import pytest

from tests.conftest import PATIENCE, Running, Serve
from tests.support.agents import Gate, agent_of, soon
from tests.support.http_client import SSE, Session, chunk, ended, event, named, record_of
from tests.support.peers import HttpPeer

AT_ONCE = {"disconnect_grace": 0.0}


async def invoke_and_leave(server: Running, gate: Gate) -> None:
    """Invoke as `i`, and leave as soon as the handler runs."""
    async with HttpPeer.connect(server) as peer:
        peer.request("POST /invocations", "x-agent-invocation-id: i")
        await soon(gate.entered)


async def assert_runs_on(gate: Gate, seconds: float) -> None:
    """See that the handler is not cancelled for some time."""
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(gate.cancelled.wait(), seconds)


async def test_a_client_that_leaves_amid_a_stream_is_a_lost_listener(
    serve: Serve, session: Session
) -> None:
    gate = Gate()
    server = await serve(agent_of(gate.stream), invocations=AT_ONCE)
    url = f"{server.http}/invocations"
    async with session.post(url, json=["a"], headers=named("i")) as answer:
        assert await event(answer) == chunk(1, "a")
        await soon(gate.entered)
        assert not gate.cancelled.is_set()
        answer.close()
    await soon(gate.cancelled)
    record = await ended(server, session, "i")
    assert (record["status"], record["error"]["code"]) == ("cancelled", "cancelled")


@pytest.mark.parametrize("kind", ["coroutine", "stream", "array"])
async def test_a_client_that_leaves_before_the_first_byte_is_a_lost_listener(
    serve: Serve, session: Session, kind: str
) -> None:
    gate = Gate()
    server = await serve(
        agent_of(gate if kind == "coroutine" else gate.stream_late), invocations=AT_ONCE
    )
    async with HttpPeer.connect(server) as peer:
        accept = "application/json" if kind == "array" else "*/*"
        peer.request("POST /invocations", f"Accept: {accept}", "x-agent-invocation-id: i")
        await soon(gate.entered)
        assert not gate.cancelled.is_set()
    await soon(gate.cancelled)
    assert (await ended(server, session, "i"))["status"] == "cancelled"


async def test_a_client_that_resets_the_connection_is_a_lost_listener(
    serve: Serve, session: Session
) -> None:
    gate = Gate()
    server = await serve(agent_of(gate), invocations=AT_ONCE)
    async with HttpPeer.connect(server) as peer:
        peer.request("POST /invocations")
        await soon(gate.entered)
        peer.vanish()
        await soon(gate.cancelled)


async def test_a_client_that_attached_and_leaves_is_a_lost_listener(
    serve: Serve, session: Session
) -> None:
    gate = Gate()
    server = await serve(agent_of(gate.stream), invocations=AT_ONCE)
    url = f"{server.http}/invocations"
    posted = await session.post(url, json=["a"], headers=named("i"))
    assert await event(posted) == chunk(1, "a")
    async with session.get(f"{url}/i", headers=SSE) as answer:
        assert await event(answer) == chunk(1, "a")
        posted.close()  # the other one still listens
        await assert_runs_on(gate, 0.1)
        answer.close()
    await soon(gate.cancelled)


async def test_a_client_has_the_grace_to_come_back(serve: Serve, session: Session) -> None:
    """The time is the test's: it comes back at once, and stays for longer than the grace."""
    gate = Gate()
    server = await serve(agent_of(gate), invocations={"disconnect_grace": 0.4})
    await invoke_and_leave(server, gate)
    async with session.get(f"{server.http}/invocations/i", headers=SSE) as answer:
        await assert_runs_on(gate, 0.8)
        answer.close()
    await soon(gate.cancelled)


async def test_where_it_is_set_so_an_invocation_runs_on_without_its_client(
    serve: Serve, session: Session
) -> None:
    gate = Gate()
    server = await serve(
        agent_of(gate.stream), invocations={**AT_ONCE, "on_disconnect": "continue"}
    )
    url = f"{server.http}/invocations"
    async with session.post(url, json=["a", "b"], headers=named("i")) as answer:
        assert await event(answer) == chunk(1, "a")
        answer.close()
    await soon(gate.entered)
    await assert_runs_on(gate, 0.1)
    gate.opened.set()
    assert (await ended(server, session, "i"))["status"] == "completed"


async def test_a_poll_is_no_listener(serve: Serve, session: Session) -> None:
    gate = Gate()
    server = await serve(agent_of(gate), invocations={"disconnect_grace": 0.2})
    await invoke_and_leave(server, gate)
    async with asyncio.timeout(PATIENCE):
        while not gate.cancelled.is_set():
            assert (await record_of(server, session, "i"))["status"] in ("running", "cancelled")
