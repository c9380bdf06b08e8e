"""The configuration: what is accepted, what is refused and how, which source wins."""

import contextlib
import io
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from pydantic import ValidationError

from agentws.config.settings import OPTIONS, AuthSettings, ServerSettings, Settings, StoreSettings
from agentws.config.sources import ConfigError, load, rows
from tests.support.processes import ROOT

EXAMPLE = ROOT / "config.example.toml"

PLATFORM_VARIABLES = {
    "server.port": "PORT",
    "server.shutdown_grace": "AGENTSERVER_GRACEFUL_SHUTDOWN_TIMEOUT_SECONDS",
    "agent.name": "FOUNDRY_AGENT_NAME",
    "agent.version": "FOUNDRY_AGENT_VERSION",
    "agent.session_id": "FOUNDRY_AGENT_SESSION_ID",
    "agent.project_id": "FOUNDRY_PROJECT_ARM_ID",
    "websocket.heartbeat": "WS_KEEPALIVE_INTERVAL",
    "http.sse_keepalive_interval": "SSE_KEEPALIVE_INTERVAL",
    "telemetry.connection_string": "APPLICATIONINSIGHTS_CONNECTION_STRING",
    "telemetry.otlp_endpoint": "OTEL_EXPORTER_OTLP_ENDPOINT",
}


