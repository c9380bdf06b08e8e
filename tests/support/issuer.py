"""An issuer of tokens: makes them, and serves the keys that they are verified with."""

import json
import time
from collections.abc import Mapping
from typing import Any, Self

import jwt
from aiohttp import web
from aiohttp.test_utils import TestServer
from aiohttp.typedefs import Handler
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

ISSUER = "https://issuer.example"
AUDIENCE = "agents"

Private = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey


def new_rsa() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 2048)


def new_ec() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def public_jwk(key_id: str, private: Private) -> dict[str, Any]:
    """Return the public half as the key server publishes it."""
    if isinstance(private, rsa.RSAPrivateKey):
        return {**RSAAlgorithm.to_jwk(private.public_key(), as_dict=True), "kid": key_id}
    return {**ECAlgorithm.to_jwk(private.public_key(), as_dict=True), "kid": key_id}


class Issuer:
    """A key server on a free port, and the private halves of what it publishes."""

    port: int
    _server: TestServer

    def __init__(self, keys: Mapping[str, Private]) -> None:
        self.keys = dict(keys)
        self.fetches = 0
        """How often the keys were asked for."""

    @classmethod
    async def start(
        cls, keys: Mapping[str, Private], *, port: int | None = None, answer: Handler | None = None
    ) -> Self:
        """Listen, on a free port if on none in particular; `answer` may publish in its own way."""
        issuer = cls(keys)
        app = web.Application()
        app.router.add_get("/keys", answer or issuer.publish)
        issuer._server = TestServer(app, port=port)
        await issuer._server.start_server()
        assert issuer._server.port is not None
        issuer.port = issuer._server.port
        return issuer

    async def stop(self) -> None:
        """Be away from now on."""
        await self._server.close()

    @property
    def url(self) -> str:
        """Where the keys are."""
        return f"http://127.0.0.1:{self.port}/keys"

    async def publish(self, request: web.Request) -> web.StreamResponse:
        """Answer with the keys."""
        self.fetches += 1
        return web.json_response({"keys": [public_jwk(*item) for item in self.keys.items()]})

    @property
    def settings(self) -> dict[str, str]:
        """What a daemon is told of this issuer."""
        return {"jwt_issuer": ISSUER, "jwt_audience": AUDIENCE, "jwks_url": self.url}

    def token(self, key_id: str = "first", /, **claims: Any) -> str:
        """Return a token that is good but for `claims`; None takes one away."""
        return signed(self.keys[key_id], key_id, **claims)


def signed(private: Private, key_id: str | None = "first", /, **claims: Any) -> str:
    """Return a token signed with `private`."""
    good = {"iss": ISSUER, "aud": AUDIENCE, "sub": "alice", "exp": time.time() + 600}
    kept = {name: value for name, value in {**good, **claims}.items() if value is not None}
    algorithm = "RS256" if isinstance(private, rsa.RSAPrivateKey) else "ES256"
    return jwt.encode(kept, private, algorithm, headers={"kid": key_id} if key_id else {})


def segment(value: object) -> str:
    """Return a part of a token."""
    return jwt.utils.base64url_encode(json.dumps(value).encode()).decode()
