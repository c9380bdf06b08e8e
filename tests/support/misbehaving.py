"""Servers that do wrong as they are told, for clients in any language.

What they are told stands in `tests/client/scenarios.json`, and what that means in
`tests/client/README.md`.
"""

import argparse
import asyncio
import base64
import contextlib
import hashlib
import json
import socket
import struct
import sys
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from functools import partial
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.support.scenarios import Fields, Scenario, fit_all, fits, load_scenarios, put_in

TEXT, BINARY, CLOSE, PING, PONG = 0x1, 0x2, 0x8, 0x9, 0xA

REPORT_PATIENCE = 2.0
"""Seconds within which all steps are over once a driver asks for the report."""

REFUSED = "refused"
"""The signal that a handshake was refused."""

_KEY = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
"""What a handshake is answered with besides the client's own key (RFC 6455 §1.3)."""


class Left(Exception):
    """The client has closed the connection, with this code."""

    def __init__(self, code: int) -> None:
        super().__init__(f"the client left with {code}")
        self.code = code


class Cut(Exception):
    """So many bytes were sent that the connection was cut."""


class Unexpected(Exception):
    """The client did something else than it should."""


class Wire:
    """One connection, seen from the server: messages in, bytes out."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self.cut_after: int | None = None

    async def head(self) -> tuple[str, dict[str, str]]:
        """Return the request's target and headers (names in lower case)."""
        line, *fields = (await self._reader.readuntil(b"\r\n\r\n")).decode().strip().split("\r\n")
        headers = (field.split(": ", 1) for field in fields)
        return line.split()[1], {name.lower(): value for name, value in headers}

    def respond(self, status: int, body: Any = None, *headers: str) -> None:
        """Answer an HTTP request, which may come from a page of anywhere."""
        text = b"" if body is None else json.dumps(body).encode()
        lines = [
            f"HTTP/1.1 {status} {HTTPStatus(status).phrase}",
            f"Content-Length: {len(text)}",
            "Content-Type: application/json",
            "Access-Control-Allow-Origin: *",
            "Connection: close",
            *headers,
        ]
        self._writer.write("\r\n".join([*lines, "", ""]).encode() + text)

    def upgrade(self, key: str) -> None:
        """Accept a handshake (RFC 6455 §4.2.2)."""
        accept = base64.b64encode(hashlib.sha1((key + _KEY).encode()).digest()).decode()
        self._writer.write(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Accept: {accept}\r\nx-agent-session-id: session\r\n\r\n".encode()
        )

    def send(self, opcode: int, data: bytes, most: int | None = None) -> None:
        """Send a frame, or so many of its first bytes. Raises `Cut`."""
        frame = _frame(opcode, data)[:most]
        if self.cut_after is not None:
            frame, self.cut_after = frame[: self.cut_after], self.cut_after - len(frame)
        self._writer.write(frame)
        if self.cut_after is not None and self.cut_after <= 0:
            raise Cut

    async def message(self) -> Fields:
        """Return the next message, and answer pings of the WebSocket. Raises `Left`."""
        while True:
            opcode, data = await self._receive()
            match opcode:
                case 0x1 | 0x2:
                    message: Fields = json.loads(data)
                    return message
                case 0x8:
                    self._writer.write(_frame(CLOSE, data[:2]))
                    raise Left(int.from_bytes(data[:2], "big") if data else 1005)
                case 0x9:
                    self._writer.write(_frame(PONG, data))

    async def _receive(self) -> tuple[int, bytes]:
        try:
            first, length = await self._reader.readexactly(2)
            length &= 0x7F
            if length == 126:
                (length,) = struct.unpack("!H", await self._reader.readexactly(2))
            elif length == 127:
                (length,) = struct.unpack("!Q", await self._reader.readexactly(8))
            mask = await self._reader.readexactly(4)
            data = await self._reader.readexactly(length)
        except (asyncio.IncompleteReadError, ConnectionError):
            raise Left(1006) from None
        assert first & 0x80, "clients need no fragments"
        return first & 0x0F, bytes(byte ^ mask[place % 4] for place, byte in enumerate(data))

    async def gone(self) -> None:
        """Wait for the end of the connection, whatever comes until then."""
        with contextlib.suppress(ConnectionError):
            while await self._reader.read(64 * 1024):
                pass

    async def drop(self) -> None:
        """End the connection without a word; what was sent before arrives."""
        with contextlib.suppress(ConnectionError, OSError):
            await self._writer.drain()
            self._writer.write_eof()
            await self.gone()

    async def reset(self) -> None:
        """Reset the connection; what was sent a moment ago may be lost with it."""
        with contextlib.suppress(ConnectionError):
            await self._writer.drain()
        sock = self._writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._writer.transport.abort()

    async def end(self) -> None:
        """Close the connection."""
        self._writer.close()
        with contextlib.suppress(ConnectionError):
            await self._writer.wait_closed()


