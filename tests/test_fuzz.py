"""Whatever is sent, the daemon answers as the protocol says, and goes on."""

import contextlib
import json
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import schemathesis
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from agentws.agent.handlers import Agent
from agentws.agent.loading import load
from agentws.protocol.decoding import CLIENT_FRAMES
from agentws.protocol.encoding import encode
from agentws.protocol.errors import STATUS
from agentws.protocol.openapi import describe
from tests.support.attackers import connect, shake_hands
from tests.support.corpus import FRAMES, MESSAGES, REQUESTS
from tests.support.openapi import DOCUMENT
from tests.support.peers import BINARY, CLOSE, TEXT, masked
from tests.support.processes import ROOT

pytestmark = pytest.mark.random

PATIENCE = 10.0
"""Seconds after which an answer is missing."""

TYPED = "examples.typed:agent"

UNANSWERED = 0.05
"""Seconds after which none is expected any more, where a request may not be complete."""

fuzzed = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@contextlib.contextmanager
def daemon(handler: str, log: Path) -> Iterator[int]:
    """Run a daemon that outlives all that is done to it, and logs no error; yield its port."""
    command = [sys.executable, "-m", "agentws", "serve", "--host", "127.0.0.1", "--port", "0"]
    command += ["--handler", handler]
    with log.open("wb") as file, subprocess.Popen(command, cwd=ROOT, stdout=file) as process:
        try:
            deadline = time.monotonic() + PATIENCE
            while b'"port":' not in (said := log.read_bytes()):
                assert time.monotonic() < deadline
                time.sleep(0.01)
            yield int(json.loads(said.splitlines()[0])["port"])
        finally:
            process.kill()
    lines = [json.loads(line) for line in log.read_bytes().splitlines()]
    assert [line for line in lines if line["level"] not in ("INFO", "WARNING")] == []


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """Where a daemon listens whose agent knows no types."""
    with daemon("tests.support.victim:agent", tmp_path_factory.mktemp("fuzz") / "log") as port:
        yield port


@pytest.fixture(scope="module")
def typed_port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """Where a daemon listens whose agent declares types."""
    with daemon(TYPED, tmp_path_factory.mktemp("typed") / "log") as port:
        yield port


def assert_alive(port: int) -> None:
    assert status_of_answer(port, b"GET /liveness HTTP/1.1\r\nHost: a\r\n\r\n") == 200


def status_of_answer(port: int, request: bytes, patience: float = PATIENCE) -> int:
    """Send bytes and return the status of the answer, 0 for none in time."""
    with connect(port) as sock:
        sock.settimeout(patience)
        head = b""
        with contextlib.suppress(ConnectionError, TimeoutError):
            sock.sendall(request)
            while b"\r\n\r\n" not in head and (data := sock.recv(1 << 16)):
                head += data
    return int(head.split(None, 2)[1]) if head else 0


class Socket:
    """A framed socket."""

    def __init__(self, port: int) -> None:
        self._sock = shake_hands(port)
        self._sock.settimeout(PATIENCE)
        self._file = self._sock.makefile("rb")

    def __enter__(self) -> "Socket":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self._sock.close()

    def send(self, data: bytes) -> None:
        self._sock.sendall(data)

    def rest(self) -> bytes:
        """Send no more, and return what comes until the end."""
        self._sock.shutdown(socket.SHUT_WR)
        with contextlib.suppress(ConnectionError):
            return self._file.read()
        return b""

    def receive(self) -> tuple[int, bytes]:
        first, length = self._file.read(2)
        if length >= 126:
            form = "!H" if length == 126 else "!Q"
            (length,) = struct.unpack(form, self._file.read(struct.calcsize(form)))
        return first & 0x0F, self._file.read(length)

    def frames_until_pong(self) -> list[dict[str, Any]]:
        """Ping, and return what came before the answer."""
        self.send(masked(TEXT, b'{"action":"ping"}'))
        frames: list[dict[str, Any]] = []
        while True:
            opcode, data = self.receive()
            assert opcode == TEXT, (opcode, data)
            frame = json.loads(data)
            if frame == {"type": "pong"}:
                return frames
            frames.append(frame)


