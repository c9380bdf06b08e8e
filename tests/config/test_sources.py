"""The sources of the configuration: which wins, and how each tells of what is wrong in it."""

from pathlib import Path

import pytest

from agentws.config.options import OPTIONS
from agentws.config.settings import ServerSettings
from agentws.config.sources import ConfigError, load
from tests.config.conftest import EXAMPLE, from_text, from_variables, value

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

SPECIAL = {
    "telemetry.connection_string": "InstrumentationKey=7",
    "telemetry.otlp_endpoint": "http://localhost:7",
}
"""What is set where a mere number will not do."""


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


# Environment variables


def test_the_environment_of_the_process_is_the_default_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AGENTWS_SERVER__PORT", "9000")
    assert load().settings.server.port == 9000


def test_platform_variables_are_those_of_the_specification() -> None:
    declared = {key: option.platform for key, option in OPTIONS.items() if option.platform}
    assert declared == PLATFORM_VARIABLES


@pytest.mark.parametrize(("key", "variable"), PLATFORM_VARIABLES.items())
def test_platform_variable(key: str, variable: str) -> None:
    text = SPECIAL.get(key, "7")
    loaded = load(environ={variable: text})
    assert str(value(loaded.settings, key)).removesuffix(".0") == text
    assert loaded.origins[key] == f"platform variable {variable}"


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


# What is given in code


@pytest.mark.parametrize("where", ["flags", "program"])
def test_a_wrong_value_from_code_names_its_source(where: str) -> None:
    source = {"flags": "flag --port", "program": "program"}[where]
    with pytest.raises(ConfigError, match=f"^{source}: server.port should be .*, not 70000$"):
        load(environ={}, **{where: {"server.port": 70_000}})  # type: ignore[arg-type]


@pytest.mark.parametrize("where", ["flags", "program"])
def test_an_unknown_key_from_code_names_the_nearest(where: str) -> None:
    with pytest.raises(ConfigError, match=r"'server\.prot' is unknown; .* server\.port"):
        load(environ={}, **{where: {"server.prot": None}})  # type: ignore[arg-type]


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
    file.write_text('[agent]\nproject_id = "p"')
    assert load(file, environ={}).warnings == (f"{file}: agent.project_id has no effect yet",)
    assert load(environ={"FOUNDRY_PROJECT_ARM_ID": "p"}).warnings == ()
    assert load(EXAMPLE, environ={}).warnings == ()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "127.8.8.8"])
def test_a_console_on_loopback_is_nothing_to_warn_of(host: str) -> None:
    environ = {"AGENTWS_CONSOLE__ENABLED": "1", "AGENTWS_SERVER__HOST": host}
    assert load(environ=environ).warnings == ()


@pytest.mark.parametrize("host", ["0.0.0.0", "*", "::", "192.0.2.1", "agents.example"])
def test_a_console_that_is_open_to_all_is_warned_of(host: str) -> None:
    environ = {"AGENTWS_CONSOLE__ENABLED": "1", "AGENTWS_SERVER__HOST": host}
    assert load(environ=environ).warnings == (
        f"console.enabled is true and server.host is {host}: whoever reaches the port has the "
        "console, unless auth.api_keys or auth.jwt_issuer is set",
    )
    keys = {"AGENTWS_AUTH__API_KEYS": "k", "AGENTWS_AUTH__QUERY_PARAMETER": "key"}
    assert load(environ=environ | keys).warnings == ()
