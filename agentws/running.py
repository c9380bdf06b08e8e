"""The agent as authors have it: it can also start its daemon, which its own wing knows nothing of.

Imported with `agentws` itself, it brings in the daemon only when that is to run.
"""

import os
import sys
from collections.abc import Mapping

from agentws.agent import handlers
from agentws.agent.loading import is_loading
from agentws.config.otel_variables import forget_empty
from agentws.daemon.process import leave, open_streams, start_without_pauses
from agentws.daemon.signals import Signals, Stopped


class Agent(handlers.Agent):
    """An agent: one invoke handler for every transport, and optional others.

    `openapi`, `asyncapi` and `subprotocols`, and what the decorators raise, are told by
    `handlers.Agent`; what is added is `run`.
    """

    def run(self, host: str | None = None, port: int | None = None) -> None:
        """Serve this agent until a signal, then exit the process.

        `host` and `port` rank as the flags of `agentws serve` do; all else comes from the
        environment and the defaults. While a daemon imports the module, it serves the agent itself,
        and this returns at once.
        """
        if is_loading():
            return
        open_streams()
        start_without_pauses()
        forget_empty(os.environ)
        try:
            code = self._serve({"server.host": host, "server.port": port}, Signals())
        except Stopped:
            code = 0
        leave(code)

    def _serve(self, flags: Mapping[str, object], signals: Signals) -> int:
        from agentws.config.requirements import PackageError, needed

        try:
            with needed():
                from agentws.config.sources import ConfigError, load
                from agentws.daemon.run import START_ERRORS, run
        except PackageError as error:
            return _refuse(error)
        try:
            loaded = load(flags=flags, program=self.daemon_settings)
            return run(loaded, self, signals)
        except (ConfigError, *START_ERRORS) as error:
            return _refuse(error)


def _refuse(error: Exception) -> int:
    for sentence in str(error).splitlines():
        print(f"agentws: {sentence}", file=sys.stderr)  # noqa: T201 - the start-up error
    return 2
