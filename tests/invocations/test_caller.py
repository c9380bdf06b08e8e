"""What handlers are told of their caller."""

from agentws.agent.context import InvocationContext
from agentws.invocations.caller import Caller


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


def test_callers_do_not_share_what_they_run() -> None:
    first, second = (Caller("websocket", "r") for _ in range(2))
    first.running += 1
    assert (first.running, second.running) == (1, 0)
