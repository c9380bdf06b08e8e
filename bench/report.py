"""The figures, for people and for machines: terminal, JSON, Markdown, chart."""

import dataclasses
import datetime
import importlib.metadata
import json
import platform
import subprocess
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, Final

import psutil
from rich.console import Console
from rich.table import Table

from bench import chart
from bench.contenders import PEER_PYTHON
from bench.measuring import Result
from bench.scenarios import TITLES
from bench.targets import Verdict

FOLDER: Final = Path(__file__).parent
_BEGIN: Final = "<!-- measured: make bench writes from here -->"
_END: Final = "<!-- to here -->"
_OURS: Final = ("aiohttp", "msgspec", "uvloop", "opentelemetry-sdk", "redis")
_PEERS: Final = ("azure-ai-agentserver-invocations", "starlette", "uvicorn", "hypercorn")

_UNITS: Final[Mapping[str, tuple[str, str]]] = {
    "cpu_us": ("µs CPU", ",.1f"),
    "per_second": ("a second", ",.0f"),
    "core_share": ("of a core", ".2f"),
    "longest_pause_ms": ("longest pause, ms", ".1f"),
    "full_collections": ("full collections", ".0f"),
    "page_faults": ("page faults", ".2f"),
    "kib_per_socket": ("KiB a socket", ".1f"),
    "kib_per_invocation": ("KiB each", ".1f"),
    "p50_ms": ("p50, ms", ".2f"),
    "p99_ms": ("p99, ms", ".2f"),
    "seconds": ("s", ".2f"),
    "ms": ("ms", ".1f"),
}
"""What is shown of the quantities, and how; the others are in the JSON only."""


def show(results: Sequence[Result], verdicts: Sequence[Verdict]) -> None:
    """Print a table for each scenario, and one of the targets."""
    console = Console()
    for scenario, group in groupby(results, lambda it: it.scenario):
        title, header, rows = _tabulated(scenario, list(group))
        _print(console, title, header, rows)
    if verdicts:
        _print(console, "Targets", _TARGET_HEADER, map(_told, verdicts))


def write(results: Sequence[Result], verdicts: Sequence[Verdict]) -> None:
    """Write `results.json`, `chart.svg`, and the tables of `README.md` in this folder."""
    machine = _machine()
    document = {
        "machine": machine,
        "targets": [dataclasses.asdict(it) | {"met": it.met} for it in verdicts],
        "results": [dataclasses.asdict(it) for it in results],
    }
    (FOLDER / "results.json").write_text(json.dumps(document, indent=1) + "\n", "utf-8")
    (FOLDER / "chart.svg").write_text(chart.drawn(results), "utf-8")
    readme = FOLDER / "README.md"
    before, _, rest = readme.read_text("utf-8").partition(_BEGIN)
    after = rest.partition(_END)[2]
    tables = _markdown(machine, results, verdicts)
    readme.write_text(f"{before}{_BEGIN}\n\n{tables}\n{_END}{after}", "utf-8")


def _machine() -> dict[str, Any]:
    cpuinfo = Path("/proc/cpuinfo").read_text("utf-8")
    model = next((it for it in cpuinfo.splitlines() if it.startswith("model name")), ":")
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "processor": f"{psutil.cpu_count()} x {model.partition(':')[2].strip()}",
        "system": f"Linux {platform.release()}",
        "python": platform.python_version(),
        "load_average_of_15_minutes": psutil.getloadavg()[2],
        "versions": {name: importlib.metadata.version(name) for name in _OURS} | _peer_versions(),
    }


def _peer_versions() -> dict[str, str]:
    code = (
        "import importlib.metadata as m, json;"
        f"print(json.dumps({{name: m.version(name) for name in {_PEERS}}}))"
    )
    told = subprocess.run([str(PEER_PYTHON), "-c", code], capture_output=True, check=True)
    versions: dict[str, str] = json.loads(told.stdout)
    return versions


def _markdown(
    machine: Mapping[str, Any], results: Sequence[Result], verdicts: Sequence[Verdict]
) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    parts = [
        f"Measured on {machine['date']}: {machine['processor']}, {machine['system']}, "
        f"Python {machine['python']}, {versions}.\n",
        _table("Targets", _TARGET_HEADER, map(_told, verdicts)),
    ]
    for scenario, group in groupby(results, lambda it: it.scenario):
        parts.append(_table(*_tabulated(scenario, list(group))))
    return "\n".join(parts)


_TARGET_HEADER: Final = ("", "measured", "target", "")


def _told(it: Verdict) -> tuple[str, ...]:
    digits = ",.0f" if it.value >= 1000 else ".2f"
    value, target = f"{it.value:{digits}} {it.unit}", f"{it.bound} {it.target:,g}"
    return it.name, value, target, "met" if it.met else "**not met**"


def _tabulated(
    scenario: str, group: Sequence[Result]
) -> tuple[str, tuple[str, ...], list[tuple[str, ...]]]:
    shown = [key for key in _UNITS if any(key in it.values for it in group)]
    rows = [
        (it.contender, *(_figure(it.values.get(key), _UNITS[key][1]) for key in shown))
        for it in group
    ]
    return TITLES[scenario], ("", *(_UNITS[key][0] for key in shown)), rows


def _figure(value: float | None, digits: str) -> str:
    return "" if value is None else f"{value:{digits}}"


def _table(title: str, header: Sequence[str], rows: Any) -> str:
    lines = [header, ["---", *["--:" for _ in header[1:]]], *rows]
    return f"**{title[0].upper()}{title[1:]}**\n\n" + "".join(
        f"| {' | '.join(line)} |\n" for line in lines
    )


def _print(console: Console, title: str, header: Sequence[str], rows: Any) -> None:
    table = Table(*header, title=title, title_justify="left")
    for row in rows:
        table.add_row(*(cell.replace("**", "") for cell in row))
    console.print(table)
