"""A sandbox is saved and restored: clocks jump, sockets are gone, and memory loses nothing."""

import asyncio
import signal

from tests.support.processes import Start

STREAM = """\
    @agent.invoke_handler
    async def invoke(payload, context):
        for number in range(1, 31):
            yield number
            await asyncio.sleep(0.02)
    """

BEAT, GRACE = 0.2, 0.5
SAVED = 1.2
"""Seconds of which the process knows nothing: longer than any of the other two."""


async def test_a_stream_goes_on_after_its_process_was_saved_and_restored(launch: Start) -> None:
    daemon = await launch(
        STREAM, websocket__heartbeat=str(BEAT), invocations__disconnect_grace=str(GRACE)
    )
    async with daemon.connect() as client:
        await client.send(action="invoke", invocation_id="i")
        assert (await client.until(type="stream_chunk"))["sequence_number"] == 1
        daemon.send(signal.SIGSTOP)
        client.connection.transport.abort()  # the socket is not among what is saved
    await asyncio.sleep(SAVED)
    daemon.send(signal.SIGCONT)

    async with daemon.connect() as client:
        await client.send(action="attach_invocation", invocation_id="i", starting_after=1)
        for number in range(2, 31):
            assert (await client.until(type="stream_chunk"))["sequence_number"] == number
        assert (await client.receive())["type"] == "stream_end"
    await daemon.end_well()
