"""Whose trace and baggage a request or a message goes on with."""

import pytest
from opentelemetry import baggage
from opentelemetry.context import Context
from opentelemetry.trace import get_current_span

from agentws.telemetry.trace_context import NO_TRACE, message_trace, read_trace
from agentws.transports.request_fields import read_caller
from tests.support.requests import a_request

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
TRACEPARENT = f"00-{TRACE}-00f067aa0ba902b7-01"


def trace_of(context: Context) -> str | None:
    span = get_current_span(context).get_span_context()
    return f"{span.trace_id:032x}" if span.is_valid else None


def test_a_callers_trace_and_baggage_are_read() -> None:
    headers = {"Traceparent": TRACEPARENT, "baggage": "a=1,b=two"}
    caller = read_caller(a_request(headers=headers), "http", "r")
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
