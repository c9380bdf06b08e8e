"""The configuration: file, environment and flags, read into one tree of settings.

Environment variables are AGENTWS_SECTION__KEY in upper case. Other cases are refused rather than
ignored, for whoever wrote one meant an option. AGENTWS_ variables without a double underscore may
belong to others: of them, it is told that nothing reads them.
"""

import difflib
import os
import re
import reprlib
import tomllib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from pydantic import ValidationError
from pydantic_settings import InitSettingsSource

from agentws.config import otel_variables
from agentws.config.options import OPTIONS, SECTIONS, Option
from agentws.config.settings import Settings
from agentws.config.values import is_loopback


class ConfigError(Exception):
    """The configuration is wrong; each line of the text is a sentence on place and need."""


@dataclass(frozen=True)
class Loaded:
    """The settings in effect and, by dotted key, a few words on where each value came from."""

    settings: Settings
    origins: Mapping[str, str]
    warnings: Sequence[str] = ()
    """What was set and has no effect, a sentence each."""
    file: Path | None = None
    """Where they were read from, among other places."""

    def differing(self) -> dict[str, str]:
        """Return what differs from the defaults, by dotted key, as text without secrets."""
        return {key: value for key, value, origin in rows(self) if origin != "default"}


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
        ConfigError: The file cannot be read, a name is unknown or a value is wrong; all of that is
            told.
    """
    environ = os.environ if environ is None else environ
    problems = Problems()
    layers = (
        _Layer(_given(flags, "flags", problems), lambda option: f"flag {option.flag}".rstrip()),
        _Layer(_variables(environ, problems), lambda option: f"environment {option.variable}"),
        _Layer(_platform(environ), lambda option: f"platform variable {option.platform}"),
        _Layer(_file(file, problems) if file else {}, lambda _: str(file)),
        _Layer(_given(program, "program", problems), lambda _: "program"),
    )
    origins = _origins(layers)
    settings = _merged(layers, origins, problems)
    for sentence in otel_variables.problems(environ):
        problems.setdefault(sentence, sentence)
    if settings is None or problems:
        raise ConfigError("\n".join(problems.values())) from None
    warnings = (
        *_unread(environ),
        *_idle(settings, origins),
        *_exposed(settings),
        *otel_variables.warnings(environ),
    )
    return Loaded(settings, origins, warnings, file)


Problems = dict[str, str]
"""Sentences by the key that they are about, or by themselves; the first one on a key counts."""


class _Layer(InitSettingsSource):
    """One source of values by dotted key; `origin` puts in words where an option was written."""

    def __init__(self, values: Mapping[str, object], origin: Callable[[Option], str]) -> None:
        tables: dict[str, Any] = {}
        for key, value in values.items():
            tables.setdefault(OPTIONS[key].section, {})[OPTIONS[key].name] = value
        super().__init__(Settings, tables)
        self.origins = {key: origin(OPTIONS[key]) for key in values}


def _origins(layers: Sequence[_Layer]) -> Mapping[str, str]:
    origins = dict.fromkeys(OPTIONS, "default")
    for layer in reversed(layers):
        origins |= layer.origins
    return MappingProxyType(origins)


def _merged(
    layers: Sequence[_Layer], origins: Mapping[str, str], problems: Problems
) -> Settings | None:
    # The type of the constructor leaves out this keyword of pydantic-settings.
    sources: dict[str, Any] = {"_build_sources": (layers, {})}
    try:
        return Settings(**sources)
    except ValidationError as error:
        _refuse(error, origins, problems)
        return None


def _given(values: Mapping[str, object], where: str, problems: Problems) -> dict[str, object]:
    known = _known(values, OPTIONS, f"{where}: key", problems)
    return {key: values[key] for key in known if values[key] is not None}


def _variables(environ: Mapping[str, str], problems: Problems) -> dict[str, object]:
    keys = {option.variable: key for key, option in OPTIONS.items()}
    ours = [name for name in _ours(environ) if "__" in name]
    known = _known(ours, keys, "environment: variable", problems)
    values = {keys[name]: OPTIONS[keys[name]].parsed(environ[name]) for name in known}
    # A list of nothing is as empty as a variable: it must not take away the keys of the file.
    return {key: value for key, value in values.items() if value != ()}


def _ours(environ: Mapping[str, str]) -> list[str]:
    """Return the names of variables that look as if they were for us, empty ones left out."""
    return sorted(
        name for name, text in environ.items() if re.match("AGENTWS_", name, re.I) and text
    )


def _unread(environ: Mapping[str, str]) -> Iterator[str]:
    """Yield a sentence for each variable that is not read, although its name begins like ours.

    Those that Kubernetes sets for a Service of that name are nobody's mistake.
    """
    variables = [option.variable for option in OPTIONS.values()]
    for name in _ours(environ):
        if "__" not in name and not _SERVICE_LINK.search(f"{name}={environ[name]}"):
            nearest = _nearest(name, variables)
            yield f"environment: variable {name!r} is not read; the nearest known is {nearest}"


_SERVICE_LINK: Final = re.compile(r"_SERVICE_(HOST|PORT)|_PORT_\d+_|_PORT=(tcp|udp|sctp)://")


def _idle(settings: Settings, origins: Mapping[str, str]) -> Iterator[str]:
    """Yield a sentence for each setting that somebody has chosen and that has no effect yet."""
    for key, option in OPTIONS.items():
        value = getattr(getattr(settings, option.section), option.name)
        is_chosen = value != option.default and not origins[key].startswith("platform")
        if not option.has_effect and is_chosen:
            yield f"{origins[key]}: {key} has no effect yet"


def _exposed(settings: Settings) -> Iterator[str]:
    """Yield a sentence where the console is shown to whoever reaches the port."""
    host = settings.server.host
    if settings.console.enabled and not settings.auth.is_on and not is_loopback(host):
        yield (
            f"console.enabled is true and server.host is {host or '*'}: whoever reaches the port "
            "has the console, unless auth.api_keys or auth.jwt_issuer is set"
        )


def _platform(environ: Mapping[str, str]) -> dict[str, object]:
    texts = {key: environ.get(option.platform) for key, option in OPTIONS.items()}
    return {key: OPTIONS[key].parsed(text) for key, text in texts.items() if text}


def _file(path: Path, problems: Problems) -> dict[str, object]:
    values: dict[str, object] = {}
    tables = _toml(path, problems)
    for section in _known(tables, SECTIONS, f"{path}: section", problems, also=OPTIONS):
        if isinstance(table := tables[section], dict):
            values |= _table(path, section, table, problems)
        else:
            problems[section] = f"{path}: {section} should be a table, begun by [{section}]"
    return values


def _table(
    path: Path, section: str, table: Mapping[str, object], problems: Problems
) -> dict[str, object]:
    keys = {f"{section}.{name}": name for name in table}
    known = [keys[key] for key in _known(keys, OPTIONS, f"{path}: key", problems)]
    values = {name: _tuple_of(table[name]) for name in known}
    try:
        SECTIONS[section].model_validate(values, strict=True)
    except ValidationError as error:
        _refuse(error, dict.fromkeys(OPTIONS, str(path)), problems, section)
    return {f"{section}.{name}": value for name, value in values.items()}


def _tuple_of(value: object) -> object:
    """Return a list as what strict validation takes for one, as TOML has no tuples."""
    return tuple(value) if isinstance(value, list) else value


def _toml(path: Path, problems: Problems) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text("utf-8-sig"))
    except OSError as error:
        problem = f"cannot be read: {error.strerror}"
    except UnicodeDecodeError as error:
        problem = f"should be UTF-8, but byte {error.start} is not"
    except tomllib.TOMLDecodeError as error:
        problem = f"should be TOML: {error}"
    problems[str(path)] = f"{path}: {problem}"
    return {}


def _known(
    names: Iterable[str],
    known: Collection[str],
    what: str,
    problems: Problems,
    *,
    also: Collection[str] = (),
) -> list[str]:
    """Return the names that are known, and note the others."""
    names = list(names)
    for name in names:
        if name not in known:
            nearest = _nearest(name, (*known, *also))
            problems[name] = f"{what} {name!r} is unknown; the nearest known is {nearest}"
    return [name for name in names if name in known]


def _nearest(name: str, known: Iterable[str]) -> str:
    spellings = {other.lower(): other for other in known}
    return spellings[difflib.get_close_matches(name.lower(), spellings, n=1, cutoff=0)[0]]


def _refuse(
    error: ValidationError, origins: Mapping[str, str], problems: Problems, *outer: str
) -> None:
    """Note what is wrong with values; one that was refused already is not told again."""
    for each in error.errors(include_url=False):
        complaint = each["msg"].removeprefix("Value error, ")
        place = (*outer, *each["loc"])
        if not place:
            problems[complaint] = complaint
            continue
        key = f"{place[0]}.{place[1]}"
        wish = complaint.partition("should ")[2].replace("valid tuple", "list") or "be shorter"
        got = "" if OPTIONS[key].redact else f", not {reprlib.repr(each['input'])}"
        problems.setdefault(key, f"{origins[key]}: {key} should {wish}{got}")
