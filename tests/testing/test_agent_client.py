"""The client of an agent under test: what the agent is given, and what comes of it."""

import asyncio
import contextlib
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest
from opentelemetry import baggage, context, trace
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags

from agentws import Agent, InvocationContext, InvocationError, InvocationWebSocketHandler
from agentws.client.errors import Cancelled, InvocationFailed
from agentws.testing import AgentClient
from tests.support.agents import Gate, echo, soon
from tests.testing.conftest import count


async def test_a_coroutine_answers() -> None:
    async with AgentClient(echo) as client:
        assert await client.invoke({"message": "hi"}) == {"message": "hi"}
        assert await client.invoke(None) is None


async def test_a_generator_streams() -> None:
    async with AgentClient(count) as client:
        assert await client.invoke(3) == [1, 2, 3]
        assert [chunk async for chunk in client.invoke(3)] == [1, 2, 3]
        assert await client.invoke(0) == []


async def test_an_agent_is_taken_as_well_as_a_bare_function() -> None:
    agent = Agent()
    agent.invoke_handler(echo)
    async with AgentClient(agent) as client:
        assert await client.invoke(1) == 1


@dataclass
class Point:
    x: float
    at: datetime


async def test_what_is_said_passes_through_json() -> None:
    heard: list[Any] = []

    async def invoke(payload: Any, context: InvocationContext) -> Any:
        heard.append(payload)
        return Point(float("nan"), datetime(2026, 1, 1, tzinfo=UTC))

    async with AgentClient(invoke) as client:
        assert await client.invoke({"pair": (1, 2)}) == {"x": None, "at": "2026-01-01T00:00:00Z"}
        assert heard == [{"pair": [1, 2]}]
        with pytest.raises(TypeError):
            client.invoke({"what": object()})


async def test_a_handler_finds_in_its_context_who_calls_and_how() -> None:
    contexts: list[InvocationContext] = []

    async def invoke(payload: Any, context: InvocationContext) -> None:
        contexts.append(context)

    async with AgentClient(invoke, session_id="s", user_id="u") as client:
        await client.invoke({})
        await client.invoke(
            {},
            id="i",
            session_id="s2",
            user_id="u2",
            client_headers={"X-Client-Name": "tests"},
            query={"language": "en"},
            call_id="c",
        )
        with pytest.raises(ValueError, match="x-client-"):
            client.invoke({}, client_headers={"authorization": "secret"})
    usual, own = contexts
    assert (usual.session_id, usual.user_id, usual.transport) == ("s", "u", "websocket")
    assert (own.invocation_id, own.session_id, own.user_id, own.call_id) == ("i", "s2", "u2", "c")
    assert own.client_headers == {"x-client-name": "tests"}
    assert own.query == {"language": "en"}


async def test_a_handler_works_in_the_trace_of_the_test() -> None:
    found: list[object] = []

    async def invoke(payload: Any, _: InvocationContext) -> None:
        span = trace.get_current_span().get_span_context()
        found.extend((span.trace_id, baggage.get_baggage("from")))

    here = SpanContext(0xABC, 0xDEF, is_remote=False, trace_flags=TraceFlags(1))
    token = context.attach(
        baggage.set_baggage("from", "test", trace.set_span_in_context(NonRecordingSpan(here)))
    )
    async with AgentClient(invoke) as client:
        await client.invoke({})
    context.detach(token)
    assert found == [0xABC, "test"]


async def test_startup_and_shutdown_handlers_run() -> None:
    agent, happened = Agent(), list[str]()
    gate = Gate()

    @agent.startup_handler
    async def start() -> None:
        happened.append("start")

    @agent.shutdown_handler
    async def stop() -> None:
        happened.append("cancelled" if gate.cancelled.is_set() else "left running")
        happened.append("stop")

    agent.invoke_handler(gate.__call__)
    async with AgentClient(agent) as client:
        assert happened == ["start"]
        client.invoke({}, background=True)
        await soon(gate.entered)
    assert happened == ["start", "cancelled", "stop"]


