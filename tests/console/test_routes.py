"""The page and its files: what they carry, who may have them, and from where."""

import gzip
from collections.abc import Mapping

import pytest
from aiohttp import ClientResponse

from agentws.console.files import STATIC
from tests.conftest import Running, Serve
from tests.support.agents import agent_of, echo
from tests.support.http_client import Session, refusal
from tests.support.peers import HANDSHAKE, exchange

ON = {"enabled": True}
KEYED = {"api_keys": ("one-key",), "query_parameter": "access&token"}

POLICY = {
    "default-src": "'none'",
    "script-src": "'self'",
    "style-src": "'self'",
    "img-src": "'self' data:",
    "frame-ancestors": "'none'",
    "base-uri": "'none'",
    "form-action": "'none'",
}


def policy_of(answer: ClientResponse) -> Mapping[str, str]:
    directives = answer.headers["Content-Security-Policy"].split("; ")
    return {name: value for name, _, value in (each.partition(" ") for each in directives)}


async def test_without_the_setting_there_is_nothing(serve: Serve, session: Session) -> None:
    server = await serve(agent_of(echo))
    for path in ("/console", "/console/", "/console/agentws.js", "/console/state"):
        async with session.get(server.http + path) as answer:
            await refusal(answer, 404, "not_found")


async def test_the_page_is_beside_its_files(serve: Serve, session: Session) -> None:
    server = await serve(agent_of(echo), console=ON)
    async with session.get(f"{server.http}/console?a=b", allow_redirects=False) as answer:
        assert (answer.status, answer.headers["Location"]) == (308, "/console/?a=b")
    async with session.get(f"{server.http}/console?a=b") as answer:
        assert (answer.status, answer.content_type, answer.charset) == (200, "text/html", "utf-8")
        page = await answer.text()
    assert '<meta name="agentws-auth" content="none">' in page
    assert '<meta name="agentws-query-parameter" content="">' in page
    assert "agentws-dev" not in page


async def test_the_page_knows_how_to_let_people_in(serve: Serve, session: Session) -> None:
    server = await serve(agent_of(echo), console=ON, auth=KEYED)
    async with session.get(f"{server.http}/console/") as answer:
        page = await answer.text()
    assert '<meta name="agentws-auth" content="required">' in page
    assert '<meta name="agentws-query-parameter" content="access&amp;token">' in page


async def test_every_file_is_guarded(serve: Serve, session: Session) -> None:
    server = await serve(agent_of(echo), console=ON)
    names = [path.name for path in STATIC.iterdir()]
    assert "agentws.js" in names
    for name in (*names, "", "state"):
        async with session.get(f"{server.http}/console/{name}") as answer:
            assert answer.status == 200
            own = f"127.0.0.1:{server.port}"
            connect = f"'self' ws://{own} wss://{own}"
            assert policy_of(answer) == {**POLICY, "connect-src": connect}
            assert answer.headers["X-Content-Type-Options"] == "nosniff"
            assert answer.headers["Referrer-Policy"] == "no-referrer"
            assert answer.headers["Cache-Control"] == "no-cache"


async def test_the_name_of_a_host_adds_nothing_to_the_policy(
    serve: Serve, session: Session
) -> None:
    server = await serve(agent_of(echo), console=ON, auth={"allowed_origins": ("*",)})
    for host in ("a;script-src", "[::1]:8088", "a'b"):
        async with session.get(f"{server.http}/console/", headers={"Host": host}) as answer:
            assert policy_of(answer) == {**POLICY, "connect-src": "'self'"}


async def test_scripts_of_the_page_go_without_comments(serve: Serve, session: Session) -> None:
    server = await serve(agent_of(echo), console=ON)
    for path in STATIC.glob("*.js"):
        async with session.get(f"{server.http}/console/{path.name}") as answer:
            sent = (await answer.text()).split("\n")
        lines = path.read_text().split("\n")
        assert len(sent) == len(lines)
        if path.name != "agentws.js":
            assert not any("/**" in line for line in sent)
            assert all(line in ("", whole) for line, whole in zip(sent, lines, strict=True))


async def test_the_client_in_javascript_is_given_out(serve: Serve, session: Session) -> None:
    server = await serve(agent_of(echo), console=ON)
    content = (STATIC / "agentws.js").read_bytes()
    url = f"{server.http}/console/agentws.js"
    async with session.get(url, headers={"Accept-Encoding": "identity"}) as answer:
        assert await answer.read() == content
        assert answer.headers["Content-Type"] == "text/javascript; charset=utf-8"
        assert answer.headers["Vary"] == "Accept-Encoding"
        assert "Content-Encoding" not in answer.headers
    async with session.head(url) as answer:
        assert answer.status == 200


