"""The command: ``python -m benchmarks.clients``, or ``make bench-clients``."""

from __future__ import annotations

import argparse
import importlib.util
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field
from statistics import median
from typing import TYPE_CHECKING

from benchmarks import machine, servers
from benchmarks.clients._process import RECEIVERS, SENDER
from benchmarks.programs import Failed, figures, last_line
from benchmarks.servers import Place, Server, end, running

if TYPE_CHECKING:
    from collections.abc import Iterator

ROUNDS, QUICK_ROUNDS = 5, 1
SECONDS, QUICK_SECONDS = 1.0, 0.3
GRACE = 60.0  # seconds beyond its own that a measurement may take
SIZES = (64, 1024, 65536)
PACKAGES = ("nats-py", "pyzmq", "aiomqtt", "redis")


def _router(place: Place) -> list[str]:
    return [sys.executable, "-m", "benchmarks.clients._router", f"ipc://{place.socket}"]


ROUTER = Server("pyzmq ROUTER", "zmq", ("unix",), _router)


@dataclass(frozen=True, slots=True)
class Entry:
    """A library in the table: its name, how `_process` calls it, its server and how it is reached."""

    title: str
    library: str
    server: Server
    transport: str = "unix"
    module: str = ""


ENTRIES = (
    Entry("triorelay", "triorelay", servers.RELAY),
    Entry("triorelay, TCP", "triorelay", servers.RELAY, "tcp"),
    Entry("triorelay, *_nowait", "triorelay nowait", servers.RELAY),
    Entry("triorelay, *_nowait, TCP", "triorelay nowait", servers.RELAY, "tcp"),
    Entry("triorelay, blocking", "triorelay blocking", servers.RELAY),
    Entry("nats-py, callback", "nats-py", servers.NATS, "tcp", "nats"),
    Entry("nats-py, iterator", "nats-py iterator", servers.NATS, "tcp", "nats"),
    Entry("pyzmq, blocking, ROUTER in Python", "pyzmq", ROUTER, module="zmq"),
    Entry("aiomqtt", "aiomqtt", servers.MOSQUITTO, module="aiomqtt"),
    Entry("redis-py, asyncio", "redis-py", servers.REDIS, module="redis"),
)
STREAM = Entry("triorelay, stream", "triorelay", servers.RELAY)


@dataclass(frozen=True, slots=True)
class Work:
    """What two or more processes do, and which figures count: key, unit, factor."""

    title: str
    sender: str
    receiver: str
    size: int
    metrics: tuple[tuple[str, str, float], ...]
    receivers: int = 1
    entries: tuple[Entry, ...] = ENTRIES


RATE = ("rate", "k/s", 1e-3)
CPU = (("sender_us", "µs processor, sender", 1.0), ("receiver_us", "receiver", 1.0))
WORKS = (
    *(Work(f"{size} bytes, window of 512", "flood", "drink", size, (RATE, *CPU)) for size in SIZES),
    Work("64 bytes, round trip", "ask", "echo", 64, (("median_us", "µs p50", 1.0), ("p99_us", "µs p99", 1.0))),
    Work("64 bytes, one to 8, each gets it", "flood", "drink", 64, (RATE, *CPU), receivers=8),
    *(
        Work(f"stream, writes of {size} bytes", "pour", "swallow", size, (("rate", "MB/s", size * 1e-6),), 1, (STREAM,))
        for size in SIZES
    ),
)


@dataclass(slots=True)
class Table:
    """All samples, by work and entry, and why some have none."""

    samples: dict[tuple[str, str], list[dict[str, float]]] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)

    def lines(self) -> Iterator[str]:
        for work in WORKS:
            found = [
                (entry, samples) for entry in work.entries if (samples := self.samples.get((work.title, entry.title)))
            ]
            if not found:
                continue
            yield f"\n{work.title}: medians"
            for entry, samples in found:
                shown = (
                    f"{factor * median(sample[key] for sample in samples):10,.1f} {unit}"
                    for key, unit, factor in work.metrics
                )
                yield f"  {entry.title:<36}{'  '.join(shown)}"
        yield from (f"left out: {who}: {why}" for who, why in self.missing.items())


def measure(work: Work, entry: Entry, seconds: float) -> dict[str, float]:
    """Start the server and the processes; return what they say. Failed where one of them fails."""
    with running(entry.server, entry.transport) as started:
        _wait_until_listening(started.address, started.process)

        def start(role: str, name: str) -> subprocess.Popen[str]:
            arguments = [entry.library, role, started.address, name, str(work.size), str(seconds), str(work.receivers)]
            command = [sys.executable, "-m", "benchmarks.clients._process", *arguments]
            return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

        processes = [start(work.sender, SENDER)]
        try:
            # What a receiver says first would be lost where the sender does not listen yet.
            assert processes[0].stdout is not None
            processes[0].stdout.readline()
            processes += [start(work.receiver, name) for name in RECEIVERS[: work.receivers]]
            return _results(processes, seconds)
        finally:
            for process in processes:
                end(process)  # type: ignore[arg-type]


def _results(processes: list[subprocess.Popen[str]], seconds: float) -> dict[str, float]:
    found: dict[str, float] = {}
    for process in processes:
        try:
            output, errors = process.communicate(timeout=seconds + GRACE)
        except subprocess.TimeoutExpired:
            raise Failed(f"no result within {seconds + GRACE:.0f} s") from None
        if process.returncode:
            raise Failed(last_line(errors) or f"status {process.returncode}")
        found |= figures(output)
    return found


def _wait_until_listening(address: str, server: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + GRACE
    kind, _, where = address.partition(":")
    while time.monotonic() < deadline and server.poll() is None:
        with socket.socket(socket.AF_UNIX if kind == "unix" else socket.AF_INET) as probe:
            try:
                probe.connect(where if kind == "unix" else ("127.0.0.1", int(where.rpartition(":")[2])))
            except OSError:
                time.sleep(0.01)
            else:
                return
    raise Failed("the server does not listen")


def _taking_part(table: Table) -> set[str]:
    present: set[str] = set()
    for entry in (*ENTRIES, STREAM):
        lacks = entry.module and importlib.util.find_spec(entry.module) is None
        why = f"no module {entry.module}" if lacks else entry.server.missing()
        if why:
            table.missing[entry.title] = why
        else:
            present.add(entry.title)
    return present


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.clients", description="Measure client libraries.")
    parser.add_argument("--rounds", type=int, metavar="N", help=f"default {ROUNDS}, with --quick {QUICK_ROUNDS}")
    parser.add_argument("--quick", action="store_true", help="to see that all works, not for figures to keep")
    parser.add_argument("--only", metavar="WORD", default="", help="work whose title holds this word")
    chosen = parser.parse_args()
    rounds, seconds = (QUICK_ROUNDS, QUICK_SECONDS) if chosen.quick else (ROUNDS, SECONDS)
    table = Table()
    present = _taking_part(table)
    failed = False
    for _ in range(chosen.rounds or rounds):
        for work in (work for work in WORKS if chosen.only in work.title):
            for entry in (entry for entry in work.entries if entry.title in present):
                try:
                    sample = measure(work, entry, seconds)
                except Failed as failure:
                    table.missing[f"{work.title}: {entry.title}"] = str(failure)
                    failed = True
                else:
                    table.samples.setdefault((work.title, entry.title), []).append(sample)
    described = machine.describe() | {name: version for name in PACKAGES if (version := machine.package(name))}
    print("\n".join(f"{name}: {value}" for name, value in described.items()))
    print("\n".join(table.lines()))
    return failed


if __name__ == "__main__":
    sys.exit(main())
