"""The body of a request: asked for, read within bounds, inflated."""

import asyncio
from typing import Final

from aiohttp import HttpVersion11, hdrs, web

from agentws.protocol.errors import InvocationError
from agentws.transports.http.content_coding import Corrupt, Plain, decoder

BODY_TIME: Final = 300.0
"""Seconds within which a body has to come: who sends a byte now and then is not waited for."""


class UnreadableBody(InvocationError):
    """A body that does not come whole, or not as it says; the connection cannot be used on."""

    def __init__(self, message: str) -> None:
        super().__init__("invalid_request", message)


async def read_body(request: web.Request, limit: int) -> bytes:
    """Read the body, at most `limit` bytes of it, before and after it is inflated.

    Raises `InvocationError`: `unsupported_media_type` for an encoding that is not known and
    `payload_too_large`, both before the first byte where that can be told; `invalid_request` when
    it is not encoded as it says or takes longer than `BODY_TIME`.
    """
    coding = decoder(",".join(request.headers.getall(hdrs.CONTENT_ENCODING, ())))
    if (request.content_length or 0) > limit:
        raise _too_large(limit)
    body = _Body(coding, limit)
    try:
        if request.content.is_eof():  # all of it came with the head: nobody and no timer is needed
            body.feed(request.content.read_nowait())
            return body.whole()
        await ask_for_body(request)
        async with asyncio.timeout(BODY_TIME):
            async for part in request.content.iter_any():
                body.feed(part)
            return body.whole()
    except TimeoutError as error:
        raise UnreadableBody(f"The body did not come within {BODY_TIME:g} s") from error
    except web.RequestPayloadError as error:
        request.content.feed_eof()  # aiohttp would read on, fail again, and log that as ours
        raise UnreadableBody("The body is not encoded as it says") from error
    except Corrupt as error:
        raise UnreadableBody(str(error)) from error


class _Body:
    """What has come of a body, decoded, within bounds."""

    def __init__(self, coding: Plain, limit: int) -> None:
        self._coding = coding
        self._limit = limit
        self._received = self._size = 0
        self._decoded: list[bytes] = []

    def feed(self, part: bytes) -> None:
        """Take a part. Raises `payload_too_large`, and `Corrupt`."""
        decoded = self._coding.feed(part, self._limit + 1 - self._size)
        self._decoded.append(decoded)
        self._received += len(part)
        self._size += len(decoded)
        if self._received > self._limit or self._size > self._limit:
            raise _too_large(self._limit)

    def whole(self) -> bytes:
        """Return all of it, where no more will come. Raises `Corrupt`."""
        self._coding.end()
        return b"".join(self._decoded)


def _too_large(limit: int) -> InvocationError:
    return InvocationError("payload_too_large", f"The body is larger than {limit} bytes")


async def ask_for_body(request: web.Request) -> None:
    """Ask for the body of a client that waits to be asked, before it is read.

    In HTTP/1.0 nobody waits (RFC 9110 §10.1.1). Raises `ConnectionError`.
    """
    if waits_to_be_asked(request) and request.version >= HttpVersion11:
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0  # the answer itself has not begun


def waits_to_be_asked(request: web.Request) -> bool:
    """Tell whether a client holds its body back until it is asked for it."""
    return hdrs.EXPECT in request.headers and request.can_read_body
