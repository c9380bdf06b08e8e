"""Who calls: what is read of a request or handshake."""

import uuid
from typing import Any

import pytest
from aiohttp.test_utils import make_mocked_request
from opentelemetry import baggage
from opentelemetry.context import Context
from opentelemetry.trace import get_current_span

from agentws.agent.context import InvocationContext
from agentws.invocations.caller import Caller
from agentws.telemetry.trace_context import NO_TRACE, message_trace, read_trace
from agentws.transports.request_fields import read_caller, request_id

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
TRACEPARENT = f"00-{TRACE}-00f067aa0ba902b7-01"


def is_new(value: str) -> bool:
    return str(uuid.UUID(value, version=4)) == value


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"traceparent": TRACEPARENT}, TRACE),
        ({"traceparent": TRACEPARENT, "x-request-id": "mine"}, TRACE),
        ({"X-Request-ID": "mine"}, "mine"),
        ({"x-request-id": "a" * 256}, "a" * 256),
        ({"traceparent": "nonsense", "x-request-id": "mine"}, "mine"),
        ({"traceparent": "", "x-request-id": "mine"}, "mine"),
    ],
)
def test_the_id_of_a_request(headers: dict[str, str], expected: str) -> None:
    assert request_id(make_mocked_request("GET", "/", headers)) == expected


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"x-request-id": ""},
        {"x-request-id": "a b"},
        {"x-request-id": ".."},
        {"x-request-id": "a" * 257},
        {"x-request-id": "é"},
        {"traceparent": f"00-{'0' * 32}-00f067aa0ba902b7-01"},
    ],
)
def test_a_request_without_a_good_id_gets_a_new_one(headers: dict[str, str]) -> None:
    request = make_mocked_request("GET", "/", headers)
    first, second = request_id(request), request_id(request)
    assert is_new(first)
    assert is_new(second)
    assert first != second


def test_a_caller_that_says_everything() -> None:
    request = make_mocked_request(
        "POST",
        "/invocations?agent_session_id=s&Model=a%20b&empty=",
        {
            "X-Agent-User-Id": "alice",
            "x-agent-foundry-call-id": "call",
            "X-Client-Region": "Europe",
            "x-client-version": "1",
            "x-clientele": "no",
            "x-other": "no",
            "authorization": "no",
        },
    )
    caller = read_caller(request, "http", "r")
    assert caller == Caller(
        transport="http",
        request_id="r",
        user_id="alice",
        call_id="call",
        client_headers={"x-client-region": "Europe", "x-client-version": "1"},
        query={"agent_session_id": "s", "Model": "a b", "empty": ""},
    )
    assert caller.owner == "alice"


@pytest.mark.parametrize("headers", [{}, {"x-agent-user-id": "", "x-agent-foundry-call-id": ""}])
def test_a_caller_that_says_nothing_is_nobody(headers: dict[str, str]) -> None:
    caller = read_caller(make_mocked_request("GET", "/", headers), "websocket", "r")
    assert caller == Caller(transport="websocket", request_id="r")
    assert caller.owner is None


def test_a_handler_knows_what_the_caller_said() -> None:
    caller = Caller("http", "r", "alice", "call", {"x-client-a": "1"}, {"b": "2"}, 3, 4)
    assert caller.context("i", "s") == InvocationContext(
        invocation_id="i",
        session_id="s",
        transport="http",
        client_headers={"x-client-a": "1"},
        query={"b": "2"},
        user_id="alice",
        call_id="call",
        request_id="r",
    )


@pytest.mark.parametrize("path", ["/", "/?a=b"])
@pytest.mark.parametrize("headers", [{}, {"x-client-a": "b"}])
def test_a_handler_cannot_change_what_the_caller_said(path: str, headers: dict[str, str]) -> None:
    caller = read_caller(make_mocked_request("GET", path, headers), "http", "r")
    context = caller.context("i", "s")
    said: Any
    for said in (context.client_headers, context.query):
        with pytest.raises(TypeError):
            said["x-client-a"] = "other"


def test_callers_do_not_share_what_they_run() -> None:
    first, second = (Caller("websocket", "r") for _ in range(2))
    first.running += 1
    assert (first.running, second.running) == (1, 0)


def trace_of(context: Context) -> str | None:
    span = get_current_span(context).get_span_context()
    return f"{span.trace_id:032x}" if span.is_valid else None


def test_a_callers_trace_and_baggage_are_read() -> None:
    headers = {"Traceparent": TRACEPARENT, "baggage": "a=1,b=two"}
    caller = read_caller(make_mocked_request("GET", "/", headers), "http", "r")
    assert trace_of(caller.trace) == TRACE
    assert baggage.get_all(caller.trace) == {"a": "1", "b": "two"}


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"traceparent": ""},
        {"traceparent": "00-nonsense"},
        {"tracestate": "a=b"},
        {"baggage": "nonsense"},
        {"baggage": f"a={'b' * 9000}"},
        {"baggage": "a=\udcff"},
    ],
)
def test_a_malformed_trace_is_none(headers: dict[str, str]) -> None:
    assert read_trace(headers) is NO_TRACE


@pytest.mark.parametrize(
    ("own", "replaces"),
    [
        ((None, None, None), False),
        ((f"00-{'1' * 32}-{'2' * 16}-01", None, None), True),
        ((None, "a=b", None), True),
        ((None, None, "a=b"), True),
        (("nonsense", "", "nonsense"), False),
        (("nonsense", None, "a=b"), True),
    ],
)
def test_a_message_replaces_all_of_its_sockets_trace_or_nothing(
    own: tuple[str | None, str | None, str | None], replaces: bool
) -> None:
    of_socket = read_trace({"traceparent": TRACEPARENT, "baggage": "of=socket"})
    found = message_trace(*own, of_socket)
    assert (found is not of_socket) == replaces
    if replaces:
        assert trace_of(found) != TRACE
        assert baggage.get_baggage("of", found) is None
