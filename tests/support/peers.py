"""Clients that are not polite: they do what a test tells them, byte for byte, and nothing else."""

import asyncio
import contextlib
import json
import os
import socket
import struct
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Self, cast

from tests.conftest import PATIENCE, Address

TEXT, BINARY, CLOSE, PING, PONG = 0x1, 0x2, 0x8, 0x9, 0xA
READ_SIZE = 1024**2

HANDSHAKE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
}
"""The headers of a handshake (RFC 6455 §4.1)."""


class Peer:
    """One TCP connection to a server."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    @asynccontextmanager
    async def connect(
        cls, server: Address, *, receive_buffer: int | None = None, limit: int = 64 * 1024
    ) -> AsyncIterator[Self]:
        """Open a connection; with `receive_buffer`, the network holds little for it."""
        sock = socket.socket()
        sock.setblocking(False)
        if receive_buffer is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", server.port))
        peer = cls(*await asyncio.open_connection(sock=sock, limit=limit))
        try:
            await peer.greet()
            yield peer
        finally:
            peer.writer.transport.abort()

    async def greet(self) -> None:
        """Say nothing before the test does."""

    def request(self, line: str, *headers: str, body: bytes = b"") -> None:
        """Write a request, whose headers say what its body needs."""
        head = "\r\n".join([f"{line} HTTP/1.1", "Host: test", *headers, "", ""])
        self.writer.write(head.encode("latin-1") + body)

    def stop_reading(self) -> None:
        """Leave what arrives from now on to the network."""
        cast(asyncio.Transport, self.writer.transport).pause_reading()

    def read_again(self) -> None:
        """Undo `stop_reading`."""
        cast(asyncio.Transport, self.writer.transport).resume_reading()

    def vanish(self) -> None:
        """Reset the connection."""
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()

    def narrow_the_way_back(self) -> None:
        """Let the network hold next to nothing of what the server sends (Linux only)."""
        for name in os.listdir("/proc/self/fd"):
            with contextlib.suppress(OSError), _socket_of(int(name)) as end:
                if end.getpeername() == self.writer.get_extra_info("sockname"):
                    end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)

    async def head(self) -> bytes:
        """Return status line and headers of an answer."""
        async with asyncio.timeout(PATIENCE):
            return await self.reader.readuntil(b"\r\n\r\n")

    async def rest(self) -> bytes:
        """Return whatever comes until the server has ended the connection."""
        async with asyncio.timeout(2 * PATIENCE):
            return await self.reader.read()

    async def dropped(self) -> None:
        """Read on until the server has ended the connection, in whatever way."""
        self.read_again()
        async with asyncio.timeout(PATIENCE):
            with contextlib.suppress(ConnectionError):
                while await self.reader.read(READ_SIZE):
                    pass


def _socket_of(number: int) -> socket.socket:
    """Return a socket that shares a file descriptor's; `OSError` if that is none of a socket."""
    copy = os.dup(number)
    try:
        return socket.socket(fileno=copy)
    except OSError:
        os.close(copy)
        raise


class HttpPeer(Peer):
    """A client that writes requests and reads answers."""

    async def answer(self) -> tuple[int, dict[str, str], bytes]:
        """Return status, headers (names in lower case) and body of an answer with a length."""
        async with asyncio.timeout(PATIENCE):
            status, *fields = (await self.head()).decode().strip().split("\r\n")
            headers = {name.lower(): value for name, value in (it.split(": ", 1) for it in fields)}
            body = await self.reader.readexactly(int(headers.get("content-length", "0")))
            return int(status.split()[1]), headers, body


async def exchange(
    server: Address, line: str, *headers: str, body: bytes = b""
) -> tuple[int, dict[str, str], bytes]:
    """Ask once, over a connection of its own; return what `HttpPeer.answer` does."""
    async with HttpPeer.connect(server) as peer:
        peer.request(line, *headers, body=body)
        return await peer.answer()


class FramedPeer(Peer):
    """A WebSocket client on the framed socket, which answers neither ping nor close by itself."""

    PATH = "/invocations_ws/ws"
    HEADERS: Sequence[str] = ()
    """Further ones of the handshake."""

    async def greet(self) -> None:
        """Complete the handshake."""
        headers = [*(": ".join(header) for header in HANDSHAKE.items()), *self.HEADERS]
        self.request(f"GET {self.PATH}", *headers)
        assert (await self.head()).startswith(b"HTTP/1.1 101 ")

    def send(self, opcode: int, data: bytes = b"", *, first_bits: int = 0x80) -> None:
        """Write one masked frame."""
        self.writer.write(masked(opcode, data, first_bits=first_bits))

    def act(self, **fields: Any) -> None:
        """Send one JSON message."""
        self.send(TEXT, json.dumps(fields).encode())

    async def receive(self) -> tuple[int, bytes]:
        """Return opcode and data of the next frame."""
        first, data = await self.receive_frame()
        return first & 0x0F, data

    async def receive_frame(self) -> tuple[int, bytes]:
        """Return first byte (FIN, the reserved bits, the opcode) and data of the next frame."""
        async with asyncio.timeout(PATIENCE):
            first, length = await self.reader.readexactly(2)
            if length == 126:
                (length,) = struct.unpack("!H", await self.reader.readexactly(2))
            elif length == 127:
                (length,) = struct.unpack("!Q", await self.reader.readexactly(8))
            return first, await self.reader.readexactly(length)

    async def close_code(self) -> int:
        """Return the code of the close frame, passing over others."""
        while True:
            opcode, data = await self.receive()
            if opcode == CLOSE:
                return int.from_bytes(data[:2], "big")


class RawPeer(FramedPeer):
    """The same on the raw socket."""

    PATH = "/invocations_ws"


def masked(opcode: int, data: bytes = b"", *, first_bits: int = 0x80) -> bytes:
    """Return a masked frame (RFC 6455 §5.2); the mask is zero, which leaves the data as it is."""
    length = len(data)
    if length < 126:
        head = struct.pack("!BB", first_bits | opcode, 0x80 | length)
    elif length < 65536:
        head = struct.pack("!BBH", first_bits | opcode, 0x80 | 126, length)
    else:
        head = struct.pack("!BBQ", first_bits | opcode, 0x80 | 127, length)
    return head + bytes(4) + data
