"""What is asked about invocations that exist, and answered once: get, cancel, list."""

import asyncio
from collections.abc import Mapping
from typing import Any

from agentws.cli.connecting import connection_advice, failure_advice
from agentws.cli.ending import Complaint, Failure, Interrupts
from agentws.cli.screens import Screen
from agentws.client import Client, ConnectionFailed, InvocationFailed


async def look(client: Client, wish: Mapping[str, Any], screen: Screen) -> int:
    """Do what the flags say, and print what comes of it; return the exit code.

    Raises `Complaint` and `BrokenPipeError`.
    """
    asking = asyncio.create_task(_ask(client, wish, screen))
    Interrupts(asking.cancel)
    try:
        return await asking
    except asyncio.CancelledError:
        raise Failure("interrupted") from None
    except InvocationFailed as failure:
        raise Failure(failure_advice(failure, wish["get"] or wish["cancel"] or "")) from None
    except ConnectionFailed as failure:
        raise Complaint(connection_advice(failure)) from failure


async def _ask(client: Client, wish: Mapping[str, Any], screen: Screen) -> int:
    match wish["doing"]:
        case "get":
            await screen.record(await client.get(wish["get"]))
        case "list":
            async for record in client.list(session_id=wish["session"]):
                await screen.listed(record)
        case _:
            return await _cancel(client, wish["cancel"], screen)
    return 0


async def _cancel(client: Client, invocation_id: str, screen: Screen) -> int:
    run = client.attach(invocation_id)
    run.detach()  # nothing of it is to be replayed
    answer = await run.cancel()
    await screen.record({"invocation_id": invocation_id} if answer is None else answer)
    if isinstance(answer, dict) and answer.get("status") == "cancelling":
        raise Failure("the agent has not ended yet; --get tells when it has")
    return 0
