"""The instruments by name (§9): how long, how many, how badly."""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Final

from opentelemetry.metrics import CallbackOptions, Meter, NoOpMeter, Observation

from agentws.protocol.errors import STATUS
from agentws.telemetry.tally import SILENT, Tally

_SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
"""Bounds of the buckets: agents take from milliseconds to minutes."""

_SOCKET_SECONDS: Final = (0.1, 1, 5, 15, 30, 60, 120, 300, 600, 1800, 3600, 14400, 86400)
"""The same for sockets, which stay for hours."""

_LOOP_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
"""And for the event loop, which should never be late."""

_ERROR: Final = "error.code"
_CLOSE: Final = "websocket.close_code"
_CHECK: Final = "check"

MOST_CODES: Final = 50
"""How many codes that are none of ours are told apart: each is a time series, for ever."""

OTHER: Final = "other"
"""What is told of the rest."""

_CODE: Final = re.compile(r"[\w.-]{1,64}", re.ASCII)


class _Codes:
    """Codes that somebody else may make up, as attributes: few, and no texts.

    The codes of errors are the agent's to choose, those of a close the client's.
    """

    def __init__(self, known: Iterable[str | int]) -> None:
        self._known = set(known)
        self._most = len(self._known) + MOST_CODES

    def label(self, code: str | int) -> str | int:
        """Return a code, or `OTHER` in the place of it."""
        if code in self._known:
            return code
        if len(self._known) >= self._most or not _CODE.fullmatch(str(code)):
            return OTHER
        self._known.add(code)
        return code


class Metrics:
    """What the daemon counts and times; of a meter that does nothing where nobody listens."""

    def __init__(self, meter: Meter) -> None:
        self._meter = meter
        self._tally = SILENT
        self._error_codes = _Codes(STATUS)
        self._close_codes = _Codes(range(1000, 1016))
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
        self._loop_delay = meter.create_histogram(
            "agentws.event_loop.delay",
            "s",
            "How late the event loop came to what was due",
            explicit_bucket_boundaries_advisory=_LOOP_SECONDS,
        )

    def keep(self, tally: Tally) -> None:
        """Have a tally kept, too, of what is told from now on."""
        self._tally = tally

    def watch_invocations(self, running: Callable[[], int]) -> None:
        """Tell how many invocations run, whenever that is asked for."""
        self._watch("agentws.invocations.active", "{invocation}", "Running invocations", running)

    def watch_sockets(self, count: Callable[[], int]) -> None:
        """Tell how many sockets are open, whenever that is asked for."""
        self._watch("websocket.active_connections", "{connection}", "Open sockets", count)

    def tell_limits(self, invocations: int, sockets: int) -> None:
        """Tell how many invocations may run, and how many sockets may be open."""
        limit = "agentws.invocations.limit"
        self._watch(limit, "{invocation}", "Most running invocations", lambda: invocations)
        limit = "websocket.connections.limit"
        self._watch(limit, "{connection}", "Most open sockets", lambda: sockets)

    def watch_checks(self, checks: Callable[[], Mapping[str, bool]]) -> None:
        """Tell which of the checks behind `/readiness` are well, whenever that is asked for."""

        def observe(_options: CallbackOptions) -> Iterable[Observation]:
            return [Observation(int(well), {_CHECK: name}) for name, well in checks().items()]

        description = "1 for each check that is well, else 0"
        self._meter.create_observable_gauge("agentws.ready", [observe], "", description)

    def loop_delay(self, seconds: float) -> None:
        """Note how late the event loop was."""
        self._loop_delay.record(seconds)

    def invocation_ended(self, seconds: float, error_code: str | None) -> None:
        """Note how long an invocation ran, and how it failed if it did."""
        code = error_code and self._error_codes.label(error_code)
        self._duration.record(seconds, {_ERROR: code} if code else None)
        self._tally.invocation_ended(seconds, error_code)

    def first_chunk(self, seconds: float) -> None:
        """Note how long an invocation took to its first chunk."""
        self._first_chunk.record(seconds)
        self._tally.first_chunk(seconds)

    def error(self, code: str) -> None:
        """Count an error, by its code (§7)."""
        label = self._error_codes.label(code)
        self._errors.add(1, {_ERROR: label})
        self._tally.error(str(label))

    def socket_ended(self, seconds: float, close_code: int, error_code: str | None) -> None:
        """Note the end of a socket (§8)."""
        attributes: dict[str, str | int] = {_CLOSE: self._close_codes.label(close_code)}
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
