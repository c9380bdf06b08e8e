"""The variables of OpenTelemetry: what is refused, what is warned of, what is left out."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from agentws.config.otel_variables import Signal, exports, forget_empty
from agentws.config.sources import ConfigError, load
from tests.support.processes import ROOT

PROPAGATORS = "should name what is installed (baggage, tracecontext), not"

WRONG = [
    (
        "OTEL_METRIC_EXPORT_INTERVAL",
        "soon",
        "should be a number of milliseconds, not 'soon'",
    ),
    ("OTEL_PROPAGATORS", "b3", f"{PROPAGATORS} 'b3'"),
    ("OTEL_PROPAGATORS", "tracecontext, xray", f"{PROPAGATORS} 'xray'"),
    ("OTEL_PROPAGATORS", ",", f"{PROPAGATORS} ''"),
    (
        "OTEL_PYTHON_CONTEXT",
        "threads",
        "should name what is installed (contextvars_context), not 'threads'",
    ),
    *(
        (
            f"OTEL_PYTHON_{kind.upper()}_PROVIDER",
            "mine",
            f"should name what is installed (default_{kind}_provider, sdk_{kind}_provider), "
            "not 'mine'",
        )
        for kind in ("tracer", "meter")
    ),
    (
        "OTEL_PYTHON_LOGGER_PROVIDER",
        "mine",
        "should name what is installed (sdk_logger_provider), not 'mine'",
    ),
    ("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "many", "should be a whole number, not 'many'"),
    ("OTEL_LOGRECORD_ATTRIBUTE_COUNT_LIMIT", "-1", "should be a whole number, not '-1'"),
    ("OTEL_EXPORTER_OTLP_TIMEOUT", "10s", "should be a number of seconds, not '10s'"),
    ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "-1", "should be a number of seconds, not '-1'"),
    ("OTEL_EXPORTER_OTLP_COMPRESSION", "zip", "should be none, gzip or deflate, not 'zip'"),
]


@pytest.mark.parametrize(("name", "text", "wish"), WRONG)
def test_what_would_be_a_traceback_is_a_sentence(name: str, text: str, wish: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        load(environ={name: text})
    assert str(refusal.value) == f"environment {name} {wish}"


@pytest.mark.parametrize(
    ("sampler", "argument", "told"),
    [
        ("sometimes", "", "OTEL_TRACES_SAMPLER should name what is installed"),
        ("traceidratio", "much", "OTEL_TRACES_SAMPLER_ARG should be a number from 0 to 1"),
        ("parentbased_traceidratio", "2", "OTEL_TRACES_SAMPLER_ARG should be a number from 0"),
    ],
)
def test_a_sampler_that_there_is_not_is_a_sentence(sampler: str, argument: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        load(environ={"OTEL_TRACES_SAMPLER": sampler, "OTEL_TRACES_SAMPLER_ARG": argument})


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("OTEL_TRACES_SAMPLER", "Always_Off"),
        ("OTEL_PROPAGATORS", "baggage, tracecontext"),
        ("OTEL_PROPAGATORS", "None"),
        ("OTEL_PYTHON_TRACER_PROVIDER", "sdk_tracer_provider"),
        ("OTEL_PYTHON_CONTEXT", "contextvars_context"),
        ("OTEL_ATTRIBUTE_COUNT_LIMIT", "0"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "2.5"),
        ("OTEL_EXPORTER_OTLP_METRICS_COMPRESSION", "gzip"),
        ("OTEL_TRACES_EXPORTER", "otlp"),
        ("OTEL_LOGS_EXPORTER", "none"),
        ("OTEL_SERVICE_NAME", "b3"),
    ],
)
def test_what_is_right_is_silent(name: str, text: str) -> None:
    assert load(environ={name: text}).warnings == ()


def agentws(folder: Path, command: str, **variables: str) -> "subprocess.CompletedProcess[str]":
    environ = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), **variables}
    return subprocess.run(
        [sys.executable, "-m", "agentws", command, "--port", "0", "--handler", "gone:agent"],
        cwd=folder,
        env=environ,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(("name", "text", "wish"), WRONG[:1] + WRONG[3:5])
def test_it_is_said_before_any_of_its_packages_is_imported(
    tmp_path: Path, name: str, text: str, wish: str
) -> None:
    (tmp_path / "gone.py").write_text("import opentelemetry.propagate\n1 / 0")
    done = agentws(tmp_path, "serve", **{name: text})
    assert (done.returncode, done.stderr) == (2, f"agentws: environment {name} {wish}\n")


def test_an_empty_variable_counts_as_not_set(tmp_path: Path) -> None:
    (tmp_path / "gone.py").write_text(
        "from opentelemetry import metrics\nmetrics.get_meter_provider()\n1 / 0"
    )
    done = agentws(tmp_path, "serve", OTEL_PYTHON_METER_PROVIDER="", OTEL_PROPAGATORS="")
    assert "gone.py, line 3: ZeroDivisionError" in done.stderr
    environ = {"OTEL_A": "", "OTEL_B": "1", "OTHER": ""}
    forget_empty(environ)
    assert environ == {"OTEL_B": "1", "OTHER": ""}


@pytest.mark.parametrize("signal", ["TRACES", "METRICS", "LOGS"])
@pytest.mark.parametrize(
    ("variable", "text", "exported"),
    [
        ("OTEL_{}_EXPORTER", "none", False),
        ("OTEL_{}_EXPORTER", " None ", False),
        ("OTEL_{}_EXPORTER", "otlp", True),
        ("OTEL_{}_EXPORTER", "console,none", True),
        ("OTEL_{}_EXPORTER", "", True),
        ("OTEL_SDK_DISABLED", "TRUE", False),
        ("OTEL_SDK_DISABLED", "false", True),
    ],
)
def test_which_signals_are_exported(
    signal: Signal, variable: str, text: str, exported: bool
) -> None:
    assert exports(signal, {variable.format(signal): text}) is exported


def test_exporters_that_are_not_there_are_told() -> None:
    environ = {"OTEL_TRACES_EXPORTER": "zipkin,otlp,console", "OTEL_METRICS_EXPORTER": "prometheus"}
    assert load(environ=environ).warnings == (
        "environment OTEL_TRACES_EXPORTER names console, zipkin, which is not served: "
        "there are otlp and none",
        "environment OTEL_METRICS_EXPORTER names prometheus, which is not served: "
        "there are otlp and none; telemetry.prometheus serves /metrics",
    )
