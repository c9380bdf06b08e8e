"""The instruments by name (§9): how long, how many, how badly."""

from collections.abc import Callable, Iterable
from typing import Final

from opentelemetry.metrics import CallbackOptions, Meter, NoOpMeter, Observation

_SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
"""Bounds of the buckets: agents take from milliseconds to minutes."""

_SOCKET_SECONDS: Final = (0.1, 1, 5, 15, 30, 60, 120, 300, 600, 1800, 3600, 14400, 86400)
"""The same for sockets, which stay for hours."""

_ERROR: Final = "error.code"
_CLOSE: Final = "websocket.close_code"


class Metrics:
    """What the daemon counts and times; of a meter that does nothing where nobody listens."""

    def __init__(self, meter: Meter) -> None:
        self._meter = meter
        self._duration = meter.create_histogram(
            "gen_ai.invoke_agent.duration",
            "s",
            "How long invocations ran",
            explicit_bucket_boundaries_advisory=_SECONDS,
        )
        self._first_chunk = meter.create_histogram(
            "agentws.invocation.time_to_first_chunk",
            "s",
            "How long streams took to their first chunk",
            explicit_bucket_boundaries_advisory=_SECONDS,
        )
        self._socket_duration = meter.create_histogram(
            "websocket.connection.duration",
            "s",
            "How long sockets were open",
            explicit_bucket_boundaries_advisory=_SOCKET_SECONDS,
        )
        self._closed = meter.create_counter(
            "websocket.connections.closed", "{connection}", "Sockets that have ended"
        )
        self._errors = meter.create_counter("agentws.errors", "{error}", "What failed, once each")

    def watch_invocations(self, running: Callable[[], int]) -> None:
        """Tell how many invocations run, whenever that is asked for."""
        self._watch("agentws.invocations.active", "{invocation}", "Running invocations", running)

    def watch_sockets(self, count: Callable[[], int]) -> None:
        """Tell how many sockets are open, whenever that is asked for."""
        self._watch("websocket.active_connections", "{connection}", "Open sockets", count)

    def invocation_ended(self, seconds: float, error_code: str | None) -> None:
        """Note how long an invocation ran, and how it failed if it did."""
        self._duration.record(seconds, {_ERROR: error_code} if error_code else None)

    def first_chunk(self, seconds: float) -> None:
        """Note how long an invocation took to its first chunk."""
        self._first_chunk.record(seconds)

    def error(self, code: str) -> None:
        """Count an error, by its code (§7)."""
        self._errors.add(1, {_ERROR: code})

    def socket_ended(self, seconds: float, close_code: int, error_code: str | None) -> None:
        """Note the end of a socket (§8)."""
        attributes: dict[str, str | int] = {_CLOSE: close_code}
        if error_code is not None:
            attributes[_ERROR] = error_code
            self.error(error_code)
        self._socket_duration.record(seconds, attributes)
        self._closed.add(1, attributes)

    def _watch(self, name: str, unit: str, description: str, count: Callable[[], int]) -> None:
        def observe(_options: CallbackOptions) -> Iterable[Observation]:
            return [Observation(count())]

        self._meter.create_observable_up_down_counter(name, [observe], unit, description)


def silent() -> Metrics:
    """Return metrics that nobody reads."""
    return Metrics(NoOpMeter("agentws"))
