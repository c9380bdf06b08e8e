"""What tests of servers and processes have in common."""

import asyncio
import signal

import pytest

SOON = 3.0
"""Seconds within which something happens "at once", the end of a process included."""

ECHO = """\
    @agent.invoke_handler
    async def invoke(payload, context):
        return payload
"""

SIGNALS = pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda n: n.name)


def seconds() -> float:
    """Return the time on the clock of the event loop."""
    return asyncio.get_running_loop().time()
