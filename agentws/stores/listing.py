"""Lists of invocations, page by page (§5)."""

import base64
from typing import Final, NamedTuple, Self

import msgspec
from msgspec import Struct

from agentws.protocol.errors import InvocationError
from agentws.protocol.records import Record, ShownStatus
from agentws.stores.log import Snapshot

MOST_SCANNED: Final = 1000
"""How many records are looked at for a page, whatever is looked for: nobody else shall wait."""


class Cursor(NamedTuple):
    """A place in a list, which is in the order of these: after the invocation that it names."""

    created_at: float
    invocation_id: str

    @classmethod
    def of(cls, record: Record) -> Self:
        """Return the place after a record."""
        return cls(record.created_at, record.invocation_id)

    @classmethod
    def read(cls, text: str) -> Self:
        """Read what `write` has written. Raises `invalid_request`."""
        try:
            data = base64.urlsafe_b64decode(text.encode("ascii"))
            return cls(*msgspec.json.decode(data, type=tuple[float, str]))
        except (ValueError, msgspec.MsgspecError):
            raise InvocationError("invalid_request", "after must be a cursor") from None

    def write(self) -> str:
        """Return it as clients get it, who need not understand it."""
        return base64.urlsafe_b64encode(msgspec.json.encode(tuple(self))).decode()


class Query(Struct, frozen=True):
    """What is asked for."""

    owner: str | None
    session_id: str | None = None
    status: ShownStatus | None = None
    limit: int = 20
    after: Cursor | None = None


class Page(NamedTuple):
    """What is found; `next` is where the next page begins, None where there is nothing more."""

    found: list[Snapshot]
    next: Cursor | None
