"""Who is calling: API key, JWT, origin. Knows nothing of invocations."""

import hashlib
import hmac
from collections.abc import Collection, Iterator
from typing import Final

from aiohttp import hdrs, web

from agentws.auth.origins import Hosts, Origins
from agentws.auth.tokens import BadToken, SigningKeys, TokenVerifier
from agentws.config.settings import AuthSettings
from agentws.invocations.caller import Identity
from agentws.protocol.errors import InvocationError
from agentws.transports.handshake import require_upgrade
from agentws.transports.request_fields import IDENTITY
from agentws.transports.routing import leads_nowhere, plain_path

_API_KEY_HEADER: Final = "api-key"


class AccessControl:
    """Lets a request in, or refuses it, before anything else of it is looked at (§1)."""

    def __init__(
        self,
        settings: AuthSettings,
        *,
        origins: Origins,
        hosts: Hosts | None,
        probes: Collection[str],
        pages: Collection[str],
        sockets: Collection[str],
    ) -> None:
        """Guard every route but `probes`; the paths in `sockets` are those of handshakes.

        Whoever asks for `pages` needs no credentials. Where `hosts` is None, any name will do.
        """
        self._origins = origins
        self._hosts = hosts
        self._keys = [_digest(key) for key in settings.api_keys]
        self._signing_keys = SigningKeys(settings.jwks_url) if settings.jwks_url else None
        self._tokens = (
            TokenVerifier(
                issuer=settings.jwt_issuer,
                audience=settings.jwt_audience,
                keys=self._signing_keys,
            )
            if self._signing_keys
            else None
        )
        self._query_parameter = settings.query_parameter
        self._probes = probes
        self._pages = pages
        self._sockets = sockets

    def open(self) -> None:
        """Begin to fetch what tokens are verified with."""
        if self._signing_keys is not None:
            self._signing_keys.open()

    def close(self) -> None:
        """Fetch no more."""
        if self._signing_keys is not None:
            self._signing_keys.close()

    async def admit(self, request: web.Request) -> None:
        """Let a request in, and note what its caller proved to be.

        Raises `InvocationError`: `forbidden` for a name that is not ours, `upgrade_required`,
        `forbidden`, `unauthorized`, in this order. A route that is not there is left to be answered
        so.
        """
        self._check_host(request)
        path = plain_path(request)
        if leads_nowhere(request) or path in self._probes:
            return
        opens_socket = path in self._sockets
        if opens_socket:
            require_upgrade(request)
        self._check_origin(request)
        if request.method == hdrs.METH_OPTIONS:  # a preflight, which carries no credentials
            return
        if (self._keys or self._tokens) and path not in self._pages:
            request[IDENTITY] = await self._identify(request, opens_socket)

    def _check_host(self, request: web.Request) -> None:
        if self._hosts is None:
            return
        for host in request.headers.getall(hdrs.HOST, ()):
            if not self._hosts.admit(host):
                raise InvocationError(
                    "forbidden",
                    "The Host is neither this machine's nor in auth.allowed_origins or "
                    "http.cors_origins",
                    421,
                )

    def _check_origin(self, request: web.Request) -> None:
        if hdrs.ORIGIN not in request.headers:
            return
        host = request.headers.get(hdrs.HOST, "")
        for origin in request.headers.getall(hdrs.ORIGIN):
            if not self._origins.admit(origin, host):
                raise InvocationError(
                    "forbidden",
                    "The Origin is neither this server's nor in auth.allowed_origins or "
                    "http.cors_origins",
                )

    async def _identify(self, request: web.Request, opens_socket: bool) -> Identity:
        """Return who called. Raises `unauthorized` where nothing that was sent opens the door."""
        reason = "Credentials are missing: send an api-key or an Authorization: Bearer header"
        for credential in filter(None, self._credentials(request, opens_socket)):
            if self._is_key(credential):
                return Identity(concealed=self._query_parameter)
            reason = "The credentials open nothing here"
            if self._tokens is not None and credential.count(".") == 2:
                try:
                    subject = await self._tokens.subject(credential)
                except BadToken as error:
                    reason = str(error)
                else:
                    return Identity(subject, self._query_parameter)
        raise InvocationError("unauthorized", reason)

    def _credentials(self, request: web.Request, opens_socket: bool) -> Iterator[str]:
        """Yield what a caller sent to be let in: a token first, because it names somebody."""
        scheme, _, token = request.headers.get(hdrs.AUTHORIZATION, "").partition(" ")
        if scheme.lower() == "bearer":
            yield token.strip()
        if opens_socket and self._query_parameter:
            yield request.query.get(self._query_parameter, "")
        yield request.headers.get(_API_KEY_HEADER, "")

    def _is_key(self, credential: str) -> bool:
        """Compare with every key, in a time that tells nothing of any of them."""
        digest = _digest(credential)
        return sum(hmac.compare_digest(digest, key) for key in self._keys) > 0


def _digest(secret: str) -> bytes:
    """Return what secrets are compared by: of one length, whatever theirs is."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).digest()
