"""Tokens of the platform's managed identity, by which Redis knows us (`store.auth = "entra"`).

Not by redis-entraid, which hands new tokens to the pools of redis-py's clients: our connections are
in none. And by azure-identity's blocking credential, in a thread of its own: the asynchronous one
asks for no new token within 30 s, and hands out the old one until it expires.
"""

import asyncio
import base64
import contextlib
import json
import logging
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Final, NamedTuple

from redis.credentials import CredentialProvider

from agentws.config.requirements import needed
from agentws.stores.redis.failures import NoToken

_logger: Final = logging.getLogger("agentws.store")

SCOPE: Final = "https://redis.azure.com/.default"

FIRST_TOKEN_PATIENCE: Final = 0.8
"""Seconds for which a connection waits for a token where there is none."""

FETCH_PATIENCE: Final = 5
"""Seconds that the platform may take to connect, and to answer."""

SHORTEST_PAUSE: Final = 0.5
RETRY_PAUSE: Final = 1.0
"""Seconds between two requests for a token, at least; and after one that failed."""


class Token(NamedTuple):
    """A token, and whom it names."""

    user: str
    """The object id of the identity, which is its name in Redis."""
    text: str
    expires_at: float
    """In seconds since the epoch."""


class Identity(CredentialProvider):
    """The managed identity of this process; `keep` has a token ready before the last one expires.

    `AZURE_CLIENT_ID` names the identity where its platform has assigned more than one.
    """

    def __init__(self) -> None:
        """Raise `PackageError` where azure-identity is missing."""
        with needed():
            from azure.identity import ManagedIdentityCredential
        # Both tell of each failure at length; what there is to be told, we tell once.
        for name in ("azure.identity", "azure.core.pipeline.policies.http_logging_policy"):
            logging.getLogger(name).setLevel(logging.ERROR)
        self._new_credential: Callable[[], ManagedIdentityCredential] = partial(
            ManagedIdentityCredential,
            client_id=os.environ.get("AZURE_CLIENT_ID") or None,
            retry_total=0,
            connection_timeout=FETCH_PATIENCE,
            read_timeout=FETCH_PATIENCE,
        )
        self._credential = self._new_credential()
        self._thread = ThreadPoolExecutor(1, "agentws-identity")
        self.token: Token | None = None
        """The newest one."""
        self._arrived = asyncio.Event()
        self._wanted = asyncio.Event()
        self._trouble = ""

    async def get_credentials_async(self) -> tuple[str, str]:
        """Return user and password for redis-py. Raises `NoToken`."""
        if not self._is_valid:
            self._arrived.clear()
            self._wanted.set()
            try:
                async with asyncio.timeout(FIRST_TOKEN_PATIENCE):
                    await self._arrived.wait()
            except TimeoutError:
                raise NoToken(self._trouble or "No token has come yet") from None
        assert self.token is not None
        return self.token.user, self.token.text

    async def keep(self) -> None:
        """Fetch tokens for ever, each when the half of the last one's time that is left is over.

        The platform may hand out the same token until its end is near; so it is asked again and
        again, at ever shorter intervals. It is asked at once where a token has ended before that:
        the clock may have jumped, as in a machine that was saved and restored.
        """
        while True:
            try:
                self.token = await self._fetch()
            except Exception as error:  # of the platform, the network, or what the token is like
                self._complain(error)
                self._credential.close()
                self._credential = self._new_credential()  # the old one fails for 5 s, unasked
                await asyncio.sleep(RETRY_PAUSE)
            else:
                self._trouble = ""
                self._arrived.set()
                await self._until_wanted((self.token.expires_at - time.time()) / 2)

    def close(self) -> None:
        """Fetch no more, after `keep` has ended."""
        self._thread.shutdown(wait=False)
        self._credential.close()

    async def _until_wanted(self, pause: float) -> None:
        await asyncio.sleep(SHORTEST_PAUSE)
        self._wanted.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(pause - SHORTEST_PAUSE):
                await self._wanted.wait()

    @property
    def _is_valid(self) -> bool:
        return self.token is not None and time.time() < self.token.expires_at

    async def _fetch(self) -> Token:
        loop = asyncio.get_running_loop()
        fetched = await loop.run_in_executor(self._thread, self._credential.get_token, SCOPE)
        if self.token is not None and fetched.token == self.token.text:
            return self.token
        return Token(_object_id(fetched.token), fetched.token, fetched.expires_on)

    def _complain(self, error: Exception) -> None:
        text = " ".join(str(error).split()) or type(error).__name__
        if not self._trouble:
            _logger.warning("The managed identity gives no token for Redis: %s", text)
        self._trouble = f"No token from the managed identity: {text}"


def _object_id(token: str) -> str:
    """Return the claim `oid` of a token, which is for Redis to verify. Raises `ValueError`."""
    try:
        payload = token.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        return str(claims["oid"])
    except (IndexError, KeyError, TypeError, ValueError):
        raise ValueError("its token has no claim oid, by which Redis would know it") from None
