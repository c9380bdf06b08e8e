"""JSON Web Tokens (RFC 7519): whether one is good, and whom it names.

PyJWT is imported where tokens are used, because it brings a large library along.
"""

import asyncio
import contextlib
import logging
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final

from agentws.config.requirements import needed

if TYPE_CHECKING:
    from jwt import PyJWK

_logger: Final = logging.getLogger("agentws.tokens")

ALGORITHMS: Final = ("RS256", "ES256")
"""Asymmetric ones alone: nobody who knows a public key can sign with it."""

LEEWAY: Final = 60.0
"""Seconds by which clocks may differ."""

KEYS_AGE: Final = 300.0
"""Seconds after which the keys are fetched again, so that one that was withdrawn is forgotten."""

RETRY_PAUSE: Final = 30.0
"""Seconds after which they are where that failed."""

FETCH_PATIENCE: Final = 5.0
"""Seconds that a caller waits for its key to be fetched."""

MOST_FETCHES: Final = 3
FETCH_PERIOD: Final = 5.0
"""The keys are fetched at most so often within so many seconds, whatever callers send."""


class BadToken(Exception):
    """A token that opens nothing; the text says why."""


class SigningKeys:
    """The public keys of the issuer, by their ids.

    They are fetched off the event loop, one fetch at a time: now and then, and when a token names
    an unknown one. While the key server is away, the keys that are known go on. The thread is of
    its own, for an agent may keep those of `asyncio.to_thread` busy.
    """

    def __init__(self, url: str) -> None:
        with needed():
            from jwt import PyJWKClient
        self._client = PyJWKClient(url, cache_jwk_set=False, timeout=FETCH_PATIENCE)
        self._thread = ThreadPoolExecutor(1, "agentws-keys")
        self._keys: dict[str, PyJWK] = {}
        self._begun: deque[float] = deque(maxlen=MOST_FETCHES)
        self._fetch: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None

    def open(self) -> None:
        """Begin to fetch the keys, and keep them fresh until `close`."""
        self._fetch = asyncio.create_task(self._fetch_all())

    def close(self) -> None:
        """Fetch no more."""
        if self._fetch is not None:
            self._fetch.cancel()
        if self._timer is not None:
            self._timer.cancel()
        self._thread.shutdown(wait=False)

    async def find(self, key_id: str) -> "PyJWK | None":
        """Return the key, None where the issuer has none of that id or does not answer in time."""
        if key_id not in self._keys:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(FETCH_PATIENCE):
                    await self._look_for(key_id)
        return self._keys.get(key_id)

    async def _look_for(self, key_id: str) -> None:
        """Wait for a fetch, and for a second one where the first may be older than the key."""
        older = self._fetch
        if older is not None and not older.done():
            await asyncio.wait({older})
        if key_id not in self._keys and (fetch := self._fetch_under_way()) is not None:
            await asyncio.wait({fetch})

    def _fetch_under_way(self) -> "asyncio.Task[None] | None":
        """Return a fetch to wait for, None where there were too many lately."""
        if self._fetch is not None and not self._fetch.done():
            return self._fetch
        if len(self._begun) == MOST_FETCHES and time.monotonic() < self._begun[0] + FETCH_PERIOD:
            return None
        self.open()
        return self._fetch

    async def _fetch_all(self) -> None:
        """Fetch the keys; where that fails, for whatever reason, those known are kept."""
        self._begun.append(time.monotonic())
        if self._timer is not None:
            self._timer.cancel()
        pause = RETRY_PAUSE
        try:
            loop = asyncio.get_running_loop()
            keys = await loop.run_in_executor(self._thread, self._client.get_signing_keys)
            self._keys = {key.key_id: key for key in keys if key.key_id is not None}
            pause = KEYS_AGE
        except Exception as error:
            _logger.warning("The keys of tokens could not be fetched: %s", error)
        self._timer = asyncio.get_running_loop().call_later(pause, self.open)


def fetch_keys(url: str, patience: float) -> None:
    """Fetch the keys of an issuer once, to see that there are some; this blocks.

    Each read may take `patience` seconds. Raises `jwt.PyJWTError`.
    """
    from jwt import PyJWKClient

    PyJWKClient(url, cache_jwk_set=False, timeout=patience).get_signing_keys()


class TokenVerifier:
    """Tells whom a token names, if it was made by the issuer for this audience."""

    def __init__(self, *, issuer: str, audience: str, keys: SigningKeys) -> None:
        self._issuer = issuer
        self._audience = audience
        self._keys = keys

    async def subject(self, token: str) -> str:
        """Return the token's `sub`. Raises `BadToken`.

        A token must name its key, expire, and have a subject: all whom it left nameless would
        share what they start.
        """
        import jwt

        try:
            header = jwt.get_unverified_header(token)
            if header.get("alg") not in ALGORITHMS:
                raise BadToken(f"The token must be signed with {' or '.join(ALGORITHMS)}")
            claims = jwt.decode(
                token,
                await self._key(header.get("kid")),
                algorithms=ALGORITHMS,
                issuer=self._issuer,
                audience=self._audience,
                leeway=LEEWAY,
                options={"require": ["exp", "iss", "aud", "sub"]},
            )
        except (jwt.PyJWTError, ValueError, RecursionError) as error:
            raise BadToken(f"The token is not valid: {error}") from None
        if not claims["sub"]:
            raise BadToken("The token is not valid: its sub is empty")
        return str(claims["sub"])

    async def _key(self, key_id: object) -> "PyJWK":
        if not isinstance(key_id, str):
            raise BadToken("The token must name its key (kid)")
        key = await self._keys.find(key_id)
        if key is None:
            raise BadToken("The token's key (kid) is not known")
        return key
