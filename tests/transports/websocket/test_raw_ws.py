"""The raw socket on the wire: the agent's own handler owns it (§1, §2, §8, §9)."""

import asyncio
import contextlib
import json
import logging
import re
import struct
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from aiohttp import WSMsgType, web
from opentelemetry import baggage, trace
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed, InvalidStatus

from agentws import Agent, InvocationContext, InvocationError, __version__
from agentws.agent.handlers import SocketHandler
from agentws.telemetry.logs import InvocationFilter
from agentws.transports.websocket.raw_listener import MOST_UNREAD
from tests.conftest import PATIENCE, LogLines, Running, Serve
from tests.support.peers import CLOSE, PING, PONG, TEXT, RawPeer, masked

UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = "00f067aa0ba902b7"
FIELD = "azure.ai.agentserver.invocations_ws."
PATH = "/invocations_ws"
KIB = 1024
MIB = 1024**2

BINARY = 0x2

WebSocket = web.WebSocketResponse


def agent_of(function: SocketHandler) -> Agent:
    agent = Agent()
    agent.ws_handler(function)
    return agent


async def soon(event: asyncio.Event) -> None:
    async with asyncio.timeout(PATIENCE):
        await event.wait()


def seconds() -> float:
    return asyncio.get_running_loop().time()


async def converse(ws: WebSocket, context: InvocationContext) -> None:
    """Send back what comes, until the client closes."""
    async for message in ws:
        await ws.send_str(message.data)


async def answer_json(ws: WebSocket, context: InvocationContext) -> None:
    """What most people write."""
    while True:
        await ws.send_json(await ws.receive_json())


class Stubborn:
    """A handler that swallows every cancellation until it is let go."""

    def __init__(self) -> None:
        self.entered = asyncio.Event()
        self.let_go = asyncio.Event()
        self.left = asyncio.Event()

    async def __call__(self, ws: WebSocket, _: InvocationContext) -> None:
        self.entered.set()
        while not self.let_go.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await self.let_go.wait()
        self.left.set()


@asynccontextmanager
async def connected(
    server: Running, path: str = PATH, headers: Mapping[str, str] = {}, **options: Any
) -> AsyncIterator[ClientConnection]:
    async with server.connect(path, headers, **options) as client:
        yield client.connection


async def received(client: ClientConnection) -> str | bytes:
    async with asyncio.timeout(PATIENCE):
        return await client.recv()


async def closing(client: ClientConnection) -> tuple[int | None, str | None]:
    """Wait for the server's close, passing over messages; return code and reason as sent."""
    async with asyncio.timeout(PATIENCE):
        with contextlib.suppress(ConnectionClosed):
            while True:
                await client.recv()
        await client.wait_closed()
    return client.close_code, client.close_reason


GAVE_UP = {"internal_error", "slow_client", "heartbeat_timeout"}


async def line_of(log_lines: LogLines) -> dict[str, Any]:
    """Return the fields of the next log line, those of every log record left out."""
    record = await log_lines.next("agentws.connection")
    plain = vars(logging.makeLogRecord({})).keys() | {"message", "asctime"}
    fields = {name: value for name, value in vars(record).items() if name not in plain}
    gave_up = fields.get(FIELD + "error.code") in GAVE_UP
    assert record.levelno == (logging.WARNING if gave_up else logging.INFO)
    assert record.exc_info is None
    return fields


async def ending(log_lines: LogLines) -> tuple[int, str | None]:
    """Return close code and error code of the next log line, and check its other fields."""
    fields = await line_of(log_lines)
    error_code = fields.pop(FIELD + "error.code", None)
    close_code = fields.pop(FIELD + "close_code")
    assert type(close_code) is int
    assert isinstance(fields.pop(FIELD + "session_id"), str)
    assert (fields.pop("peer"), fields.pop("invocations")) == ("127.0.0.1", 0)
    assert fields.keys() == {FIELD + "duration_ms", "bytes_received", "bytes_sent"}
    assert all(type(value) is int and value >= 0 for value in fields.values())
    return close_code, error_code


async def only_ending(server: Running, log_lines: LogLines) -> tuple[int, str | None]:
    """Return close code and error code of the log line, and check that there is no other."""
    found = await ending(log_lines)
    await server.server.drain()
    assert not [record for record in log_lines.records if record.name == "agentws.connection"]
    return found


def faults(log_lines: LogLines) -> list[logging.LogRecord]:
    """What was logged of exceptions of the handler's."""
    return [record for record in log_lines.records if record.name == "agentws.raw"]


# --- the handshake ----------------------------------------------------------------------------


async def test_the_handshake_is_answered_with_its_headers(serve: Serve) -> None:
    server = await serve(agent_of(converse))
    async with connected(server, headers={"x-request-id": "mine"}) as client:
        assert client.response is not None
        headers = client.response.headers
        assert headers["x-request-id"] == "mine"
        assert headers["x-platform-server"].startswith(f"agentws/{__version__} (python/3.")
        assert UUID.fullmatch(headers["x-agent-session-id"])
        await client.send("hello")
        assert await received(client) == "hello"


