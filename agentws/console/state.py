"""What `GET /console/state` tells: numbers and states of this replica, and nobody's ids."""

import time
from collections.abc import Mapping
from typing import Any, Protocol

from msgspec import Struct

from agentws.agent.conversation import Draining
from agentws.agent.loading import ImportFailure
from agentws.console.rates import Rates
from agentws.invocations.table import InvocationTable
from agentws.stores.store import Store
from agentws.telemetry.tally import Tally
from agentws.version import __version__


class Development(Struct, frozen=True):
    """What is told to who develops the agent, under `agentws dev`."""

    import_error: ImportFailure | None = None
    """Why the agent cannot be served, where it cannot."""


class Sockets(Protocol):
    """What is asked of the sockets that are open."""

    @property
    def count(self) -> int:
        """How many there are."""


class State:
    """The state of one daemon, as the page shows it."""

    def __init__(
        self,
        *,
        table: InvocationTable,
        store: Store,
        sockets: Sockets,
        tally: Tally,
        draining: Draining,
        development: Development | None,
    ) -> None:
        self._table = table
        self._store = store
        self._sockets = sockets
        self._tally = tally
        self._draining = draining
        self._development = development
        self._started_at = time.monotonic()
        self.rates = Rates(
            invocations_per_second=tally.ended.total, chunks_per_second=lambda: table.chunks
        )
        """Open while there is anybody to ask for them."""

    def describe(self) -> Mapping[str, Any]:
        """Return what is told, for JSON. Times are seconds."""
        state: dict[str, Any] = {
            "version": __version__,
            "uptime": round(time.monotonic() - self._started_at, 3),
            "draining": self._draining.begun,
            "store": self._store.trouble or "ok",
            "sockets": self._sockets.count,
            "invocations": self._invocations(),
            "rates": self.rates.now(),
            "latencies": {
                "time_to_first_chunk": self._tally.first_chunks.percentiles(50, 99),
                "duration": self._tally.durations.percentiles(50, 99),
            },
            "errors": dict(self._tally.errors),
        }
        if self._development is not None:
            state["import_error"] = self._development.import_error
        return state

    def _invocations(self) -> Mapping[str, int]:
        asking = self._table.asking
        running = {"running": self._table.running - asking, "input_required": asking}
        return {**running, **self._tally.ended}
