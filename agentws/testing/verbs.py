"""What a client says and is answered: all of it passes through JSON, as over a socket."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import msgspec

from agentws.client.errors import InvocationFailed, failure_of
from agentws.protocol.decoding import frame_of
from agentws.protocol.encoding import encode
from agentws.protocol.errors import InvocationError, error_body
from agentws.protocol.frames import ClientFrame

Frame = TypeVar("Frame", bound=ClientFrame)


def said(frame_type: type[Frame], **fields: object) -> Frame:
    """Return the action that reaches the daemon.

    Raises `InvocationError` (`invalid_request`) where the daemon would answer that, and an ordinary
    exception for what JSON cannot hold.
    """
    return frame_of(msgspec.json.decode(encode(fields)), frame_type)


def told(answer: bytes) -> Any:
    """Return what reaches the client."""
    return msgspec.json.decode(answer)


@contextmanager
def seen_by_client() -> Iterator[None]:
    """Have the daemon's errors raised as the client's.

    The exception of an agent's handler for get or cancel comes along as the cause, so that a test
    that fails tells of it.
    """
    try:
        yield
    except InvocationError as error:
        raise failure(error) from error.__cause__


def failure(error: InvocationError) -> InvocationFailed:
    """Return what the client raises of an error."""
    return failure_of(told(encode(error_body(error))))
