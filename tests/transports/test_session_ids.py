"""Which session a socket or a request belongs to."""

import uuid
from collections.abc import Callable

import pytest
from aiohttp import web

from agentws.protocol.errors import InvocationError
from agentws.transports.session_ids import http_session, socket_session
from tests.support.requests import a_request

Session = Callable[[web.BaseRequest, str], str]


@pytest.mark.parametrize(
    ("session", "query", "configured", "expected"),
    [
        (socket_session, "?agent_session_id=asked", "", "asked"),
        (socket_session, "?agent_session_id=asked", "configured", "configured"),
        (socket_session, "?agent_session_id=", "configured", "configured"),
        (socket_session, "", "configured", "configured"),
        (http_session, "?agent_session_id=asked", "", "asked"),
        (http_session, "?agent_session_id=asked", "configured", "asked"),
        (http_session, "?agent_session_id=", "configured", "configured"),
        (http_session, "", "configured", "configured"),
    ],
)
def test_a_session(session: Session, query: str, configured: str, expected: str) -> None:
    assert session(a_request(query), configured) == expected


@pytest.mark.parametrize("session", [socket_session, http_session])
@pytest.mark.parametrize("query", ["", "?agent_session_id=", "?agent_session_ID=a"])
def test_a_session_that_nobody_named_is_new(session: Session, query: str) -> None:
    first, second = (session(a_request(query), "") for _ in range(2))
    assert str(uuid.UUID(first, version=4)) == first
    assert first != second


@pytest.mark.parametrize("session", [socket_session, http_session])
@pytest.mark.parametrize("configured", ["", "configured"])
@pytest.mark.parametrize("asked", ["a%20b", "..", "a" * 257, "%C3%A9", "a%0A", "%FF"])
def test_a_session_that_is_no_id_is_refused(session: Session, configured: str, asked: str) -> None:
    with pytest.raises(InvocationError, match="agent_session_id must be") as caught:
        session(a_request(f"?agent_session_id={asked}"), configured)
    assert caught.value.code == "invalid_request"
