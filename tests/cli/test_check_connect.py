"""`agentws check --connect` tries what is configured, and leaves nothing there."""

import time

import pytest
from aiohttp import web

from tests.cli.conftest import Agentws, Done
from tests.support.issuer import AUDIENCE, ISSUER, Issuer, new_ec
from tests.support.ports import taken_port
from tests.support.receivers import application_insights, otlp_over_grpc, otlp_over_http
from tests.support.redis_server import RedisServer, running_redis

INSIGHTS = "InstrumentationKey=00000000-0000-4000-8000-0123456789ab;IngestionEndpoint="


@pytest.fixture
def free() -> int:
    """A port that nobody listens on."""
    with taken_port() as port:
        return port


def told(done: Done) -> dict[str, tuple[str, str]]:
    """Return what was told of each that was tried: where it is, and what came of it."""
    _, _, lines = done.out.partition("\n\n")
    rows = [line.split(maxsplit=2) for line in lines.splitlines()]
    return {key: (target, outcome) for key, target, outcome in rows}


async def test_nothing_is_configured(agentws: Agentws) -> None:
    done = await agentws("check", "--connect")
    assert (done.code, done.err) == (0, "")
    assert told(done) == {"store.url": ("memory://", "nothing to try")}


async def test_all_that_is_configured_answers(agentws: Agentws, redis: RedisServer) -> None:
    issuer = await Issuer.start({"first": new_ec()})
    async with otlp_over_http() as collector, application_insights() as insights:
        done = await agentws(
            *("check", "--connect"),
            AGENTWS_STORE__URL=redis.url,
            AGENTWS_AUTH__JWT_ISSUER=ISSUER,
            AGENTWS_AUTH__JWT_AUDIENCE=AUDIENCE,
            AGENTWS_AUTH__JWKS_URL=issuer.url,
            AGENTWS_TELEMETRY__OTLP_ENDPOINT=collector.url,
            AGENTWS_TELEMETRY__CONNECTION_STRING=insights.url,
        )
        assert [*collector.spans, *collector.lines, *collector.points] == []
        assert collector.requests == 3  # with nothing in them
        assert [*insights.spans, *insights.lines, *insights.points] == []
    await issuer.stop()
    assert (done.code, done.err) == (0, "")
    outcomes = told(done)
    assert list(outcomes) == [
        "store.url",
        "auth.jwks_url",
        "telemetry.otlp_endpoint",
        "telemetry.connection_string",
    ]
    assert all(outcome.startswith("ok, 0.") for _, outcome in outcomes.values())
    assert outcomes["store.url"][0] == redis.url
    assert "0123456789ab" not in done.out
    assert redis.all_keys() == []


async def test_nothing_answers(agentws: Agentws, free: int) -> None:
    done = await agentws(
        *("check", "--connect"),
        AGENTWS_STORE__URL=f"redis://:hunter2@127.0.0.1:{free}",
        AGENTWS_AUTH__JWT_ISSUER=ISSUER,
        AGENTWS_AUTH__JWT_AUDIENCE=AUDIENCE,
        AGENTWS_AUTH__JWKS_URL=f"http://127.0.0.1:{free}/keys",
        AGENTWS_TELEMETRY__OTLP_ENDPOINT=f"http://127.0.0.1:{free}",
        AGENTWS_TELEMETRY__CONNECTION_STRING=f"{INSIGHTS}http://127.0.0.1:{free}",
    )
    assert done.code == 2
    assert "hunter2" not in done.out + done.err
    refused = f"127.0.0.1:{free} cannot be reached (Connection refused)"
    store, keys, collector, insights = done.err.splitlines()
    assert store == "agentws: store.url: Redis cannot be reached"
    assert keys.startswith("agentws: auth.jwks_url: ")
    assert "Connection refused" in keys
    assert collector == f"agentws: telemetry.otlp_endpoint: {refused}"
    assert insights == f"agentws: telemetry.connection_string: {refused}"
    assert all(outcome.startswith("failed: ") for _, outcome in told(done).values())


async def test_each_has_three_seconds_at_the_same_time(agentws: Agentws) -> None:
    with taken_port() as port:
        began_at = time.monotonic()
        done = await agentws(
            *("check", "--connect"),
            AGENTWS_STORE__URL=f"redis://127.0.0.1:{port}",
            AGENTWS_AUTH__JWT_ISSUER=ISSUER,
            AGENTWS_AUTH__JWT_AUDIENCE=AUDIENCE,
            AGENTWS_AUTH__JWKS_URL=f"http://127.0.0.1:{port}/keys",
            AGENTWS_TELEMETRY__OTLP_ENDPOINT=f"http://127.0.0.1:{port}",
            AGENTWS_TELEMETRY__CONNECTION_STRING=f"{INSIGHTS}http://127.0.0.1:{port}",
        )
        assert time.monotonic() - began_at < 2 * 3
    assert done.code == 2
    assert told(done)["telemetry.otlp_endpoint"][1] == "failed: no answer within 3 s"
    assert told(done)["store.url"][1] == "failed: Redis does not answer in time"
    assert len(done.err.splitlines()) == 4


async def test_a_redis_that_wants_another_password(agentws: Agentws) -> None:
    with running_redis("--requirepass", "secret") as server:
        url = server.url.replace("redis://", "redis://:wrong@")
        done = await agentws("check", "--connect", AGENTWS_STORE__URL=url)
        assert done.err == "agentws: store.url: Redis refuses the credentials\n"
        url = server.url.replace("redis://", "redis://:secret@")
        done = await agentws("check", "--connect", AGENTWS_STORE__URL=url)
        assert (done.code, done.err) == (0, "")


async def test_a_key_server_without_keys(agentws: Agentws) -> None:
    issuer = await Issuer.start({})
    done = await agentws(
        *("check", "--connect"),
        AGENTWS_AUTH__JWT_ISSUER=ISSUER,
        AGENTWS_AUTH__JWT_AUDIENCE=AUDIENCE,
        AGENTWS_AUTH__JWKS_URL=issuer.url,
    )
    await issuer.stop()
    assert done.code == 2
    assert done.err.startswith("agentws: auth.jwks_url: ")


async def test_a_collector_over_grpc(agentws: Agentws, free: int) -> None:
    grpc = {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}
    async with otlp_over_grpc() as collector:
        url = collector.url
        done = await agentws("check", "--connect", AGENTWS_TELEMETRY__OTLP_ENDPOINT=url, **grpc)
        assert (done.code, done.err, collector.requests) == (0, "", 3)
    url = f"http://127.0.0.1:{free}"
    done = await agentws("check", "--connect", AGENTWS_TELEMETRY__OTLP_ENDPOINT=url, **grpc)
    assert done.code == 2
    assert "traces: it answers UNAVAILABLE" in done.err


async def test_a_collector_that_refuses(agentws: Agentws) -> None:
    seen: list[str | None] = []

    async def refuse(request: web.Request) -> web.Response:
        seen.append(request.headers.get("x-team"))
        return web.Response(status=401)

    app = web.Application()
    app.router.add_post("/v1/traces", refuse)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    done = await agentws(
        *("check", "--connect"),
        OTEL_EXPORTER_OTLP_ENDPOINT=f"http://127.0.0.1:{runner.addresses[0][1]}",
        OTEL_EXPORTER_OTLP_HEADERS="x-team=owls",
        OTEL_METRICS_EXPORTER="none",
        OTEL_LOGS_EXPORTER="none",
    )
    await runner.cleanup()
    assert (done.code, seen) == (2, ["owls"])
    assert done.err == ("agentws: telemetry.otlp_endpoint: traces: it answers 401 (Unauthorized)\n")
