"""The verdicts, for people and for machines."""

import dataclasses
import json
import platform
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench.measurements import Measurement
from bench.rates import Rate


def show(measurements: Sequence[Measurement]) -> None:
    """Print a table, and below it what makes a value doubtful."""
    table = Table("Measurement", "Value", "Target", "Verdict")
    for it in measurements:
        value, target = f"{it.value:.2f} {it.unit}", f"{it.bound} {it.target:g}"
        table.add_row(it.name, value, target, _verdict(it))
    console = Console()
    console.print(table)
    for it in measurements:
        for side, rate in it.rates.items():
            console.print(f"{it.name}, {side}: {_told(rate)}", highlight=False, soft_wrap=True)
        if it.doubt:
            console.print(f"{it.name}: [yellow]Doubtful: {it.doubt}.[/]", soft_wrap=True)


def write(measurements: Sequence[Measurement], path: Path) -> None:
    """Write everything as JSON."""
    results = [dataclasses.asdict(it) | {"passed": it.passed} for it in measurements]
    document = {"python": platform.python_version(), "measurements": results}
    path.write_text(json.dumps(document, indent=2) + "\n", "utf-8")


def _verdict(measurement: Measurement) -> str:
    doubts = [measurement.doubt, *(rate.doubt for rate in measurement.rates.values())]
    doubtful = ", doubtful" if any(doubts) else ""
    return ("[green]pass" if measurement.passed else "[red]fail") + doubtful


def _told(rate: Rate) -> str:
    doubt = f" [yellow]Doubtful: {rate.doubt}.[/]" if rate.doubt else ""
    return (
        f"{rate.messages_per_second:,.0f}/s, server {rate.server_load:.0%} busy, "
        f"load generator {rate.generator_load:.0%} busy.{doubt}"
    )
