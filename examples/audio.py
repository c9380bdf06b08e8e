"""Binary frames both ways at once, as a voice agent has them: hears and speaks at the same time.

A frame is 20 ms of 16-bit samples at 16 kHz. The "voice" is the caller's own, at half the volume
and ten frames later.
"""

import asyncio
from array import array

from aiohttp import WSCloseCode, WSMsgType, web

from agentws import Agent, InvocationContext

FRAME_BYTES = 640
DELAY_FRAMES = 10

agent = Agent()


@agent.ws_handler
async def talk(ws: web.WebSocketResponse, context: InvocationContext) -> None:
    """Hear and speak until the caller hangs up."""
    heard: asyncio.Queue[bytes | None] = asyncio.Queue(maxsize=50)
    for _ in range(DELAY_FRAMES):
        heard.put_nowait(bytes(FRAME_BYTES))
    try:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(hear(ws, heard))
            tasks.create_task(speak(ws, heard))
    except* NotAudio:
        reason = f"A message must be a frame of {FRAME_BYTES} bytes"
        await ws.close(code=WSCloseCode.UNSUPPORTED_DATA, message=reason.encode())


class NotAudio(Exception):
    """The caller sent something that is no frame."""


async def hear(ws: web.WebSocketResponse, heard: "asyncio.Queue[bytes | None]") -> None:
    """Queue what the caller says; None when there is no more. Raises `NotAudio`."""
    async for message in ws:
        if message.type is not WSMsgType.BINARY or len(message.data) != FRAME_BYTES:
            raise NotAudio
        await heard.put(message.data)
    await heard.put(None)


async def speak(ws: web.WebSocketResponse, heard: "asyncio.Queue[bytes | None]") -> None:
    """Say what was heard, more softly."""
    while (frame := await heard.get()) is not None:
        samples = array("h", frame)
        await ws.send_bytes(array("h", (sample // 2 for sample in samples)).tobytes())
