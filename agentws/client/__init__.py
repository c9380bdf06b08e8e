"""A client that resumes by itself: its socket may be lost, its runs are not.

In come what a user invokes and the frames that answer; out go chunks, each once and in order,
results and questions. It knows the protocol and nothing of the server's parts. Sockets come and go
(`connection`, `socket`); what was said and heard of each run stays (`following`); what an answer
leads to is decided where neither socket nor clock is known (`retries`, `reception`, `backoff`).

What users need is named here, other than in other wings, as this is their way in.
"""

from agentws.client.client import Client, connect
from agentws.client.errors import (
    Cancelled,
    Closed,
    ConnectionFailed,
    InvocationFailed,
    Lost,
    ReplayGap,
)
from agentws.client.events import Answered, Chunk, Gap, Question, Reconnected
from agentws.client.run import Run
from agentws.client.sync import connect_sync

__all__ = [
    "Answered",
    "Cancelled",
    "Chunk",
    "Client",
    "Closed",
    "ConnectionFailed",
    "Gap",
    "InvocationFailed",
    "Lost",
    "Question",
    "Reconnected",
    "ReplayGap",
    "Run",
    "connect",
    "connect_sync",
]
