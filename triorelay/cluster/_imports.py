"""Frames that come from other relays, on their way into the queues of clients here.

1. A batch must name the token of a lease that this relay has, for its destination, and tokens of leases that the
   sending relay has, for its sources. What does not match is dropped as `fenced`; what matches but has nobody to go to
   any more as `peer_gone`.
2. A batch may overtake the news of its source's lease. Its token is above all that was told then, and it waits, with
   what follows from that relay, until as much was told: so JOINED comes before the first frame.
3. A client here that is full makes the batch wait in its queue's `paused`, like a chunk of a client here, and credit
   waits with it. The stall rule of that client is the one that counts.
4. When a source leaves, whatever waits of its relay is put into the queues, whether they are full or not: so LEFT comes
   after the last frame. Credit for that comes when it leaves the queue, so it bounds how much a queue can have of a
   relay, however often somebody leaves there.
5. Received frames are accepted here and counted as imported, so that this relay's ledger balances on its own.
"""

from collections import deque
from typing import TYPE_CHECKING

import trio

from ..relay import DropReason, source_counts
from ._engine import no_matter
from ._wire import Batch, Credit, encode, split_by_source, subject_of_relay

if TYPE_CHECKING:
    from ..relay import Outbox
    from ._cluster import Cluster

Counts = list[tuple[int, int]]
"""Sources, and how many frames of each."""
Flow = tuple[str, int, int]
"""The sending relay's nonce, its connection, the token of the destination's lease."""


class Inflow:
    """What one relay sends to one session here. It is what is paused while that session's queue is full.

    Attributes:
        id: a source that waits; for the log.
        waiting_since: when the oldest batch began to wait.
        wait_told: whether the log was told.
    """

    def __init__(self, cluster: "Cluster", first: Batch) -> None:
        self.id = 0
        self.waiting_since = 0.0
        self.wait_told = False
        self._cluster = cluster
        self._batch = first
        self._subject = subject_of_relay(cluster.config.realm, first.relay)
        self._received = 0
        self._placed = 0
        self._told = 0
        self._waiting: deque[int] = deque()
        self._outbox: Outbox | None = None

    @property
    def waits(self) -> bool:
        """Whether a batch of it waits for room."""
        return bool(self._waiting)

    def arrive(self, batch: Batch) -> int:
        """Take note of a batch; return how many bytes were lost before it."""
        lost = max(0, batch.offset - self._received)
        self._received = batch.offset + len(batch.frames)
        self._placed += lost
        return lost

    def wait(self, outbox: "Outbox", frames: bytes) -> None:
        """Leave `frames` with a full outbox."""
        if not self._waiting:
            self.id = frames[0]
            self.waiting_since, self.wait_told = trio.current_time(), False
        self._outbox = outbox
        self._waiting.append(len(frames))
        outbox.pause(self, frames)

    def unpause(self, outbox: "Outbox") -> None:
        """The oldest frames that waited were placed or dropped."""
        self.settled(self._waiting.popleft())

    def place_all(self) -> None:
        """Put what waits into the outbox, full as it is."""
        outbox = self._outbox
        if outbox is not None:
            for frames in outbox.withdraw(self):
                outbox.put(frames)
                count = self._waiting.popleft()
                if not outbox.mark_last_of(frames[-2], _Forced(self, count)):
                    self.settled(count)

    def settled(self, count: int) -> None:
        """So many bytes were placed or dropped."""
        self._placed += count
        if self._placed - self._told >= self._cluster.config.window // 4:
            self.tell()

    def tell(self) -> None:
        """Tell the sending relay how much was placed."""
        batch, engine = self._batch, self._cluster.connected_engine
        if engine is not None:
            self._told = self._placed
            credit = Credit(self._cluster.nonce, batch.connection, batch.destination, batch.token, self._placed)
            engine.publish(self._subject, encode(credit), no_matter)


class _Forced:
    """Frames in a queue that was full: they count as placed once they have left it."""

    def __init__(self, flow: Inflow, count: int) -> None:
        self._flow = flow
        self._count = count

    def reached(self) -> None:
        self._flow.settled(self._count)


