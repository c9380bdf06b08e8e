"""Hostile peers, each a process of its own: `python -m tests.support.attackers NAME PORT`.

They go on until they are killed. Blocking sockets and few lines, so that they are fast.
"""

import itertools
import json
import os
import select
import socket
import sys
import time
from collections.abc import Callable
from contextlib import suppress

from tests.support.peers import PING, TEXT, masked

HEAD = (
    b"GET /invocations_ws/ws HTTP/1.1\r\nHost: test\r\nConnection: Upgrade\r\n"
    b"Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)
RAW_HEAD = HEAD.replace(b"/ws HTTP", b" HTTP", 1)
MANY = 200
"""How many connections one attacker holds."""


def connect(port: int, receive_buffer: int | None = None) -> socket.socket:
    sock = socket.socket()
    if receive_buffer is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    sock.connect(("127.0.0.1", port))
    return sock


def shake_hands(port: int, receive_buffer: int | None = None, head: bytes = HEAD) -> socket.socket:
    sock = connect(port, receive_buffer)
    sock.sendall(head)
    answer = b""
    while not answer.endswith(b"\r\n\r\n"):
        answer += sock.recv(1)
    assert answer.startswith(b"HTTP/1.1 101 "), answer
    return sock


def message(**fields: object) -> bytes:
    return masked(TEXT, json.dumps(fields).encode())


def ready() -> None:
    """Tell that the attack goes on from here."""
    sys.stdout.write("ready\n")
    sys.stdout.flush()


def pour(sock: socket.socket, data: bytes) -> None:
    """Send as fast as it is taken, and read whatever comes back."""
    ready()
    sock.setblocking(False)
    while True:
        send_all(sock, data)


def send_all(sock: socket.socket, data: bytes) -> None:
    left = memoryview(data)
    while left:
        select.select([sock], [sock], [])
        with suppress(BlockingIOError):
            left = left[sock.send(left) :]
        with suppress(BlockingIOError):
            if not sock.recv(1 << 20):
                raise ConnectionError


def drip(connections: list[socket.socket], texts: list[bytes]) -> None:
    """Send each connection one byte a second of its text."""
    ready()
    for at in itertools.count():
        for sock, text in zip(connections, texts, strict=True):
            sock.send(text[at % len(text) :][:1])
        time.sleep(1)


def unfinished_handshakes(port: int) -> None:
    connections = [connect(port) for _ in range(MANY)]
    for sock in connections:
        sock.sendall(HEAD[:-2])
    ready()
    time.sleep(3600)


def one_byte_a_second(port: int) -> None:
    body = b"POST /invocations HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n" + b" " * 99
    frame = masked(TEXT, b" " * 4000)
    heads = [connect(port) for _ in range(MANY)]
    bodies = [connect(port) for _ in range(MANY)]
    frames = [shake_hands(port) for _ in range(MANY)]
    for sock in bodies:
        sock.sendall(body)
    drip(
        [*heads, *bodies, *frames],
        [HEAD] * MANY + [b" "] * MANY + [frame] * MANY,
    )


def readers_that_stopped(port: int) -> None:
    connections = [shake_hands(port, 4096) for _ in range(20)]
    for sock in connections:
        sock.sendall(message(action="invoke", payload={"do": "stream"}))
    ready()
    time.sleep(3600)


def ping_flood(port: int) -> None:
    pour(shake_hands(port), masked(PING) * 10_000)


def tiny_frame_flood(port: int) -> None:
    pour(shake_hands(port), masked(TEXT) * 10_000)


def bad_frame_flood(port: int) -> None:
    pour(shake_hands(port), masked(TEXT, b"{}") * 8000)


def fragment_flood(port: int) -> None:
    ready()
    while True:
        with suppress(ConnectionError):
            sock = shake_hands(port)
            sock.setblocking(False)
            send_all(sock, masked(TEXT, b"x", first_bits=0) + masked(0, first_bits=0) * 100_000)


def invoke_flood(port: int) -> None:
    pour(shake_hands(port), message(action="invoke", payload={"do": "echo"}) * 1000)


def get_flood(port: int) -> None:
    pour(shake_hands(port), message(action="get_invocation", invocation_id="none") * 1000)


def endless_invokes(port: int) -> None:
    pour(shake_hands(port), message(action="invoke", payload={"do": "hang"}) * 1000)


def raw_ping_flood(port: int) -> None:
    pour(shake_hands(port, head=RAW_HEAD), masked(PING) * 10_000)


def raw_tiny_frame_flood(port: int) -> None:
    pour(shake_hands(port, head=RAW_HEAD), masked(TEXT) * 10_000)


def open_and_drop(port: int) -> None:
    ready()
    while True:
        sock = connect(port)
        sock.sendall(HEAD)
        sock.close()


def connect_and_drop(port: int) -> None:
    ready()
    while True:
        connect(port).close()


def http_flood(port: int) -> None:
    sock = connect(port)
    pour(sock, b"POST /invocations HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n" * 1000)


def malformed_http(port: int) -> None:
    ready()
    while True:
        sock = connect(port)
        sock.sendall(b"\x16\x03\x01\x02\x00 not HTTP\r\n\r\n")
        sock.close()


ATTACKS: dict[str, Callable[[int], None]] = {
    attack.__name__: attack
    for attack in (
        unfinished_handshakes,
        one_byte_a_second,
        readers_that_stopped,
        ping_flood,
        tiny_frame_flood,
        bad_frame_flood,
        fragment_flood,
        invoke_flood,
        get_flood,
        endless_invokes,
        raw_ping_flood,
        raw_tiny_frame_flood,
        open_and_drop,
        connect_and_drop,
        http_flood,
        malformed_http,
    )
}


def main(name: str, port: str) -> None:
    os.nice(10)  # it is the daemon that is tested, not who gets the core that it shares
    with suppress(ConnectionError):
        ATTACKS[name](int(port))


if __name__ == "__main__":
    main(*sys.argv[1:])