@pytest.mark.parametrize(
    ("query", "configured", "expected"),
    [
        ("?agent_session_id=query", "configured", "configured"),
        ("?agent_session_id=query", "", "query"),
        ("", "configured", "configured"),
        ("?agent_session_id=", "", None),
        ("", "", None),
    ],
)
async def test_the_session_is_the_configured_else_the_querys_else_new(
    serve: Serve, log_lines: LogLines, query: str, configured: str, expected: str | None
) -> None:
    async def tell(ws: WebSocket, context: InvocationContext) -> None:
        await ws.send_str(context.session_id)

    server = await serve(agent_of(tell), agent={"session_id": configured})
    told = set()
    for _ in range(2):
        async with connected(server, PATH + query) as client:
            session_id = await received(client)
            assert client.response is not None
            assert client.response.headers["x-agent-session-id"] == session_id
        line = vars(await log_lines.next("agentws.connection"))
        assert line[FIELD + "session_id"] == session_id
        assert isinstance(session_id, str)
        told.add(session_id)
    if expected is not None:
        assert told == {expected}
    else:
        assert len(told) == 2
        assert all(map(UUID.fullmatch, told))


async def test_what_the_handler_knows_of_the_handshake(serve: Serve) -> None:
    seen: list[InvocationContext] = []

    async def note(ws: WebSocket, context: InvocationContext) -> None:
        seen.append(context)

    server = await serve(agent_of(note))
    headers = {
        "X-Client-Locale": "de",
        "x-agent-user-id": "ann",
        "x-agent-foundry-call-id": "call",
        "x-request-id": "req",
    }
    for _ in range(2):
        async with connected(server, f"{PATH}?agent_session_id=s&a=1", headers) as client:
            await closing(client)
    first, second = (context.invocation_id for context in seen)
    assert first != second
    for context in seen:
        assert UUID.fullmatch(context.invocation_id)
        assert context == InvocationContext(
            context.invocation_id,
            "s",
            "websocket",
            {"x-client-locale": "de"},
            {"agent_session_id": "s", "a": "1"},
            "ann",
            "call",
            "req",
        )


async def refusal(
    server: Running, path: str = PATH, headers: Mapping[str, str] = {}
) -> tuple[int, str, Mapping[str, str]]:
    """Be refused an upgrade; return status, error code and headers."""
    with pytest.raises(InvalidStatus) as refused:
        async with server.connect(path, headers):
            pass
    response = refused.value.response
    assert response.body is not None
    error = json.loads(response.body)["error"]
    assert response.headers["x-platform-error-source"] == error["source"]
    return response.status_code, error["code"], response.headers


async def test_a_bad_session_is_refused_before_the_upgrade(serve: Serve) -> None:
    server = await serve(agent_of(converse))
    status, code, _ = await refusal(server, f"{PATH}?agent_session_id=a/b")
    assert (status, code) == (400, "invalid_request")


async def test_a_plain_request_has_to_be_upgraded(serve: Serve) -> None:
    server = await serve(agent_of(converse))
    async with aiohttp.ClientSession() as session, session.get(server.http + PATH) as answer:
        assert (answer.status, answer.headers["Upgrade"]) == (426, "websocket")
        assert (await answer.json())["error"]["code"] == "upgrade_required"


async def test_without_a_handler_of_its_own_the_route_is_the_framed_socket(serve: Serve) -> None:
    agent = Agent()

    @agent.invoke_handler
    async def invoke(payload: Any, context: InvocationContext) -> Any:
        return payload

    server = await serve(agent)
    async with server.connect(PATH) as client:
        assert (await client.ask(action="invoke", payload=1))["payload"] == 1


async def test_with_no_handler_at_all_there_is_no_route(serve: Serve) -> None:
    server = await serve(Agent())
    status, code, _ = await refusal(server)
    assert (status, code) == (404, "not_found")
    async with aiohttp.ClientSession() as session:
        for method in ("GET", "POST"):
            async with session.request(method, server.http + PATH) as answer:
                assert answer.status == 404


async def test_beside_the_handler_the_framed_socket_has_its_route(serve: Serve) -> None:
    server = await serve(agent_of(converse))
    async with server.connect() as client:
        assert await client.ask(action="ping") == {"type": "pong"}
        frame = await client.ask(action="invoke")
        assert frame["error"]["code"] == "not_implemented"


# --- how it ends: by the handler --------------------------------------------------------------


async def test_a_handler_that_returns_closes_with_1000(serve: Serve, log_lines: LogLines) -> None:
    async def leave(ws: WebSocket, context: InvocationContext) -> None:
        await ws.send_str("bye")

    server = await serve(agent_of(leave))
    async with connected(server) as client:
        assert await received(client) == "bye"
        assert await closing(client) == (1000, "")
    assert await only_ending(server, log_lines) == (1000, None)


@pytest.mark.parametrize(
    "fault",
    [
        lambda: RuntimeError("secret"),
        lambda: InvocationError("secret", "secret", status=404),
        lambda: SystemExit("secret"),
        lambda: KeyboardInterrupt("secret"),
        lambda: asyncio.CancelledError("secret"),
        lambda: TimeoutError("secret"),
        lambda: ConnectionRefusedError("secret"),
        lambda: web.HTTPNotFound(text="secret"),
        lambda: BaseExceptionGroup("secret", [KeyboardInterrupt("secret")]),
    ],
)
async def test_a_handler_that_raises_closes_with_1011_and_tells_nothing(
    serve: Serve, log_lines: LogLines, fault: Callable[[], BaseException]
) -> None:
    async def fail(ws: WebSocket, context: InvocationContext) -> None:
        if await ws.receive_str() == "fail":
            raise fault()

    server = await serve(agent_of(fail))
    async with connected(server) as client:
        await client.send("fail")
        assert await closing(client) == (1011, "Internal server error")
    line = await log_lines.next("agentws.connection")
    assert vars(line)[FIELD + "close_code"] == 1011
    assert vars(line)[FIELD + "error.code"] == "internal_error"
    assert "secret" not in line.getMessage() + repr(vars(line))
    (fault_line,) = faults(log_lines)
    assert fault_line.levelno == logging.ERROR
    assert fault_line.exc_info is not None
    async with connected(server) as client:  # the daemon lives
        await client.send("live")
        assert await closing(client) == (1000, "")
    assert await only_ending(server, log_lines) == (1000, None)


