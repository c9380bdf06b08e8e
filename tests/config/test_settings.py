"""The options: their defaults, their bounds, and that the example names each."""

import contextlib
import io
import re
import tomllib
from pathlib import Path

import pytest
from pydantic import ValidationError

from agentws.config.options import OPTIONS
from agentws.config.settings import ServerSettings, Settings
from agentws.config.sources import ConfigError, load
from tests.config.conftest import EXAMPLE, JWT, from_variables, value


class Terminal(io.StringIO):
    """An output that claims to be a terminal."""

    def isatty(self) -> bool:
        return True


# What is declared


@pytest.mark.parametrize(
    ("key", "default"),
    [
        ("server.host", "0.0.0.0"),
        ("server.port", 8088),
        ("server.shutdown_grace", 25.0),
        ("server.access_log", True),
        ("server.event_loop", "auto"),
        ("server.trust_forwarded", False),
        ("server.log_level", "info"),
        ("server.log_format", "json"),
        ("handler.target", ""),
        ("agent.name", ""),
        ("agent.version", ""),
        ("agent.id", ""),
        ("agent.session_id", ""),
        ("agent.project_id", ""),
        ("websocket.heartbeat", 30.0),
        ("websocket.app_ping_interval", 30.0),
        ("websocket.max_connection_age", 0.0),
        ("websocket.send_timeout", 10.0),
        ("websocket.max_message_size", 4 * 1024 * 1024),
        ("websocket.max_frame_size", 512 * 1024),
        ("websocket.compression", False),
        ("websocket.max_connections", 20_000),
        ("websocket.max_invocations_per_connection", 64),
        ("http.max_body_size", 4 * 1024 * 1024),
        ("http.keepalive_timeout", 300.0),
        ("http.sse_keepalive_interval", 15.0),
        ("http.cors_origins", ()),
        ("invocations.max_running", 10_000),
        ("invocations.retention", 600.0),
        ("invocations.max_retained", 100_000),
        ("invocations.replay_bytes", 1024 * 1024),
        ("invocations.on_disconnect", "cancel"),
        ("invocations.disconnect_grace", 60.0),
        ("invocations.cancel_grace", 5.0),
        ("invocations.timeout", 0.0),
        ("store.url", "memory://"),
        ("store.lease", 15.0),
        ("store.prefix", "agentws"),
        ("store.auth", "password"),
        ("auth.api_keys", ()),
        ("auth.jwt_issuer", ""),
        ("auth.jwt_audience", ""),
        ("auth.jwks_url", ""),
        ("auth.query_parameter", ""),
        ("auth.allowed_origins", ()),
        ("telemetry.connection_string", ""),
        ("telemetry.otlp_endpoint", ""),
        ("telemetry.sampling_ratio", 1.0),
        ("telemetry.prometheus", False),
        ("console.enabled", False),
    ],
)
def test_default(key: str, default: object) -> None:
    loaded = load(environ={})
    assert value(loaded.settings, key) == default
    assert type(value(loaded.settings, key)) is type(default)
    assert loaded.origins[key] == "default"


def test_logs_are_text_on_a_terminal() -> None:
    with contextlib.redirect_stdout(Terminal()):
        loaded = load(environ={})
        chosen = from_variables(AGENTWS_SERVER__LOG_FORMAT="json")
    assert loaded.settings.server.log_format == "text"
    assert loaded.origins["server.log_format"] == "default"
    assert chosen.server.log_format == "json"


def test_settings_made_in_code_read_no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENTWS_SERVER__PORT", "9000")
    monkeypatch.setenv("SERVER", '{"port": 9000}')
    assert Settings().server.port == 8088
    assert Settings(server=ServerSettings(port=1)).server.port == 1


def test_everything_is_frozen() -> None:
    loaded = load(environ={"AGENTWS_AUTH__API_KEYS": "one"})
    with pytest.raises(ValidationError, match="frozen"):
        loaded.settings.server.port = 1
    with pytest.raises(ValidationError, match="frozen"):
        loaded.settings.server = ServerSettings()
    assert hash(loaded.settings)


# The example file


def test_the_example_names_every_key_with_its_default() -> None:
    tables = tomllib.loads(EXAMPLE.read_text())
    written = {f"{section}.{name}" for section, table in tables.items() for name in table}
    assert written == set(OPTIONS)
    assert load(EXAMPLE, environ={}).settings == load(environ={}).settings


def test_the_example_explains_every_key_in_the_words_of_the_code() -> None:
    explained = re.findall(r"^# (.+)\n(\w+) = ", EXAMPLE.read_text(), re.MULTILINE)
    declared = [(option.field.description, option.name) for option in OPTIONS.values()]
    assert explained == declared


