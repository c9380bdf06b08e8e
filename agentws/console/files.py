"""The files of the page, as they are answered."""

import gzip
import hashlib
import re
from collections.abc import Iterator, Mapping
from html import escape
from pathlib import Path
from typing import Final

from aiohttp import hdrs, web

STATIC: Final = Path(__file__).with_name("static")

INDEX: Final = "index.html"

_CONTENT_TYPES: Final = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".ico": "image/x-icon",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".woff2": "font/woff2",
}
"""What may be in the folder; whatever else is there is not served."""

_WORTH_IT: Final = 0.9
"""Share of its size that a file may have, compressed, to be sent so."""

_CLIENT: Final = "agentws.js"
"""What others load from here, too, and is therefore given out as it is."""

_COMMENT: Final = re.compile(rb"^[ \t]*/\*\*.*?\*/$", re.MULTILINE | re.DOTALL)
"""A comment of a script that has its lines to itself."""

_NAME_OF_A_HOST: Final = re.compile(r"[A-Za-z0-9.-]+(:[0-9]{1,5})?")

_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'{sockets}; "
    "img-src 'self' data:; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)
"""https://www.w3.org/TR/CSP3/"""

_HEADERS: Final = {
    hdrs.CACHE_CONTROL: "no-cache",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class File:
    """One file, in the forms in which it is sent."""

    def __init__(self, content: bytes, content_type: str) -> None:
        self._content_type = content_type
        tag = hashlib.sha256(content).hexdigest()[:32]
        self._plain = content, tag
        compressed = gzip.compress(content, mtime=0)
        is_worth_it = len(compressed) <= _WORTH_IT * len(content)
        self._compressed = (compressed, f"{tag}-gzip") if is_worth_it else None

    def answer(self, request: web.Request) -> web.Response:
        """Answer a request: the file, or that it has not changed (RFC 9110 §13.1.2)."""
        wants_compressed = self._compressed is not None and _takes_gzip(request)
        body, tag = self._compressed if self._compressed and wants_compressed else self._plain
        if _knows(request, tag):
            response = web.Response(status=304)
        else:
            response = web.Response(body=body, headers={hdrs.CONTENT_TYPE: self._content_type})
            if wants_compressed:
                response.headers[hdrs.CONTENT_ENCODING] = "gzip"
        response.etag = tag
        response.headers.update(guarding_headers(request))
        if self._compressed is not None:
            response.headers[hdrs.VARY] = hdrs.ACCEPT_ENCODING
        return response


def read_files(meta: Mapping[str, str]) -> Mapping[str, File]:
    """Read the files that there are, by their paths in the folder; `meta` goes into the page."""
    return {
        name: File(_to_be_sent(name, content, meta), content_type)
        for name, content, content_type in _contents()
    }


def guarding_headers(request: web.Request) -> Mapping[str, str]:
    """Return the headers that keep the page to itself.

    Not every browser takes `'self'` for sockets, too, so that they are named.
    """
    host = request.headers.get(hdrs.HOST, "")
    sockets = f" ws://{host} wss://{host}" if _NAME_OF_A_HOST.fullmatch(host) else ""
    return {**_HEADERS, "Content-Security-Policy": _POLICY.format(sockets=sockets)}


def _contents() -> Iterator[tuple[str, bytes, str]]:
    """Yield name, content and content type of each file."""
    for path in sorted(STATIC.rglob("*")):
        if path.is_file() and (content_type := _CONTENT_TYPES.get(path.suffix)):
            yield path.relative_to(STATIC).as_posix(), path.read_bytes(), content_type


def _to_be_sent(name: str, content: bytes, meta: Mapping[str, str]) -> bytes:
    """Return what is sent of a file: of the page's own scripts, not the comments."""
    if name == INDEX:
        return _with_meta(content, meta)
    if name.endswith(".js") and name != _CLIENT:
        return _COMMENT.sub(_as_many_lines, content)
    return content


def _as_many_lines(comment: re.Match[bytes]) -> bytes:
    """Return empty lines, so that what a browser says of a line is so of the file."""
    return b"\n" * comment[0].count(b"\n")


def _with_meta(page: bytes, meta: Mapping[str, str]) -> bytes:
    """Return the page with what it has to know, before anything else in its head."""
    tags = "".join(
        f'\n<meta name="{name}" content="{escape(content)}">' for name, content in meta.items()
    )
    return page.replace(b"<head>", b"<head>" + tags.encode(), 1)


def _takes_gzip(request: web.Request) -> bool:
    """Tell whether the client takes gzip (RFC 9110 §12.5.3)."""
    for item in ",".join(request.headers.getall(hdrs.ACCEPT_ENCODING, ())).split(","):
        coding, _, weight = item.partition(";")
        if coding.strip().lower() == "gzip":
            return not re.fullmatch(r"\s*q\s*=\s*0(\.0*)?\s*", weight, re.I)
    return False


def _knows(request: web.Request, tag: str) -> bool:
    return any(each.value in (tag, "*") for each in request.if_none_match or ())