async def test_a_message_that_the_handler_cannot_use_is_its_own_affair(
    serve: Serve, log_lines: LogLines
) -> None:
    """The client is there: what the handler did not catch is an error, whatever its class."""
    server = await serve(agent_of(answer_json))
    for message in (b"binary", "no json"):
        async with connected(server) as client:
            await client.send(message)
            assert await closing(client) == (1011, "Internal server error")
        assert await ending(log_lines) == (1011, "internal_error")


@pytest.mark.parametrize("code", [1000, 1008, 1013, 3000, 4001])
async def test_the_handlers_own_close_is_left_as_it_is(
    serve: Serve, log_lines: LogLines, code: int
) -> None:
    async def leave(ws: WebSocket, context: InvocationContext) -> None:
        await ws.close(code=code, message=b"enough")

    server = await serve(agent_of(leave))
    async with connected(server) as client:
        assert await closing(client) == (code, "enough")
    assert await only_ending(server, log_lines) == (code, None)


@pytest.mark.parametrize("code", [-1, 0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 70000])
async def test_a_close_of_the_handlers_that_may_not_be_sent_is_1011(
    serve: Serve, log_lines: LogLines, code: int
) -> None:
    async def leave(ws: WebSocket, context: InvocationContext) -> None:
        await ws.close(code=code, message=b"enough")

    server = await serve(agent_of(leave))
    async with connected(server) as client:
        assert await closing(client) == (1011, "enough")
    assert await only_ending(server, log_lines) == (1011, "internal_error")
    (fault,) = faults(log_lines)
    assert str(code) in fault.getMessage()


@pytest.mark.parametrize("code", ["1000", 1000.0, None])
async def test_a_close_of_the_handlers_without_a_number_is_an_error(
    serve: Serve, log_lines: LogLines, code: Any
) -> None:
    async def leave(ws: WebSocket, context: InvocationContext) -> None:
        await ws.close(code=code)

    server = await serve(agent_of(leave))
    async with connected(server) as client:
        assert await closing(client) == (1011, "Internal server error")
    assert await only_ending(server, log_lines) == (1011, "internal_error")


@pytest.mark.parametrize(
    ("reason", "sent"),
    [
        (b"x" * 123, "x" * 123),
        (b"x" * 124, "x" * 123),
        ("x" + "é" * 200, "x" + "é" * 61),
        (b"\xff", "\ufffd"),
        ("\ud800", "?"),
    ],
)
async def test_the_reason_of_a_close_is_cut_to_what_fits(
    serve: Serve, reason: Any, sent: str
) -> None:
    async def leave(ws: WebSocket, context: InvocationContext) -> None:
        await ws.close(code=4001, message=reason)

    server = await serve(agent_of(leave))
    async with connected(server) as client:
        assert await closing(client) == (4001, sent)


async def test_a_handler_that_sends_after_its_own_close_has_ended(
    serve: Serve, log_lines: LogLines
) -> None:
    async def leave(ws: WebSocket, context: InvocationContext) -> None:
        await ws.close(code=4001)
        await ws.send_str("and another thing")

    server = await serve(agent_of(leave))
    async with connected(server) as client:
        assert await closing(client) == (4001, "")
    assert await only_ending(server, log_lines) == (4001, None)
    assert not faults(log_lines)


async def test_a_handler_that_raises_after_its_own_close_is_an_error(
    serve: Serve, log_lines: LogLines
) -> None:
    async def fail(ws: WebSocket, context: InvocationContext) -> None:
        await ws.close(code=4001)
        raise RuntimeError("secret")

    server = await serve(agent_of(fail))
    async with connected(server) as client:
        assert await closing(client) == (4001, "")
    assert await only_ending(server, log_lines) == (4001, "internal_error")
    assert len(faults(log_lines)) == 1


# --- how it ends: by the client ---------------------------------------------------------------


@pytest.mark.parametrize("handler", [converse, answer_json])
@pytest.mark.parametrize("code", [1000, 1001, 3999, 4002])
async def test_the_clients_close_is_logged_as_it_came(
    serve: Serve, log_lines: LogLines, handler: SocketHandler, code: int
) -> None:
    server = await serve(agent_of(handler))
    async with RawPeer.connect(server) as peer:
        peer.send(TEXT, b"1")
        assert await peer.receive() == (TEXT, b"1")
        peer.send(CLOSE, struct.pack("!H", code) + b"bye")
        assert await peer.close_code() == code
    assert await only_ending(server, log_lines) == (code, None)
    assert not faults(log_lines)


@pytest.mark.parametrize("handler", [converse, answer_json])
async def test_a_close_without_a_code_is_logged_as_1005(
    serve: Serve, log_lines: LogLines, handler: SocketHandler
) -> None:
    server = await serve(agent_of(handler))
    async with RawPeer.connect(server) as peer:
        peer.send(CLOSE)
        opcode, _ = await peer.receive()
        assert opcode == CLOSE
    assert await only_ending(server, log_lines) == (1005, None)
    assert not faults(log_lines)


