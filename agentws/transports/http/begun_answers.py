"""Answers that have begun: none is followed by another, and what stays incomplete is cut.

https://datatracker.ietf.org/doc/html/rfc9112#section-8
"""

import socket
import struct
from typing import Final

from aiohttp import HttpVersion11, hdrs, web
from aiohttp.http import StreamWriter

_WITHOUT_BODY: Final = {204, 304}
_RESET: Final = struct.pack("ii", 1, 0)
"""For `SO_LINGER`: a close that resets the connection."""


class _Body:
    """A body whose length the head declares."""

    def __init__(self, length: int) -> None:
        self.missing = length
        """How many bytes are to come; fewer than none where there were more."""

    def note(self, size: int, _written: int) -> None:
        """Take note of a part."""
        self.missing -= size


# Two keys and no object of both: a socket is an answer, too, and takes memory for as long as it is.
BEGUN: Final = web.RequestKey("begun", web.StreamResponse)
"""The answer that has begun, where one has."""

_BODY: Final = web.RequestKey("body", _Body)

CUT: Final = web.RequestKey("cut", bool)
"""There where the answer ended before it was complete."""


async def begin(request: web.Request, response: web.StreamResponse) -> None:
    """Take note that an answer begins; to be called before its head is written.

    Raises `RuntimeError` where one has begun already: a second head would be read as its body.
    """
    if BEGUN in request:
        raise RuntimeError("An answer to this request has begun already")
    request[BEGUN] = response
    if request.method == hdrs.METH_HEAD or response.status in _WITHOUT_BODY:
        _drop_body(request, response)
    elif _ends_by_closing(request, response):
        response.force_close()  # aiohttp would keep the connection that the client asks to keep
    elif response.content_length and not isinstance(response, web.FileResponse):
        body = request[_BODY] = _Body(response.content_length)
        request.writer.on_body_write = body.note


async def finish(request: web.Request, response: web.StreamResponse) -> None:
    """Write what is left of an answer.

    Raises `RuntimeError` where it is another than the one that has begun, belongs to another
    request, or has more or less of a body than it has declared.
    """
    await response.prepare(request)
    await response.write_eof()
    if request.get(BEGUN) is not response:
        raise RuntimeError("The answer was given to another request already")
    if missing := _missing(request):
        raise RuntimeError(f"Content-Length tells {missing} bytes more than there are")


def is_complete(request: web.Request) -> bool:
    """Tell whether the answer that has begun was written whole."""
    return request[BEGUN].body_length > 0 and not _missing(request)


def cut(request: web.Request) -> None:
    """End the connection so that its peer sees that the answer is incomplete."""
    request[CUT] = True
    if request.transport is None:
        return
    if _ends_by_closing(request, request[BEGUN]):
        sock = request.transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    request.transport.abort()


def _missing(request: web.Request) -> int:
    body = request.get(_BODY)
    return 0 if body is None else body.missing


def _ends_by_closing(request: web.Request, response: web.StreamResponse) -> bool:
    """Tell whether the body has neither length nor chunks (RFC 9112 §6.3)."""
    return request.version < HttpVersion11 and response.content_length is None


def _drop_body(request: web.Request, response: web.StreamResponse) -> None:
    """Let nothing follow the head (RFC 9112 §6.3), whatever is written.

    aiohttp sees to it for a `web.Response`, which writes its head together with its end.
    """
    writer = request.writer
    writer.length = 0  # what is written beyond a length is dropped
    if isinstance(writer, StreamWriter) and not isinstance(response, web.Response):
        writer.set_eof()
