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
    await ask_for_body(request)
    try:
        if request.content.is_eof():  # all of it came with the head: no timer is needed
            return await _decode_body(request, coding, limit)
        async with asyncio.timeout(BODY_TIME):
            return await _decode_body(request, coding, limit)
    except TimeoutError as error:
        raise UnreadableBody(f"The body did not come within {BODY_TIME:g} s") from error
    except web.RequestPayloadError as error:
        request.content.feed_eof()  # aiohttp would read on, fail again, and log that as ours
        raise UnreadableBody("The body is not encoded as it says") from error
    except Corrupt as error:
        raise UnreadableBody(str(error)) from error


async def _decode_body(request: web.Request, coding: Plain, limit: int) -> bytes:
    received, body = 0, bytearray()
    async for part in request.content.iter_any():
        received += len(part)
        body += coding.feed(part, limit + 1 - len(body))
        if max(received, len(body)) > limit:
            raise _too_large(limit)
    coding.end()
    return bytes(body)


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
