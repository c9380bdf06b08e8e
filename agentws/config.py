"""The configuration: file, environment and flags, read into one tree of settings.

Environment variables are AGENTWS_SECTION__KEY in upper case. Other cases are refused rather than
ignored, for whoever wrote one meant an option. AGENTWS_ variables without a double underscore
belong to others.
"""

import difflib
import os
import re
import reprlib
import tomllib
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from pydantic import ValidationError
from pydantic_settings import InitSettingsSource

from agentws.settings import (
    OPTIONS,
    SECTIONS,
    AgentSettings,
    AuthSettings,
    ConsoleSettings,
    HandlerSettings,
    HttpSettings,
    InvocationsSettings,
    Option,
    ServerSettings,
    Settings,
    StoreSettings,
    TelemetrySettings,
    WebSocketSettings,
)

__all__ = [
    "AgentSettings",
    "AuthSettings",
    "ConfigError",
    "ConsoleSettings",
    "HandlerSettings",
    "HttpSettings",
    "InvocationsSettings",
    "Loaded",
    "ServerSettings",
    "Settings",
    "StoreSettings",
    "TelemetrySettings",
    "WebSocketSettings",
    "load",
    "rows",
]


class ConfigError(Exception):
    """The configuration is wrong; its text is one sentence that names the place and the need."""


@dataclass(frozen=True)
class Loaded:
    """The settings in effect and, by dotted key, a few words on where each value came from."""

    settings: Settings
    origins: Mapping[str, str]


def rows(loaded: Loaded) -> Iterator[tuple[str, str, str]]:
    """Yield dotted key, value as text without secrets, and origin, for every option in order."""
    for key, option in OPTIONS.items():
        value = getattr(getattr(loaded.settings, option.section), option.name)
        yield key, option.printed(value), loaded.origins[key]


def load(
    file: Path | None = None,
    *,
    flags: Mapping[str, object] = MappingProxyType({}),
    program: Mapping[str, object] = MappingProxyType({}),
    environ: Mapping[str, str] | None = None,
) -> Loaded:
    """Read the configuration.

    A value is taken from the first of these that has it: `flags`, the option's own variable, its
    platform variable, `file`, `program`, the default.

    Args:
        file: A TOML file; all its values have to be right, those overridden elsewhere too.
        flags: Values from the command line by dotted key; None stands for not given.
        program: Values that the embedding program asks for, likewise.
        environ: The environment variables, without it those of the process; an empty variable
            counts as not set.

    Raises:
        ConfigError: The file cannot be read, a name is unknown or a value is wrong.
    """
    environ = os.environ if environ is None else environ
    return _merged(
        _Layer(_given(flags, "flags"), lambda option: f"flag {option.flag}".rstrip()),
        _Layer(_variables(environ), lambda option: f"environment {option.variable}"),
        _Layer(_platform(environ), lambda option: f"platform variable {option.platform}"),
        _Layer(_file(file) if file else {}, lambda _: str(file)),
        _Layer(_given(program, "program"), lambda _: "program"),
    )


class _Layer(InitSettingsSource):
    """One source of values by dotted key; `origin` puts in words where an option was written."""

    def __init__(self, values: Mapping[str, object], origin: Callable[[Option], str]) -> None:
        tables: dict[str, Any] = {}
        for key, value in values.items():
            tables.setdefault(OPTIONS[key].section, {})[OPTIONS[key].name] = value
        super().__init__(Settings, tables)
        self.origins = {key: origin(OPTIONS[key]) for key in values}


def _merged(*layers: _Layer) -> Loaded:
    origins = dict.fromkeys(OPTIONS, "default")
    for layer in reversed(layers):
        origins |= layer.origins
    # The type of the constructor leaves out this keyword of pydantic-settings.
    sources: dict[str, Any] = {"_build_sources": (layers, {})}
    try:
        return Loaded(Settings(**sources), MappingProxyType(origins))
    except ValidationError as error:
        raise _refusal(error, origins) from None


def _given(values: Mapping[str, object], where: str) -> dict[str, object]:
    for key in values:
        _require_known(key, OPTIONS, f"{where}: key")
    return {key: value for key, value in values.items() if value is not None}


def _variables(environ: Mapping[str, str]) -> dict[str, object]:
    keys = {option.variable: key for key, option in OPTIONS.items()}
    ours = {name for name in environ if re.match("AGENTWS_.*__", name, re.I) and environ[name]}
    for name in sorted(ours):
        _require_known(name, keys, "environment: variable")
    values = {keys[name]: OPTIONS[keys[name]].parsed(environ[name]) for name in ours}
    # A list of nothing is as empty as a variable: it must not take away the keys of the file.
    return {key: value for key, value in values.items() if value != ()}


def _platform(environ: Mapping[str, str]) -> dict[str, object]:
    texts = {key: environ.get(option.platform) for key, option in OPTIONS.items()}
    return {key: OPTIONS[key].parsed(text) for key, text in texts.items() if text}


def _file(path: Path) -> dict[str, object]:
    values: dict[str, object] = {}
    for section, table in _toml(path).items():
        _require_known(section, SECTIONS, f"{path}: section", also=OPTIONS)
        if not isinstance(table, dict):
            raise ConfigError(f"{path}: {section} should be a table, begun by [{section}]")
        values |= _table(path, section, table)
    return values


def _table(path: Path, section: str, table: Mapping[str, object]) -> dict[str, object]:
    for name in table:
        _require_known(f"{section}.{name}", OPTIONS, f"{path}: key")
    # Strict validation takes no list for a tuple, and TOML has no tuples.
    values = {name: tuple(it) if isinstance(it, list) else it for name, it in table.items()}
    try:
        SECTIONS[section].model_validate(values, strict=True)
    except ValidationError as error:
        raise _refusal(error, dict.fromkeys(OPTIONS, str(path)), section) from None
    return {f"{section}.{name}": value for name, value in values.items()}


def _toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text("utf-8-sig"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: should be UTF-8, but byte {error.start} is not") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: should be TOML: {error}") from error


def _require_known(
    name: str, known: Collection[str], what: str, *, also: Collection[str] = ()
) -> None:
    if name in known:
        return
    spellings = {other.lower(): other for other in (*known, *also)}
    nearest = difflib.get_close_matches(name.lower(), spellings, n=1, cutoff=0)[0]
    raise ConfigError(f"{what} {name!r} is unknown; the nearest known is {spellings[nearest]}")


def _refusal(error: ValidationError, origins: Mapping[str, str], *outer: str) -> ConfigError:
    first = error.errors(include_url=False)[0]
    complaint = first["msg"].removeprefix("Value error, ")
    place = (*outer, *first["loc"])
    if not place:
        return ConfigError(complaint)
    key = f"{place[0]}.{place[1]}"
    wish = complaint.partition("should ")[2].replace("valid tuple", "list") or "be shorter"
    got = "" if OPTIONS[key].redact else f", not {reprlib.repr(first['input'])}"
    return ConfigError(f"{origins[key]}: {key} should {wish}{got}")
