"""The fixture `agent_client`, which pytest finds by itself where agentws is installed.

So every pytest there imports this, whatever it tests: it imports nothing of agentws in advance.
"""

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from agentws.testing import AgentClient


@pytest.fixture
def agent_client() -> "type[AgentClient]":
    """Return `AgentClient`: clients of as many agents as a test needs."""
    from agentws.testing import AgentClient

    return AgentClient
