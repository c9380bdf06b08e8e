"""The rule that an invocation belongs to its user: for all others, it does not exist (§5)."""

from typing import TypeVar

from agentws.invocations.caller import Caller
from agentws.protocol.errors import InvocationError
from agentws.protocol.records import Record
from agentws.stores.log import Log, Snapshot

Found = TypeVar("Found", Log, Snapshot)


def check_owner(record: Record, caller: Caller) -> None:
    """Raise `not_found` unless an invocation belongs to the caller."""
    if record.owner != caller.owner:
        raise not_found()


def existing(found: Found | None) -> Found:
    """Return what was found. Raises `not_found` where that is nothing."""
    if found is None:
        raise not_found()
    return found


def not_found() -> InvocationError:
    """Return the answer for an invocation that does not exist, or is another's."""
    return InvocationError("not_found", "There is no such invocation")