ANSWERED_BY = ("accepted", "result", "stream_chunk", "stream_end", "invocations", "ping")


def assert_answered(port: int, opcode: int, message: bytes) -> None:
    """A message gets frames of the protocol in answer, and does not end its socket (§7)."""
    with Socket(port) as ws:
        ws.send(masked(opcode, message))
        for frame in ws.frames_until_pong() + ws.frames_until_pong():
            if frame["type"] == "error":
                assert frame["error"]["code"] in STATUS.keys() - {"internal_error"}
            else:
                assert frame["type"] in ANSWERED_BY


# --- the framed socket ------------------------------------------------------------------------

json_values: SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)
ids = st.text(max_size=300) | st.from_regex(r"[A-Za-z0-9._:-]{1,20}", fullmatch=True)
actions: SearchStrategy[Any] = st.fixed_dictionaries(
    {"action": st.sampled_from([*CLIENT_FRAMES]) | json_values},
    optional={
        "payload": json_values,
        "invocation_id": ids | json_values,
        "session_id": ids | json_values,
        "background": st.booleans() | json_values,
        "on_disconnect": st.sampled_from(["continue", "cancel"]) | json_values,
        "starting_after": st.integers() | json_values,
        "traceparent": st.text() | json_values,
        "baggage": st.text() | json_values,
        "tracestate": st.text() | json_values,
    },
)


@pytest.mark.parametrize("message", MESSAGES)
def test_a_message_of_the_corpus_is_answered(port: int, message: bytes) -> None:
    assert_answered(port, BINARY, message)


@fuzzed
@given(message=st.binary() | st.sampled_from(MESSAGES).flatmap(lambda it: st.just(it[:-1])))
def test_any_bytes_are_answered(port: int, message: bytes) -> None:
    assert_answered(port, BINARY, message)


@fuzzed
@given(message=actions.map(json.dumps) | st.text())
def test_any_text_is_answered(port: int, message: str) -> None:
    assert_answered(port, TEXT, message.encode("utf-8", "replace"))


def assert_ended_or_alive(port: int, data: bytes) -> None:
    """After any bytes, a socket goes on or is closed for a reason of RFC 6455."""
    with Socket(port) as ws:
        ws.send(data + masked(CLOSE, struct.pack("!H", 1000)))
        rest = ws.rest()
    assert len(rest) < 10_000
    if rest[:1] == b"\x88":
        code = int.from_bytes(rest[2:4], "big")
        assert code in (1000, 1002, 1007, 1009) or code >= 3000  # which is the client's own
    assert_alive(port)


@pytest.mark.parametrize("data", FRAMES)
def test_a_broken_frame_of_the_corpus_harms_nobody(port: int, data: bytes) -> None:
    assert_ended_or_alive(port, data)


@fuzzed
@given(data=st.binary(max_size=200) | st.sampled_from(FRAMES).map(lambda it: it * 3))
def test_any_bytes_after_the_handshake_harm_nobody(port: int, data: bytes) -> None:
    assert_ended_or_alive(port, data)


# --- HTTP -------------------------------------------------------------------------------------


ANSWERS = {100, 101, 200, 202, *(status for status in STATUS.values() if status < 500), 417}


@pytest.mark.parametrize("request_bytes", REQUESTS)
def test_a_request_of_the_corpus_is_no_failure_of_ours(port: int, request_bytes: bytes) -> None:
    assert status_of_answer(port, request_bytes, UNANSWERED) in {0, *ANSWERS}
    assert_alive(port)


