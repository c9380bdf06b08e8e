"""What goes wrong with a Redis, and whether it will pass."""

import re
from typing import Final

from redis.exceptions import (
    AskError,
    AuthenticationError,
    AuthorizationError,
    BusyLoadingError,
    ClusterDownError,
    MovedError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
    TryAgainError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError


class NoToken(RedisConnectionError):
    """There is no token to authenticate with, or only one that has expired."""


TIMEOUT: Final = 1.4
"""Seconds for which Redis may keep us waiting. Who has to wait for others before him waits twice
as long at most, which is within the 3 s of §10."""

FAILURES: Final = (RedisError, OSError, TimeoutError)

_PASSING: Final = (
    AskError,  # and MovedError, which is one
    BusyLoadingError,
    ClusterDownError,
    OutOfMemoryError,
    ReadOnlyError,
    TryAgainError,
)
_PASSING_WORDS: Final = re.compile(
    # A script's error begins with the place in the script (Redis 6).
    "(^|-)(BUSY|CLUSTERDOWN|LOADING|MASTERDOWN|MISCONF|NOREPLICAS|OOM|READONLY|TRYAGAIN)\\b"
    # And in a cluster it tells nothing but this of a slot that moves.
    "|non local key in a cluster|while the cluster is down"
)


def will_pass(error: object) -> bool:
    """Tell whether a reply says "not me" or "not now": a fail-over, a start, a Redis that is full.

    https://redis.io/docs/latest/develop/reference/protocol-spec/#simple-errors
    """
    if isinstance(error, _PASSING):
        return True
    return isinstance(error, ResponseError) and _PASSING_WORDS.search(str(error)) is not None


def in_few_words(error: BaseException) -> str:
    """Return what a failure comes to; its own text may tell of hosts and users."""
    match error:
        case OutOfMemoryError():
            return "Redis is full"
        case BusyLoadingError():
            return "Redis loads its data"
        case ReadOnlyError():
            return "Redis is a read-only replica"
        case NoToken():
            return "no token for Redis can be had"
        case AskError():
            return "the slot of our keys has moved"
        case AuthenticationError() | AuthorizationError():
            return "Redis refuses the credentials"
        case TimeoutError() | RedisTimeoutError():
            return "Redis does not answer in time"
        case OSError() | RedisConnectionError():
            return "Redis cannot be reached"
    return "Redis refuses for now" if will_pass(error) else "Redis answers with an error"


def describe(error: BaseException) -> str:
    """Return what a failure says of itself, or its name if it says nothing."""
    if isinstance(error, AskError):  # redis-py keeps the word in its class
        word = "MOVED" if isinstance(error, MovedError) else "ASK"
        return f"{word} {error}"
    return str(error) or type(error).__name__
