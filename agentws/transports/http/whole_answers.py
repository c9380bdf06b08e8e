"""Results that are there whole: head and body of an answer, put together here and written at once.

aiohttp builds an answer's head field by field, through signals: a third of what a POST takes.
"""

import time
from email.utils import formatdate
from typing import Final

from aiohttp import HttpVersion11, hdrs, web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http import SERVER_SOFTWARE

from agentws.agent.conversation import Draining
from agentws.transports.http.answers import ID_HEADERS, JSON, SERVER, SERVER_HEADER
from agentws.transports.request_fields import INVOCATION_ID, REQUEST_ID, SESSION_ID

_START: Final = (
    "HTTP/1.1 200 OK\r\n"
    f"{hdrs.CONTENT_TYPE}: {JSON}\r\n"
    f"{hdrs.SERVER}: {SERVER_SOFTWARE}\r\n"
    f"{SERVER_HEADER}: {SERVER}\r\n"
    f"{hdrs.DATE}: "
)
_IDS: Final = "".join(
    f"\r\n{ID_HEADERS[key]}: %s" for key in (REQUEST_ID, SESSION_ID, INVOCATION_ID)
)
_END: Final = f"\r\n{hdrs.CONTENT_LENGTH}: %d\r\n\r\n"


class WholeAnswer(web.StreamResponse):
    """An answer whose bytes are known, to a client that keeps its connection."""

    def __init__(self, content: bytes) -> None:
        """Answer with `content`, which is a head and its body."""
        super().__init__()
        self._content = content

    @property
    def keep_alive(self) -> bool:
        """The connection is kept."""
        return True

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter:
        """Write all of it, at the pace of the client. Raises `ConnectionError`."""
        transport = request.transport
        if transport is None or transport.is_closing():
            raise ConnectionResetError("The client has left")
        transport.write(self._content)
        if request.protocol.writing_paused:
            await request.writer.drain()
        return request.writer

    async def write_eof(self, data: bytes = b"") -> None:
        """Write nothing more."""


class WholeAnswers:
    """Answers with results in JSON, where no more needs to be told than every answer tells."""

    def __init__(self, draining: Draining) -> None:
        self._draining = draining
        self._second = 0
        self._start = ""

    def will_do(self, request: web.Request) -> bool:
        """Tell whether a request can be answered so.

        A page may have to be given leave, and whether the connection will end has to be told.
        """
        return (
            request.keep_alive
            and request.version == HttpVersion11
            and hdrs.ORIGIN not in request.headers
            and not self._draining.begun
        )

    def make(self, request: web.Request, body: bytes) -> WholeAnswer:
        """Return an answer to a request that has all its ids, none of which can break the head."""
        ids = request[REQUEST_ID], request[SESSION_ID], request[INVOCATION_ID]
        head = self._dated_start() + _IDS % ids + _END % len(body)
        return WholeAnswer(head.encode() + body)

    def _dated_start(self) -> str:
        now = int(time.time())
        if now != self._second:
            self._second = now
            self._start = _START + formatdate(now, usegmt=True)
        return self._start
