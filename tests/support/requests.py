"""Requests that no server has taken, for what reads them."""

from aiohttp import web
from aiohttp.test_utils import make_mocked_request


def a_request(
    query: str = "", headers: dict[str, str] | None = None, invocation_id: str = "i"
) -> web.Request:
    """Return a request whose path has this id in the place of `{id}`."""
    return make_mocked_request("GET", f"/{query}", headers, match_info={"id": invocation_id})