@pytest.mark.parametrize("handler", [converse, answer_json])
@pytest.mark.parametrize("by_reset", [False, True])
async def test_a_client_that_vanishes_is_logged_as_1006(
    serve: Serve, log_lines: LogLines, handler: SocketHandler, by_reset: bool
) -> None:
    server = await serve(agent_of(handler))
    async with RawPeer.connect(server) as peer:
        peer.send(TEXT, b"1")
        await peer.receive()
        if by_reset:
            peer.vanish()
    assert await only_ending(server, log_lines) == (1006, None)
    assert not faults(log_lines)


async def test_a_handler_that_only_sends_learns_that_the_client_has_closed(
    serve: Serve, log_lines: LogLines
) -> None:
    async def tick(ws: WebSocket, context: InvocationContext) -> None:
        while True:
            await ws.send_str("tick")
            await asyncio.sleep(0.01)

    server = await serve(agent_of(tick))
    async with connected(server, close_timeout=0.1) as client:
        assert await received(client) == "tick"
        await client.close(4002)
    assert await only_ending(server, log_lines) == (4002, None)
    assert not faults(log_lines)


async def test_a_close_that_the_handler_never_read_is_logged_all_the_same(
    serve: Serve, log_lines: LogLines
) -> None:
    entered, let_go = asyncio.Event(), asyncio.Event()

    async def wait(ws: WebSocket, context: InvocationContext) -> None:
        entered.set()
        await let_go.wait()

    server = await serve(agent_of(wait))
    async with RawPeer.connect(server) as peer:
        await soon(entered)
        for number in range(10):  # these the handler leaves unread, too
            peer.send(TEXT, str(number).encode())
        peer.send(CLOSE, struct.pack("!H", 4002))
        peer.send(PING)
        await asyncio.sleep(0.05)  # until it has arrived: there is nothing to see of that
        let_go.set()
        assert await peer.close_code() == 4002
    assert await only_ending(server, log_lines) == (4002, None)


@pytest.mark.parametrize(
    ("fault", "error_code"),
    [
        (RuntimeError("secret"), "internal_error"),
        (KeyError("secret"), "internal_error"),
        (ConnectionResetError("The client is gone"), None),
        (ExceptionGroup("tasks", [ConnectionResetError("The client is gone")]), None),
        (
            ExceptionGroup("tasks", [ConnectionResetError("gone"), KeyError("secret")]),
            "internal_error",
        ),
    ],
    ids=repr,
)
async def test_a_handler_that_raises_after_the_client_vanished(
    serve: Serve, log_lines: LogLines, fault: Exception, error_code: str | None
) -> None:
    let_go = asyncio.Event()

    async def fail(ws: WebSocket, context: InvocationContext) -> None:
        async for _ in ws:
            pass
        await let_go.wait()
        raise fault

    server = await serve(agent_of(fail))
    async with RawPeer.connect(server):
        pass
    let_go.set()
    assert await only_ending(server, log_lines) == (1006, error_code)
    assert len(faults(log_lines)) == (error_code is not None)


async def test_a_handler_with_tasks_of_its_own_may_let_them_end_with_the_client(
    serve: Serve, log_lines: LogLines
) -> None:
    """As in a voice agent: one task hears, another speaks, neither looks at the close."""

    async def talk(ws: WebSocket, context: InvocationContext) -> None:
        async def hear() -> None:
            while True:
                await ws.receive_bytes()

        async def speak() -> None:
            while True:
                await ws.send_bytes(b"sound")
                await asyncio.sleep(0.01)

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(hear())
            tasks.create_task(speak())

    server = await serve(agent_of(talk))
    async with connected(server) as client:
        await client.send(b"sound")
        assert await received(client) == b"sound"
        await client.close(4002)
    assert await only_ending(server, log_lines) == (4002, None)
    assert not faults(log_lines)


# --- how it ends: by the protocol -------------------------------------------------------------


async def test_a_message_past_the_limit_is_closed_with_1009(
    serve: Serve, log_lines: LogLines
) -> None:
    async def measure(ws: WebSocket, context: InvocationContext) -> None:
        async for message in ws:
            await ws.send_str(str(len(message.data)))

    server = await serve(agent_of(measure), websocket={"max_message_size": 1000})
    for opcode in (TEXT, BINARY):
        async with RawPeer.connect(server) as peer:
            peer.send(opcode, b"x" * 1000)
            assert await peer.receive() == (TEXT, b"1000")
            peer.send(opcode, b"x" * 1001)
            assert await peer.close_code() == 1009
        assert await ending(log_lines) == (1009, "payload_too_large")
    async with RawPeer.connect(server) as peer:  # in two fragments
        peer.send(TEXT, b"x" * 600, first_bits=0)
        peer.send(0x0, b"x" * 600)
        assert await peer.close_code() == 1009
    assert await only_ending(server, log_lines) == (1009, "payload_too_large")
    assert not faults(log_lines)


async def test_a_message_may_be_larger_than_what_aiohttp_takes_by_default(serve: Serve) -> None:
    server = await serve(agent_of(converse), websocket={"max_message_size": 6 * MIB})
    async with connected(server, max_size=None) as client:
        text = "x" * (6 * MIB)
        await client.send(text)
        assert await received(client) == text