class Terminal(io.StringIO):
    """An output that claims to be a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _no_terminal() -> Iterator[None]:
    """Hold the default of server.log_format still, also for tests run with their output shown."""
    with contextlib.redirect_stdout(io.StringIO()):
        yield


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "config.toml"


def value(settings: Settings, key: str) -> object:
    section, name = key.split(".")
    return getattr(getattr(settings, section), name)


def from_variables(**environ: str) -> Settings:
    return load(environ=environ).settings


def from_text(file: Path, text: str) -> Settings:
    file.write_text(text)
    return load(file, environ={}).settings


def printed(environ: Mapping[str, str]) -> dict[str, str]:
    return {key: text for key, text, _ in rows(load(environ=environ))}


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
        ("auth.api_keys", ()),
        ("auth.jwt_issuer", ""),
        ("auth.jwt_audience", ""),
        ("auth.jwks_url", ""),
        ("auth.query_parameter", ""),
        ("auth.allowed_origins", ()),
        ("telemetry.connection_string", ""),
        ("telemetry.otlp_endpoint", ""),
        ("telemetry.sampling_ratio", 1.0),
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


SPECIAL = {
    "telemetry.connection_string": "InstrumentationKey=7",
    "telemetry.otlp_endpoint": "http://localhost:7",
}
"""What is set where a mere number will not do."""


def test_platform_variables_are_those_of_the_specification() -> None:
    declared = {key: option.platform for key, option in OPTIONS.items() if option.platform}
    assert declared == PLATFORM_VARIABLES


def test_settings_made_in_code_read_no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENTWS_SERVER__PORT", "9000")
    monkeypatch.setenv("SERVER", '{"port": 9000}')
    assert Settings().server.port == 8088
    assert Settings(server=ServerSettings(port=1)).server.port == 1


def test_the_environment_of_the_process_is_the_default_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AGENTWS_SERVER__PORT", "9000")
    assert load().settings.server.port == 9000


def test_everything_is_frozen() -> None:
    loaded = load(environ={"AGENTWS_AUTH__API_KEYS": "one"})
    with pytest.raises(ValidationError, match="frozen"):
        loaded.settings.server.port = 1
    with pytest.raises(ValidationError, match="frozen"):
        loaded.settings.server = ServerSettings()
    assert hash(loaded.settings)


# Keys in files


def test_keys_are_read_from_a_file(tmp_path: Path) -> None:
    secrets = tmp_path / "keys"
    secrets.write_text("one\n\n  two, too \r\n")
    loaded = load(environ={"AGENTWS_AUTH__API_KEYS": f"zero,file:{secrets}"})
    assert loaded.settings.auth.api_keys == ("zero", "one", "two, too")
    file = tmp_path / "config.toml"
    file.write_text(f'[auth]\napi_keys = ["file:{secrets}"]')
    assert load(file, environ={}).settings.auth.api_keys == ("one", "two, too")


@pytest.mark.parametrize(
    ("content", "wish"),
    [
        (None, "name a file to read, but {path}: No such file or directory"),
        (b"", "name a file with a key on each line, but {path} has none"),
        (b" \n\n", "name a file with a key on each line, but {path} has none"),
        (b"hunter2\xff", "name a file in UTF-8, unlike {path}"),
    ],
)
def test_a_file_without_keys_opens_no_door(
    tmp_path: Path, content: bytes | None, wish: str
) -> None:
    path = tmp_path / "keys"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError) as refusal:
        load(environ={"AGENTWS_AUTH__API_KEYS": f"file:{path}"})
    told = f"environment AGENTWS_AUTH__API_KEYS: auth.api_keys should {wish.format(path=path)}"
    assert str(refusal.value) == told


@pytest.mark.parametrize("text", [",", " , ,"])
def test_a_variable_of_commas_is_no_list_of_keys(text: str) -> None:
    with pytest.raises(ConfigError, match=r"AGENTWS_AUTH__API_KEYS: auth\.api_keys should have"):
        load(environ={"AGENTWS_AUTH__API_KEYS": text})


def test_a_variable_of_nothing_takes_no_keys_away(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text('[auth]\napi_keys = ["one"]')
    loaded = load(file, environ={"AGENTWS_AUTH__API_KEYS": " "})
    assert loaded.settings.auth.api_keys == ("one",)
    assert loaded.origins["auth.api_keys"] == str(file)


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


# Which source wins


def test_precedence(file: Path) -> None:
    file.write_text("[server]\nport = 4")
    layers: dict[str, dict[str, object]] = {
        "flag --port": {"flags": {"server.port": 1}},
        "environment AGENTWS_SERVER__PORT": {"environ": {"AGENTWS_SERVER__PORT": "2", "PORT": "3"}},
        "platform variable PORT": {"environ": {"PORT": "3"}},
        str(file): {"file": file},
        "program": {"program": {"server.port": 5}},
    }
    given: dict[str, object] = {"environ": {}}
    for port, (origin, layer) in reversed(list(enumerate(layers.items(), start=1))):
        given |= layer
        loaded = load(**given)  # type: ignore[arg-type]
        assert (loaded.settings.server.port, loaded.origins["server.port"]) == (port, origin)


def test_sections_are_merged_key_by_key(file: Path) -> None:
    file.write_text('[server]\nhost = "::1"\naccess_log = false')
    environ = {"AGENTWS_SERVER__PORT": "9000"}
    loaded = load(file, environ=environ, flags={"server.host": "localhost"})
    assert loaded.settings.server == ServerSettings(host="localhost", port=9000, access_log=False)


@pytest.mark.parametrize(
    ("key", "flag"),
    [("server.host", "--host"), ("server.port", "--port"), ("handler.target", "--handler")],
)
def test_the_origin_of_a_flag_is_its_name(key: str, flag: str) -> None:
    given = "1" if key == "server.port" else "x"
    assert load(flags={key: given}, environ={}).origins[key] == f"flag {flag}"


def test_none_stands_for_not_given() -> None:
    nothing = {"server.port": None}
    assert load(flags=nothing, program=nothing, environ={}).origins["server.port"] == "default"


@pytest.mark.parametrize(("key", "variable"), PLATFORM_VARIABLES.items())
def test_platform_variable(key: str, variable: str) -> None:
    text = SPECIAL.get(key, "7")
    loaded = load(environ={variable: text})
    assert str(value(loaded.settings, key)).removesuffix(".0") == text
    assert loaded.origins[key] == f"platform variable {variable}"


# Environment variables


@pytest.mark.parametrize(
    ("variable", "text", "key", "expected"),
    [
        ("AGENTWS_SERVER__PORT", "0", "server.port", 0),
        ("AGENTWS_SERVER__HOST", "127.0.0.1", "server.host", "127.0.0.1"),
        ("AGENTWS_AGENT__NAME", "123", "agent.name", "123"),
        ("AGENTWS_STORE__LEASE", "2.5", "store.lease", 2.5),
        ("AGENTWS_SERVER__LOG_LEVEL", "WARNING", "server.log_level", "warning"),
        ("AGENTWS_SERVER__LOG_FORMAT", "text", "server.log_format", "text"),
        ("AGENTWS_STORE__URL", "rediss://cache:6380/1", "store.url", "rediss://cache:6380/1"),
        ("AGENTWS_AUTH__API_KEYS", "one, two,,", "auth.api_keys", ("one", "two")),
        ("AGENTWS_HTTP__CORS_ORIGINS", "https://a.example", "http.cors_origins", None),
        (
            "AGENTWS_AUTH__ALLOWED_ORIGINS",
            "https://*.a.example, http://localhost:3000, http://[::1]:80,*",
            "auth.allowed_origins",
            ("https://*.a.example", "http://localhost:3000", "http://[::1]:80", "*"),
        ),
        ("AGENTWS_TELEMETRY__SAMPLING_RATIO", "0.25", "telemetry.sampling_ratio", 0.25),
        ("AGENTWS_AGENT__SESSION_ID", "a.b:c-d_e", "agent.session_id", "a.b:c-d_e"),
    ],
)
def test_variable(variable: str, text: str, key: str, expected: object) -> None:
    expected = (text,) if expected is None else expected
    assert value(from_variables(**{variable: text}), key) == expected


@pytest.mark.parametrize("text", ["true", "1", "yes", "on", "TRUE"])
def test_true_in_a_variable(text: str) -> None:
    assert from_variables(AGENTWS_CONSOLE__ENABLED=text).console.enabled is True


@pytest.mark.parametrize("text", ["false", "0", "no", "off", "Off"])
def test_false_in_a_variable(text: str) -> None:
    assert from_variables(AGENTWS_SERVER__ACCESS_LOG=text).server.access_log is False


@pytest.mark.parametrize("variable", ["AGENTWS_SERVER__PORT", "PORT", "AGENTWS_SERVER__PROT"])
def test_an_empty_variable_counts_as_not_set(variable: str) -> None:
    assert load(environ={variable: ""}).origins["server.port"] == "default"


def test_an_empty_variable_lets_the_platform_speak() -> None:
    assert from_variables(AGENTWS_SERVER__PORT="", PORT="9000").server.port == 9000


@pytest.mark.parametrize(
    ("variable", "nearest"),
    [
        ("AGENTWS_SERVER_PORT", "AGENTWS_SERVER__PORT"),
        ("AGENTWS_AUTH_API_KEYS", "AGENTWS_AUTH__API_KEYS"),
        ("AGENTWS_HANDLER", "AGENTWS_HANDLER__TARGET"),
        ("agentws_server_port", "AGENTWS_SERVER__PORT"),
        ("AGENTWS_PORT", "AGENTWS_SERVER__PORT"),
    ],
)
def test_a_variable_that_nothing_reads_is_told_with_the_right_one(
    variable: str, nearest: str
) -> None:
    loaded = load(environ={variable: "9000"})
    assert loaded.settings == load(environ={}).settings
    assert loaded.warnings == (
        f"environment: variable '{variable}' is not read; the nearest known is {nearest}",
    )


KUBERNETES = {
    "AGENTWS_SERVICE_HOST": "10.0.0.1",
    "AGENTWS_SERVICE_PORT": "80",
    "AGENTWS_SERVICE_PORT_HTTP": "80",
    "AGENTWS_PORT": "tcp://10.0.0.1:80",
    "AGENTWS_CANARY_PORT": "tcp://10.0.0.1:80",
    "AGENTWS_PORT_80_TCP": "tcp://10.0.0.1:80",
    "AGENTWS_PORT_80_TCP_PROTO": "tcp",
    "AGENTWS_PORT_80_TCP_PORT": "80",
    "AGENTWS_PORT_80_TCP_ADDR": "10.0.0.1",
}
"""What Kubernetes sets for Services of such names."""


@pytest.mark.parametrize(
    "environ", [{"SERVER__PORT": "1"}, {"port": "1"}, {"AGENTWS_FOO": ""}, KUBERNETES]
)
def test_variables_of_others_are_left_alone(environ: dict[str, str]) -> None:
    loaded = load(environ=environ)
    assert (loaded.settings, loaded.warnings) == (load(environ={}).settings, ())


@pytest.mark.parametrize(
    ("variable", "nearest"),
    [
        ("AGENTWS_SERVER__PROT", "AGENTWS_SERVER__PORT"),
        ("AGENTWS_SEVRER__HOST", "AGENTWS_SERVER__HOST"),
        ("AGENTWS__STORE__URL", "AGENTWS_STORE__URL"),
        ("AGENTWS_STORE__URL__HOST", "AGENTWS_STORE__URL"),
        ("agentws_server__port", "AGENTWS_SERVER__PORT"),
        ("AGENTWS_server__port", "AGENTWS_SERVER__PORT"),
    ],
)
def test_an_unknown_variable_names_the_nearest(variable: str, nearest: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        load(environ={variable: "secret"})
    assert str(refusal.value) == (
        f"environment: variable '{variable}' is unknown; the nearest known is {nearest}"
    )


# The file


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("[server]\nprot = 1", "key 'server.prot' is unknown; the nearest known is server.port"),
        ("[server]\nPort = 1", "key 'server.Port' is unknown; the nearest known is server.port"),
        ("[sevrer]\nport = 1", "section 'sevrer' is unknown; the nearest known is server"),
        ("port = 1", "section 'port' is unknown; the nearest known is server.port"),
        ('["server.port"]', "section 'server.port' is unknown; the nearest known is server.port"),
        ("server = 3", "server should be a table, begun by [server]"),
        ("[[server]]\nport = 1", "server should be a table, begun by [server]"),
        ("[server.port]\nx = 1", "server.port should be a valid integer, not {'x': 1}"),
        ('[server]\nport = "8"', "server.port should be a valid integer, not '8'"),
        ("[server]\nport = true", "server.port should be a valid integer, not True"),
        ("[server]\nport = 8.0", "server.port should be a valid integer, not 8.0"),
        ("[server]\naccess_log = 1", "server.access_log should be a valid boolean, not 1"),
        ("[server]\nhost = 1", "server.host should be a valid string, not 1"),
        ("[store]\nlease = true", "store.lease should be a valid number, not True"),
        ('[store]\nlease = "1"', "store.lease should be a valid number, not '1'"),
        ('[http]\ncors_origins = "a"', "http.cors_origins should be a list, not 'a'"),
        ("[http]\ncors_origins = [1]", "http.cors_origins should be a valid string, not 1"),
        ("[auth]\napi_keys = [5]", "auth.api_keys should be a valid string"),
        ('[auth]\napi_keys = [""]', "auth.api_keys should have at least 1 character"),
        ("[server]\nport", "should be TOML: Expected '=' after a key in a key/value pair (at "),
        ("[server]\nport = x", "should be TOML: Invalid value (at line 2, column 8)"),
        ("[server]\n[server]", "should be TOML: Cannot declare ('server',) twice (at line 2,"),
    ],
)
def test_a_wrong_file(file: Path, text: str, complaint: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        from_text(file, text)
    assert str(refusal.value).startswith(f"{file}: {complaint}")
    assert "\n" not in str(refusal.value)


def test_a_wrong_value_in_the_file_is_refused_though_overridden(file: Path) -> None:
    file.write_text("[server]\nport = -1")
    with pytest.raises(ConfigError, match=r"config\.toml: server\.port"):
        load(file, flags={"server.port": 1}, environ={})


def test_the_file_takes_whole_numbers_for_durations_and_any_case_for_words(file: Path) -> None:
    settings = from_text(file, '[store]\nlease = 3\n[server]\nlog_level = "DEBUG"')
    assert (settings.store.lease, settings.server.log_level) == (3.0, "debug")


def test_the_file_may_begin_with_a_byte_order_mark(file: Path) -> None:
    file.write_bytes("\ufeff[server]\nport = 1".encode())
    assert load(file, environ={}).settings.server.port == 1


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    garbled = tmp_path / "garbled.toml"
    garbled.write_bytes(b'[agent]\nname = "\xff"')
    complaints = {
        tmp_path / "missing.toml": "cannot be read: No such file or directory",
        tmp_path: "cannot be read: Is a directory",
        garbled: "should be UTF-8, but byte 16 is not",
    }
    for path, complaint in complaints.items():
        with pytest.raises(ConfigError) as refusal:
            load(path, environ={})
        assert str(refusal.value) == f"{path}: {complaint}"


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
        ("websocket.max_connections", "0", "be greater than 0"),
        ("invocations.max_running", "-5", "be greater than 0"),
        ("invocations.replay_bytes", "1.5", "be a valid integer"),
        ("invocations.on_disconnect", "explode", "be 'cancel' or 'continue'"),
        ("store.lease", "0", "be greater than 0"),
        *(
            ("store.url", url, "be memory://, redis://HOST or rediss://HOST")
            for url in (
                *("postgres://db", "redis://", "redis:///1", "memory://1", "redis://cache x"),
                *("redis://cache:port", "redis://cache:99999", "redis://cache:0"),
                *("redis://cache/name", "redis://cache/1/2", "rediss://cache/-1"),
            )
        ),
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


@pytest.mark.parametrize("where", ["flags", "program"])
def test_a_wrong_value_from_code_names_its_source(where: str) -> None:
    source = {"flags": "flag --port", "program": "program"}[where]
    with pytest.raises(ConfigError, match=f"^{source}: server.port should be .*, not 70000$"):
        load(environ={}, **{where: {"server.port": 70_000}})  # type: ignore[arg-type]


@pytest.mark.parametrize("where", ["flags", "program"])
def test_an_unknown_key_from_code_names_the_nearest(where: str) -> None:
    with pytest.raises(ConfigError, match=r"'server\.prot' is unknown; .* server\.port"):
        load(environ={}, **{where: {"server.prot": None}})  # type: ignore[arg-type]


JWT = {
    "AGENTWS_AUTH__JWT_ISSUER": "https://issuer.example",
    "AGENTWS_AUTH__JWT_AUDIENCE": "agents",
    "AGENTWS_AUTH__JWKS_URL": "https://issuer.example/keys",
}


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


# Several mistakes, and what has no effect


def test_all_mistakes_are_told_together(file: Path) -> None:
    file.write_text(
        '[server]\nport = "8"\nprot = 1\n[sevrer]\nport = 1\n[store]\nlease = -1\nurl = "x"'
    )
    environ = {
        "AGENTWS_SERVER__HOTS": "x",
        "AGENTWS_STORE__URL": "mysql://db",
        "WS_KEEPALIVE_INTERVAL": "soon",
        "OTEL_PROPAGATORS": "b3",
    }
    with pytest.raises(ConfigError) as refusal:
        load(file, environ=environ, flags={"server.port": 70_000})
    told = str(refusal.value).splitlines()
    assert sorted(line.split(" should ")[0].split(" is unknown")[0] for line in told) == sorted(
        [
            "environment: variable 'AGENTWS_SERVER__HOTS'",
            f"{file}: section 'sevrer'",
            f"{file}: key 'server.prot'",
            f"{file}: server.port",
            f"{file}: store.lease",
            f"{file}: store.url",
            "platform variable WS_KEEPALIVE_INTERVAL: websocket.heartbeat",
            "environment OTEL_PROPAGATORS",
        ]
    )


def test_a_setting_without_effect_is_told_where_somebody_has_chosen_it(file: Path) -> None:
    file.write_text('[console]\nenabled = true\n[agent]\nproject_id = "p"')
    assert load(file, environ={}).warnings == (
        f"{file}: agent.project_id has no effect yet",
        f"{file}: console.enabled has no effect yet",
    )
    assert load(environ={"FOUNDRY_PROJECT_ARM_ID": "p"}).warnings == ()
    assert load(EXAMPLE, environ={}).warnings == ()


# Secrets


SECRETS = {
    "AGENTWS_AUTH__API_KEYS": ("hunter2,hunter2b", "***"),
    "AGENTWS_STORE__URL": ("redis://me:hunter2@cache:6379/0", "redis://***@cache:6379/0"),
    "AGENTWS_TELEMETRY__CONNECTION_STRING": ("InstrumentationKey=hunter2", "***"),
    "AGENTWS_TELEMETRY__OTLP_ENDPOINT": ("https://hunter2@otel:4318", "https://***@otel:4318"),
    "AGENTWS_AUTH__JWKS_URL": ("https://a:hunter2@keys/k.json", "https://***@keys/k.json"),
}


@pytest.mark.parametrize(
    ("variable", "text", "shown"), [(name, *texts) for name, texts in SECRETS.items()]
)
def test_secrets_are_not_printed(variable: str, text: str, shown: str) -> None:
    environ = JWT | {variable: text}
    key = next(key for key, option in OPTIONS.items() if option.variable == variable)
    assert printed(environ)[key] == shown
    assert "hunter2" not in repr(load(environ=environ))


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://cache", "redis://cache"),
        ("redis://:hunter2@cache", "redis://***@cache"),
        ("redis://:hun%2Fter2@cache", "redis://***@cache"),
        ("redis://:hun@ter2@cache", "redis://***@cache"),
        ("redis://cache?password=hunter2", "redis://cache?***"),
    ],
)
def test_no_part_of_a_password_in_a_url_is_printed(url: str, shown: str) -> None:
    assert printed({"AGENTWS_STORE__URL": url})["store.url"] == shown


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ('[auth]\napi_keys = "hunter2"', "auth.api_keys"),
        ('[auth]\njwks_url = "ftp://hunter2@keys"', "auth.jwks_url"),
        ('[store]\nurl = "redis:/hunter2@cache"', "store.url"),
        ('[store]\nurl = "redis://:hunter2/@cache"', "store.url"),
        ('[store]\nurl = "redis://:hunter2?@cache"', "store.url"),
        ('[telemetry]\nconnection_string = ["hunter2"]', "telemetry.connection_string"),
    ],
)
def test_a_refusal_prints_no_secret(file: Path, text: str, key: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(f"{file}: {key} should")) as refusal:
        from_text(file, text)
    assert "hunter2" not in str(refusal.value)
    assert refusal.value.__suppress_context__


def test_settings_made_in_code_do_not_show_a_refused_secret() -> None:
    with pytest.raises(ValidationError) as refusal:
        StoreSettings(url="hunter2")
    assert "hunter2" not in str(refusal.value)
    assert "hunter2" not in repr(AuthSettings(api_keys=("hunter2",)))


# Rows


def test_rows_hold_every_option_in_order() -> None:
    assert [key for key, _, _ in rows(load(environ={}))] == list(OPTIONS)


@pytest.mark.parametrize(
    ("variable", "text", "shown"),
    [
        ("AGENTWS_AGENT__NAME", "bot", "bot"),
        ("AGENTWS_AGENT__NAME", "Zoë", "Zoë"),
        ("AGENTWS_AGENT__NAME", "two\nlines\x1b[31m", r"'two\nlines\x1b[31m'"),
        ("AGENTWS_CONSOLE__ENABLED", "yes", "true"),
        ("AGENTWS_STORE__LEASE", "3", "3"),
        ("AGENTWS_STORE__LEASE", "0.5", "0.5"),
        ("AGENTWS_HTTP__CORS_ORIGINS", "https://a, https://b", "https://a,https://b"),
    ],
)
def test_a_row_is_one_line_as_a_variable_spells_it(variable: str, text: str, shown: str) -> None:
    key = next(key for key, option in OPTIONS.items() if option.variable == variable)
    assert printed({variable: text})[key] == shown


def test_none_is_shown_as_a_dash() -> None:
    shown = printed({})
    assert {shown[key] for key in ("handler.target", "auth.api_keys", "auth.jwks_url")} == {"-"}
