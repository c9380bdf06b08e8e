"""The agents that are served while measuring. They do nothing, so that the daemon is measured."""

from collections.abc import AsyncGenerator
from typing import Any, Final

CHUNKS: Final = 100
"""How many chunks one invocation of `stream` yields."""

TOKEN: Final = "word"
"""What each of them carries."""


async def echo(payload: Any, _context: object) -> Any:
    """Answer with the payload."""
    return payload


async def stream(_payload: Any, _context: object) -> AsyncGenerator[dict[str, str], None]:
    """Yield small chunks as fast as they are taken."""
    for _ in range(CHUNKS):
        yield {"token": TOKEN}


async def stream_at_length(payload: int, _context: object) -> AsyncGenerator[dict[str, str], None]:
    """Yield as many small chunks as asked for."""
    for _ in range(payload):
        yield {"token": TOKEN}
