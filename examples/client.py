"""A client: what it begins, it gets whole, whatever happens to the connection in between.

Serve the built-in echo with `agentws serve`, then `python -m examples.client`. An agent that asks
needs more: whoever answers reads `run.events()`.
"""

import asyncio
import sys
from typing import Any

from agentws.client import ConnectionFailed, InvocationFailed, connect


async def main(url: str = "http://localhost:8088") -> Any:
    """Invoke the agent, follow it, and return what came of it."""
    async with connect(url, session_id="example") as client:
        client.on_state(lambda state: print(f"({state})"))  # noqa: T201
        run = client.invoke({"message": "hello"})
        async for chunk in run:  # the built-in echo has none; an agent that streams has
            print(chunk)  # noqa: T201
        result = await run
        record = await client.get(run.id)
        print(f"{run.id} {record['status']}: {result}")  # noqa: T201
        return result


if __name__ == "__main__":
    try:
        asyncio.run(main(*sys.argv[1:]))
    except (ConnectionFailed, InvocationFailed) as failure:
        sys.exit(str(failure))