@fuzzed
@given(data=st.binary() | st.sampled_from(REQUESTS).flatmap(lambda it: st.just(it[: len(it) // 2])))
def test_any_bytes_are_no_failure_of_ours(port: int, data: bytes) -> None:
    assert status_of_answer(port, data, UNANSWERED) in {0, *ANSWERS}


tokens = st.from_regex(r"[A-Za-z-]{1,20}", fullmatch=True)
field_values = st.binary(max_size=60).map(
    lambda it: bytes(byte for byte in it if byte not in b"\r\n\0")
)
headers = st.lists(
    st.tuples(
        tokens
        | st.sampled_from(
            [
                *("Accept", "Prefer", "Last-Event-ID", "Origin", "Authorization", "Expect"),
                *("traceparent", "baggage", "x-request-id", "x-agent-invocation-id"),
                *("x-agent-user-id", "Content-Encoding", "Upgrade", "Connection"),
            ]
        ),
        field_values,
    ),
    max_size=5,
)
paths = st.sampled_from(
    ["/invocations", "/invocations/i", "/invocations/i/cancel", "/invocations_ws/ws", "/readiness"]
) | st.text(max_size=30).map(lambda it: "/invocations/" + quote(it, safe=""))
queries = st.lists(
    st.tuples(tokens | st.just("agent_session_id"), st.text(max_size=20)), max_size=3
)


@fuzzed
@given(
    method=st.sampled_from(["GET", "POST", "HEAD", "PUT", "OPTIONS"]) | tokens,
    path=paths,
    query=queries,
    fields=headers,
    body=st.binary() | json_values.map(lambda it: json.dumps(it).encode()),
)
def test_any_request_is_refused_or_served(
    port: int,
    method: str,
    path: str,
    query: list[tuple[str, str]],
    fields: list[tuple[str, bytes]],
    body: bytes,
) -> None:
    asked = "&".join(f"{name}={quote(value)}" for name, value in query)
    head = [f"{method} {path}?{asked} HTTP/1.1".encode(), b"Host: a"]
    head += [b"%b: %b" % (name.encode(), value) for name, value in fields]
    head.append(b"Content-Length: %d" % len(body))
    request = b"\r\n".join(head) + b"\r\n\r\n" + body
    assert status_of_answer(port, request) in ANSWERS


DESCRIBED = schemathesis.openapi.from_dict(DOCUMENT)
OPERATIONS = [(path, method) for path, item in DOCUMENT["paths"].items() for method in item]
RIGHT, WRONG = schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE


@pytest.mark.parametrize(
    ("path", "method", "mode"),
    [(*operation, RIGHT) for operation in OPERATIONS]
    + [(*operation, WRONG) for operation in OPERATIONS if "{" in operation[0]],
)
@pytest.mark.hypothesis
def test_answers_are_as_described(
    port: int, path: str, method: str, mode: schemathesis.GenerationMode
) -> None:
    @fuzzed
    @given(DESCRIBED[path][method].as_strategy(generation_mode=mode))
    def check(case: "schemathesis.Case[Any]") -> None:
        case.call_and_validate(base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE)

    check()


# --- types ------------------------------------------------------------------------------------

UNTOLD = ("after", "Idempotency-Key")


def described_by_types() -> dict[str, Any]:
    """Return the document of an agent, without what it cannot tell all of.

    A cursor is one that was answered, and a key names no other id than another header does.
    """
    served = load(TYPED)
    assert isinstance(served, Agent)
    document = json.loads(encode(describe(served.contract, title="typed", version="1")))
    assert isinstance(document, dict)
    for operation in document["paths"]["/invocations"].values():
        kept = [it for it in operation["parameters"] if it["name"] not in UNTOLD]
        operation["parameters"] = kept
    return document


BY_TYPES = schemathesis.openapi.from_dict(described_by_types())


@pytest.mark.parametrize(
    ("path", "method", "mode"),
    [
        ("/invocations", "post", RIGHT),
        ("/invocations", "post", WRONG),
        ("/invocations", "get", RIGHT),
        ("/invocations/{id}", "get", RIGHT),
        ("/invocations/{id}/cancel", "post", RIGHT),
        ("/invocations/{id}/inputs", "post", RIGHT),
    ],
)
@pytest.mark.hypothesis
def test_answers_are_as_the_types_say(
    typed_port: int, path: str, method: str, mode: schemathesis.GenerationMode
) -> None:
    @fuzzed
    @given(BY_TYPES[path][method].as_strategy(generation_mode=mode))
    def check(case: "schemathesis.Case[Any]") -> None:
        # JSON Schema takes 9.0 for a whole number, msgspec does not.
        times = case.body.get("times") if isinstance(case.body, dict) else None
        assume(not isinstance(times, float) or not times.is_integer())
        case.call_and_validate(base_url=f"http://127.0.0.1:{typed_port}", timeout=PATIENCE)

    check()
