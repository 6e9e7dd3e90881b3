"""The command: ``python -m benchmarks``, or ``make bench``."""

from __future__ import annotations

import argparse
import json
import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks import cluster, machine, plot, report
from benchmarks.programs import Failed, build
from benchmarks.results import Results
from benchmarks.servers import PEERS
from benchmarks.work import ALL_WORK, Run, Work

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.work import Entry

ROUNDS, QUICK_ROUNDS = 5, 2
SECONDS, QUICK_SECONDS = 1.0, 0.3  # each measurement's load
IDLE_SECONDS, QUICK_IDLE_SECONDS = 5.0, 1.0
CLUSTER = ("cluster", "two relays over NATS", "unix")
TRANSPORTS = ("unix", "tcp", "tls")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description="Measure the relay beside its peers and print one table."
    )
    option = parser.add_argument
    names = [*(work.name for work in ALL_WORK), CLUSTER[0]]
    option("--rounds", type=int, metavar="N", help=f"default {ROUNDS}, with --quick {QUICK_ROUNDS}")
    option("--quick", action="store_true", help="shorter measurements: to see that all works, not for figures to keep")
    option("--only", action="append", choices=names, metavar="WORK", help="repeatable; of %(choices)s")
    option(
        "--transport",
        default=",".join(TRANSPORTS),
        metavar="LIST",
        help="of unix, tcp, tls; peers with only one always take part",
    )
    option("--json", type=Path, metavar="FILE", help="write every sample too")
    option("--svg", type=Path, metavar="FILE", help="draw the medians")
    chosen = parser.parse_args()
    if chosen.rounds is not None and chosen.rounds < 1:
        parser.error("--rounds: at least 1")
    unknown = set(chosen.transport.split(",")) - set(TRANSPORTS)
    if unknown:
        parser.error(f"--transport: not one of {', '.join(TRANSPORTS)}: {', '.join(sorted(unknown))}")
    return chosen


def _taking_part(work: Work, transports: Sequence[str], results: Results, *, tls: bool) -> Work:
    """The work with only the servers that can take part here; the results name the others."""
    present = (entry for entry in work.entries if _takes_part(entry, transports, results, tls=tls))
    return replace(work, entries=tuple(present))


def _takes_part(entry: Entry, transports: Sequence[str], results: Results, *, tls: bool) -> bool:
    if entry.server is None:
        return True
    reason = entry.server.missing()
    if reason is None and entry.transport == "tls" and not tls:
        reason = "no OpenSSL headers for the generators (Debian: apt install libssl-dev)"
    if reason is not None:
        results.left_out[f"{entry.name} over {entry.transport}"] = reason
    # A peer that has only one transport is what the others are compared with, whichever they are asked for.
    fixed = entry.server in PEERS and len(entry.server.transports) == 1
    return reason is None and (fixed or entry.transport in transports)


def _measure_round(works: Sequence[Work], run: Run, results: Results) -> None:
    results.rounds.append({})
    for work in works:
        for entry in work.entries:
            key = report.key_of(work, entry)
            if key in results.failed:
                continue
            _show_progress(f"round {len(results.rounds)}: {' '.join(key)}")
            try:
                results.add(key, work.measure(run, entry))
            except Failed as failure:
                results.failed[key] = str(failure)
    _show_progress("")


def _show_progress(text: str) -> None:
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)


def _measure_cluster(rounds: int, seconds: float, results: Results) -> dict[str, float]:
    """What passes between two relays, which has a table of its own; nothing if that can't be measured."""
    if reason := cluster.missing():
        results.left_out[CLUSTER[1]] = reason
        return {}
    try:
        return cluster.medians(rounds, seconds)
    except Failed as failure:
        results.failed[CLUSTER] = str(failure)
        return {}


def main() -> int:
    chosen = _arguments()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # either way, what was started is ended
    try:
        programs = build()
    except Failed as failure:
        print(f"benchmarks: {failure}", file=sys.stderr)
        return 1
    seconds, idle = (QUICK_SECONDS, QUICK_IDLE_SECONDS) if chosen.quick else (SECONDS, IDLE_SECONDS)
    run, results = Run(programs, seconds, idle), Results()
    transports = chosen.transport.split(",")
    wanted = [work for work in ALL_WORK if not chosen.only or work.name in chosen.only]
    works = [_taking_part(work, transports, results, tls=programs.tls) for work in wanted]
    described = machine.describe()
    try:
        rounds = chosen.rounds or (QUICK_ROUNDS if chosen.quick else ROUNDS)
        for _ in range(rounds if works else 0):
            _measure_round(works, run, results)
        across = not chosen.only or CLUSTER[0] in chosen.only
        between = _measure_cluster(rounds, seconds, results) if across else {}
    except KeyboardInterrupt:
        print("\nbenchmarks: stopped", file=sys.stderr)
        return 130
    print(report.text(described, works, results))
    if between:
        print(cluster.text(between))
    if chosen.json:
        document = report.document(described, works, results) | {CLUSTER[0]: between}
        chosen.json.write_text(json.dumps(document, indent=1) + "\n")
    if chosen.svg:
        chosen.svg.write_text(plot.svg(works, results))
    return 1 if results.failed else 0


if __name__ == "__main__":
    sys.exit(main())
