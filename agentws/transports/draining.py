"""Waiting for handlers at the end (§8)."""

import asyncio
from collections.abc import Collection
from typing import Any


async def drain_tasks(
    tasks: Collection["asyncio.Task[Any]"], grace: float, patience: float
) -> set["asyncio.Task[Any]"]:
    """Wait `grace` seconds for tasks, cancel the rest, wait for these `patience` seconds.

    Returns those that have not ended even so.
    """
    running = set(tasks)
    if running:
        _, running = await asyncio.wait(running, timeout=grace)
    for task in running:
        task.cancel()
    if running:
        _, running = await asyncio.wait(running, timeout=patience)
    return running
