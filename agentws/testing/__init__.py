"""An agent under test: its handlers called as the daemon calls them, without one.

In come an agent and what its clients do; out goes what they would see. The table, the store and
the translation of errors are the daemon's, reading a run is `agentws.client`'s; it knows neither
sockets nor HTTP, nor any framework of tests.

- **Each run is a client of its own** (`Run`): it can lose its connection, and others go on.
- **What is said passes through JSON**, both ways (`verbs`), so that a test sees what a client sees.
- **A run hears everything at once**, read or not, as a client whose socket is always read: no
  handler waits for a test (`Listener`).
"""

from agentws.testing.agent_client import AgentClient

__all__ = ["AgentClient"]
