"""Finding one's invocations again: lists of them, page by page (§5)."""

from typing import NamedTuple

from agentws.invocations.caller import Caller
from agentws.protocol.records import ShownStatus
from agentws.stores.listing import Cursor, Query
from agentws.stores.store import Store

USUAL_LIMIT = 20
"""How many invocations a page holds where nobody says how many."""


class Listed(NamedTuple):
    """A page: records as JSON, without results, and the cursor of the next one."""

    records: list[bytes]
    next: str | None


async def list_own(
    store: Store,
    caller: Caller,
    *,
    session_id: str | None = None,
    status: ShownStatus | None = None,
    limit: int | None = None,
    after: str | None = None,
) -> Listed:
    """Return the caller's invocations, the newest first.

    Raises `InvocationError`: `invalid_request` for a cursor that is none, `store_unavailable`.
    """
    query = Query(
        owner=caller.owner,
        session_id=session_id,
        status=status,
        limit=limit or USUAL_LIMIT,
        after=None if after is None else Cursor.read(after),
    )
    page = await store.list(query)
    records = [snapshot.describe_listed() for snapshot in page.found]
    return Listed(records, None if page.next is None else page.next.write())
