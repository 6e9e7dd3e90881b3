"""The pieces of work: the servers in each, how one measurement runs, and which figures it gives."""

from __future__ import annotations

import contextlib
import functools
import os
import selectors
import subprocess
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from benchmarks import servers
from benchmarks.attack import ATTACKS, measure
from benchmarks.programs import Failed, Programs, figures, generate, last_line, pin
from benchmarks.servers import CORE, DIRECT, PEERS, Running, Server, running

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

GRACE = 60.0  # beyond its own seconds a generator connects, and drains full buffers through the slowest server
READY_TIMEOUT = 20.0  # for 255 clients to connect
TICKS = os.sysconf("SC_CLK_TCK")
SETTLE = 1.0  # before idleness is measured: what connecting left to do is done by then


@dataclass(frozen=True, slots=True)
class Metric:
    """One figure of a result: its key there, and how the table shows it."""

    key: str
    unit: str
    scale: float = 1.0
    digits: int = 1


@dataclass(frozen=True, slots=True)
class Entry:
    """A participant: a server over a transport, or, for None, the generator against itself."""

    server: Server | None
    transport: str

    @property
    def name(self) -> str:
        return self.server.name if self.server else ALONE


@dataclass(frozen=True, slots=True)
class Run:
    """What holds for a whole run: the programs, and how long each measurement loads the server, in seconds."""

    programs: Programs
    seconds: float
    idle_seconds: float


@dataclass(frozen=True, slots=True)
class Work:
    """A piece of work. `measure` makes one measurement, and returns a figure for each metric or raises Failed."""

    name: str
    title: str
    metrics: tuple[Metric, ...]
    entries: tuple[Entry, ...]
    measure: Callable[[Run, Entry], dict[str, float]]


ALONE = "generator alone"
ITSELF = Entry(None, DIRECT)


def _entries(*names: Server) -> tuple[Entry, ...]:
    return tuple(Entry(server, transport) for server in names for transport in server.transports)


def _load(run: Run, entry: Entry, program: str, *arguments: object, core: int | None = None) -> dict[str, float]:
    """Start the server, run a generator on it."""
    if entry.server is None:
        codec = () if program == "fairness" else ("frames",)
        command = [*pin(core), run.programs.path(program), *codec, DIRECT, *map(str, arguments)]
        return generate(command, run.programs.directory, timeout=run.seconds + GRACE)
    with running(entry.server, entry.transport, core=core) as started:
        codec = () if program == "fairness" else (entry.server.codec,)
        command = [*pin(core), run.programs.path(program), *codec, started.address, *map(str, arguments)]
        return _generate(command, started, run)


def _generate(command: list[str], started: Running, run: Run) -> dict[str, float]:
    return generate(command, started.place.directory, timeout=run.seconds + GRACE, server=started.process)


def _flood(run: Run, entry: Entry, *, receivers: int, shared: bool = False) -> dict[str, float]:
    return _load(run, entry, "flood", run.seconds, receivers, *(["shared"] if shared else []))


def _round_trip(run: Run, entry: Entry) -> dict[str, float]:
    return _load(run, entry, "roundtrip", run.seconds, core=CORE)


def _pairs(run: Run, entry: Entry) -> dict[str, float]:
    if entry.server is None:
        return _load(run, entry, "pairs", run.seconds, 64)
    with running(entry.server, entry.transport) as started:
        started.wait_until_it_listens()
        before = _processor_seconds(started.process.pid)
        command = [run.programs.path("pairs"), entry.server.codec, started.address, str(run.seconds), "64"]
        result = _generate(command, started, run)
        used = [now - then for now, then in zip(_processor_seconds(started.process.pid), before, strict=True)]
    user, system = (seconds / result["messages"] * 1e6 for seconds in used)
    return {**result, "user_us": user, "system_us": system}


def _attack(run: Run, entry: Entry, *, attack: str | None) -> dict[str, float]:
    assert entry.server is not None
    with running(entry.server, entry.transport) as started:
        started.wait_until_it_listens()
        return measure(started, attack, run.seconds)


def _fairness(run: Run, entry: Entry) -> dict[str, float]:
    return _load(run, entry, "fairness", run.seconds, 64)


