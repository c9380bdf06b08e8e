"""How many invocations may run at a time: here, and of one connection (§5)."""

from agentws.invocations.caller import Caller
from agentws.protocol.errors import PlatformError


def check_limits(running: int, max_running: int, caller: Caller) -> None:
    """Raise `too_many_invocations` where one more would exceed a limit.

    `running` of at most `max_running` invocations run on this replica.
    """
    if running >= max_running:
        raise _too_many(f"The server runs its limit of {max_running} invocations")
    if caller.max_running is not None and caller.running >= caller.max_running:
        raise _too_many(f"This connection runs its limit of {caller.max_running} invocations")


def _too_many(message: str) -> PlatformError:
    return PlatformError("too_many_invocations", message)
