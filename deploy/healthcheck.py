"""Tells Docker whether the daemon in this container is ready: exit code 0, or 1 with the reason.

It starts every few seconds, so it imports the standard library only and reads host and port from
the variables that set them; a port that is set by file or flag has to be repeated in PORT.
"""

import http.client
import os
import sys

TIMEOUT = 2.5
"""Seconds: longer than the agent's readiness handler may take, and shorter than Docker waits."""

EVERYWHERE = ("*", "::")


def main() -> str | None:
    """Ask `/readiness`, and return what is wrong."""
    host = os.environ.get("AGENTWS_SERVER__HOST") or "127.0.0.1"
    host = "127.0.0.1" if host in EVERYWHERE else host
    port = os.environ.get("AGENTWS_SERVER__PORT") or os.environ.get("PORT") or "8088"
    try:
        connection = http.client.HTTPConnection(host, int(port), timeout=TIMEOUT)
        connection.request("GET", "/readiness")
        answer = connection.getresponse()
        return None if answer.status == 200 else answer.read().decode()
    except (OSError, ValueError, http.client.HTTPException) as error:
        return f"no answer from {host} port {port}: {error}"


if __name__ == "__main__":
    sys.exit(main())