async def test_what_these_handlers_raise_is_raised() -> None:
    agent = Agent()

    @agent.startup_handler
    async def start() -> None:
        raise OSError("no database")

    with pytest.raises(OSError, match="no database"):
        async with AgentClient(agent):
            pass
    agent.startup = None

    @agent.shutdown_handler
    async def stop() -> None:
        raise OSError("no farewell")

    with pytest.raises(OSError, match="no farewell"):
        async with AgentClient(agent):
            pass


class OwnSockets(InvocationWebSocketHandler):
    async def handle_websocket(self, ws: Any, context: InvocationContext) -> None: ...


@pytest.mark.parametrize("served", [OwnSockets, OwnSockets()])
def test_an_agent_in_class_style_is_refused(served: Any) -> None:
    with pytest.raises(TypeError, match="class style"):
        AgentClient(served)


def test_a_function_that_is_no_handler_is_refused() -> None:
    def invoke(payload: Any, context: InvocationContext) -> None: ...

    with pytest.raises(TypeError, match="must be an async function"):
        AgentClient(invoke)  # type: ignore[arg-type] # that is what is tested


def test_settings_are_those_of_invocations() -> None:
    with pytest.raises(TypeError, match="no setting disconnect"):
        AgentClient(echo, disconnect=1)
    with pytest.raises(ValueError, match="replay_bytes"):
        AgentClient(echo, replay_bytes=0)


def test_it_is_to_be_entered() -> None:
    with pytest.raises(RuntimeError, match="async with"):
        AgentClient(echo).invoke({})


ERRORS = [
    (InvocationError("no_money", "Pay first", 402), ("no_money", "Pay first", False, "user")),
    (
        InvocationError("too_many_invocations", "Later"),
        ("too_many_invocations", "Later", True, "user"),
    ),
    (InvocationError("down", "Down", 503), ("down", "Down", True, "upstream")),
    (
        KeyError("a secret"),
        ("internal_error", "Internal server error", False, "upstream"),
    ),
    (SystemExit(3), ("internal_error", "Internal server error", False, "upstream")),
]


@pytest.mark.parametrize(("raised", "seen"), ERRORS)
async def test_errors_are_what_a_client_sees(raised: BaseException, seen: Any) -> None:
    async def invoke(payload: Any, context: InvocationContext) -> None:
        raise raised

    async with AgentClient(invoke) as client:
        with pytest.raises(InvocationFailed) as failure:
            await client.invoke({})
    error = failure.value
    assert (error.code, error.message, error.retryable, error.source) == seen


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"id": "no id"}, "invalid_request"),
        ({"session_id": "no id"}, "invalid_request"),
        ({"on_disconnect": "wait"}, "invalid_request"),
        ({"id": "taken"}, "already_exists"),
        ({"id": "taken", "background": True}, "already_exists"),
    ],
)
async def test_an_invoke_is_refused_as_by_the_daemon(fields: Any, code: str) -> None:
    async with AgentClient(echo) as client:
        await client.invoke({}, id="taken")
        run = client.invoke({}, **fields)
        with pytest.raises(InvocationFailed) as failure:
            await run
    assert (failure.value.code, run.status) == (code, "failed")


async def test_an_agent_without_an_invoke_handler_says_so() -> None:
    async with AgentClient(Agent()) as client:
        with pytest.raises(InvocationFailed) as failure:
            await client.invoke({})
    assert failure.value.code == "not_implemented"


async def test_what_is_anothers_does_not_exist() -> None:
    gate = Gate()
    async with AgentClient(gate.__call__) as client:
        run = client.invoke("result", user_id="u1")
        for attempt in (
            client.attach(run.id, user_id="u2"),
            client.get(run.id, user_id="u2"),
            client.attach(run.id, user_id="u2").cancel(),
            client.attach(run.id).send("hello"),
        ):
            with pytest.raises(InvocationFailed) as failure:
                await attempt
            assert failure.value.code == "not_found"
        assert [record async for record in client.list(user_id="u2")] == []
        gate.opened.set()
        assert await client.attach(run.id, user_id="u1") == "result"


