"""Keys that are read from files, and that no secret is shown, whoever asks."""

import re
from pathlib import Path

import pytest
from pydantic import ValidationError

from agentws.config.options import OPTIONS
from agentws.config.settings import AuthSettings, StoreSettings
from agentws.config.sources import ConfigError, load
from tests.config.conftest import JWT, from_text, printed

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