def _frame(opcode: int, data: bytes) -> bytes:
    """Return an unmasked frame (RFC 6455 §5.2)."""
    if len(data) < 126:
        return struct.pack("!BB", 0x80 | opcode, len(data)) + data
    if len(data) < 65536:
        return struct.pack("!BBH", 0x80 | opcode, 126, len(data)) + data
    return struct.pack("!BBQ", 0x80 | opcode, 127, len(data)) + data


class Misbehaving:
    """The server of one scenario; `port` is where it listens, `failures` what clients did wrong."""

    def __init__(self, scenario: Scenario) -> None:
        self.port = 0
        self.failures: list[str] = []
        self._treatments = list(_treatments(scenario["connections"]))
        self._taken = 0
        self._names: dict[str, Any] = {}
        self._signals: defaultdict[str, asyncio.Event] = defaultdict(asyncio.Event)
        self._refusal: tuple[int, list[str]] = (200, [])
        self._invoked: set[str] = set()
        self._last_at = 0.0
        self._playing: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        """Where its framed socket is."""
        return f"ws://127.0.0.1:{self.port}/invocations_ws/ws"

    def signal(self, name: str) -> None:
        """Let those go on that await the signal."""
        self._signals[name].set()

    async def signalled(self, name: str) -> None:
        """Wait for a signal."""
        await self._signals[name].wait()

    async def report(self) -> list[str]:
        """Wait until every connection has played its steps; return what went wrong."""
        if self._playing:
            await asyncio.wait(self._playing, timeout=REPORT_PATIENCE)
        late = [f"connection {task.get_name()} is not over" for task in self._playing]
        missing = [
            f"connection {number + 1} was not made"
            for number in range(self._taken, len(self._treatments))
            if self._treatments[number].get("times") != "always"
        ]
        return [*self.failures, *late, *missing]

    def stop(self) -> None:
        """Play no further."""
        for task in self._playing:
            task.cancel()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve a connection."""
        wire = Wire(reader, writer)
        try:
            target, headers = await wire.head()
            if "upgrade" in headers.get("connection", "").lower():
                await self._handshake(wire, target, headers)
            else:
                await self._answer(wire, urlsplit(target).path)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            await wire.end()

    # --- what drivers, and clients that cannot see a status, ask ---

    async def _answer(self, wire: Wire, path: str) -> None:
        status, headers = self._refusal
        match path.strip("/").split("/"):
            case ["report"]:
                wire.respond(200, {"failures": await self.report()})
            case ["signal", name]:
                self.signal(name)
                wire.respond(200)
            case ["await", name]:
                await self.signalled(name)
                wire.respond(200)
            case ["readiness"]:
                wire.respond(503 if status == 503 else 200, {"status": "*"}, *headers)
            case ["invocations"]:
                wire.respond(status, {"invocations": []}, *headers)
            case _:
                wire.respond(404)

    # --- handshakes ---

    async def _handshake(self, wire: Wire, target: str, headers: dict[str, str]) -> None:
        number, self._taken = self._taken, self._taken + 1
        treatment = self._treatment(number)
        task = asyncio.current_task()
        assert task is not None
        task.set_name(str(number + 1))
        self._playing.add(task)
        try:
            _check_handshake(treatment, target, headers)
            self._check_time(treatment)
            if "accept_after" in treatment:
                await self.signalled(treatment["accept_after"])
            await self._treat(wire, treatment, headers.get("sec-websocket-key", ""))
        except Unexpected as failure:
            self.failures.append(f"connection {number + 1}: {failure}")
        except Left as left:
            if treatment.get("times") != "always":
                self.failures.append(f"connection {number + 1}: {left}")
        finally:
            self._playing.discard(task)

    def _check_time(self, treatment: Fields) -> None:
        now = asyncio.get_running_loop().time()
        passed, self._last_at = now - self._last_at, now
        if passed < treatment.get("not_before", 0):
            raise Unexpected(f"it came after {passed:.3f} s")

    def _treatment(self, number: int) -> Fields:
        if number < len(self._treatments):
            return self._treatments[number]
        if self._treatments and self._treatments[-1].get("times") == "always":
            return self._treatments[-1]
        self.failures.append(f"connection {number + 1} was not to be made")
        return {"hang_up": True}

    async def _treat(self, wire: Wire, treatment: Fields, key: str) -> None:
        match treatment:
            case {"refuse": refusal}:
                self._refuse(wire, refusal)
            case {"hang_up": True}:
                await wire.drop()
            case {"unanswered": True}:
                await wire.gone()
            case {"steps": steps}:
                self._refusal = 200, []
                wire.upgrade(key)
                wire.cut_after = treatment.get("cut_after")
                await Script(self, wire, self._names, self._invoked).play(steps)

    def _refuse(self, wire: Wire, refusal: Fields) -> None:
        self.signal(REFUSED)
        after = refusal.get("retry_after")
        headers = [] if after is None else [f"Retry-After: {after}"]
        self._refusal = refusal["status"], headers
        error = {"code": "refused", "message": "", "retryable": False, "source": "user"}
        wire.respond(refusal["status"], {"error": error}, *headers)


def _treatments(connections: list[Fields]) -> Iterable[Fields]:
    for connection in connections:
        times = connection.get("times", 1)
        yield from [connection] * (1 if times == "always" else times)


def _check_handshake(treatment: Fields, target: str, headers: dict[str, str]) -> None:
    query = {name: values[0] for name, values in parse_qs(urlsplit(target).query).items()}
    token = headers.get("authorization", "").removeprefix("Bearer ") or query.get("access_token")
    if treatment.get("token", token) != token:
        raise Unexpected(f"the token was {token}")
    if not treatment.get("query", {}).items() <= query.items():
        raise Unexpected(f"the query was {query}")


class Script:
    """Plays the steps of one connection."""

    def __init__(
        self, server: Misbehaving, wire: Wire, names: dict[str, Any], invoked: set[str]
    ) -> None:
        self._server = server
        self._wire = wire
        self._names = names
        self._invoked = invoked

    async def play(self, steps: list[Fields]) -> None:
        """Play them all, and wait for the client to leave. Raises `Unexpected` and `Left`."""
        try:
            for step in steps:
                if await self._is_last(step):
                    return
            await self._left(None)
        except Cut:
            await self._wire.drop()

    async def _is_last(self, step: Fields) -> bool:
        match step:
            case {"expect": message}:
                await self._expect([message])
            case {"expect_all": messages}:
                await self._expect(messages)
            case {"send": frame}:
                self._send(frame, step.get("bytes"))
            case {"send_text": text}:
                self._wire.send(TEXT, text.encode())
            case {"chunks": chunks}:
                self._chunks(chunks["id"], range(chunks["from"], chunks["to"] + 1))
            case {"barrier": True}:
                self._send({"type": "ping"})
                await self._expect([{"action": "pong"}])
            case {"wait": seconds}:
                await asyncio.sleep(seconds)
            case {"signal": name}:
                self._server.signal(name)
            case {"await": name}:
                await self._server.signalled(name)
            case _:
                await self._end(step)
                return True
        return False

    async def _end(self, step: Fields) -> None:
        """Play a step that no other follows."""
        match step:
            case {"honest": {"last": last}}:
                await self._treat_all(partial(self._be_honest, last))
            case {"refusing": code}:
                await self._treat_all(partial(self._refuse, code))
            case {"mute": True}:
                with contextlib.suppress(Left):
                    while await self._wire.message():
                        pass
            case {"silent": True}:
                await self._wire.gone()
            case {"close": code}:
                self._wire.send(CLOSE, code.to_bytes(2, "big"))
                await self._left(None)
            case {"drop": True}:
                await self._wire.drop()
            case {"reset": True}:
                await self._wire.reset()
            case {"left": code}:
                await self._left(None if code is True else code)
            case _:
                raise Unexpected(f"there is no step {step}")

    async def _treat_all(self, treat: Callable[[Fields], None]) -> None:
        """Treat each message alike, until the client leaves."""
        with contextlib.suppress(Left):
            while True:
                treat(await self._message())

    async def _message(self) -> Fields:
        """Return the next message that is no ping, which is answered."""
        while (message := await self._wire.message()).get("action") == "ping":
            self._send({"type": "pong"})
        return message

    async def _expect(self, expected: list[Fields]) -> None:
        wants_ping = any(each.get("action") == "ping" for each in expected)
        receive = self._wire.message if wants_ping else self._message
        found = [await receive() for _ in expected]
        if (named := fit_all(expected, found, self._names)) is None:
            raise Unexpected(f"{expected} was to come, and {found} came")
        self._names.update(named)

    async def _left(self, code: int | None) -> None:
        try:
            message = await self._message()
        except Left as left:
            if code not in (None, left.code):
                raise
        else:
            raise Unexpected(f"{message} came, and nothing was to come")

    def _send(self, frame: Fields, most: int | None = None) -> None:
        text = json.dumps(put_in(frame, self._names), separators=(",", ":"))
        self._wire.send(TEXT, text.encode(), most)

    def _chunks(self, invocation_id: str, numbers: Iterable[int]) -> None:
        ids = {"invocation_id": invocation_id, "session_id": "session"}
        for number in numbers:
            chunk = {"type": "stream_chunk", **ids, "sequence_number": number, "payload": number}
            self._send(chunk)

    def _be_honest(self, last: int, message: Fields) -> None:
        """Answer what starts or follows a stream."""
        names: dict[str, Any] = {}
        if not fits({"invocation_id": "$id"}, message, names):
            raise Unexpected(f"{message} came")
        ids = {"invocation_id": names["$id"], "session_id": "session"}
        match message["action"]:
            case "invoke":
                if names["$id"] in self._invoked and message.get("if_exists") != "attach":
                    raise Unexpected(f"{message} came again")
                self._invoked.add(names["$id"])
                self._send({"type": "accepted", **ids, "query_id": message["query_id"]})
            case "attach_invocation" if names["$id"] in self._invoked:
                pass
            case _:
                raise Unexpected(f"{message} came")
        self._chunks(names["$id"], range(message.get("starting_after", 0) + 1, last + 1))
        self._send({"type": "stream_end", **ids})

    def _refuse(self, code: str, message: Fields) -> None:
        """Refuse what is asked, for now."""
        echoed = ("action", "invocation_id", "query_id")
        error = {"code": code, "message": "Not now", "retryable": True, "source": "platform"}
        fields = {name: message[name] for name in echoed if name in message}
        self._send({"type": "error", **fields, "error": error})


@asynccontextmanager
async def misbehaving(scenario: Scenario) -> AsyncIterator[Misbehaving]:
    """Run the server of a scenario."""
    told = Misbehaving(scenario)
    server = await asyncio.start_server(told.serve, "127.0.0.1", 0)
    told.port = server.sockets[0].getsockname()[1]
    try:
        yield told
    finally:
        told.stop()
        server.close()


async def _main(names: list[str]) -> None:
    scenarios = load_scenarios()
    async with contextlib.AsyncExitStack() as stack:
        ports = {
            name: (await stack.enter_async_context(misbehaving(scenarios[name]))).port
            for name in names or scenarios
        }
        sys.stdout.write(json.dumps(ports) + "\n")
        sys.stdout.flush()
        await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scenario", action="append", default=[], dest="names")
    asyncio.run(_main(parser.parse_args().names))