class Imports:
    """What comes from other relays.

    Attributes:
        lost: frames known to have been lost on the way here.
    """

    def __init__(self, cluster: "Cluster") -> None:
        self.lost: int = 0
        self._cluster = cluster
        self._flows: dict[Flow, Inflow] = {}
        self._connections: dict[str, int] = {}
        self._early: dict[str, deque[Batch]] = {}

    def receive(self, batch: Batch) -> None:
        """Take a batch."""
        cluster = self._cluster
        early = self._early.get(batch.relay)
        if early is not None:
            early.append(batch)
        elif not batch.sources or max(batch.sources.values()) <= cluster.view.revision or not cluster.confirmed():
            with cluster.relay.exchange.round.step():
                self._place(batch)
        else:
            self._early[batch.relay] = deque((batch,))

    def go_on(self) -> None:
        """Place the batches that waited for news that have come by now."""
        revision = self._cluster.view.revision
        for relay, early in list(self._early.items()):
            with self._cluster.relay.exchange.round.step():
                while early and max(early[0].sources.values(), default=0) <= revision:
                    self._place(early.popleft())
            if not early:
                del self._early[relay]

    def _place(self, batch: Batch) -> None:
        if self._is_fenced(batch):
            self._drop(batch.destination, batch.frames, DropReason.FENCED)
            return
        flow = self._flow(batch)
        lost = flow.arrive(batch)
        self.lost += lost >> 1
        if lost or not batch.frames:
            flow.tell()
        counts = source_counts(batch.frames[0::2])
        frames = batch.frames
        for source, _ in counts:
            if not self._is_leased(source, batch):
                fenced, frames = split_by_source(frames, source)
                self._drop(batch.destination, fenced, DropReason.FENCED)
        if len(frames) < len(batch.frames):
            counts = source_counts(frames[0::2])
        session = self._cluster.relay.exchange.registry.holder(batch.destination)
        if session is None:
            self._drop(batch.destination, frames, DropReason.PEER_GONE)
        elif frames and not self._put(session.outbox, flow, frames, counts):
            flow.settled(len(batch.frames) - len(frames))
            return
        flow.settled(len(batch.frames))

    def _is_fenced(self, batch: Batch) -> bool:
        lease = self._cluster.leases.get(batch.destination)
        newest = self._connections.get(batch.relay, 0)
        if (
            lease is None
            or lease.token != batch.token
            or not self._cluster.confirmed()
            or batch.connection < newest
            or batch.relay == self._cluster.nonce
        ):
            return True
        if batch.connection > newest:
            self._connections[batch.relay] = batch.connection
            self._flows = {key: flow for key, flow in self._flows.items() if key[0] != batch.relay or flow.waits}
        return False

    def _is_leased(self, source: int, batch: Batch) -> bool:
        seen = self._cluster.view.get(source)
        return seen is not None and (seen.token, seen.relay) == (batch.sources.get(source), batch.relay)

    def _flow(self, batch: Batch) -> Inflow:
        key = batch.relay, batch.connection, batch.token
        flow = self._flows.get(key)
        if flow is None:
            flow = self._flows[key] = Inflow(self._cluster, batch)
        return flow

    def _put(self, outbox: "Outbox", flow: Inflow, frames: bytes, counts: Counts) -> bool:
        """Put frames into the queue of a client here, or leave them with it; return whether they are settled."""
        relay = self._cluster.relay
        self._accept(counts)
        if relay.router.tap is not None:
            for source, _ in counts:
                relay.router.tap(source, outbox.id, split_by_source(frames, source)[0])
        if len(frames) == 2 and outbox.hand_over(frames):
            return True
        if relay.exchange.offer(outbox, frames):
            return True
        flow.wait(outbox, frames)
        return False

    def _accept(self, counts: Counts) -> None:
        ledger = self._cluster.relay.ledger
        for source, count in counts:
            ledger.imported += count
            ledger.accepted[source] += count

    def _drop(self, destination: int, frames: bytes, reason: DropReason) -> None:
        counts = source_counts(frames[0::2])
        self._accept(counts)
        for source, count in counts:
            self._cluster.relay.exchange.drop(source, destination, reason, count)

    def source_left(self, relay: str) -> None:
        """A client of another relay left: place what waits of that relay, before anybody is told."""
        for (nonce, _, _), flow in self._flows.items():
            if nonce == relay and flow.waits:
                with self._cluster.relay.exchange.round.step():
                    flow.place_all()

    def session_left(self, token: int) -> None:
        """A session here whose lease had this token left, and its queue is dropped."""
        for key in [key for key in self._flows if key[2] == token]:
            del self._flows[key]

    def connection_lost(self) -> None:
        """Drop what waits for news."""
        early, self._early = self._early, {}
        for batch in (batch for batches in early.values() for batch in batches):
            self._drop(batch.destination, batch.frames, DropReason.FENCED)