# Bounds, the same from every source


@pytest.mark.parametrize(
    ("key", "text", "wish"),
    [
        ("server.port", "-1", "be greater than or equal to 0"),
        ("server.port", "65536", "be less than or equal to 65535"),
        ("server.port", "true", "be a valid integer"),
        ("server.port", "9" * 5000, "be shorter"),
        ("server.shutdown_grace", "-0.1", "be greater than or equal to 0"),
        ("server.shutdown_grace", "nan", "be a finite number"),
        ("server.shutdown_grace", "inf", "be a finite number"),
        ("server.shutdown_grace", "30s", "be a valid number"),
        ("server.access_log", "maybe", "be a valid boolean"),
        ("server.log_level", "loud", "be 'debug', 'info', 'warning', 'error' or 'critical'"),
        ("server.log_format", "xml", "be 'json' or 'text'"),
        ("server.event_loop", "trio", "be 'auto', 'uvloop' or 'asyncio'"),
        ("websocket.send_timeout", "0", "be greater than 0"),
        ("websocket.max_message_size", "0", "be greater than 0"),
        ("websocket.max_frame_size", "-1", "be greater than or equal to 0"),
        ("websocket.max_connections", "0", "be greater than 0"),
        ("invocations.max_running", "-5", "be greater than 0"),
        ("invocations.replay_bytes", "1.5", "be a valid integer"),
        ("invocations.on_disconnect", "explode", "be 'cancel' or 'continue'"),
        ("store.lease", "0", "be greater than 0"),
        *(
            ("store.prefix", prefix, "be letters, digits, dots, underscores and dashes")
            for prefix in ("{a}", "a:b", "a b", "ä", "a\n")
        ),
        *(
            ("store.url", url, "be memory://, redis://HOST or rediss://HOST")
            for url in (
                *("postgres://db", "redis://", "redis:///1", "memory://1", "redis://cache x"),
                *("redis://cache:port", "redis://cache:99999", "redis://cache:0"),
                *("redis://cache/name", "redis://cache/1/2", "rediss://cache/-1"),
            )
        ),
        ("store.auth", "kerberos", "be 'password' or 'entra'"),
        ("agent.session_id", "a b", "be 1 to 256 characters"),
        ("agent.session_id", "..", "be 1 to 256 characters"),
        ("agent.session_id", "x" * 257, "be 1 to 256 characters"),
        ("auth.jwks_url", "file:///etc/passwd", "begin with http:// or https://"),
        ("auth.allowed_origins", "app.example", "be an origin such as https://app.example"),
        ("auth.allowed_origins", "https://app.example/", "be an origin such as"),
        ("auth.allowed_origins", "https://a.*.example", "be an origin such as"),
        ("auth.allowed_origins", "https://*", "be an origin such as"),
        ("auth.allowed_origins", "null", "be an origin such as"),
        ("http.cors_origins", "app.example", "be an origin such as https://app.example"),
        ("http.cors_origins", "https://a.*.example", "be an origin such as"),
        ("telemetry.sampling_ratio", "1.1", "be less than or equal to 1"),
        ("telemetry.sampling_ratio", "-1", "be greater than or equal to 0"),
        ("telemetry.sampling_ratio", "nan", "be"),
    ],
)
def test_bounds(key: str, text: str, wish: str) -> None:
    variable = OPTIONS[key].variable
    with pytest.raises(ConfigError) as refusal:
        load(environ={variable: text})
    assert str(refusal.value).startswith(f"environment {variable}: {key} should {wish}")
    assert len(str(refusal.value)) < 200


def test_jwt_settings_may_come_from_several_sources(file: Path) -> None:
    file.write_text('[auth]\njwt_issuer = "https://issuer.example"')
    environ = {name: text for name, text in JWT.items() if name != "AGENTWS_AUTH__JWT_ISSUER"}
    loaded = load(file, environ=environ)
    assert loaded.settings == from_variables(**JWT)


@pytest.mark.parametrize("missing", JWT)
def test_jwt_settings_are_all_three_or_none(missing: str) -> None:
    key = f"auth.{missing.removeprefix('AGENTWS_AUTH__').lower()}"
    with pytest.raises(ConfigError, match=f"^{key} should be set, as JWT needs all three$"):
        load(environ={name: text for name, text in JWT.items() if name != missing})


def test_the_console_behind_authentication_needs_the_query_parameter() -> None:
    console, auth = {"enabled": True}, {"api_keys": ("k",)}
    with pytest.raises(ValidationError, match="query_parameter should be set, as with"):
        Settings(console=console, auth=auth)  # type: ignore[arg-type]
    assert Settings(console=console, auth={**auth, "query_parameter": "key"}).auth.is_on  # type: ignore[arg-type]