@pytest.mark.parametrize(
    ("accepted", "is_compressed"),
    [("gzip", True), ("br;q=1, GZIP;q=0.5", True), ("gzip;q=0", False), ("br", False), ("", False)],
)
async def test_files_are_compressed_for_who_takes_that(
    serve: Serve, accepted: str, is_compressed: bool
) -> None:
    server = await serve(agent_of(echo), console=ON, server={"host": "0.0.0.0"})
    request = "GET /console/agentws.js", f"Accept-Encoding: {accepted}"
    status, headers, body = await exchange(server, *request)
    content = (STATIC / "agentws.js").read_bytes()
    assert (status, headers.get("content-encoding")) == (200, "gzip" if is_compressed else None)
    assert (gzip.decompress(body) if is_compressed else body) == content


async def test_what_has_not_changed_is_not_sent_again(serve: Serve, session: Session) -> None:
    server = await serve(agent_of(echo), console=ON)
    url = f"{server.http}/console/agentws.js"
    tags = []
    for coding in ("gzip", "identity"):
        async with session.get(url, headers={"Accept-Encoding": coding}) as answer:
            tags.append(answer.headers["ETag"])
    assert tags[0] != tags[1]  # strong ones: they tell the bytes that were sent
    assert not any(tag.startswith("W/") for tag in tags)
    for known, status in ((tags[1], 304), (f'"x", {tags[1]}', 304), ("*", 304), (tags[0], 200)):
        headers = {"Accept-Encoding": "identity", "If-None-Match": known}
        async with session.get(url, headers=headers) as answer:
            assert answer.status == status
            assert answer.headers["ETag"] == tags[1]
            assert answer.headers["Cache-Control"] == "no-cache"
            assert "Content-Security-Policy" in answer.headers


@pytest.mark.parametrize(
    "path", ["../routes.py", "%2e%2e/routes.py", "..%2froutes.py", "nothing.js", "x/agentws.js"]
)
async def test_there_are_no_other_files(serve: Serve, path: str) -> None:
    server = await serve(agent_of(echo), console=ON, server={"host": "0.0.0.0"})
    assert (await exchange(server, f"GET /console/{path}"))[0] == 404


async def test_page_and_files_are_open_and_the_state_is_not(serve: Serve, session: Session) -> None:
    server = await serve(agent_of(echo), console=ON, auth=KEYED)
    for path in ("/console", "/console/", "/console/agentws.js", "/console/agentws.js/"):
        async with session.get(server.http + path) as answer:
            assert answer.status == 200
    url = f"{server.http}/console/state"
    for path in (url, f"{url}?access%26token=one-key", f"{url}/"):
        async with session.get(path) as answer:
            await refusal(answer, 401, "unauthorized")
    async with session.get(url, headers={"api-key": "one-key"}) as answer:
        assert answer.status == 200


# Whose pages may call, and by which name


async def statuses(server: Running, session: Session, **headers: str) -> set[int]:
    """Return how the page, the state, the HTTP API and a handshake are answered."""
    found = set()
    for path in ("/console/", "/console/state", "/invocations", "/invocations_ws/ws"):
        upgrade = HANDSHAKE if path == "/invocations_ws/ws" else {}
        async with session.get(server.http + path, headers={**upgrade, **headers}) as answer:
            found.add(answer.status)
    return found


async def test_pages_of_other_origins_may_not_call(serve: Serve, session: Session) -> None:
    server = await serve(agent_of(echo), console=ON)
    own = f"127.0.0.1:{server.port}"
    for origin in ("https://elsewhere.example", "null", f"http://127.0.0.1:{server.port + 1}"):
        assert await statuses(server, session, Host=own, Origin=origin) == {403}
    assert await statuses(server, session, Host=own, Origin=f"http://{own}") == {200, 101}


async def test_another_name_for_loopback_is_refused_on_all_routes(
    serve: Serve, session: Session
) -> None:
    server = await serve(agent_of(echo), console=ON)
    for host in ("elsewhere.example", f"elsewhere.example:{server.port}", "localhost.example", ""):
        assert await statuses(server, session, Host=host, Origin=f"http://{host}") == {421}
    for host in ("localhost", f"LOCALHOST:{server.port}", "[::1]:9", "127.0.0.1:9999"):
        assert await statuses(server, session, Host=host) == {200, 101}


async def test_a_name_among_the_allowed_origins_is_ours(serve: Serve, session: Session) -> None:
    allowed = ("https://8088.tunnel.example", "https://*.wide.example", "http://port.example:9")
    server = await serve(agent_of(echo), console=ON, auth={"allowed_origins": allowed})
    for host in ("8088.tunnel.example", "a.wide.example", "port.example:9"):
        assert await statuses(server, session, Host=host) == {200, 101}
    assert await statuses(server, session, Host="tunnel.example") == {421}


async def test_without_the_console_any_name_will_do(serve: Serve, session: Session) -> None:
    server = await serve(agent_of(echo))
    headers = {"Host": "elsewhere.example"}
    async with session.get(f"{server.http}/invocations", headers=headers) as answer:
        assert answer.status == 200


async def test_on_other_addresses_any_name_will_do(serve: Serve, session: Session) -> None:
    server = await serve(agent_of(echo), console=ON, server={"host": "0.0.0.0"})
    assert await statuses(server, session, Host="agents.example") == {200, 101}
