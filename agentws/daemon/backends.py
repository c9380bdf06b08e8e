"""Whether what the daemon depends on answers, one attempt each, for who sets it up."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Final

from msgspec import Struct

from agentws.client.socket import in_words
from agentws.config.options import OPTIONS
from agentws.config.requirements import needed
from agentws.config.settings import Settings
from agentws.daemon.parts import make_store

PATIENCE: Final = 3.0
"""Seconds that each may take."""


class Attempt(Struct, frozen=True):
    """What came of trying something. `key` names the setting, `trouble` what is wrong, if any."""

    key: str
    target: str
    trouble: str
    seconds: float


Try = Callable[[], Awaitable[str]]
"""Returns what is wrong, else an empty text; may raise instead."""


async def try_all(settings: Settings) -> list[Attempt]:
    """Try all that is configured, at the same time."""
    return await asyncio.gather(
        *(_attempt(key, target, work) for key, target, work in _configured(settings))
    )


def _configured(settings: Settings) -> list[tuple[str, str, Try]]:
    tries: list[tuple[str, str, Try]] = []
    if settings.store.url != "memory://":
        tries.append(_named("store.url", settings.store.url, partial(_store, settings)))
    if url := settings.auth.jwks_url:
        tries.append(_named("auth.jwks_url", url, partial(_keys, url)))
    if endpoint := settings.telemetry.otlp_endpoint:
        tries.append(_named("telemetry.otlp_endpoint", endpoint, partial(_collector, endpoint)))
    if text := settings.telemetry.connection_string:
        from agentws.telemetry.reaching import ingestion_endpoint

        # The endpoint is no secret, as the key beside it is.
        where = ingestion_endpoint(text)
        tries.append(("telemetry.connection_string", where, partial(_ingestion, text)))
    return tries


def _named(key: str, value: str, work: Try) -> tuple[str, str, Try]:
    return key, OPTIONS[key].printed(value), work


async def _attempt(key: str, target: str, work: Try) -> Attempt:
    began_at = time.monotonic()
    try:
        async with asyncio.timeout(PATIENCE):
            trouble = await work()
    except TimeoutError:
        trouble = f"no answer within {PATIENCE:g} s"
    except Exception as error:  # of whatever library
        trouble = " ".join(in_words(error).split())
    return Attempt(key, target, trouble, time.monotonic() - began_at)


async def _store(settings: Settings) -> str:
    store = make_store(settings)
    try:
        return await store.ping()
    finally:
        await store.close()


async def _keys(url: str) -> str:
    with needed():
        from agentws.auth.tokens import fetch_keys
    thread = ThreadPoolExecutor(1, "agentws-keys")
    fetching = asyncio.get_running_loop().run_in_executor(thread, fetch_keys, url, PATIENCE)
    thread.shutdown(wait=False)
    await fetching
    return ""


async def _collector(endpoint: str) -> str:
    with needed():
        from agentws.telemetry.reaching import trouble_with_collector
    return await trouble_with_collector(endpoint)


async def _ingestion(connection_string: str) -> str:
    from agentws.telemetry.reaching import trouble_with_ingestion

    return await trouble_with_ingestion(connection_string)
