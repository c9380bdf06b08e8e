"""The blocking client: the same words, in threads."""

import asyncio
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import pytest

from agentws import Agent, InvocationContext
from agentws.client import (
    Answered,
    Cancelled,
    Chunk,
    Closed,
    ConnectionFailed,
    InvocationFailed,
    Question,
    connect_sync,
)
from agentws.client.sync import SyncClient
from tests.conftest import Running, Serve
from tests.support.agents import Gate, agent_of, each, echo, soon

Result = TypeVar("Result")


async def in_thread(work: Callable[[], Result]) -> Result:
    """Do what blocks where it does not block the server, which is in this process."""
    return await asyncio.to_thread(work)


@pytest.fixture
async def client_of() -> AsyncIterator[Callable[[Running], SyncClient]]:
    """Make clients that are closed at the end."""
    clients: list[SyncClient] = []

    def make(server: Running) -> SyncClient:
        clients.append(connect_sync(server.http, max_retry_delay=0.05))
        return clients[-1]

    yield make
    for client in clients:
        await in_thread(client.close)


ClientOf = Callable[[Running], SyncClient]


async def test_a_script_needs_no_event_loop(serve: Serve) -> None:
    server = await serve(agent_of(each))

    def script() -> list[Any]:
        with connect_sync(server.http) as client:
            run = client.invoke(["a", "b"], id="x", session_id="s")
            read = list(run)
            assert (run.id, run.status, run.cursor) == ("x", "completed", 2)
            assert client.invoke([1, 2]).result() == [1, 2]
            assert client.get("x")["status"] == "completed"
            assert [record["invocation_id"] for record in client.list(session_id="s")] == ["x"]
            assert list(client.attach("x", after=1)) == ["b"]
            assert client.state == "open"
        assert str(client.state) == "closed"
        return read

    assert await in_thread(script) == ["a", "b"]


async def test_a_question_is_answered(serve: Serve, client_of: ClientOf) -> None:
    agent = Agent()

    @agent.invoke_handler
    async def invoke(payload: Any, context: InvocationContext) -> AsyncGenerator[Any, None]:
        yield await context.ask("Really?")
        yield (await context.receive()).payload

    server = await serve(agent)

    def script() -> list[Any]:
        run = client_of(server).invoke(1)
        events = []
        for event in run.events():
            events.append(event)
            if isinstance(event, Question):
                event.answer("yes")
            elif isinstance(event, Chunk) and event.number == 3:
                run.send("more")
        return events

    question, *others = await in_thread(script)
    assert question.payload == "Really?"
    answered = Answered(question.request_id, withdrawn=False)
    assert others == [answered, Chunk(3, "yes"), Chunk(4, "more")]


async def test_a_run_is_cancelled(serve: Serve, client_of: ClientOf) -> None:
    gate = Gate()
    server = await serve(agent_of(gate))

    def script() -> None:
        run = client_of(server).invoke(1)
        assert run.cancel()["status"] == "cancelled"
        with pytest.raises(Cancelled):
            run.result()
        with pytest.raises(InvocationFailed, match="already_finished"):
            run.cancel()

    await in_thread(script)


async def test_a_result_may_be_waited_for_in_parts(serve: Serve, client_of: ClientOf) -> None:
    gate = Gate()
    server = await serve(agent_of(gate.stream))

    def wait() -> Any:
        run = client_of(server).invoke([1, 2, 3])
        with pytest.raises(TimeoutError):
            run.result(timeout=0.05)
        asyncio.run_coroutine_threadsafe(open_gate(), loop).result()
        return [run.result(), run.result()]

    async def open_gate() -> None:
        gate.opened.set()

    loop = asyncio.get_running_loop()
    assert await in_thread(wait) == [[1, 2, 3], [1, 2, 3]]


@pytest.mark.parametrize("way", ["break", "close", "block"])
async def test_who_stops_reading_detaches(serve: Serve, client_of: ClientOf, way: str) -> None:
    gate = Gate()
    server = await serve(agent_of(gate.stream), invocations={"disconnect_grace": 0.05})

    def script() -> None:
        run = client_of(server).invoke([1, 2])
        match way:
            case "break":
                for _ in run:
                    break
            case "close":
                run.close()
            case "block":
                with run:
                    pass
        assert list(run) == []
        with pytest.raises(Closed, match="detached"):
            run.result()

    await in_thread(script)
    await soon(gate.cancelled)


async def test_threads_share_a_client(serve: Serve, client_of: ClientOf) -> None:
    server = await serve(agent_of(each))
    client = client_of(server)

    def script(number: int) -> Any:
        return list(client.invoke([number] * 10))

    def scripts() -> list[Any]:
        with ThreadPoolExecutor(8) as threads:
            return list(threads.map(script, range(40)))

    assert await in_thread(scripts) == [[number] * 10 for number in range(40)]


async def test_closing_ends_whoever_waits(serve: Serve) -> None:
    gate = Gate()
    server = await serve(agent_of(gate))
    client = connect_sync(server.http)
    waiting = asyncio.create_task(in_thread(client.invoke(1).result))
    await soon(gate.entered)
    await in_thread(client.close)
    with pytest.raises(Closed):
        await waiting
    with pytest.raises(Closed):
        client.invoke(1)
    client.close()
    assert "agentws.client" not in [thread.name for thread in threading.enumerate()]


def test_a_server_that_is_not_there() -> None:
    client = connect_sync("http://127.0.0.1:1", connect_timeout=0.2)
    with client, pytest.raises(ConnectionFailed, match="Check the URL"):
        client.invoke(1).result()


async def test_callbacks_come_from_the_clients_thread(serve: Serve) -> None:
    told: list[tuple[str, str]] = []
    server = await serve(agent_of(echo))

    def script() -> None:
        with connect_sync(server.http) as client:
            client.on_state(lambda state: told.append((state, threading.current_thread().name)))
            client.on_frame(lambda way, _: told.append((way, threading.current_thread().name)))
            assert client.invoke(1).result() == 1

    await in_thread(script)
    assert ("closed", "agentws.client") in told
    assert ("out", "agentws.client") in told
