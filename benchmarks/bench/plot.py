"""A small bar plot as SVG: a bar for each contender's median, a line from its minimum to its maximum."""

from __future__ import annotations

import statistics
from collections.abc import Collection, Mapping, Sequence
from html import escape

from bench.record import number

WIDTH = 760
_LABELS = 300  # width of the labels
_VALUES = 90  # space for the number after the longest line
_ROW = 26
_TOP = 34
# Legible on light and dark pages: an image knows the colour scheme of the system, not of its page.
_STYLE = """
text { font: 13px system-ui, -apple-system, "Segoe UI", sans-serif; fill: #1f2328 }
.unit { font-size: 12px; fill: #59636e }
.ours { fill: #1f6feb }
.theirs { fill: #8b949e }
.spread { stroke: #1f2328; stroke-width: 1.5 }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 }
  .unit { fill: #9198a1 }
  .ours { fill: #58a6ff }
  .theirs { fill: #6e7681 }
  .spread { stroke: #e6edf3 }
}
"""


def bars(
    title: str, unit: str, measured: Mapping[str, Sequence[float]], ours: Collection[str]
) -> str:
    """Returns the plot of one record; `ours` have another colour."""
    most = max((max(values) for values in measured.values()), default=0) or 1.0
    scale = (WIDTH - _LABELS - _VALUES) / most
    height = _TOP + _ROW * len(measured) + 8
    lines = [
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" '
            f'viewBox="0 0 {WIDTH} {height}" role="img">'
        ),
        f"<title>{escape(title)}</title>",
        f"<style>{_STYLE}</style>",
        f'<text class="unit" x="{_LABELS}" y="18">{escape(unit)}; bar: median, line: least to most</text>',
    ]
    for place, (name, values) in enumerate(measured.items()):
        lines += _bar(
            name, values, _TOP + _ROW * place, scale, "ours" if name in ours else "theirs"
        )
    return "\n".join([*lines, "</svg>", ""])


def _bar(name: str, values: Sequence[float], top: int, scale: float, whose: str) -> list[str]:
    median, least, most = statistics.median(values), min(values), max(values)
    middle = top + _ROW / 2 - 2
    return [
        f'<text x="{_LABELS - 10}" y="{middle + 5:g}" text-anchor="end">{escape(name)}</text>',
        f'<rect class="{whose}" x="{_LABELS}" y="{top + 3}" width="{median * scale:.1f}" height="{_ROW - 10}" rx="2"/>',
        (
            f'<line class="spread" x1="{_LABELS + least * scale:.1f}" x2="{_LABELS + most * scale:.1f}" '
            f'y1="{middle:g}" y2="{middle:g}"/>'
        ),
        f'<text x="{_LABELS + most * scale + 8:.1f}" y="{middle + 5:g}">{escape(number(median))}</text>',
    ]
