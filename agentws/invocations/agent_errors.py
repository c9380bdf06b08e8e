"""What an agent's exception is to a client: an error with a code, its text in our log only (§7)."""

import logging
from asyncio import CancelledError
from typing import Final

from agentws.protocol.errors import InvocationError, internal_error

_logger: Final = logging.getLogger("agentws.invocations")


def error_for_client(raised: BaseException, stop: InvocationError | None) -> InvocationError:
    """Return what a client sees of an exception that left the invoke handler.

    `stop` is the reason for which the handler was stopped, where it was: that is what ended it,
    whatever it raised while it cleaned up.
    """
    if isinstance(raised, CancelledError) and stop is not None:
        return stop
    if isinstance(raised, InvocationError):
        return stop or raised
    _logger.error("The invoke handler raised", exc_info=raised)
    return stop or internal_error()
