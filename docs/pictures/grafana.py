"""The Grafana dashboard, drawn from its own queries.

Grafana is in no registry that the project uses. So this is no picture of Grafana, but of what it would show: panels,
places and queries come from docs/how-to/prometheus/grafana.json, answers from a real Prometheus that scrapes a relay
under load.
"""

import tempfile
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import trio

from docs.pictures.relay import running_relay
from tests.admin.chromium import Chromium
from tests.components import require
from tests.prometheus import Panel, Prometheus, free_port, load, panels, scraping

SECONDS = 60
"""What the graphs show."""
COLUMN, ROW = 56, 34  # pixels
COLORS = ["#73bf69", "#f2cc0c", "#5794f2", "#ff9830", "#f2495c", "#b877d9", "#37872d", "#8ab8ff", "#ffcb7d", "#c0d8ff"]
STYLE = """
body { margin: 0; background: #111217; color: #ccccdc; font: 12px 'DejaVu Sans', sans-serif; width: WIDTHpx }
section { position: absolute; box-sizing: border-box; background: #181b1f; border: 1px solid #2a2d33; padding: 8px }
h2 { margin: 0 0 6px; font-size: 13px; font-weight: 600 }
.value { font-size: 34px; font-weight: 600; text-align: center; padding-top: 18px; color: #73bf69 }
svg { display: block } text { fill: #9fa7b3; font-size: 10px }
.legend span { margin-right: 12px; white-space: nowrap }
.legend i { display: inline-block; width: 12px; height: 3px; margin: 0 4px 3px 0 }
.legend { font-size: 10px; height: 15px; overflow: hidden }
""".replace("WIDTH", str(24 * COLUMN))


async def take_grafana(path: Path) -> None:
    """Run a relay under load with Prometheus, and draw the dashboard."""
    with tempfile.TemporaryDirectory(prefix="triorelay-pictures-") as name:
        directory, target = Path(name), f"127.0.0.1:{free_port()}"
        (directory / "prometheus").mkdir()
        async with AsyncExitStack() as stack:
            stack.enter_context(running_relay("--admin", target, cwd=directory))
            prometheus = stack.enter_context(scraping(target, directory / "prometheus"))
            await stack.enter_async_context(load(f"unix:{directory}/server_socket"))
            await trio.sleep(SECONDS)
            page_text = "".join([_section(panel, prometheus) for panel in panels()])
            (directory / "page.html").write_text(f"<!doctype html><style>{STYLE}</style>{page_text}")
            chromium = Chromium(require("chromium"), directory / "profile")
            stack.callback(chromium.end)
            browser = await stack.enter_async_context(chromium.open())
            page = await browser.open_page()
            await page.look_like(24 * COLUMN, 36 * ROW)
            await page.visit(f"file://{directory}/page.html")
            await page.until("document.querySelectorAll('section').length > 10")
            await page.screenshot(path)


def _section(panel: Panel, prometheus: Prometheus) -> str:
    x, y, width, height = panel.place
    left, top, width, height = x * COLUMN, y * ROW, width * COLUMN - 8, height * ROW - 8
    series = [
        (_label(legend, found["metric"]), [(float(when), float(value)) for when, value in found["values"]])
        for query, legend in panel.queries
        for found in prometheus.query_range(query, SECONDS - 8, 1)
    ]
    if panel.kind == "stat":
        body = f'<div class="value">{_text(series[0][1][-1][1], panel.unit) if series else "no data"}</div>'
    else:
        body = _graph(series, width - 18, height - 60, panel.unit)
    style = f"left: {left}px; top: {top}px; width: {width}px; height: {height}px"
    return f'<section style="{style}"><h2>{panel.title}</h2>{body}</section>'


def _label(legend: str, metric: dict[str, Any]) -> str:
    for name, value in metric.items():
        legend = legend.replace("{{" + name + "}}", "relay" if name == "instance" else value)
    return legend.replace("{{instance}}", "").strip()


def _graph(series: list[tuple[str, list[tuple[float, float]]]], width: int, height: int, unit: str) -> str:
    points = [point for _, values in series for point in values]
    first, last = min(when for when, _ in points), max(when for when, _ in points)
    top = max(max(value for _, value in points) * 1.1, 1e-9)
    margin = 56
    lines = []
    for share in (0, 0.5, 1):
        y = height - 14 - share * (height - 24)
        lines.append(f'<path d="M{margin} {y:.1f}H{width}" stroke="#2a2d33"/>')
        lines.append(f'<text x="{margin - 6}" y="{y + 3:.1f}" text-anchor="end">{_text(share * top, unit)}</text>')
    for number, (_, values) in enumerate(series):
        path = " ".join(
            f"{margin + (when - first) / max(last - first, 1) * (width - margin):.1f},"
            f"{height - 14 - value / top * (height - 24):.1f}"
            for when, value in values
        )
        color = COLORS[number % len(COLORS)]
        lines.append(f'<polyline points="{path}" fill="none" stroke="{color}" stroke-width="1.4"/>')
    for share in (0, 0.5, 1):
        x = margin + share * (width - margin)
        anchor = "start" if share == 0 else "end" if share == 1 else "middle"
        text = f"-{(1 - share) * (last - first):.0f} s" if share < 1 else "now"
        lines.append(f'<text x="{x:.0f}" y="{height}" text-anchor="{anchor}">{text}</text>')
    legend = "".join(
        f'<span><i style="background: {COLORS[number % len(COLORS)]}"></i>{label}</span>'
        for number, (label, _) in enumerate(series)
    )
    return f'<svg width="{width}" height="{height}">{"".join(lines)}</svg><div class="legend">{legend}</div>'


def _text(value: float, unit: str) -> str:
    if unit == "percentunit":
        return f"{100 * value:.3g} %"
    base, suffixes = (1024, [" B", " KiB", " MiB", " GiB"]) if unit == "bytes" else (1000, ["", " K", " Mil", " Bil"])
    for suffix in suffixes[:-1]:
        if value < base:
            return f"{value:.3g}{suffix}"
        value /= base
    return f"{value:.3g}{suffixes[-1]}"