@pytest.mark.parametrize("handler", [converse, answer_json])
@pytest.mark.parametrize(
    ("opcode", "data", "first_bits", "code"),
    [
        (TEXT, b"\xff", 0x80, 1007),
        (TEXT, b"x", 0xC0, 1002),
        (0x3, b"x", 0x80, 1002),
        (0x0, b"x", 0x80, 1002),
        (PING, b"x" * 126, 0x80, 1002),
        (CLOSE, b"\x03", 0x80, 1002),
        (CLOSE, struct.pack("!H", 1005), 0x80, 1002),
        (CLOSE, struct.pack("!H", 1006), 0x80, 1002),
        (CLOSE, struct.pack("!H", 5000), 0x80, 1002),
    ],
)
async def test_a_client_that_breaks_the_protocol_is_closed(
    serve: Serve,
    log_lines: LogLines,
    handler: SocketHandler,
    opcode: int,
    data: bytes,
    first_bits: int,
    code: int,
) -> None:
    server = await serve(agent_of(handler))
    async with RawPeer.connect(server) as peer:
        peer.send(opcode, data, first_bits=first_bits)
        assert await peer.close_code() == code
    assert await only_ending(server, log_lines) == (code, "protocol_error")
    assert not faults(log_lines)


# --- what goes over it ------------------------------------------------------------------------


