"""Pages of other origins."""

import aiohttp
import pytest

from agentws import Agent, InvocationContext
from tests.conftest import Serve
from tests.support.peers import HttpPeer

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


EITHER = pytest.mark.parametrize("setting", ["auth.allowed_origins", "http.cors_origins"])


def allowing(setting: str, *origins: str) -> dict[str, dict[str, tuple[str, ...]]]:
    """A configuration that allows origins by one of the two settings."""
    section, _, name = setting.partition(".")
    return {section: {name: origins}}


@EITHER
@pytest.mark.parametrize(
    ("allowed", "origin"),
    [(OURS, OURS), ("https://*.example", OURS), ("*", OURS), ("*", "null")],
)
async def test_an_origin_that_is_allowed_is_allowed_whole(
    serve: Serve, setting: str, allowed: str, origin: str
) -> None:
    server = await serve(counting(), **allowing(setting, "https://first.example", allowed))
    page = {"Origin": origin}
    wish = {**page, "Access-Control-Request-Method": "POST"}
    async with aiohttp.ClientSession(server.http) as session:
        for path in ("/invocations", "/invocations/"):
            async with session.options(path, headers=wish) as answer:
                assert (answer.status, answer.headers[ALLOW]) == (200, origin)
            async with session.post(path, json=1, headers=page) as answer:
                assert (answer.status, answer.headers[ALLOW]) == (200, origin)
                assert b"stream_end" in await answer.read()
        for path, status in (("/nowhere", 404), ("/invocations", 405), ("/invocations_ws/ws", 426)):
            async with session.get(path, headers=page) as answer:
                assert (answer.status, answer.headers[ALLOW]) == (status, origin)
    async with server.connect(headers=page) as client:
        assert (await client.ask(action="ping"))["type"] == "pong"


@EITHER
async def test_an_origin_that_is_not_allowed_is_refused_whole(serve: Serve, setting: str) -> None:
    server = await serve(counting(), **allowing(setting, "https://*.app.example"))
    page = {"Origin": OURS}
    async with aiohttp.ClientSession(server.http) as session:
        async with session.post("/invocations", json=1, headers=page) as answer:
            assert answer.status == 403
            assert ALLOW not in answer.headers
        async with session.get("/readiness", headers=page) as answer:
            assert answer.status == 200  # probes are for anybody; a page of elsewhere reads nothing
            assert ALLOW not in answer.headers


@pytest.mark.parametrize(
    ("name", "status"),
    [
        ("Origin", 403),
        ("Access-Control-Request-Method", 400),
        ("Access-Control-Request-Headers", 400),
        ("Expect", 417),
    ],
)
async def test_odd_bytes_of_a_preflight_are_refused(serve: Serve, name: str, status: int) -> None:
    server = await serve(counting(), http={"cors_origins": ("*",)})
    headers = {"Origin": OURS, "Access-Control-Request-Method": "POST", name: "\xff"}
    async with HttpPeer.connect(server) as peer:
        peer.request("OPTIONS /invocations", *(": ".join(item) for item in headers.items()))
        answered, _, body = await peer.answer()
    assert answered == status
    assert b'"error"' in body


@EITHER
async def test_a_preflight_is_answered(serve: Serve, setting: str) -> None:
    server = await serve(counting(), **allowing(setting, OURS))
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
