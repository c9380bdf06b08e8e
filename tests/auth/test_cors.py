"""Pages of other origins."""

import pytest

from agentws import Agent, InvocationContext
from tests.conftest import Running, Serve
from tests.support.http_client import Session
from tests.support.peers import exchange

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


def wishing(origin: str) -> dict[str, str]:
    """Return the headers with which a browser asks whether a page may post."""
    return {"Origin": origin, "Access-Control-Request-Method": "POST"}


async def assert_refused(session: Session, server: Running, origin: str) -> None:
    """Check that a page may not post, and may not read why."""
    url, page = f"{server.http}/invocations", {"Origin": origin}
    async with session.post(url, json=1, headers=page) as answer:
        assert answer.status == 403
        assert ALLOW not in answer.headers


async def test_it_is_off_by_default(serve: Serve, session: Session) -> None:
    server = await serve(counting())
    await assert_refused(session, server, OURS)
    async with session.options(f"{server.http}/invocations", headers=wishing(OURS)) as answer:
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
    serve: Serve, session: Session, setting: str, allowed: str, origin: str
) -> None:
    server = await serve(counting(), **allowing(setting, "https://first.example", allowed))
    page = {"Origin": origin}
    for path in ("/invocations", "/invocations/"):
        async with session.options(server.http + path, headers=wishing(origin)) as answer:
            assert (answer.status, answer.headers[ALLOW]) == (200, origin)
        async with session.post(server.http + path, json=1, headers=page) as answer:
            assert (answer.status, answer.headers[ALLOW]) == (200, origin)
            assert b"stream_end" in await answer.read()
    for path, status in (
        ("/nowhere", 404),
        ("/invocations/i/cancel", 405),
        ("/invocations_ws/ws", 426),
    ):
        async with session.get(server.http + path, headers=page) as answer:
            assert (answer.status, answer.headers[ALLOW]) == (status, origin)
    async with server.connect(headers=page) as client:
        assert (await client.ask(action="ping"))["type"] == "pong"


@EITHER
async def test_an_origin_that_is_not_allowed_is_refused_whole(
    serve: Serve, session: Session, setting: str
) -> None:
    server = await serve(counting(), **allowing(setting, "https://*.app.example"))
    await assert_refused(session, server, OURS)
    async with session.get(f"{server.http}/readiness", headers={"Origin": OURS}) as answer:
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
    headers = {**wishing(OURS), name: "\xff"}
    answered, _, body = await exchange(
        server, "OPTIONS /invocations", *(": ".join(item) for item in headers.items())
    )
    assert answered == status
    assert b'"error"' in body


@EITHER
async def test_a_preflight_is_answered(serve: Serve, session: Session, setting: str) -> None:
    server = await serve(counting(), **allowing(setting, OURS))
    wanted = "content-type, x-agent-invocation-id"
    wish = {**wishing(OURS), "Access-Control-Request-Headers": wanted}
    async with session.options(f"{server.http}/invocations", headers=wish) as answer:
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
    serve: Serve, session: Session, method: str, path: str, status: int
) -> None:
    server = await serve(counting(), http={"cors_origins": (OURS,)})
    page = {"Origin": OURS}
    async with session.request(method, server.http + path, data=b"2", headers=page) as answer:
        assert answer.status == status
        assert answer.headers[ALLOW] == OURS
        exposed = answer.headers["Access-Control-Expose-Headers"].lower().split(",")
        assert {"x-agent-invocation-id", "x-agent-session-id", "location"} <= set(exposed)
        assert await answer.read()


async def test_a_foreign_origin_is_told_nothing(serve: Serve, session: Session) -> None:
    server = await serve(counting(), http={"cors_origins": (OURS,)})
    await assert_refused(session, server, FOREIGN)
    async with session.options(f"{server.http}/invocations", headers=wishing(FOREIGN)) as answer:
        assert answer.status == 403
        assert (await answer.json())["error"]["code"] == "forbidden"