async def test_binary_goes_both_ways_at_once(serve: Serve) -> None:
    """Each side sends more than all buffers hold, and only then has read it all."""
    count, size = 300, 64 * KIB

    async def talk(ws: WebSocket, context: InvocationContext) -> None:
        async def hear() -> None:
            for number in range(count):
                assert await ws.receive_bytes() == number.to_bytes(4, "big") * (size // 4)

        async def speak() -> None:
            for number in range(count):
                await ws.send_bytes((~number % 2**32).to_bytes(4, "big") * (size // 4))

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(hear())
            tasks.create_task(speak())

    server = await serve(agent_of(talk))
    async with connected(server) as client:

        async def speak() -> None:
            for number in range(count):
                await client.send(number.to_bytes(4, "big") * (size // 4))

        async with asyncio.timeout(3 * PATIENCE), asyncio.TaskGroup() as tasks:
            tasks.create_task(speak())
            for number in range(count):
                assert await client.recv() == (~number % 2**32).to_bytes(4, "big") * (size // 4)
        assert await closing(client) == (1000, "")


async def test_text_and_binary_keep_their_kind(serve: Serve) -> None:
    async def tell(ws: WebSocket, context: InvocationContext) -> None:
        async for message in ws:
            await ws.send_json([message.type.name, str(message.data)])
            if message.type is WSMsgType.BINARY:
                await ws.send_bytes(message.data)

    server = await serve(agent_of(tell))
    async with connected(server) as client:
        await client.send("é")
        assert json.loads(await received(client)) == ["TEXT", "é"]
        await client.send(b"\xff\x00")
        assert json.loads(await received(client)) == ["BINARY", "b'\\xff\\x00'"]
        assert await received(client) == b"\xff\x00"


@pytest.mark.parametrize("listened", [False, True])
async def test_the_line_tells_how_much_went_over_it(
    serve: Serve, log_lines: LogLines, listened: bool
) -> None:
    async def talk(ws: WebSocket, context: InvocationContext) -> None:
        if listened:
            await ws.pong()  # which is no message
            await let_go.wait()
        for _ in range(2):
            await ws.receive()
        await ws.send_str("é")
        await ws.send_bytes(b"12345")
        await ws.send_json({})
        await ws.send_frame(b"1", WSMsgType.TEXT)

    let_go = asyncio.Event()
    server = await serve(agent_of(talk))
    async with connected(server) as client:
        if listened:
            await (await client.ping())
        await client.send("éé")
        await client.send(b"123")
        let_go.set()
        await closing(client)
    fields = await line_of(log_lines)
    assert (fields["bytes_received"], fields["bytes_sent"]) == (4 + 3, 2 + 5 + 2 + 1)


async def test_a_ping_is_answered_while_the_handler_receives(serve: Serve) -> None:
    server = await serve(agent_of(converse))
    async with RawPeer.connect(server) as peer:
        peer.send(PING, b"data")
        assert await peer.receive() == (PONG, b"data")


async def test_a_slow_socket_holds_up_no_other(serve: Serve) -> None:
    stubborn = Stubborn()
    agent = Agent()

    @agent.ws_handler
    async def talk(ws: WebSocket, context: InvocationContext) -> None:
        handler = stubborn if "wait" in context.query else converse
        await handler(ws, context)

    server = await serve(agent)
    async with connected(server, f"{PATH}?wait=1"), connected(server) as client:
        await soon(stubborn.entered)
        await client.send("hello")
        assert await received(client) == "hello"
        stubborn.let_go.set()


# --- a handler that does not read (§8) --------------------------------------------------------


class Reluctant:
    """A handler that reads nothing before it is let go, and then everything, to the last."""

    def __init__(self) -> None:
        self.let_go = asyncio.Event()
        self.left = asyncio.Event()
        self.read: list[Any] = []

    async def __call__(self, ws: WebSocket, _: InvocationContext) -> None:
        await self.let_go.wait()
        while (message := await ws.receive()).type in (WSMsgType.TEXT, WSMsgType.BINARY):
            self.read.append(message.data)
        self.read.append(message.type)
        self.left.set()


async def silent(peer: RawPeer) -> None:
    """See that nothing comes for a while."""
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await peer.reader.read(1)


async def test_pings_and_close_are_answered_although_the_handler_does_not_read(
    serve: Serve, log_lines: LogLines
) -> None:
    handler = Reluctant()
    server = await serve(agent_of(handler))
    async with RawPeer.connect(server) as peer:
        for data in (b"one", b"two"):
            peer.send(PING, data)
            assert await peer.receive() == (PONG, data)
            peer.send(TEXT, data)
        peer.send(CLOSE, struct.pack("!H", 4002))
        assert await peer.receive() == (CLOSE, struct.pack("!H", 4002))
        assert await peer.reader.read() == b""
    handler.let_go.set()
    await soon(handler.left)
    assert handler.read == ["one", "two", WSMsgType.CLOSE]
    assert await only_ending(server, log_lines) == (4002, None)


async def test_a_handler_that_only_sends_has_its_clients_pings_and_close_answered(
    serve: Serve, log_lines: LogLines
) -> None:
    async def tick(ws: WebSocket, context: InvocationContext) -> None:
        while True:
            await ws.send_str("tick")
            await asyncio.sleep(0.01)

    server = await serve(agent_of(tick))
    async with RawPeer.connect(server) as peer:
        peer.send(PING, b"data")
        while (frame := await peer.receive()) == (TEXT, b"tick"):
            pass
        assert frame == (PONG, b"data")
        peer.send(CLOSE, struct.pack("!H", 4002))
        assert await peer.close_code() == 4002
    assert await only_ending(server, log_lines) == (4002, None)
    assert not faults(log_lines)


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
async def test_when_as_much_as_a_message_waits_unread_control_frames_wait_with_it(
    serve: Serve, opcode: int
) -> None:
    handler = Reluctant()
    server = await serve(agent_of(handler), websocket={"max_message_size": 1000})
    async with RawPeer.connect(server) as peer:
        peer.send(opcode, "é".encode() * 499 + b"x")
        peer.send(PING, b"one")
        assert await peer.receive() == (PONG, b"one")
        peer.send(opcode, b"y")
        peer.send(PING, b"two")
        peer.send(CLOSE, struct.pack("!H", 4002))
        await silent(peer)
        handler.let_go.set()
        assert await peer.receive() == (PONG, b"two")
        assert await peer.close_code() == 4002
    await soon(handler.left)
    assert len(handler.read) == 3


async def test_empty_messages_that_nobody_reads_are_bounded_too(serve: Serve) -> None:
    handler = Reluctant()
    server = await serve(agent_of(handler))
    async with RawPeer.connect(server) as peer:
        peer.writer.write(masked(TEXT) * (MOST_UNREAD - 1))
        peer.send(PING, b"one")
        assert await peer.receive() == (PONG, b"one")
        peer.send(TEXT)
        peer.send(PING, b"two")
        await silent(peer)
        handler.let_go.set()
        assert await peer.receive() == (PONG, b"two")


async def test_a_handler_that_reads_again_misses_nothing(serve: Serve) -> None:
    pause = asyncio.Event()

    async def talk(ws: WebSocket, context: InvocationContext) -> None:
        async for message in ws:
            await ws.send_str(message.data)
            if message.data == "wait":
                await pause.wait()

    server = await serve(agent_of(talk))
    async with RawPeer.connect(server) as peer:
        for _ in range(2):
            pause.clear()
            peer.send(TEXT, b"wait")
            assert await peer.receive() == (TEXT, b"wait")
            peer.send(PING)  # which is answered only by the listener
            assert await peer.receive() == (PONG, b"")
            for number in range(100):
                peer.send(TEXT, str(number).encode())
            pause.set()
            for number in range(100):
                assert await peer.receive() == (TEXT, str(number).encode())


@pytest.mark.parametrize("code", [1000, 4001])
async def test_a_handler_that_never_read_closes_in_its_turn(
    serve: Serve, log_lines: LogLines, code: int
) -> None:
    let_go = asyncio.Event()

    async def leave(ws: WebSocket, context: InvocationContext) -> None:
        await let_go.wait()
        await ws.close(code=code)
        assert (await ws.receive()).type is WSMsgType.CLOSED

    server = await serve(agent_of(leave))
    async with RawPeer.connect(server) as peer:
        peer.send(PING)
        assert await peer.receive() == (PONG, b"")
        peer.send(TEXT, b"in vain")
        let_go.set()
        assert await peer.close_code() == code
        peer.send(CLOSE, struct.pack("!H", code))
        assert await peer.reader.read() == b""
    assert await only_ending(server, log_lines) == (code, None)


@pytest.mark.parametrize(
    ("sent", "logged"),
    [
        (masked(TEXT, b"\xff"), (1007, "protocol_error")),
        (masked(CLOSE, struct.pack("!H", 1006)), (1002, "protocol_error")),
        (b"", (1006, None)),
    ],
)
async def test_the_line_tells_how_a_socket_ended_that_the_handler_does_not_read(
    serve: Serve, log_lines: LogLines, sent: bytes, logged: tuple[int, str | None]
) -> None:
    handler = Reluctant()
    server = await serve(agent_of(handler))
    async with RawPeer.connect(server) as peer:
        peer.send(PING)
        assert await peer.receive() == (PONG, b"")
        if sent:
            peer.writer.write(sent)
            assert await peer.close_code() == logged[0]
        else:
            peer.vanish()
    handler.let_go.set()
    assert await only_ending(server, log_lines) == logged


# --- trace and log context --------------------------------------------------------------------


async def test_the_callers_trace_and_the_baggage_are_current(serve: Serve) -> None:
    async def tell(ws: WebSocket, context: InvocationContext) -> None:
        span = trace.get_current_span().get_span_context()
        await asyncio.sleep(0)  # for it stays current
        assert trace.get_current_span().get_span_context() == span
        mine = {
            "azure.ai.agentserver.invocation_id": context.invocation_id,
            "azure.ai.agentserver.session_id": context.session_id,
            "x-request-id": context.request_id,
        }
        others = {key: value for key, value in baggage.get_all().items() if key not in mine}
        await ws.send_json(
            {
                "trace": f"{span.trace_id:032x}",
                "parent": f"{span.span_id:016x}",
                "remote": span.is_remote,
                "state": span.trace_state.to_header(),
                "mine": {key: baggage.get_baggage(key) for key in mine} == mine,
                "others": others,
                "request": context.request_id,
            }
        )

    server = await serve(agent_of(tell))
    headers = {
        "traceparent": f"00-{TRACE}-{PARENT}-01",
        "tracestate": "vendor=1",
        "baggage": "tenant=t%201,x-request-id=forged",
    }
    async with connected(server, headers=headers) as client:
        assert json.loads(await received(client)) == {
            "trace": TRACE,
            "parent": PARENT,
            "remote": True,
            "state": "vendor=1",
            "mine": True,
            "others": {"tenant": "t 1"},
            "request": TRACE,
        }
    async with connected(server) as client:  # another's is not this one's
        told = json.loads(await received(client))
        assert (told["trace"], told["parent"]) == ("0" * 32, "0" * 16)
        assert (told["mine"], told["others"]) == (True, {})


async def test_log_lines_of_the_handlers_name_its_invocation(
    serve: Serve, log_lines: LogLines
) -> None:
    log_lines.addFilter(InvocationFilter())
    seen: list[InvocationContext] = []

    async def log(ws: WebSocket, context: InvocationContext) -> None:
        seen.append(context)
        logging.getLogger("agent").info("one")
        await asyncio.create_task(later())

    async def later() -> None:
        logging.getLogger("agent").info("two")

    server = await serve(agent_of(log))
    for _ in range(2):
        async with connected(server) as client:
            await closing(client)
    for context in seen:
        for text in ("one", "two"):
            line = await log_lines.next("agent")
            assert line.getMessage() == text
            assert vars(line)["invocation_id"] == context.invocation_id
            assert vars(line)["session_id"] == context.session_id
    logging.getLogger("agent").info("outside")
    assert "invocation_id" not in vars(await log_lines.next("agent"))


# --- limits -----------------------------------------------------------------------------------


async def flood(ws: WebSocket, context: InvocationContext) -> None:
    """Send and never look back."""
    while True:
        await ws.send_bytes(bytes(64 * KIB))


async def test_a_client_that_does_not_read_is_aborted(serve: Serve, log_lines: LogLines) -> None:
    fault: list[BaseException] = []

    async def watched(ws: WebSocket, context: InvocationContext) -> None:
        try:
            await flood(ws, context)
        except BaseException as error:
            fault.append(error)
            raise

    server = await serve(agent_of(watched), websocket={"send_timeout": 0.3})
    async with RawPeer.connect(server, receive_buffer=4 * KIB) as peer:
        peer.stop_reading()
        started = seconds()
        assert await ending(log_lines) == (1006, "slow_client")
        assert seconds() - started >= 0.29  # clocks differ in their last digits
    assert isinstance(fault[0], ConnectionError)
    assert not faults(log_lines)


async def test_a_client_that_does_not_read_is_aborted_although_small_messages_still_fit(
    serve: Serve, log_lines: LogLines
) -> None:
    """What is put into the buffer is no progress: only what leaves it is."""

    async def talk(ws: WebSocket, context: InvocationContext) -> None:
        async def tick() -> None:
            while True:
                await ws.send_str("tick")
                await asyncio.sleep(0.05)

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(flood(ws, context))
            tasks.create_task(tick())

    server = await serve(agent_of(talk), websocket={"send_timeout": 0.5})
    async with RawPeer.connect(server, receive_buffer=4 * KIB) as peer:
        peer.stop_reading()
        assert await ending(log_lines) == (1006, "slow_client")


async def test_a_client_that_reads_slowly_is_not_aborted(serve: Serve) -> None:
    """It takes longer for the whole than a send may take, but it takes something all the time."""
    size = 3 * MIB

    async def send(ws: WebSocket, context: InvocationContext) -> None:
        await ws.send_bytes(bytes(size))

    server = await serve(agent_of(send), websocket={"send_timeout": 1.0})
    received = 0
    async with RawPeer.connect(server, receive_buffer=4 * KIB) as peer:
        async with asyncio.timeout(3 * PATIENCE):
            while received < size and (data := await peer.reader.read(32 * KIB)):
                received += len(data)
                await asyncio.sleep(0.01)
    assert received >= size


@pytest.mark.parametrize("receives", [False, True])
async def test_a_socket_is_closed_at_its_maximal_age_without_a_word(
    serve: Serve, log_lines: LogLines, receives: bool
) -> None:
    async def talk(ws: WebSocket, context: InvocationContext) -> None:
        if receives:
            await converse(ws, context)
        while True:
            await ws.ping()
            await asyncio.sleep(0.01)

    server = await serve(agent_of(talk), websocket={"max_connection_age": 0.2})
    async with connected(server) as client:
        started = seconds()
        with pytest.raises(ConnectionClosed):
            await received(client)
        assert seconds() - started >= 0.15
        assert await closing(client) == (1001, "")
    assert await only_ending(server, log_lines) == (1001, None)
    assert not faults(log_lines)


async def test_a_socket_past_the_limit_is_refused_before_the_upgrade(
    serve: Serve, log_lines: LogLines
) -> None:
    server = await serve(agent_of(converse), websocket={"max_connections": 1})
    async with connected(server) as client:
        for path in (PATH, "/invocations_ws/ws"):  # all kinds are counted together
            status, code, headers = await refusal(server, path)
            assert (status, code) == (503, "too_many_connections")
            assert int(headers["Retry-After"]) >= 0
        await client.send("still there")
        assert await received(client) == "still there"
    assert await ending(log_lines) == (1000, None)
    async with connected(server) as client:
        await client.send("in its place")
        assert await received(client) == "in its place"


async def test_a_client_that_answers_no_ping_is_dropped(serve: Serve, log_lines: LogLines) -> None:
    server = await serve(agent_of(converse), websocket={"heartbeat": 0.2})
    async with RawPeer.connect(server) as peer:
        assert await peer.receive() == (PING, b"")
        assert await only_ending(server, log_lines) == (1006, "heartbeat_timeout")
    assert not faults(log_lines)


# --- the drain --------------------------------------------------------------------------------


@asynccontextmanager
async def draining(server: Running) -> AsyncIterator["asyncio.Task[bool]"]:
    """Drain the server during the body, and wait for the end."""
    task = asyncio.create_task(server.server.drain())
    await asyncio.sleep(0)
    yield task
    async with asyncio.timeout(2 * PATIENCE):
        await task


@pytest.mark.parametrize("handler", [converse, answer_json])
async def test_a_handler_that_waits_is_closed_with_1001_after_the_grace(
    serve: Serve, log_lines: LogLines, handler: SocketHandler
) -> None:
    server = await serve(agent_of(handler), server={"shutdown_grace": 0.3})
    async with connected(server) as client:
        await client.send("1")
        assert await received(client) == "1"
        started = seconds()
        async with draining(server) as drain:
            await client.send("2")  # it is served until the grace is over
            assert await received(client) == "2"
            assert await closing(client) == (1001, "")
            assert seconds() - started >= 0.3
            assert await drain is True
    assert await only_ending(server, log_lines) == (1001, None)
    assert not faults(log_lines)


async def test_a_handler_that_is_cancelled_has_time_for_a_last_word(
    serve: Serve, log_lines: LogLines
) -> None:
    async def talk(ws: WebSocket, context: InvocationContext) -> None:
        try:
            await converse(ws, context)
        finally:
            await ws.send_str("farewell")

    server = await serve(agent_of(talk))
    async with connected(server) as client:
        await client.send("1")
        assert await received(client) == "1"
        async with draining(server):
            assert await received(client) == "farewell"
            assert await closing(client) == (1001, "")
    assert await only_ending(server, log_lines) == (1001, None)


@pytest.mark.parametrize("cancel_grace", [0.1, 60.0])
async def test_a_handler_that_swallows_its_cancellation_does_not_hold_the_drain(
    serve: Serve, log_lines: LogLines, cancel_grace: float
) -> None:
    stubborn = Stubborn()
    server = await serve(agent_of(stubborn), invocations={"cancel_grace": cancel_grace})
    async with connected(server) as client:
        await soon(stubborn.entered)
        started = seconds()
        async with draining(server) as drain:
            assert await closing(client) == (1001, "")
            assert await ending(log_lines) == (1001, None)
            assert await drain is False
            assert seconds() - started < 4.0  # a second for it, three for the rest
        assert not stubborn.left.is_set()
        stubborn.let_go.set()
        await soon(stubborn.left)
    await asyncio.sleep(0)
    assert not [record for record in log_lines.records if record.name == "agentws.connection"]


async def test_a_handler_that_ends_in_time_closes_with_1000(
    serve: Serve, log_lines: LogLines
) -> None:
    async def talk(ws: WebSocket, context: InvocationContext) -> None:
        await ws.send_str(await ws.receive_str())

    server = await serve(agent_of(talk), server={"shutdown_grace": 2 * PATIENCE})
    async with connected(server) as client:
        started = seconds()
        async with draining(server) as drain:
            status, code, headers = await refusal(server)
            assert (status, code) == (503, "shutting_down")
            assert int(headers["Retry-After"]) >= 0
            await client.send("last")
            assert await received(client) == "last"
            assert await closing(client) == (1000, "")
            assert await drain is True
        assert seconds() - started < PATIENCE  # the drain ends with the last handler
    assert await only_ending(server, log_lines) == (1000, None)


async def test_many_sockets_are_closed_together(serve: Serve, log_lines: LogLines) -> None:
    """Not one by one: none of these answers the close, for which each would be waited."""
    server = await serve(agent_of(converse))
    async with contextlib.AsyncExitStack() as stack:
        peers = [await stack.enter_async_context(RawPeer.connect(server)) for _ in range(30)]
        for peer in peers:
            peer.send(TEXT, b"1")
            await peer.receive()
        started = seconds()
        async with draining(server):
            for peer in peers:
                assert await peer.close_code() == 1001
        assert seconds() - started < PATIENCE
        for _ in peers:
            assert await ending(log_lines) == (1001, None)
