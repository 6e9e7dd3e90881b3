"""A regression check that does not depend on how fast the machine is: work a message instead of time.

``python -m benchmarks.work_per_message`` counts, in the closed loop of `pairs`, the relay's system calls a message
(strace) and its Python calls a message (sys.setprofile), and compares them with work.toml. A figure fails that is above
it by more than `TOLERANCE` of it, and by more than `SLACK`. ``--update`` writes the file instead.

1. Each figure is a difference: a run of `LONG` messages less one of `SHORT`, over the messages between. What starting,
   connecting and ending cost falls out.
2. Two loads: 64 clients, where one wake-up serves many, and one pair, where each message costs a wake-up.
3. Both builds are counted where the relay is compiled, the one of pure Python alone elsewhere.
4. How many clients are ready at once must not depend on timing. So relay and generator share one core as batch
   processes, which do not preempt each other: each runs until it has nothing to do. What else the machine does still
   changes a try now and then, so the median of `TRIES` tries counts.
"""

from __future__ import annotations

import argparse
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.programs import HERE, ROOT, Failed, build, generate, last_line, pin
from benchmarks.servers import CORE, END_TIMEOUT, end
from triorelay._build import COMPILED

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

Figures = dict[str, dict[str, dict[str, float]]]

BASELINE = HERE / "work.toml"
TOLERANCE = 0.15
SLACK = 0.4  # calls: counts below 1 vary by 0.3 with the machine's load; a call more for each message is 1
SHORT, LONG = 2000, 22000  # messages; traced, the relay passes some thousands a second
TRIES = 5
LIMIT = 120.0  # seconds for one run of the loop
IN_TURNS = ("chrt", "--batch", "0", *pin(CORE))
COMMAND = ("-m", "triorelay")
PURE = (str(HERE / "pure_relay.py"),)
BUILDS = {"pure": True, "compiled": False} if COMPILED else {"pure": True}
CLIENTS = {"64_clients": 64, "one_pair": 2}
HEAD = """\
# What one message costs the relay in the closed loop of c/pairs.c, as work_per_message.py counts it. The check fails on
# a rise of more than 15 % and 0.4. After a change that means to: make work ARGS=--update
"""


def _traced(report: Path, pure: bool) -> list[str]:
    """What starts a relay whose system calls are counted; the tracer is a grandchild of the process started."""
    strace = shutil.which("strace")
    if strace is None:
        raise Failed("no program strace (Debian: apt install strace)")
    return [strace, "-D", "-f", "-c", "-o", str(report), sys.executable, *(PURE if pure else COMMAND)]


def _read_traced(report: str) -> int | None:
    # The summary's last line: 100.00, seconds, microseconds a call, calls, errors if any, "total".
    total = re.search(r"^100\.00\s+\S+\s+\S+\s+(\d+).*total$", report, re.MULTILINE)
    return int(total.group(1)) if total else None


def _profiled(report: Path, pure: bool) -> list[str]:
    """What starts a relay whose Python calls are counted."""
    return [sys.executable, str(HERE / "profiled_relay.py"), str(report), *(PURE if pure else COMMAND)]


def _read_profiled(report: str) -> int | None:
    return int(report) if report.endswith("\n") else None


KINDS: Mapping[str, tuple[Callable[[Path, bool], list[str]], Callable[[str], int | None]]] = {
    "system_calls": (_traced, _read_traced),
    "python_calls": (_profiled, _read_profiled),
}


def _count(kind: str, pure: bool, clients: int, messages: int, generator: str) -> tuple[int, int]:
    """One run of the loop: the work counted, and the messages relayed."""
    head, read = KINDS[kind]
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        directory = Path(name)
        report = directory / "report"
        arguments = ["serve", "--unix", f"{directory}/socket", "--admin", "none"]
        with open(directory / "log", "wb") as log:
            relay = subprocess.Popen(
                [*IN_TURNS, *head(report, pure), *arguments],
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        try:
            command = [
                *IN_TURNS,
                generator,
                "frames",
                f"unix:{directory}/socket",
                str(LIMIT),
                str(clients),
                str(messages),
            ]
            result = generate(command, directory, timeout=LIMIT + END_TIMEOUT, server=relay)
        except Failed as failure:
            end(relay)
            raise Failed(f"{failure}; the relay's last words: {last_line((directory / 'log').read_text())}") from None
        end(relay)
        return _wait_for_report(report, read), int(result["messages"])


def _wait_for_report(report: Path, read: Callable[[str], int | None]) -> int:
    """The tracer writes its summary shortly after the relay has ended."""
    deadline = time.monotonic() + END_TIMEOUT
    while time.monotonic() < deadline:
        if report.exists() and (count := read(report.read_text())) is not None:
            return count
        time.sleep(0.01)
    raise Failed("no count was written (is tracing allowed here?)")


def _per_message(kind: str, pure: bool, clients: int, generator: str) -> float:
    tries = []
    for _ in range(TRIES):
        more_work, more = _count(kind, pure, clients, LONG, generator)
        less_work, less = _count(kind, pure, clients, SHORT, generator)
        tries.append((more_work - less_work) / (more - less))
    return statistics.median(tries)


def measure(generator: str) -> Figures:
    """All figures: work a message, by build, kind and load."""
    return {
        build: {
            kind: {load: _per_message(kind, pure, clients, generator) for load, clients in CLIENTS.items()}
            for kind in KINDS
        }
        for build, pure in BUILDS.items()
    }


def compare(found: Figures, baseline: Figures) -> list[tuple[str, float, float, bool]]:
    """For each figure: its name, the baseline's, what was found, and whether that is a regression."""
    return [
        (f"{build} {kind} {load}", before, now, now - before > max(before * TOLERANCE, SLACK))
        for build, kinds in found.items()
        for kind, loads in kinds.items()
        for load, now in loads.items()
        for before in [baseline[build][kind][load]]
    ]


def _write(found: Figures) -> None:
    # A build that is not here keeps its baseline.
    known: Figures = tomllib.loads(BASELINE.read_text()) if BASELINE.exists() else {}
    parts = [HEAD]
    for which, kinds in (known | found).items():
        for kind, loads in kinds.items():
            values = "".join(f"{load} = {value:.2f}\n" for load, value in loads.items())
            parts.append(f"\n[{which}.{kind}]\n{values}")
    BASELINE.write_text("".join(parts))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.work_per_message", description="Count work a message.")
    parser.add_argument("--update", action="store_true", help="make what is found now the baseline")
    chosen = parser.parse_args()
    try:
        found = measure(build().path("pairs"))
    except Failed as failure:
        print(f"work_per_message: {failure}", file=sys.stderr)
        return 1
    if chosen.update:
        _write(found)
    rows = compare(found, tomllib.loads(BASELINE.read_text()))
    for name, before, now, worse in rows:
        print(f"{name:<34} {now:7.2f} a message, baseline {before:.2f}{'  TOO MUCH' if worse else ''}")
    return 1 if any(worse for *_, worse in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
