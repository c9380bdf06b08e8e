"""How a command reaches a server: its options, and the client that they make."""

from __future__ import annotations

import asyncio
import functools
import re
import shlex
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import click

from agentws.cli.ending import Complaint

if TYPE_CHECKING:
    from agentws.client import Client, ConnectionFailed, InvocationFailed

_CLOSING: Final = 1.0
"""Seconds that a connection has to close."""

_LOCAL: Final = re.compile(r"(localhost|127\.[\d.]+|\[::1\])(:\d+)?([/?].*)?", re.IGNORECASE)
"""Servers that may be named without a scheme, as nobody listens on the way."""

_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~\w-]+", re.ASCII)
_VALUE: Final = re.compile(r"[^\x00-\x08\x0a-\x1f\x7f]*")
"""What may stand in a field of a header (RFC 9110 §5)."""


def _headers(
    _context: click.Context, _option: click.Parameter, given: tuple[str, ...]
) -> dict[str, str]:
    fields = {}
    for field in given:
        name, colon, value = field.partition(":")
        if not (colon and _NAME.fullmatch(name) and _VALUE.fullmatch(value)):
            raise click.BadParameter(f"{field!r} does not look like 'Name: value'.")
        fields[name] = value.strip()
    return fields


def _in_a_header(
    _context: click.Context, _option: click.Parameter, given: str | None
) -> str | None:
    if given is not None and not (given and _VALUE.fullmatch(given)):
        raise click.BadParameter("it cannot be sent in a header.")
    return given


_OPTIONS = (
    click.argument("url"),
    click.argument("payload", metavar="[PAYLOAD | -]", required=False),
    click.option(
        "--header",
        "headers",
        multiple=True,
        callback=_headers,
        metavar="'NAME: VALUE'",
        help="A header of the handshake; may be repeated.",
    ),
    click.option(
        "--api-key", callback=_in_a_header, metavar="KEY", help="The server's key, for you."
    ),
    click.option(
        "--token-command",
        metavar="COMMAND",
        help="A command of the shell that prints a token; it is run for each connection.",
    ),
    click.option(
        "--connect-timeout",
        type=click.FloatRange(min=0, min_open=True),
        default=5.0,
        show_default=True,
        metavar="SECONDS",
        help="How long the first connection may take.",
    ),
)


class Reach:
    """The server of a command, and how it is reached."""

    def __init__(
        self,
        url: str,
        *,
        headers: Mapping[str, str],
        api_key: str | None,
        token_command: str | None,
        connect_timeout: float,
    ) -> None:
        """Take the options. Raises `Complaint` for a URL that is none."""
        self._given_url = url
        self._url = _full_url(url)
        self._headers = headers
        self._api_key = api_key
        self._token_command = token_command
        self._token = ""
        """The first one, which all clients begin with."""
        self._connect_timeout = connect_timeout

    def again(self, *arguments: str) -> str:
        """Return the command line that invokes with other arguments; secrets are left out."""
        words = ["agentws", "invoke", self._given_url, *arguments]
        if self._token_command is not None:
            words += ["--token-command", self._token_command]
        return shlex.join(words)

    async def client(self) -> Client:
        """Return a client that is not connected yet. Raises `Complaint`."""
        import aiohttp  # noqa: F401 - or the time that it takes would be the connection's

        from agentws.client import connect

        token = None
        if self._token_command is not None:
            self._token = self._token or await _token_of(self._token_command)
            token = _TokenCommand(self._token_command, self._token)
        return connect(
            self._url,
            headers=self._headers,
            api_key=self._api_key,
            token=token,
            connect_timeout=self._connect_timeout,
        )


