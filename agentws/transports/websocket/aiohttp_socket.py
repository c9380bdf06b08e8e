"""aiohttp's socket, and what we know of it."""

import zlib
from typing import Final

from aiohttp import WSCloseCode, WSMsgType, web

LAST_TYPES: Final = {WSMsgType.CLOSE, WSMsgType.CLOSING, WSMsgType.CLOSED, WSMsgType.ERROR}
"""The types of aiohttp's messages after which no other comes."""

INSTANT: Final = 1e-9
"""A time-out that lets `receive` return what is there, and nothing that is yet to come."""

READ_BURST: Final = 32
"""How many messages of one socket are read before others have their turn."""


class Socket(web.WebSocketResponse):
    """aiohttp's socket, which tells a peer that what it compressed cannot be read."""

    async def close(
        self, *, code: int = WSCloseCode.OK, message: bytes = b"", drain: bool = True
    ) -> bool:
        """Close the socket; with 1007 where the peer's data is corrupt, for which aiohttp has 1000.

        aiohttp calls this itself when it cannot go on.
        """
        if isinstance(self.exception(), zlib.error):
            code = WSCloseCode.INVALID_TEXT
        return await super().close(code=code, message=message, drain=drain)