@contextlib.contextmanager
def _holding(command: list[str], started: Running) -> Iterator[subprocess.Popen[str]]:
    """A generator that has said that it is ready and now waits for the end of its standard input."""
    with subprocess.Popen(
        command,
        cwd=started.place.directory,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            with selectors.DefaultSelector() as selector:
                selector.register(process.stdout, selectors.EVENT_READ)
                said = process.stdout.readline() if selector.select(READY_TIMEOUT) else ""
            if said != "ready\n":
                process.kill()
                raise Failed(last_line(process.communicate()[1]) or f"not ready within {READY_TIMEOUT:.0f} s")
            yield process
        finally:
            process.kill()


def _release(process: subprocess.Popen[str]) -> dict[str, float]:
    """Let a waiting generator finish, and return the figures that it prints."""
    try:
        output, errors = process.communicate("", timeout=GRACE)
    except subprocess.TimeoutExpired:
        raise Failed(f"no result within {GRACE:.0f} s") from None
    if process.returncode != 0:
        raise Failed(last_line(errors))
    return figures(output)


def _resident_bytes(pid: int) -> float:
    with open(f"/proc/{pid}/smaps_rollup") as rollup:
        return float(next(line.split()[1] for line in rollup if line.startswith("Rss:"))) * 1024


def _cpu_seconds(pid: int) -> float:
    """On the processor so far, all threads. To the nanosecond: the ticks of /proc/PID/stat are too coarse here."""
    total = 0
    for thread in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{thread}/schedstat") as statistics:
            total += int(statistics.read().split()[0])
    return total * 1e-9


def _processor_seconds(pid: int) -> tuple[float, float]:
    """So far, in the program and in the kernel for it: in ticks of 10 ms, of which a second of load has enough."""
    with open(f"/proc/{pid}/stat") as statistics:
        fields = statistics.read().rpartition(")")[2].split()
    return int(fields[11]) / TICKS, int(fields[12]) / TICKS


def _idle(run: Run, entry: Entry) -> dict[str, float]:
    assert entry.server is not None
    with running(entry.server, entry.transport) as started:
        pid = started.process.pid
        with _holding([run.programs.path("idle"), started.address, "255"], started) as clients:
            time.sleep(SETTLE)
            before = _cpu_seconds(pid)
            time.sleep(run.idle_seconds)
            used, resident = _cpu_seconds(pid) - before, _resident_bytes(pid)
            _release(clients)
    return {"resident": resident, "cpu": used / run.idle_seconds}


def _start(run: Run, entry: Entry) -> dict[str, float]:
    assert entry.server is not None
    with (
        running(entry.server, entry.transport) as started,
        _holding([run.programs.path("idle"), started.address, "2"], started) as clients,
    ):
        elapsed = time.monotonic() - started.since
        _release(clients)
    return {"seconds": elapsed}


def _monitored_pairs(run: Run, entry: Entry) -> dict[str, float]:
    if entry.server is not servers.RELAY_WATCHED:
        return _pairs(run, entry)
    with running(entry.server, entry.transport) as started:
        watch = [run.programs.path("watch"), f"{started.place.directory}/admin"]
        with _holding(watch, started) as watcher:
            command = [run.programs.path("pairs"), "frames", started.address, str(run.seconds), "64"]
            result = _generate(command, started, run)
            lines = _release(watcher)["lines"]
    if not lines:
        raise Failed("the monitor showed nothing")
    return {**result, "lines": lines}


MILLIONS = Metric("rate", "M frames/s", 1e-6, 2)
RELAYS = (servers.RELAY, servers.IDEAL)
ALL_WORK = (
    Work(
        "one-to-one",
        "one to one, 32,768 frames a write",
        (MILLIONS,),
        (ITSELF, *_entries(servers.RELAY, servers.RELAY_PURE, servers.IDEAL, servers.ARTICLE, *PEERS)),
        functools.partial(_flood, receivers=1),
    ),
    Work(
        "one-to-16",
        "one to 16, mixed, 32,768 frames a write",
        (MILLIONS,),
        (ITSELF, *_entries(servers.RELAY, servers.RELAY_PURE, servers.IDEAL, *PEERS)),
        functools.partial(_flood, receivers=16),
    ),
    Work(
        "one-to-8-each",
        "one to 8, each frame to one of them",
        (MILLIONS,),
        (ITSELF, *_entries(servers.RELAY, servers.NATS, servers.MOSQUITTO)),
        functools.partial(_flood, receivers=8),
    ),
    Work(
        "one-to-8-shared",
        "one to 8 that share an id (NATS, MQTT: a subject), each frame to all of them, copies counted",
        (MILLIONS,),
        (ITSELF, *_entries(servers.RELAY, servers.NATS, servers.MOSQUITTO)),
        functools.partial(_flood, receivers=8, shared=True),
    ),
    Work(
        "round-trip",
        "round trip, all on one core",
        (Metric("median_us", "µs median", 1, 2), Metric("p99_us", "µs p99", 1, 2)),
        (ITSELF, *_entries(servers.RELAY, servers.RELAY_PURE, servers.IDEAL, servers.ARTICLE, *PEERS)),
        _round_trip,
    ),
    Work(
        "pairs",
        "64 clients in 32 pairs, closed loop",
        (
            Metric("rate", "k messages/s", 1e-3),
            Metric("user_us", "µs a message, user", 1, 2),
            Metric("system_us", "µs a message, system", 1, 2),
        ),
        (ITSELF, *_entries(servers.RELAY, servers.RELAY_PURE, servers.IDEAL, servers.ARTICLE, *PEERS)),
        _pairs,
    ),
    *(
        Work(
            f"attack-{attack or 'none'}",
            f"an innocent pair under attack: {attack or 'none'}",
            (
                Metric("p50", "ms median", 1e3, 2),
                Metric("p99", "ms p99", 1e3, 2),
                Metric("worst", "ms worst", 1e3, 2),
                Metric("end", "s from SIGTERM to the end", 1, 2),
            ),
            # The ideal C relay knows no events and no requests, and would answer none of the attackers.
            tuple(Entry(server, "unix") for server in (servers.RELAY, servers.RELAY_PURE)),
            functools.partial(_attack, attack=attack),
        )
        for attack in (None, *ATTACKS)
    ),
    Work(
        "fairness",
        "64 senders flood one receiver",
        (Metric("jain", "Jain's index", 1, 4), MILLIONS),
        (ITSELF, *_entries(*RELAYS)),
        _fairness,
    ),
    Work(
        "idle",
        "255 idle clients",
        (Metric("resident", "MB resident", 1e-6), Metric("cpu", "% of a core", 100, 3)),
        _entries(*RELAYS),
        _idle,
    ),
    Work("start", "start to first frame relayed", (Metric("seconds", "ms", 1e3),), _entries(*RELAYS), _start),
    Work(
        "monitor",
        "64 clients in 32 pairs, monitor attached or not",
        (Metric("rate", "k messages/s", 1e-3),),
        (Entry(servers.RELAY, "unix"), *_entries(servers.RELAY_UNWATCHED, servers.RELAY_WATCHED)),
        _monitored_pairs,
    ),
)
