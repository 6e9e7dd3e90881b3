"""`/metrics`: the relay's counters in Prometheus's text format, read when asked for."""

from collections.abc import Iterator

import trio
from prometheus_client import CONTENT_TYPE_LATEST, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector

from .._build import BUILD
from .._version import __version__
from ..protocol import CloseReason, Refusal
from ..relay import DropReason, RealmStatus, Relay, id_name
from ._messages import Reply

OUTCOMES = sorted(
    {reason.label for reason in CloseReason}
    | {refusal.label for refusal in Refusal if refusal is not Refusal.WELCOME}
    | {"address", "no_hello"}
)
"""How sessions end. Each series exists from the start, at 0: Prometheus sees no increase in the first value of a
series."""


class Metrics(Collector):
    """The metrics of one relay and its process, separate from other metrics that the process may export."""

    def __init__(self, relay: Relay) -> None:
        self._relay = relay
        self._reader = ProcessCollector(registry=None)
        self._process: list[Metric] = []

    def read_process(self) -> None:
        """Read the values of the process from /proc; may block."""
        self._process = list(self._reader.collect())

    def reply(self) -> Reply:
        """Return the metrics of this moment, those of the process as they were read last."""
        return Reply(generate_latest(self), CONTENT_TYPE_LATEST)

    def collect(self) -> Iterator[Metric]:
        relay = self._relay
        ledger = relay.ledger
        which = {"version": __version__, "build": BUILD}
        yield InfoMetricFamily("triorelay_build", "Which version and build run.", which)
        yield GaugeMetricFamily("triorelay_clients", "Clients that hold an id.", len(relay.exchange.registry))
        yield CounterMetricFamily(
            "triorelay_frames_accepted",
            "Frames read from clients, requests to the relay left out.",
            sum(ledger.accepted),
        )
        yield CounterMetricFamily("triorelay_frames_copied", "Further copies of frames to shared ids.", ledger.copied)
        yield CounterMetricFamily("triorelay_frames_written", "Frames handed over to the kernel.", ledger.written)
        yield GaugeMetricFamily(
            "triorelay_frames_queued", "Frames in queues, paused or held.", relay.exchange.queued_frames()
        )
        yield CounterMetricFamily(
            "triorelay_handovers", "How often a relay handed over to its successor, up to this one.", relay.handovers
        )
        yield self._dropped()
        yield from self._by_client()
        yield self._sessions()
        if relay.remote is not None:
            yield from self._realm(relay.remote.status())
        yield from self._process

    def _realm(self, status: RealmStatus) -> Iterator[Metric]:
        ledger = self._relay.ledger
        age = float("inf") if status.confirmed_seconds is None else status.confirmed_seconds
        for name, meaning, value in (
            ("up", "Whether frames may go to and come from other relays.", status.up),
            ("ids_elsewhere", "Ids that other relays hold.", len({id for id, _ in status.elsewhere})),
            ("confirmed_age_seconds", "How long ago the leases of this relay were confirmed.", age),
        ):
            yield GaugeMetricFamily(f"triorelay_realm_{name}", meaning, value)
        for name, meaning, count in (
            ("frames_forwarded", "Frames handed to the engine for clients of other relays.", ledger.forwarded),
            ("frames_imported", "Frames that came from clients of other relays.", ledger.imported),
            ("frames_lost", "Frames known to have been lost between the relays.", status.lost),
            ("garbage", "Messages and keys of the realm that were not understood.", status.garbage),
            ("reconnects", "How often the relay reconnected to the engine.", status.reconnects),
        ):
            yield CounterMetricFamily(f"triorelay_realm_{name}", meaning, count)

    def _dropped(self) -> Metric:
        family = CounterMetricFamily(
            "triorelay_frames_dropped", "Accepted frames that were dropped.", labels=["reason"]
        )
        counts = dict.fromkeys(DropReason, 0)
        for (_, _, reason), count in self._relay.ledger.dropped.items():
            counts[reason] += count
        for reason, count in counts.items():
            family.add_metric([reason.value], count)
        return family

    def _by_client(self) -> Iterator[Metric]:
        frames = CounterMetricFamily(
            "triorelay_client_frames", "Frames of each client, as it sees them.", labels=["client", "direction"]
        )
        waiting = CounterMetricFamily(
            "triorelay_client_waiting_seconds", "Seconds that a client was not read, for others.", labels=["client"]
        )
        ledger, present = self._relay.ledger, set(self._relay.exchange.registry.ids())
        waited = self._waited()
        for id in range(1, 256):
            sent, received = ledger.accepted[id], ledger.received(id)
            if sent or received or id in present:
                name = id_name(id)
                frames.add_metric([name, "sent"], sent)
                frames.add_metric([name, "received"], received)
                waiting.add_metric([name], waited[id])
        yield frames
        yield waiting

    def _waited(self) -> list[float]:
        waited, now = list(self._relay.ledger.waited), trio.current_time()
        for session in self._relay.exchange.registry:
            if session.waiting_for is not None:
                waited[session.id] += now - session.waiting_since
        return waited

    def _sessions(self) -> Metric:
        family = CounterMetricFamily(
            "triorelay_sessions", "Sessions that ended, and how.", labels=["transport", "outcome"]
        )
        transports = {address.partition(":")[0] for address in self._relay.addresses}
        counts = {(transport, outcome): 0 for transport in transports for outcome in OUTCOMES}
        for (transport, outcome), count in sorted((counts | self._relay.sessions_ended).items()):
            family.add_metric([transport, outcome], count)
        return family
