"""Which tokens are good, and where the keys come from."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any

import jwt
import pytest
from aiohttp import web

from agentws.auth import tokens
from agentws.auth.tokens import BadToken, SigningKeys, TokenVerifier
from tests.conftest import PATIENCE
from tests.support.issuer import AUDIENCE, ISSUER, Issuer, Private, new_ec, new_rsa, segment, signed

RSA = new_rsa()
EC = new_ec()
STRANGER = new_rsa()

Start = Callable[..., Awaitable[Issuer]]


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    """Start issuers; they stop at the end."""
    issuers: list[Issuer] = []

    async def begin(**keys: Private) -> Issuer:
        issuers.append(await Issuer.start(keys))
        return issuers[-1]

    yield begin
    for issuer in issuers:
        await issuer.stop()


@asynccontextmanager
async def verifying(issuer: Issuer) -> AsyncIterator[TokenVerifier]:
    """Verify tokens of an issuer whose keys are fetched as in a daemon."""
    keys = SigningKeys(issuer.url)
    keys.open()
    yield TokenVerifier(issuer=ISSUER, audience=AUDIENCE, keys=keys)
    keys.close()


@pytest.mark.parametrize("private", [RSA, EC], ids=["RS256", "ES256"])
async def test_a_good_token_names_its_subject(start: Start, private: Private) -> None:
    issuer = await start(first=private)
    async with verifying(issuer) as verifier:
        assert await verifier.subject(issuer.token()) == "alice"
        assert await verifier.subject(issuer.token(sub="bob")) == "bob"


@pytest.mark.parametrize(
    "claims",
    [
        {"exp": lambda: time.time() - 30},
        {"nbf": lambda: time.time() + 30},
        {"iat": lambda: time.time() + 30},
        {"aud": lambda: ["others", AUDIENCE]},
    ],
    ids=lambda claims: next(iter(claims)),
)
async def test_a_token_may_differ_a_little(start: Start, claims: dict[str, Any]) -> None:
    issuer = await start(first=RSA)
    async with verifying(issuer) as verifier:
        token = issuer.token(**{name: value() for name, value in claims.items()})
        assert await verifier.subject(token) == "alice"


@pytest.mark.parametrize(
    ("claims", "reason"),
    [
        ({"exp": lambda: time.time() - 90}, "has expired"),
        ({"exp": lambda: None}, '"exp" claim'),
        ({"nbf": lambda: time.time() + 90}, "not yet valid"),
        ({"iss": lambda: "https://other.example"}, "issuer"),
        ({"iss": lambda: None}, '"iss" claim'),
        ({"aud": lambda: "others"}, "[Aa]udience"),
        ({"aud": lambda: None}, '"aud" claim'),
        ({"sub": lambda: None}, '"sub" claim'),
        ({"sub": lambda: ""}, "sub is empty"),
        ({"sub": lambda: 5}, "[Ss]ubject"),
        ({"exp": lambda: "soon"}, "Expiration"),
    ],
)
async def test_a_token_that_does_not_hold_is_refused_with_the_reason(
    start: Start, claims: dict[str, Any], reason: str
) -> None:
    issuer = await start(first=RSA)
    async with verifying(issuer) as verifier:
        token = signed_whatever(**{name: value() for name, value in claims.items()})
        with pytest.raises(BadToken, match=reason):
            await verifier.subject(token)


def signed_whatever(**claims: Any) -> str:
    """Sign claims that PyJWT would not encode by itself."""
    if isinstance(claims.get("sub"), int):
        head, _, _ = signed(RSA).split(".")
        body = {"iss": ISSUER, "aud": AUDIENCE, "exp": time.time() + 60, **claims}
        text = f"{head}.{segment(body)}"
        signature = jwt.get_algorithm_by_name("RS256").sign(text.encode(), RSA)
        return f"{text}.{jwt.utils.base64url_encode(signature).decode()}"
    return signed(RSA, **claims)


def unsigned(**header: Any) -> str:
    body = {"iss": ISSUER, "aud": AUDIENCE, "sub": "alice", "exp": time.time() + 60}
    return f"{segment(header)}.{segment(body)}.AA"


@pytest.mark.parametrize(
    ("forge", "reason"),
    [
        (lambda: signed(STRANGER), "Signature verification failed"),
        (lambda: signed(RSA)[:-8] + "AAAAAAAA", "[Ss]ignature|padding"),
        (lambda: signed(EC), "not valid|algorithm"),
        (lambda: signed(RSA, None), "kid"),
        (lambda: signed(RSA, "unknown"), "kid"),
        (lambda: unsigned(alg="none", kid="first"), "RS256 or ES256"),
        (lambda: unsigned(alg="HS256", kid="first"), "RS256 or ES256"),
        (lambda: unsigned(alg="RS512", kid="first"), "RS256 or ES256"),
        (lambda: unsigned(alg=["RS256"], kid="first"), "RS256 or ES256"),
        (lambda: unsigned(kid="first"), "RS256 or ES256"),
        (lambda: unsigned(alg="RS256", kid=5), "kid|[Kk]ey ID"),
        (lambda: unsigned(alg="RS256", kid="first", b64=False, crit=["b64"]), "not valid"),
        (lambda: "a.b.c", "not valid"),
        (lambda: "..", "not valid"),
        (lambda: "é\udcff.a.b", "not valid"),
        (lambda: jwt.utils.base64url_encode(b"[" * 6000).decode() + ".a.b", "not valid"),
        (lambda: jwt.utils.base64url_encode(b"9" * 6000).decode() + ".a.b", "not valid"),
    ],
)
async def test_what_the_issuer_did_not_sign_is_refused(
    start: Start, forge: Callable[[], str], reason: str
) -> None:
    issuer = await start(first=RSA)
    async with verifying(issuer) as verifier:
        with pytest.raises(BadToken, match=reason):
            await verifier.subject(forge())


async def test_a_secret_made_of_the_public_key_signs_nothing(start: Start) -> None:
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    issuer = await start(first=RSA)
    public = RSA.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    text = unsigned(alg="HS256", kid="first").rpartition(".")[0]
    signature = jwt.get_algorithm_by_name("HS256").sign(text.encode(), public)
    async with verifying(issuer) as verifier:
        with pytest.raises(BadToken):
            await verifier.subject(f"{text}.{jwt.utils.base64url_encode(signature).decode()}")


# --- where the keys come from -----------------------------------------------------------------


async def test_a_new_key_is_fetched_when_a_token_names_it(start: Start) -> None:
    issuer = await start(first=RSA)
    async with verifying(issuer) as verifier:
        await verifier.subject(issuer.token())
        issuer.keys["second"] = EC
        assert await verifier.subject(issuer.token("second")) == "alice"
        assert await verifier.subject(issuer.token()) == "alice"
        assert issuer.fetches == 2


async def test_unknown_keys_do_not_hammer_the_key_server(start: Start) -> None:
    issuer = await start(first=RSA)
    async with verifying(issuer) as verifier:
        for number in range(50):
            with pytest.raises(BadToken, match="kid"):
                await verifier.subject(signed(RSA, f"made-up-{number}"))
        assert await verifier.subject(issuer.token()) == "alice"
        assert issuer.fetches <= tokens.MOST_FETCHES


async def test_callers_share_a_fetch(start: Start) -> None:
    issuer = await start(first=RSA)
    async with verifying(issuer) as verifier:
        subjects = await asyncio.gather(*(verifier.subject(issuer.token()) for _ in range(20)))
        assert subjects == ["alice"] * 20
        assert issuer.fetches == 1


async def test_an_agent_that_keeps_all_threads_busy_keeps_no_key_away(start: Start) -> None:
    issuer = await start(first=RSA)
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
    release = threading.Event()
    blocked = asyncio.create_task(asyncio.to_thread(release.wait))
    async with verifying(issuer) as verifier:
        assert await verifier.subject(issuer.token()) == "alice"
        issuer.keys["second"] = EC
        assert await verifier.subject(issuer.token("second")) == "alice"
    release.set()
    await blocked


async def test_a_key_that_is_newer_than_the_fetch_under_way_is_fetched_by_one_more() -> None:
    asked, release = asyncio.Event(), asyncio.Event()

    async def publish(request: web.Request) -> web.StreamResponse:
        answer = await issuer.publish(request)
        asked.set()
        await release.wait()
        return answer

    issuer = await Issuer.start({"first": RSA}, answer=publish)
    async with verifying(issuer) as verifier:
        await asked.wait()
        issuer.keys["second"] = EC
        token = issuer.token("second")
        subjects = [asyncio.create_task(verifier.subject(token)) for _ in range(20)]
        await asyncio.sleep(0)  # all of them have asked for the key
        release.set()
        assert await asyncio.gather(*subjects) == ["alice"] * 20
        assert issuer.fetches == 2
    await issuer.stop()


async def test_with_the_key_server_away_known_keys_go_on(start: Start) -> None:
    issuer = await start(first=RSA)
    async with verifying(issuer) as verifier:
        await verifier.subject(issuer.token())
        await issuer.stop()
        with pytest.raises(BadToken, match="kid"):
            await verifier.subject(signed(EC, "second"))
        assert await verifier.subject(signed(RSA)) == "alice"


async def test_the_key_server_may_come_after_the_daemon(start: Start) -> None:
    issuer = await start(first=RSA)
    await issuer.stop()
    async with verifying(issuer) as verifier:
        with pytest.raises(BadToken, match="kid"):
            await verifier.subject(signed(RSA))
        again = await Issuer.start({"first": RSA}, port=issuer.port)
        assert await verifier.subject(signed(RSA)) == "alice"
        await again.stop()


async def using(verifier: TokenVerifier, token: str) -> None:
    """Come again and again with the same token."""
    while True:
        await verifier.subject(token)
        await asyncio.sleep(0)


async def test_a_key_that_was_withdrawn_is_forgotten(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokens, "KEYS_AGE", 0.05)
    issuer = await start(first=RSA, second=EC)
    async with verifying(issuer) as verifier:
        token = issuer.token("second")
        assert await verifier.subject(token) == "alice"
        del issuer.keys["second"]
        async with asyncio.timeout(PATIENCE):
            with pytest.raises(BadToken, match="kid"):
                await using(verifier, token)


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"{}", b'{"keys": []}', b'{"keys": [{"kty": "RSA"}]}', b"\xff", b"[" * 9999],
)
async def test_a_key_server_may_answer_nonsense(body: bytes) -> None:
    async def publish(request: web.Request) -> web.StreamResponse:
        return web.Response(body=body)

    issuer = await Issuer.start({"first": RSA}, answer=publish)
    async with verifying(issuer) as verifier:
        with pytest.raises(BadToken, match="kid"):
            await verifier.subject(issuer.token())
    await issuer.stop()


async def test_a_key_server_that_does_not_answer_keeps_nobody_with_a_known_key_waiting() -> None:
    silent = asyncio.Event()

    async def publish(request: web.Request) -> web.StreamResponse:
        if issuer.fetches > 1:
            await silent.wait()
        return await issuer.publish(request)

    issuer = await Issuer.start({"first": RSA}, answer=publish)
    async with verifying(issuer) as verifier:
        await verifier.subject(issuer.token())
        issuer.fetches = 2
        stuck = asyncio.create_task(verifier.subject(signed(EC, "second")))
        async with asyncio.timeout(tokens.FETCH_PATIENCE / 2):
            assert await verifier.subject(issuer.token()) == "alice"
        assert not stuck.done()
        silent.set()
        with pytest.raises(BadToken, match="kid"):
            await stuck
    await issuer.stop()
