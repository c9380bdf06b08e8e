"""What the values of settings may be, and how those that may not are told of."""

import re
import sys
from collections.abc import Callable
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Final, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field

from agentws.protocol.identifiers import ID_RULE, is_id


def without_credentials(url: str) -> str:
    """Return a URL that may be shown, without user, password and query."""
    # Up to the last "@", because a password may hold a "/" or "@" that nobody escaped.
    bare = re.sub(r"^([a-z][a-z0-9+.-]*://)?.*@", r"\1***@", url, flags=re.I | re.S)
    return re.sub(r"\?.+", "?***", bare, flags=re.S)


def is_loopback(host: str) -> bool:
    """Tell whether an address to listen on is reached from this machine alone."""
    if host.lower() == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def _lower(value: object) -> object:
    return value.lower() if isinstance(value, str) else value


def _is_store_url(url: str) -> bool:
    try:
        parts = urlsplit(url)
        is_there = bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False
    is_redis = parts.scheme in ("redis", "rediss") and is_there and not re.search(r"\s", url)
    return url == "memory://" or (is_redis and bool(re.fullmatch(r"/?[0-9]*", parts.path)))


def _required(test: Callable[[str], object], wish: str) -> AfterValidator:
    def tested(value: str) -> str:
        if not test(value):
            raise ValueError(f"should {wish}")
        return value

    return AfterValidator(tested)


def _with_those_in_files(secrets: tuple[str, ...]) -> tuple[str, ...]:
    """Replace `file:PATH` by the lines of that file, so that secrets need be nowhere else."""
    found: list[str] = []
    for secret in secrets:
        path = secret.removeprefix("file:")
        found += [secret] if path == secret else _lines(Path(path))
    return tuple(found)


def _lines(path: Path) -> list[str]:
    try:
        lines = [line.strip() for line in path.read_text("utf-8-sig").splitlines()]
    except OSError as error:
        raise ValueError(f"should name a file to read, but {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"should name a file in UTF-8, unlike {path}") from error
    if not any(lines):  # a door with no key would be open
        raise ValueError(f"should name a file with a key on each line, but {path} has none")
    return [line for line in lines if line]


def default_log_format() -> str:
    """Return the form of log lines where nobody chooses: text on a terminal, JSON elsewhere."""
    return "text" if sys.stdout.isatty() else "json"


Port = Annotated[int, Field(ge=0, le=65535)]
Count = Annotated[int, Field(gt=0)]
Limit = Annotated[int, Field(ge=0)]
Bytes = Annotated[int, Field(gt=0)]
SomeBytes = Annotated[int, Field(ge=0)]
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]
SomeSeconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Ratio = Annotated[float, Field(ge=0, le=1)]
Text = Annotated[str, Field(min_length=1)]
Texts = tuple[Text, ...]
SessionId = Annotated[str, _required(lambda value: not value or is_id(value), f"be {ID_RULE}")]
StoreUrl = Annotated[
    str,
    _required(
        _is_store_url,
        "be memory://, redis://HOST or rediss://HOST, with :PORT and /DATABASE where needed, and "
        "special characters of a password percent-encoded",
    ),
]
StorePrefix = Annotated[
    str,
    _required(
        re.compile(r"[A-Za-z0-9._-]+").fullmatch, "be letters, digits, dots, underscores and dashes"
    ),
]
HttpUrl = Annotated[
    str, _required(re.compile(r"(https?://\S+)?").fullmatch, "begin with http:// or https://")
]


def _is_endpoint(url: str) -> bool:
    """Tell whether a URL names a server that HTTP can be spoken to."""
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def _is_connection_string(text: str) -> bool:
    """Tell whether a connection string has all that is needed: a key, and a URL if any."""
    pairs = [part.partition("=") for part in text.rstrip("; ").split(";")]
    fields = {name.strip().lower(): value.strip() for name, _, value in pairs}
    endpoint = fields.get("ingestionendpoint")
    return (
        all(sign for _, sign, _ in pairs)
        and bool(fields.get("instrumentationkey"))
        and (endpoint is None or _is_endpoint(endpoint))
    )


Endpoint = Annotated[
    str,
    _required(lambda url: not url or _is_endpoint(url), "be a URL such as http://localhost:4318"),
]
ConnectionString = Annotated[
    str,
    _required(
        lambda text: not text or _is_connection_string(text),
        "look like InstrumentationKey=…;IngestionEndpoint=https://…",
    ),
]
Secrets = Annotated[Texts, AfterValidator(_with_those_in_files)]
_SCHEME: Final = r"[a-z][a-z0-9+.-]*://"
_HOST: Final = r"([a-z0-9_.-]+|\[[0-9a-f:.]+\])(:\d+)?"
OriginPattern = Annotated[
    str,
    _required(
        re.compile(rf"\*|{_SCHEME}(\*\.)?{_HOST}", re.I).fullmatch,
        "be an origin such as https://app.example or https://*.app.example, or *",
    ),
]
IfSessionBusy = Annotated[Literal["parallel", "reject", "interrupt"], BeforeValidator(_lower)]
OnDisconnect = Annotated[Literal["cancel", "continue"], BeforeValidator(_lower)]
StoreAuth = Annotated[Literal["password", "entra"], BeforeValidator(_lower)]
LogFormat = Annotated[Literal["json", "text"], BeforeValidator(_lower)]
EventLoop = Annotated[Literal["auto", "uvloop", "asyncio"], BeforeValidator(_lower)]
LogLevel = Annotated[
    Literal["debug", "info", "warning", "error", "critical"], BeforeValidator(_lower)
]
