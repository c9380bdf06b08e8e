"""The variables of OpenTelemetry: what its packages would answer with a traceback, or not at all.

Imports none of those packages, some of which read their variables when they are imported.
https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/
"""

import re
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from typing import Final, Literal

Signal = Literal["TRACES", "METRICS", "LOGS"]

SIGNALS: Final[tuple[Signal, ...]] = ("TRACES", "METRICS", "LOGS")

_SERVED: Final = re.compile("otlp.*|azure_monitor_opentelemetry_exporter")
"""Exporters that there are, wherever an endpoint or connection string is set."""

_COMPONENTS: Final[Mapping[str, str]] = {
    "OTEL_PROPAGATORS": "opentelemetry_propagator",
    "OTEL_PYTHON_CONTEXT": "opentelemetry_context",
    "OTEL_PYTHON_LOGGER_PROVIDER": "opentelemetry_logger_provider",
    "OTEL_PYTHON_METER_PROVIDER": "opentelemetry_meter_provider",
    "OTEL_PYTHON_TRACER_PROVIDER": "opentelemetry_tracer_provider",
    "OTEL_TRACES_SAMPLER": "opentelemetry_traces_sampler",
}
"""Variables that name what an installed package has to bring, and where that is registered."""


def _is_time(text: str) -> bool:
    try:
        return float(text) >= 0
    except ValueError:
        return False


def _is_share(text: str) -> bool:
    try:
        return 0 <= float(text) <= 1
    except ValueError:
        return False


_VALUES: Final[Mapping[str, tuple[Callable[[str], bool], str]]] = {
    r"OTEL_\w+_LIMIT": (str.isdecimal, "be a whole number"),
    r"OTEL_(METRIC_EXPORT_(INTERVAL|TIMEOUT)|BSP_EXPORT_TIMEOUT|BLRP_EXPORT_TIMEOUT)": (
        _is_time,
        "be a number of milliseconds",
    ),
    r"OTEL_EXPORTER_OTLP(_\w+)?_TIMEOUT": (_is_time, "be a number of seconds"),
    r"OTEL_EXPORTER_OTLP(_\w+)?_COMPRESSION": (
        ("none", "gzip", "deflate").__contains__,
        "be none, gzip or deflate",
    ),
}
"""Patterns of variables, what their values have to be, and how that is said."""


def forget_empty(environ: MutableMapping[str, str]) -> None:
    """Have an empty variable count as not set, as the specification of OpenTelemetry wants it."""
    for name in [name for name, text in environ.items() if name.startswith("OTEL_") and not text]:
        del environ[name]


def exports(signal: Signal, environ: Mapping[str, str]) -> bool:
    """Tell whether a signal may be exported, to wherever that is configured."""
    if environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return False
    return _exporters(signal, environ) != {"none"}


def problems(environ: Mapping[str, str]) -> Iterator[str]:
    """Yield a sentence for every variable that would end the start, or a handler, by an error."""
    for name, text in environ.items():
        if group := _COMPONENTS.get(name):
            yield from _missing(name, text, group)
        for pattern, (is_right, wish) in _VALUES.items():
            if re.fullmatch(pattern, name) and not is_right(text.strip()):
                yield f"environment {name} should {wish}, not {text!r}"
    share = environ.get("OTEL_TRACES_SAMPLER_ARG")
    if share and "traceidratio" in environ.get("OTEL_TRACES_SAMPLER", "") and not _is_share(share):
        yield f"environment OTEL_TRACES_SAMPLER_ARG should be a number from 0 to 1, not {share!r}"


def warnings(environ: Mapping[str, str]) -> Iterator[str]:
    """Yield a sentence for every exporter that is asked for in vain."""
    for signal in SIGNALS:
        names = _exporters(signal, environ) - {"none"}
        if unserved := sorted(name for name in names if not _SERVED.fullmatch(name)):
            more = "; telemetry.prometheus serves /metrics" if "prometheus" in unserved else ""
            yield (
                f"environment OTEL_{signal}_EXPORTER names {', '.join(unserved)}, which is not "
                f"served: there are otlp and none{more}"
            )


def _exporters(signal: Signal, environ: Mapping[str, str]) -> set[str]:
    names = environ.get(f"OTEL_{signal}_EXPORTER", "").lower().split(",")
    return {name.strip() for name in names} - {""}


def _missing(name: str, text: str, group: str) -> Iterator[str]:
    """Yield a sentence if a component is not installed; commas part propagators only."""
    from importlib.metadata import entry_points  # which takes its time

    installed = sorted({entry.name for entry in entry_points(group=group)})
    wanted = [part.strip() for part in text.split(",")] if name == "OTEL_PROPAGATORS" else [text]
    for part in wanted:
        if name == "OTEL_PROPAGATORS" and part.lower() == "none":
            return  # no others are looked at
        if part not in installed and part.lower() not in installed:
            known = ", ".join(installed)
            yield f"environment {name} should name what is installed ({known}), not {part!r}"
            return
