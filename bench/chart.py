"""The chart that the README shows: CPU time of an operation, ours and others', as SVG."""

from collections.abc import Sequence
from html import escape
from typing import Final

from bench.measuring import Result

_PANELS: Final = (
    ("invoke-50", "Invoke, 50 sockets"),
    ("invoke-4000", "Invoke, 4,000 busy sockets"),
    ("stream-50", "Chunk of a stream"),
    ("post", "POST"),
)
_CONTENDERS: Final = {
    "agentws": "agentws",
    "aiohttp, json": "bare aiohttp, json",
    "Starlette": "Starlette on uvicorn",
    "peer": "azure-ai-agentserver",
}
_WIDTH: Final = 760
_BAR: Final = 18
_STEP: Final = 24
_LEFT: Final = 170
_LONGEST: Final = 480
_HEAD: Final = 34

# What shows SVG as a picture hands it the reader's colour scheme, and no style of the page.
_STYLE: Final = """
    text { font: 13px system-ui, sans-serif; fill: #1f2328 }
    .title { font-weight: 600 }
    .other { fill: #afb8c1 }
    .ours { fill: #0969da }
    @media (prefers-color-scheme: dark) {
      text { fill: #e6edf3 }
      .other { fill: #6e7681 }
      .ours { fill: #4493f8 }
    }
"""


def drawn(results: Sequence[Result]) -> str:
    """Return a panel of bars for each scenario that was measured, the shorter the better."""
    costs = {(it.scenario, it.contender): it.values.get("cpu_us", 0) for it in results}
    parts, top = [], 0
    for scenario, title in _PANELS:
        bars = {
            label: costs[scenario, name]
            for name, label in _CONTENDERS.items()
            if (scenario, name) in costs
        }
        if bars:
            parts.append(_panel(title, bars, top))
            top += _HEAD + _STEP * len(bars) + 10
    said = "Microseconds of CPU time for one operation of the server; less is better"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {top}" role="img" '
        f'aria-label="{said}">\n  <title>{said}</title>\n  <style>{_STYLE}  </style>\n'
        f"{''.join(parts)}</svg>\n"
    )


def _panel(title: str, bars: dict[str, float], top: int) -> str:
    lines = [f'  <text class="title" x="0" y="{top + 20}">{escape(title)}, µs of CPU time</text>\n']
    scale = _LONGEST / max(bars.values())
    for number, (label, value) in enumerate(bars.items()):
        y = top + _HEAD + number * _STEP
        kind = "other" if number else "ours"
        width = value * scale
        lines.append(
            f'  <text x="{_LEFT - 10}" y="{y + 14}" text-anchor="end">{escape(label)}</text>\n'
            f'  <rect class="{kind}" x="{_LEFT}" y="{y}" width="{width:.1f}" height="{_BAR}" '
            f'rx="3"/>\n'
            f'  <text x="{_LEFT + width + 8:.1f}" y="{y + 14}">{value:.1f}</text>\n'
        )
    return "".join(lines)
