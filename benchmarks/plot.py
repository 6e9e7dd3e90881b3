"""The medians as bars, one panel for each piece of work: an SVG of our own, legible on a light and on a dark page.

The scale of a panel is logarithmic where its figures lie more than a factor of `LINEAR` apart; the panel says so.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING
from xml.sax.saxutils import escape

from benchmarks.report import key_of
from benchmarks.results import Spread, spread
from benchmarks.work import ALONE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.results import Results
    from benchmarks.work import Metric, Work

WIDTH, LABELS, FIGURES = 760, 230, 130  # pixels: of all, of the names at the left, of the figures at the right
BAR, GAP, TITLE, MARGIN = 14, 6, 30, 12
LINEAR = 30.0
STYLE = """
text { font: 12px system-ui, sans-serif; fill: #24292f }
.title { font-weight: 600 }
.own { fill: #0969da } .other { fill: #8c959f } .spread { stroke: #24292f; stroke-width: 1.5 }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 } .own { fill: #58a6ff } .other { fill: #6e7681 } .spread { stroke: #e6edf3 }
}"""


def svg(works: Sequence[Work], results: Results) -> str:
    """The whole picture; pieces of work without figures have no panel."""
    parts: list[str] = []
    top = MARGIN
    for work in works:
        bars = _bars(work, results)
        if bars:
            parts += _panel(work, bars, top)
            top += TITLE + len(bars) * (BAR + GAP) + MARGIN
    size = f'viewBox="0 0 {WIDTH} {top}" width="{WIDTH}" height="{top}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img">'
    title = "<title>Benchmarks of triorelay beside its peers: medians as bars, the spread as a line</title>"
    return "\n".join([head, title, f"<style>{STYLE}</style>", *parts, "</svg>", ""])


def _bars(work: Work, results: Results) -> list[tuple[str, Spread]]:
    """Names and figures of a work's first metric, without the generator's own capacity: it would flatten the rest."""
    found = []
    for entry in work.entries:
        samples = results.samples(key_of(work, entry), work.metrics[0].key)
        if samples and entry.name != ALONE:
            found.append((f"{entry.name}, {entry.transport}", spread(samples)))
    return found


def _panel(work: Work, bars: list[tuple[str, Spread]], top: int) -> list[str]:
    metric = work.metrics[0]
    largest = max(found.most for _, found in bars)
    smallest = min(found.least for _, found in bars)
    logarithmic = smallest > 0 and largest / smallest > LINEAR
    floor = smallest / 2 if logarithmic else 0.0
    scale = f"{metric.unit}, logarithmic" if logarithmic else metric.unit
    parts = [f'<text class="title" x="{MARGIN}" y="{top + 16}">{escape(work.title)} ({escape(scale)})</text>']
    for index, (name, found) in enumerate(bars):
        parts += _bar(name, found, metric, top + TITLE + index * (BAR + GAP), floor, largest)
    return parts


def _bar(name: str, found: Spread, metric: Metric, top: int, floor: float, largest: float) -> list[str]:
    median, least, most = (_length(value, floor, largest) for value in (found.median, found.least, found.most))
    middle = top + BAR / 2
    kind = "own" if name.startswith("triorelay") else "other"
    figure = f"{found.median * metric.scale:,.{metric.digits}f}"
    return [
        f'<text x="{LABELS - 8}" y="{top + BAR - 3}" text-anchor="end">{escape(name)}</text>',
        f'<rect class="{kind}" x="{LABELS}" y="{top}" width="{max(median, 1):.1f}" height="{BAR}"/>',
        f'<line class="spread" x1="{LABELS + least:.1f}" x2="{LABELS + most:.1f}" y1="{middle}" y2="{middle}"/>',
        f'<text x="{LABELS + max(most, median) + 8:.1f}" y="{top + BAR - 3}">{figure}</text>',
    ]


def _length(value: float, floor: float, largest: float) -> float:
    """Of a bar, in pixels."""
    room = WIDTH - LABELS - FIGURES
    if floor:
        return room * math.log(max(value, floor) / floor) / math.log(largest / floor)
    return room * value / largest if largest else 0.0
