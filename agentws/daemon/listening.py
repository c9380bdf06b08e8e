"""The sockets that are listened on, bound before anything else takes time."""

import socket
from typing import Any, Final

_EVERYWHERE: Final = ("", "*", "::")
"""Hosts that stand for every address, of IPv4 and IPv6."""


class BindError(Exception):
    """The address cannot be listened on; the text is one sentence that says why."""


def bind(host: str, port: int) -> list[socket.socket]:
    """Bind, without listening, to every address that `host` stands for. Raises `BindError`."""
    sockets: list[socket.socket] = []
    try:
        for family, address in _addresses(host, port):
            sock = socket.socket(family, socket.SOCK_STREAM)
            sockets.append(sock)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                takes_ipv4 = host in _EVERYWHERE and socket.has_dualstack_ipv6()
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, not takes_ipv4)
            sock.bind(address)
    except (OSError, UnicodeError) as error:  # the latter for what is no name of a host
        for sock in sockets:
            sock.close()
        reason = (isinstance(error, OSError) and error.strerror) or str(error)
        raise BindError(f"cannot listen on {host or '*'} port {port}: {reason}") from error
    return sockets


def _addresses(host: str, port: int) -> list[tuple[int, Any]]:
    """Return families and addresses; one of both families where all are meant, and it is there."""
    if host in _EVERYWHERE:
        host = "::" if host == "::" or socket.has_dualstack_ipv6() else "0.0.0.0"
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    return list(dict.fromkeys((family, address) for family, _, _, _, address in found))
