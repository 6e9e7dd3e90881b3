"""The demonstration in a terminal, as an SVG in which its lines appear at the time at which they came."""

import io
import re
import subprocess
import sys
import time
from pathlib import Path

import trio
from rich.console import Console
from rich.text import Text

DEMO = Path(__file__).parents[1] / "examples" / "demo.py"
COLUMNS = 110
REST_SECONDS = 6
"""How long the last line stays before it begins anew."""


async def record_terminal(path: Path) -> None:
    """Run the demonstration and write what it printed."""
    lines = [(0.0, "$ make demo")]
    start = time.monotonic()
    async with trio.open_nursery() as nursery:
        process = await nursery.start(_run_demo)
        rest = b""
        async for chunk in process.stdout:
            *complete, rest = (rest + chunk).split(b"\n")
            lines += [(1 + time.monotonic() - start, line.decode()) for line in complete]
    await trio.Path(path).write_text(animated(lines))


async def _run_demo(task_status: trio.TaskStatus[trio.Process]) -> None:
    command = [sys.executable, str(DEMO), "--quick"]
    await trio.run_process(command, stdout=subprocess.PIPE, task_status=task_status)


def animated(lines: list[tuple[float, str]]) -> str:
    """Return an SVG of a terminal in which each line appears at its time, in seconds, again and again."""
    console = Console(record=True, width=COLUMNS, force_terminal=True, file=io.StringIO())
    for _, line in lines:
        console.print(_styled(line), no_wrap=True, overflow="ellipsis", crop=True)
    svg = console.export_svg(title="make demo", unique_id="demo")
    period = lines[-1][0] + REST_SECONDS
    shown = [_appearing(number, when / period, period) for number, (when, _) in enumerate(lines) if when]
    still = "@media (prefers-reduced-motion: reduce) { text { animation: none !important } }"
    # The fonts that rich names are fetched from elsewhere; a picture shows what the reader has.
    svg = re.sub(r"@font-face \{.*?\}", "", svg, flags=re.DOTALL)
    return svg.replace("</style>", "\n".join([*shown, still, "</style>"]), 1)


def _appearing(number: int, share: float, period: float) -> str:
    """Return the style of a line that appears after a share of the period."""
    steps = f"0%, {share:.2%} {{ opacity: 0 }} {share + 1e-4:.2%}, 100% {{ opacity: 1 }}"
    animation = f"line-{number} {period:.1f}s step-end infinite"
    return f"@keyframes line-{number} {{ {steps} }} [clip-path='url(#demo-line-{number})'] {{ animation: {animation} }}"


def _styled(line: str) -> Text:
    if line.startswith("$ "):
        return Text(line, style="bold green")
    if line and not line.startswith("  "):
        return Text(line, style="bold")
    found = re.fullmatch(r"  (\w) to (\w): (.*)", line)
    if found:
        return Text.assemble("  ", (found[1], "cyan"), " to ", (found[2], "magenta"), f": {found[3]}")
    return Text(line, style="green" if line.endswith("it balances") else "")
