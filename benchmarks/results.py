"""The figures of all rounds, and the targets.

A target is a ratio within each round, so that a machine that slows down between rounds slows both sides of it.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field

from benchmarks import servers
from benchmarks.programs import Failed

Key = tuple[str, str, str]  # work, who, transport


@dataclass(frozen=True, slots=True)
class Spread:
    """The median of some samples, the least and the most."""

    median: float
    least: float
    most: float


def spread(samples: list[float]) -> Spread:
    return Spread(statistics.median(samples), min(samples), max(samples))


@dataclass(slots=True)
class Results:
    """Filled round by round. Who failed once has no figures: what failed is reported, never averaged."""

    rounds: list[dict[Key, dict[str, float]]] = field(default_factory=list)
    failed: dict[Key, str] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)

    def add(self, key: Key, figures: dict[str, float]) -> None:
        self.rounds[-1][key] = figures

    def samples(self, key: Key, metric: str) -> list[float]:
        """One for each round; none at all where a round failed."""
        if key in self.failed:
            return []
        return [one[key][metric] for one in self.rounds if metric in one.get(key, {})]


@dataclass(frozen=True, slots=True)
class Target:
    """One figure of the relay over that of the best of some rivals, or, without rivals, the figure itself.

    `bound` None: shown for information, nothing to reach.
    """

    work: str
    metric: str
    subject: tuple[str, str]  # who, transport
    rivals: tuple[tuple[str, str], ...]
    bound: float | None
    most: bool = False  # the bound is an upper one, and less is better
    scale: float = 1.0
    unit: str = ""

    def samples(self, results: Results) -> list[float]:
        """One for each round in which the subject and every rival that takes part have a figure."""
        rivals = [key for who in self.rivals if (key := (self.work, *who)) not in results.failed]
        subject = (self.work, *self.subject)
        if subject in results.failed:
            return []
        found = []
        for figures in results.rounds:
            own = figures.get(subject, {}).get(self.metric)
            others = [figures[key][self.metric] for key in rivals if key in figures]
            if own is None or (self.rivals and not others):
                continue
            best = (min if self.most else max)(others) if others else 1.0
            found.append(own * self.scale / best)
        return found

    def reached(self, median: float) -> bool:
        if self.bound is None:
            raise Failed("this one has no bound")
        return median <= self.bound if self.most else median >= self.bound


UNIX, TCP, TLS = "unix", "tcp", "tls"
RELAY, IDEAL, ARTICLE, NATS = (one.name for one in (servers.RELAY, servers.IDEAL, servers.ARTICLE, servers.NATS))
PURE = servers.RELAY_PURE.name
UNWATCHED, WATCHED = servers.RELAY_UNWATCHED.name, servers.RELAY_WATCHED.name
MOSQUITTO, DBUS, REDIS = (one.name for one in (servers.MOSQUITTO, servers.DBUS, servers.REDIS))
# At most 0.1 % of a core is what no CPU means here: an idle process still has a timer or two.
IDLE_CPU_PERCENT = 0.1
TCP_SHARE = 0.8  # of the Unix figures

TARGETS = (
    Target("one-to-one", "rate", (RELAY, UNIX), ((IDEAL, UNIX),), 1.0),
    Target("one-to-one", "rate", (RELAY, UNIX), ((NATS, TCP),), 50),
    Target("one-to-16", "rate", (RELAY, UNIX), ((IDEAL, UNIX),), 0.6),
    Target("one-to-8-shared", "rate", (RELAY, UNIX), ((NATS, TCP), (MOSQUITTO, UNIX)), 5),
    Target("round-trip", "median_us", (RELAY, UNIX), ((REDIS, UNIX),), 1.0, most=True),
    Target("round-trip", "median_us", (RELAY, UNIX), ((ARTICLE, UNIX),), 2.0, most=True),
    Target("pairs", "rate", (RELAY, UNIX), ((REDIS, UNIX),), 1.1),
    Target("pairs", "rate", (RELAY, UNIX), ((IDEAL, UNIX),), 0.75),
    Target("pairs", "rate", (RELAY, UNIX), ((NATS, TCP), (MOSQUITTO, UNIX), (MOSQUITTO, TCP), (DBUS, UNIX)), 1.2),
    Target("pairs", "user_us", (RELAY, UNIX), (), 1.6, most=True, unit=" µs"),
    Target("fairness", "jain", (RELAY, UNIX), (), 0.95),
    Target("idle", "resident", (RELAY, UNIX), (), 35, most=True, scale=1e-6, unit=" MB"),
    Target("idle", "cpu", (RELAY, UNIX), (), IDLE_CPU_PERCENT, most=True, scale=100, unit=" % of a core"),
    Target("start", "seconds", (RELAY, UNIX), (), 0.15, most=True, unit=" s"),
    Target("monitor", "rate", (WATCHED, UNIX), ((UNWATCHED, UNIX),), 0.75),
    Target("monitor", "rate", (UNWATCHED, UNIX), ((RELAY, UNIX),), None),
    # Compiled against interpreted, where both are there.
    Target("one-to-one", "rate", (RELAY, UNIX), ((PURE, UNIX),), None),
    Target("one-to-16", "rate", (RELAY, UNIX), ((PURE, UNIX),), None),
    Target("round-trip", "median_us", (RELAY, UNIX), ((PURE, UNIX),), None, most=True),
    Target("pairs", "rate", (RELAY, UNIX), ((PURE, UNIX),), None),
    # TCP: against the relay's own Unix figures, then against what the yardstick and the peers make of TCP.
    Target("one-to-one", "rate", (RELAY, TCP), ((RELAY, UNIX),), TCP_SHARE),
    Target("one-to-16", "rate", (RELAY, TCP), ((RELAY, UNIX),), TCP_SHARE),
    Target("round-trip", "median_us", (RELAY, TCP), ((RELAY, UNIX),), round(1 / TCP_SHARE, 2), most=True),
    Target("pairs", "rate", (RELAY, TCP), ((RELAY, UNIX),), TCP_SHARE),
    Target("fairness", "jain", (RELAY, TCP), (), 0.95),
    Target("one-to-one", "rate", (RELAY, TCP), ((IDEAL, TCP),), 1.0),
    Target("one-to-16", "rate", (RELAY, TCP), ((IDEAL, TCP),), 0.6),
    Target("round-trip", "median_us", (RELAY, TCP), ((REDIS, TCP),), 1.0, most=True),
    Target("pairs", "rate", (RELAY, TCP), ((REDIS, TCP),), 1.1),
    Target("pairs", "rate", (RELAY, TCP), ((IDEAL, TCP),), 0.75),
    Target("pairs", "rate", (RELAY, TCP), ((NATS, TCP), (MOSQUITTO, TCP)), None),
    Target("pairs", "rate", (IDEAL, TCP), ((IDEAL, UNIX),), None),
    # What TLS costs.
    Target("one-to-one", "rate", (RELAY, TLS), ((RELAY, TCP),), None),
    Target("one-to-16", "rate", (RELAY, TLS), ((RELAY, TCP),), None),
    Target("round-trip", "median_us", (RELAY, TLS), ((RELAY, TCP),), None, most=True),
    Target("pairs", "rate", (RELAY, TLS), ((RELAY, TCP),), None),
    Target("fairness", "jain", (RELAY, TLS), (), 0.95),
)
