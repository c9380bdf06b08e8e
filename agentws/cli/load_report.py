"""What was measured, as a table, as one line, and as JSON."""

import asyncio
import sys
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from agentws.cli.load import Load, Measured, percentile

_TICK = 0.25
"""Seconds between two states of the live display."""

_RECENT = 1000
"""How many of the last invocations it looks at."""

_WIDEST = 1000
"""How many characters a line of the table may have on however narrow a terminal."""


def as_json(measured: Measured) -> dict[str, Any]:
    """Return what was measured, for programs; durations are seconds."""
    return {
        "invocations_per_second": round(measured.rate(measured.completed), 3),
        "chunks_per_second": round(measured.rate(measured.chunks), 3),
        "time_to_first_chunk": _percentiles(measured.firsts),
        "duration": _percentiles(measured.durations),
        "errors": dict(sorted(measured.errors.items())),
        "reconnects": measured.reconnects,
    }


def _percentiles(values: Sequence[float]) -> dict[str, float | None]:
    shares = {"p50": percentile(values, 0.5), "p99": percentile(values, 0.99)}
    return {name: value and round(value, 6) for name, value in shares.items()}


def as_table(measured: Measured) -> Table:
    """Return what was measured, for people."""
    table = Table(title=f"{measured.seconds:.1f} s", title_justify="left", pad_edge=False, box=None)
    table.add_column("")
    for name in ("count", "per second", "p50", "p99"):
        table.add_column(name, justify="right")
    for name, count in (("invocations", measured.completed), ("chunks", measured.chunks)):
        table.add_row(name, f"{count:,}", f"{measured.rate(count):,.1f}", "", "")
    for name, values in (
        ("time to first chunk", measured.firsts),
        ("duration", measured.durations),
    ):
        table.add_row(name, "", "", *(_shown(percentile(values, it)) for it in (0.5, 0.99)))
    for code, count in sorted(measured.errors.items()):
        table.add_row(f"error {code}", f"{count:,}", "", "", "", style="red")
    table.add_row("resumes", f"{measured.reconnects:,}", "", "", "")
    return table


def _shown(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    return f"{seconds * 1000:.1f} ms" if seconds < 1 else f"{seconds:.2f} s"


def print_table(measured: Measured) -> None:
    """Print the table on stdout."""
    console, table = Console(file=sys.stdout), as_table(measured)
    needed = console.measure(table, options=console.options.update(width=_WIDEST)).maximum
    console.width = max(console.width, needed)  # so that no number is cut short
    console.print(table)


async def show(load: Load) -> None:
    """Show on the terminal how it goes, until cancelled."""
    with Live(console=Console(stderr=True), transient=True, auto_refresh=False) as live:
        while True:
            live.update(_line(load), refresh=True)
            await asyncio.sleep(_TICK)


def _line(load: Load) -> Text:
    measured = load.measured
    recent = measured.durations[-_RECENT:]
    parts = [
        f"{measured.seconds:.0f} s",
        f"{measured.completed:,} done, {measured.rate(measured.completed):,.0f}/s",
        f"{measured.rate(measured.chunks):,.0f} chunks/s",
        f"{load.running:,} running",
        f"p50 {_shown(percentile(recent, 0.5))}, p99 {_shown(percentile(recent, 0.99))}",
    ]
    if errors := measured.errors.total():
        parts.append(f"{errors:,} errors")
    if measured.reconnects:
        parts.append(f"{measured.reconnects:,} resumes")
    return Text(" · ".join(parts))
