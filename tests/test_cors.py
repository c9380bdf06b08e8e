"""Pages of other origins."""

import aiohttp
import pytest

from agentws import Agent, InvocationContext
from tests.conftest import Serve

OURS = "https://app.example"
FOREIGN = "https://elsewhere.example"
ALLOW = "Access-Control-Allow-Origin"


def counting() -> Agent:
    agent = Agent()

    @agent.invoke_handler
    async def invoke(payload: int, context: InvocationContext):  # type: ignore[no-untyped-def]
        for number in range(payload):
            yield number

    return agent


async def test_it_is_off_by_default(serve: Serve) -> None:
    server = await serve(counting())
    async with aiohttp.ClientSession(server.http) as session:
        async with session.post("/invocations", json=1, headers={"Origin": OURS}) as answer:
            assert answer.status == 403
            assert ALLOW not in answer.headers
        wish = {"Origin": OURS, "Access-Control-Request-Method": "POST"}
        async with session.options("/invocations", headers=wish) as answer:
            assert answer.status == 405


async def test_a_preflight_is_answered(serve: Serve) -> None:
    server = await serve(counting(), http={"cors_origins": (OURS,)})
    wish = {
        "Origin": OURS,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "content-type, x-agent-invocation-id",
    }
    async with (
        aiohttp.ClientSession(server.http) as session,
        session.options("/invocations", headers=wish) as answer,
    ):
        assert answer.status == 200
        assert answer.headers[ALLOW] == OURS
        assert answer.headers["Access-Control-Allow-Methods"] == "POST"
        allowed = answer.headers["Access-Control-Allow-Headers"].lower().split(",")
        assert set(allowed) == {"content-type", "x-agent-invocation-id"}


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("POST", "/invocations", 200),
        ("GET", "/invocations/unknown", 404),
        ("POST", "/invocations/unknown/cancel", 404),
        ("GET", "/readiness", 200),
    ],
)
async def test_answers_and_errors_may_be_read_by_pages_of_the_origin(
    serve: Serve, method: str, path: str, status: int
) -> None:
    server = await serve(counting(), http={"cors_origins": (OURS,)})
    async with (
        aiohttp.ClientSession(server.http) as session,
        session.request(method, path, data=b"2", headers={"Origin": OURS}) as answer,
    ):
        assert answer.status == status
        assert answer.headers[ALLOW] == OURS
        exposed = answer.headers["Access-Control-Expose-Headers"].lower().split(",")
        assert {"x-agent-invocation-id", "x-agent-session-id", "location"} <= set(exposed)
        assert await answer.read()


async def test_a_foreign_origin_is_told_nothing(serve: Serve) -> None:
    server = await serve(counting(), http={"cors_origins": (OURS,)})
    async with aiohttp.ClientSession(server.http) as session:
        async with session.post("/invocations", json=1, headers={"Origin": FOREIGN}) as answer:
            assert answer.status == 403
            assert ALLOW not in answer.headers
        wish = {"Origin": FOREIGN, "Access-Control-Request-Method": "POST"}
        async with session.options("/invocations", headers=wish) as answer:
            assert answer.status == 403
            assert (await answer.json())["error"]["code"] == "forbidden"
