"""What is read of a request or handshake: who calls, and the identifiers it brings."""

import uuid
from typing import Any

import pytest
from aiohttp.test_utils import make_mocked_request

from agentws.invocations.caller import Caller
from agentws.protocol.errors import InvocationError
from agentws.transports.request_fields import (
    INVOCATION_ID,
    REQUEST_ID,
    header_invocation_id,
    name_request,
    path_invocation_id,
    read_caller,
    request_id,
)
from tests.support.requests import a_request

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
TRACEPARENT = f"00-{TRACE}-00f067aa0ba902b7-01"


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
    assert request_id(a_request(headers=headers)) == expected


def is_new(value: str) -> bool:
    return str(uuid.UUID(value, version=4)) == value


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
    request = a_request(headers=headers)
    first, second = request_id(request), request_id(request)
    assert is_new(first)
    assert is_new(second)
    assert first != second


def test_a_request_is_named() -> None:
    request = a_request(headers={"x-request-id": "mine"})
    name_request(request)
    assert request[REQUEST_ID] == "mine"


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
    caller = read_caller(a_request(headers=headers), "websocket", "r")
    assert caller == Caller(transport="websocket", request_id="r")
    assert caller.owner is None


@pytest.mark.parametrize("path", ["/", "/?a=b"])
@pytest.mark.parametrize("headers", [{}, {"x-client-a": "b"}])
def test_a_handler_cannot_change_what_the_caller_said(path: str, headers: dict[str, str]) -> None:
    caller = read_caller(make_mocked_request("GET", path, headers), "http", "r")
    context = caller.context("i", "s")
    said: Any
    for said in (context.client_headers, context.query):
        with pytest.raises(TypeError):
            said["x-client-a"] = "other"


# --- the invocation ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, None),
        ({"x-agent-invocation-id": ""}, None),
        ({"X-Agent-Invocation-Id": "a.b:c-d_E9"}, "a.b:c-d_E9"),
    ],
)
def test_an_invocation_id_in_the_headers(headers: dict[str, str], expected: str | None) -> None:
    assert header_invocation_id(a_request(headers=headers)) == expected


BAD_IDS = ["a b", "..", "a" * 257, "é", "a\n"]


@pytest.mark.parametrize("value", BAD_IDS)
def test_a_bad_invocation_id_in_the_headers_is_refused(value: str) -> None:
    with pytest.raises(InvocationError, match="x-agent-invocation-id must be") as caught:
        header_invocation_id(a_request(headers={"x-agent-invocation-id": value}))
    assert caught.value.code == "invalid_request"


def test_an_invocation_id_in_the_path_is_noted_for_the_answer() -> None:
    request = a_request(invocation_id="a:b")
    assert path_invocation_id(request) == "a:b"
    assert request[INVOCATION_ID] == "a:b"


@pytest.mark.parametrize("value", BAD_IDS)
def test_a_bad_invocation_id_in_the_path_is_refused_and_not_noted(value: str) -> None:
    request = a_request(invocation_id=value)
    with pytest.raises(InvocationError, match="id in the path must be") as caught:
        path_invocation_id(request)
    assert caught.value.code == "invalid_request"
    assert INVOCATION_ID not in request