async def test_records_are_got() -> None:
    async with AgentClient(echo, session_id="s") as client:
        run = client.invoke({"a": 1})
        await run
        record = await client.get(run.id)
        assert (record["status"], record["result"], record["session_id"]) == (
            "completed",
            {"a": 1},
            "s",
        )
        for unknown, code in (("unknown", "not_found"), ("no id", "invalid_request")):
            with pytest.raises(InvocationFailed) as failure:
                await client.get(unknown)
            assert failure.value.code == code


async def test_the_agents_own_handlers_answer() -> None:
    agent = Agent()
    agent.invoke_handler(echo)

    @agent.get_invocation_handler
    async def get(context: InvocationContext) -> Any:
        if context.invocation_id == "broken":
            raise OSError("no disk")
        return {"known": context.record is not None}

    @agent.cancel_invocation_handler
    async def cancel(context: InvocationContext) -> Any:
        return {"undone": context.invocation_id}

    async with AgentClient(agent) as client:
        await client.invoke({}, id="i")
        assert await client.get("i") == {"known": True}
        assert await client.get("unknown") == {"known": False}
        assert await client.attach("unknown").cancel() == {"undone": "unknown"}
        with pytest.raises(InvocationFailed) as failure:
            await client.get("broken")
    assert failure.value.code == "internal_error"
    assert isinstance(failure.value.__cause__, OSError)  # so that the test's report tells of it


async def test_lists_are_whole() -> None:
    async with AgentClient(echo) as client:
        for number in range(45):
            await client.invoke({}, id=f"{number}", session_id="even" if number % 2 == 0 else "odd")
        listed = [record["invocation_id"] async for record in client.list(session_id="even")]
        assert listed == [f"{number}" for number in reversed(range(0, 45, 2))]
        assert [record async for record in client.list(status="running")] == []
        with pytest.raises(InvocationFailed) as failure:
            await anext(client.list(session_id="no id"))
        assert failure.value.code == "invalid_request"


async def test_a_drain_is_what_sigterm_does() -> None:
    drained = asyncio.Event()

    async def invoke(payload: Any, context: InvocationContext) -> Any:
        if payload == "finish":
            await context.drained()
            assert context.draining
            drained.set()
            return "finished"
        return await asyncio.Event().wait()

    async with AgentClient(invoke) as client:
        finishing, stubborn = client.invoke("finish"), client.invoke("go on")
        assert await client.drain(grace=0.1)
        assert drained.is_set()
        assert await finishing == "finished"
        for run in (stubborn, client.invoke("too late")):
            with pytest.raises(InvocationFailed) as failure:
                await run
            assert failure.value.code == "shutting_down"
        assert (await client.get(stubborn.id))["status"] == "failed"


async def test_a_drain_tells_of_a_handler_that_does_not_end() -> None:
    let_go = asyncio.Event()

    async def invoke(payload: Any, context: InvocationContext) -> None:
        while not let_go.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await let_go.wait()

    async with AgentClient(invoke, cancel_grace=0.05) as client:
        client.invoke({})
        await asyncio.sleep(0)
        assert not await client.drain(grace=0)
        let_go.set()


async def test_a_session_is_interrupted_or_busy() -> None:
    gate = Gate()
    async with AgentClient(gate.stream, if_session_busy="interrupt") as client:
        first = client.invoke([1, 2], session_id="s")
        await soon(gate.entered)
        busy = client.invoke([3], session_id="s", if_session_busy="reject")
        with pytest.raises(InvocationFailed) as failure:
            await busy
        assert failure.value.code == "session_busy"
        assert failure.value.error["running_invocation_id"] == first.id
        second = client.invoke([4], session_id="s")
        with pytest.raises(Cancelled) as cancelled:
            await first
        assert cancelled.value.reason == "superseded"
        assert cancelled.value.error["superseded_by"] == second.id
        gate.opened.set()
        assert await second == [4]


async def test_limits_and_times_can_be_made_small() -> None:
    gate = Gate()
    async with AgentClient(gate.__call__, max_running=1, timeout=0.05) as client:
        slow = client.invoke({})
        for run, code in ((client.invoke({}), "too_many_invocations"), (slow, "timeout")):
            with pytest.raises(InvocationFailed) as failure:
                await run
            assert (failure.value.code, failure.value.retryable) == (code, True)
