"""How many invocations may run at a time: here, of one connection, and of one user (§5, §8)."""

from agentws.config.settings import InvocationsSettings
from agentws.invocations.caller import Caller
from agentws.invocations.live import LiveInvocations
from agentws.protocol.errors import PlatformError


def check_limits(live: LiveInvocations, settings: InvocationsSettings, caller: Caller) -> None:
    """Raise `too_many_invocations` where one more of the caller's would exceed a limit."""
    if len(live) >= settings.max_running:
        raise _too_many(f"The server runs its limit of {settings.max_running} invocations")
    if caller.max_running is not None and caller.running >= caller.max_running:
        raise _too_many(f"This connection runs its limit of {caller.max_running} invocations")
    most = settings.max_running_per_owner
    # Those who tell no name may be anybody, and are not counted together.
    if most and caller.owner is not None and live.running_of(caller.owner) >= most:
        raise _too_many(f"This user runs the limit of {most} invocations")


def _too_many(message: str) -> PlatformError:
    return PlatformError("too_many_invocations", message)
