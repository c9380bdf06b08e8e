"""Clients of servers of ours."""

from collections.abc import Callable
from typing import Any

import pytest

from agentws.client import Client, connect
from tests.conftest import Address

Connect = Callable[..., Client]


@pytest.fixture
def connect_to() -> Connect:
    """Make a client of a server, quick to come back."""

    def make(server: Address, **options: Any) -> Client:
        return connect(server.http, **{"max_retry_delay": 0.05, **options})

    return make