def reaching(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the `reach` of a server, by options that lead there, and a `payload`."""

    @functools.wraps(command)
    def reached(
        url: str,
        headers: Mapping[str, str],
        api_key: str | None,
        token_command: str | None,
        connect_timeout: float,
        **others: Any,
    ) -> None:
        reach = Reach(
            url,
            headers=headers,
            api_key=api_key,
            token_command=token_command,
            connect_timeout=connect_timeout,
        )
        command(reach=reach, **others)

    for option in reversed(_OPTIONS):
        reached = option(reached)
    return reached


@asynccontextmanager
async def entered(client: Client) -> AsyncIterator[Client]:
    """Use a client, and do not wait for long until it is closed."""
    await client.__aenter__()
    try:
        yield client
    finally:
        await asyncio.wait({asyncio.create_task(client.close())}, timeout=_CLOSING)


def _full_url(given: str) -> str:
    """Return a URL that the client takes. Raises `Complaint`."""
    url = f"http://{given}" if _LOCAL.fullmatch(given) else given
    scheme, sign, rest = url.partition("://")
    if not sign or scheme.lower() not in ("ws", "wss", "http", "https"):
        wish = "begin with ws://, wss://, http:// or https://; localhost:PORT alone will do, too"
        raise Complaint(f"URL {given!r} should {wish}")
    try:
        parts = urlsplit(url)
        is_usable = bool((parts.hostname or "").encode("idna")) and parts.port != 0
    except ValueError as error:
        raise Complaint(f"URL {given!r} is none: {_cause(error)}") from error
    if not is_usable:
        raise Complaint(f"URL {given!r} should name a host, and no port 0")
    # Nothing but the framed socket can be meant where a socket's URL has no path.
    if parts.path.strip("/"):
        return url
    return f"{scheme.lower().replace('ws', 'http')}://{rest}"


def _cause(error: ValueError) -> object:
    """Return what was wrong, which encodings wrap in more words."""
    return error.__cause__ or error


class _TokenCommand:
    """Asks a command for a token at each connect but the first one.

    The first token is there before the client is, so that a command that does not work is told of
    at once, and no connection waits for it.
    """

    def __init__(self, command: str, token: str) -> None:
        self._command = command
        self._first: str | None = token

    async def __call__(self) -> str:
        """Return a token. Raises `Complaint`."""
        token, self._first = self._first, None
        return await _token_of(self._command) if token is None else token


async def _token_of(command: str) -> str:
    process = await asyncio.create_subprocess_shell(
        command, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE
    )
    try:
        printed, _ = await process.communicate()
    except BaseException:
        process.kill()
        raise
    if process.returncode != 0:
        raise Complaint(f"--token-command ended with exit code {process.returncode}")
    token = printed.decode(errors="replace").strip()
    if not token or not _VALUE.fullmatch(token):
        raise Complaint("--token-command should print a token, on one line")
    return token


def payload_of(given: str | None) -> Any:
    """Return the payload that an argument stands for; `-` is what stdin has.

    What is no JSON is a message. Raises `click.UsageError`.
    """
    import msgspec

    if given is None:
        return {}
    try:
        text = sys.stdin.buffer.read().decode() if given == "-" else given.encode().decode()
        if given == "-" and not text.strip():
            return {}
        return msgspec.json.decode(text)
    except UnicodeError:
        raise click.UsageError("PAYLOAD is not UTF-8.") from None
    except RecursionError:
        raise click.UsageError("PAYLOAD nests too deeply.") from None
    except msgspec.DecodeError:
        return {"message": text.rstrip("\n") if given == "-" else text}


_ADVICE: Final[Mapping[int, str]] = {
    400: "Correct the query of the URL, or what --header gives.",
    401: "Give a key or token that it takes: --api-key, --token-command.",
    403: "Use credentials that may do this: --api-key, --token-command.",
    404: "Check the URL: http://HOST stands for its /invocations_ws/ws.",
}


def connection_advice(failure: ConnectionFailed) -> str:
    """Return why there is no connection and what to do about it."""
    known = _ADVICE.get(failure.status or 0)
    if known is None:
        known = failure.advice if failure.status else "Check the URL and that the server runs."
    return f"{failure.reason}. {known}"


def failure_advice(failure: InvocationFailed, invocation_id: str) -> str:
    """Return how an invocation failed and what to do about it."""
    error = failure.error
    match failure.code:
        case "already_exists":
            advice = f"Follow it with --attach {invocation_id}, or give another --id."
        case "session_busy" if "running_invocation_id" in error:
            advice = f"Follow the one that runs with --attach {error['running_invocation_id']}."
        case "replay_gap" if isinstance(first := error.get("first_available"), int):
            advice = f"Go on from what is left with --starting-after {first - 1}."
        case "cancelled" if isinstance(reason := error.get("reason"), str):
            advice = f"The reason is {reason}."
        case _:
            advice = failure.advice
    message = " ".join(failure.message.split()).rstrip(".") or "no reason was given"
    return f"{failure.code}: {message}. {advice}"
