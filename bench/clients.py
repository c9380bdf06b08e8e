"""The clients of the soak, a process of their own: `python -m bench.clients PORT`, until SIGTERM.

Each does one thing over and over and checks what it gets. What they did is printed at the end, as
JSON; the process fails with the first of them that was served wrong.
"""

import asyncio
import json
import signal
import socket
import sys
import uuid
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, Final

import aiohttp

from bench.loops import run

_PATIENCE: Final = 30.0
"""Seconds after which an answer is missing."""

_COPIES: Final = 4
"""How many clients of each kind there are."""

Frame = dict[str, Any]


class SoakError(Exception):
    """The server answered wrong."""


def expect(condition: object, what: object) -> None:
    """Raise `SoakError` unless the condition holds."""
    if not condition:
        raise SoakError(what)


class Clients:
    """All kinds of clients; each method is what one of them does once."""

    def __init__(self, port: int) -> None:
        self._http = f"http://127.0.0.1:{port}/invocations"
        self._socket = f"http://127.0.0.1:{port}/invocations_ws/ws"
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0),
            timeout=aiohttp.ClientTimeout(sock_read=_PATIENCE),
        )

    @property
    def kinds(self) -> list[Callable[[], Awaitable[None]]]:
        """What clients do."""
        return [
            self.echo,
            self.stream,
            self.cut_and_resume,
            self.cancel,
            self.desert,
            self.read_nothing,
            self.talk_nonsense,
            self.post,
            self.follow_events,
            self.leave_events,
            self.poll,
        ]

    async def close(self) -> None:
        """Close all connections."""
        await self._session.close()

    async def echo(self) -> None:
        """Ask for one chunk, many times on one socket."""
        async with self._session.ws_connect(self._socket) as ws:
            for _ in range(50):
                await ws.send_json({"action": "invoke", "payload": {"chunks": 1}})
                await _read_stream(ws, after=0, last=1)

    async def stream(self) -> None:
        """Read a stream to its end."""
        async with self._session.ws_connect(self._socket) as ws:
            await ws.send_json({"action": "invoke", "payload": {"chunks": 200, "size": 100}})
            await _read_stream(ws, after=0, last=200)

    async def cut_and_resume(self) -> None:
        """Lose the socket within a stream, come back for the rest."""
        invocation_id = str(uuid.uuid4())
        ws = await self._session.ws_connect(self._socket)
        invoke = {"action": "invoke", "invocation_id": invocation_id, "payload": {"chunks": 100}}
        await ws.send_json(invoke)
        for _ in range(5):
            await _next(ws)
        _abort(ws)
        async with self._session.ws_connect(self._socket) as ws:
            attach = {"action": "attach_invocation", "invocation_id": invocation_id}
            await ws.send_json({**attach, "starting_after": 5})
            await _read_stream(ws, after=5, last=100)

    async def cancel(self) -> None:
        """Cancel what would take an hour."""
        invocation_id = str(uuid.uuid4())
        async with self._session.ws_connect(self._socket) as ws:
            named = {"invocation_id": invocation_id}
            await ws.send_json({"action": "invoke", "payload": {"chunks": None}, **named})
            await ws.send_json({"action": "cancel_invocation", **named})
            types = sorted([(await _next(ws))["type"], (await _next(ws))["type"]])
            expect(types == ["error", "result"], types)

    async def desert(self) -> None:
        """Ask for what would take an hour, and never come back."""
        ws = await self._session.ws_connect(self._socket)
        await ws.send_json({"action": "invoke", "payload": {"chunks": None}})
        await ws.send_json({"action": "ping"})
        expect((await _next(ws))["type"] == "pong", "pong")
        _abort(ws)
        await asyncio.sleep(0.1)

    async def read_nothing(self) -> None:
        """Ask for much and read none of it, until dropped."""
        ws = await self._session.ws_connect(self._socket, max_msg_size=0)
        ws_socket: socket.socket = ws.get_extra_info("socket")
        ws_socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        transport = _transport(ws)
        transport.pause_reading()
        await ws.send_json({"action": "invoke", "payload": {"chunks": 2000, "size": 10_000}})
        await asyncio.sleep(3)
        transport.abort()

    async def talk_nonsense(self) -> None:
        """Send what is no message, and go on."""
        async with self._session.ws_connect(self._socket) as ws:
            for text in ("", "[]", "{}", '{"action":"invoke","invocation_id":"?"}'):
                await ws.send_str(text)
                expect((await _next(ws))["type"] == "error", text)

    async def post(self) -> None:
        """Get a stream as one array."""
        headers = {"Accept": "application/json"}
        async with self._session.post(self._http, json={"chunks": 20}, headers=headers) as answer:
            expect(len(await answer.json()) == 20, "an array of 20")

    async def follow_events(self) -> None:
        """Read a stream of events to its end."""
        async with self._session.post(self._http, json={"chunks": 50}) as answer:
            text = await answer.text()
            expect(text.count("event: stream_chunk") == 50, text)
            expect("event: stream_end" in text, text)

    async def leave_events(self) -> None:
        """Leave amid a stream of events."""
        async with self._session.post(self._http, json={"chunks": 5000}) as answer:
            await answer.content.readany()
            answer.close()

    async def poll(self) -> None:
        """Start something for the background, and poll until it has ended."""
        headers = {"Prefer": "respond-async"}
        async with self._session.post(self._http, json={"chunks": 10}, headers=headers) as answer:
            expect(answer.status == 202, answer.status)
            url = f"{self._http}/{(await answer.json())['invocation_id']}"
        async with self._session.get(url, headers={"Accept": "text/event-stream"}) as answer:
            expect("event: stream_end" in await answer.text(), url)
        async with self._session.get(url) as answer:
            expect((await answer.json())["status"] == "completed", url)


async def _next(ws: aiohttp.ClientWebSocketResponse) -> Frame:
    while (frame := await ws.receive_json(timeout=_PATIENCE))["type"] == "ping":
        pass
    return dict(frame)


async def _read_stream(ws: aiohttp.ClientWebSocketResponse, *, after: int, last: int) -> None:
    """Read a stream to its end, and check that nothing is missing, doubled or out of order."""
    for number in range(after + 1, last + 1):
        frame = await _next(ws)
        expect(frame.get("sequence_number") == number == frame["payload"]["number"], frame)
    expect((frame := await _next(ws))["type"] == "stream_end", frame)


def _transport(ws: aiohttp.ClientWebSocketResponse) -> asyncio.Transport:
    connection = ws._response.connection  # noqa: SLF001 - what is rude is not offered
    assert connection is not None
    assert connection.transport is not None
    return connection.transport


def _abort(ws: aiohttp.ClientWebSocketResponse) -> None:
    _transport(ws).abort()


async def _main(port: int) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    clients = Clients(port)
    done: Counter[str] = Counter()

    async def repeat(kind: Callable[[], Awaitable[None]]) -> None:
        while not stop.is_set():
            await kind()
            done[kind.__name__] += 1

    async with asyncio.TaskGroup() as group:
        for kind in clients.kinds:
            for _ in range(_COPIES):
                group.create_task(repeat(kind))
    await clients.close()
    sys.stdout.write(json.dumps(done))


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        run(_main(int(sys.argv[1])))
