"""Waiting for what no event tells of."""

import asyncio
from collections.abc import Callable

PATIENCE = 20.0


async def eventually(is_so: Callable[[], bool]) -> None:
    """Wait until something holds."""
    async with asyncio.timeout(PATIENCE):
        while not is_so():  # noqa: ASYNC110
            await asyncio.sleep(0.02)
