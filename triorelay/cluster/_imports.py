"""Frames that come from other relays, on their way into the queues of clients here.

1. A piece names the token of a lease of this relay, for its destination. Its bundle names tokens of leases of the
   sending relay, for its sources. Frames with another token are dropped as `fenced`; frames with the right tokens whose
   client has left are dropped as `peer_gone`.
2. A bundle may overtake the reports of its sources' leases. Then it has a token above all reported ones. It waits, with
   all that follows from that relay, until the engine has reported so much: so JOINED comes before the first frame.
3. If a client here is full, the piece waits in the `paused` of its queue, like a chunk of a client here, and its credit
   waits too. The stall rule of the client here applies. Clients that share an id each get their copy at once, or when
   there is room for it; the piece is placed when all copies are.
4. When a source leaves, all waiting frames of its relay go into the queues, even full ones: so LEFT comes after the
   last frame. The credit for these frames is sent when they leave the queue. So credit bounds the frames of a relay in
   a queue, even if clients leave there often.
5. Frames that come while no relay is connected are lost. The counts of received bytes move to a successor, so it knows
   how many were lost, and the senders get credit for them.
6. Received frames are accepted here and counted as imported, and their further copies as copied, so that this relay's
   ledger balances on its own.
"""

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import trio

from ..relay import SEVERAL, DropReason, Exchange, Outbox, Tap
from ._bundles import Bundles
from ._leases import Leases
from ._uplink import Uplink
from ._view import View
from ._wire import Bundle, Credit, Dropped, Piece, frames_of, split_by_source

Counts = list[tuple[int, int]]
"""Sources, and how many frames of each."""
Flow = tuple[str, int, int]
"""The sending relay's nonce, its connection, the token of the destination's lease."""


@dataclass(eq=False, slots=True)
class _Waiting:
    """A piece of which copies wait for room.

    Attributes:
        flow: what it belongs to.
        size: its bytes.
        copies: how many wait.
    """

    flow: "Inflow"
    size: int
    copies: int

    def reached(self) -> None:
        """Note that a copy was placed or dropped, or has left the full queue that it was put into."""
        self.copies -= 1
        if not self.copies:
            self.flow.settled(self.size)


class Inflow:
    """The frames of one relay for one id here. It is paused while the queue of a session that holds the id is full.

    Attributes:
        id: a source that waits; for the log.
        waiting_since: when the oldest piece began to wait.
        wait_logged: whether the relay has logged the wait.
        outboxes: the queues that the newest piece was put into; none before that.
        destination: the id.
        received: how many bytes came, including those that were lost before them.
    """

    def __init__(self, uplink: Uplink, bundles: Bundles, flow: Flow, destination: int) -> None:
        self.id = 0
        self.waiting_since = 0.0
        self.wait_logged = False
        self._uplink = uplink
        self._bundles = bundles
        self._relay, self._connection, self._token = flow
        self.destination: int = destination
        self.received: int = 0
        self._placed = 0
        self._reported = 0
        self._waiting: dict[Outbox, deque[_Waiting]] = {}
        self.outboxes: Sequence[Outbox] = ()

    @property
    def waits(self) -> bool:
        """Whether a piece of it waits for room."""
        return bool(self._waiting)

    def arrive(self, offset: int, size: int) -> int:
        """Note a piece of `size` bytes; return how many bytes were lost before it."""
        lost = max(0, offset - self.received)
        self.received = offset + size
        self._placed += lost
        return lost

    def restore(self, received: int) -> None:
        """Continue after so many bytes, all of which were placed."""
        self.received = self._placed = received

    def wait(self, outboxes: Sequence[Outbox], frames: bytes) -> None:
        """Let `frames` wait at full outboxes."""
        if not self._waiting:
            self.id = frames[0]
            self.waiting_since, self.wait_logged = trio.current_time(), False
        waiting = _Waiting(self, len(frames), len(outboxes))
        for outbox in outboxes:
            self._waiting.setdefault(outbox, deque()).append(waiting)
            outbox.pause(self, frames)

    def unpause(self, outbox: Outbox) -> None:
        """Note that the oldest frames that waited at `outbox` were placed or dropped."""
        self._pop(outbox).reached()

    def _pop(self, outbox: Outbox) -> _Waiting:
        waiting = self._waiting[outbox]
        oldest = waiting.popleft()
        if not waiting:
            del self._waiting[outbox]
        return oldest

    def place_all(self) -> None:
        """Put what waits into the outboxes, although they are full."""
        for outbox in list(self._waiting):
            for frames in outbox.withdraw(self):
                outbox.put(frames)
                waiting = self._pop(outbox)
                outbox.mark(outbox.put_bytes, waiting.reached)

    def settled(self, count: int) -> None:
        """Note that so many bytes were placed or dropped."""
        self._placed += count
        if self._placed - self._reported >= self._uplink.config.window // 4:
            self.tell()

    def tell(self) -> None:
        """Send the sending relay its credit, unless the sessions end and would only drop more."""
        ends = self.outboxes and all(outbox.broken for outbox in self.outboxes)
        if self._uplink.up and not ends:
            self._reported = self._placed
            credit = Credit(self._connection, self.destination, self._token, self._placed)
            self._bundles.add_credit(self._relay, credit)


class Imports:
    """What comes from other relays.

    Attributes:
        lost: frames known to have been lost on the way here.
    """

    def __init__(
        self,
        exchange: Exchange,
        uplink: Uplink,
        view: View,
        leases: Leases,
        bundles: Bundles,
        tap: Callable[[], Tap | None],
    ) -> None:
        """Make it; `tap` returns what looks at the frames that are routed, None for nothing."""
        self.lost: int = 0
        self._exchange = exchange
        exchange.on_foreign_drop = self._dropped_here
        self._uplink = uplink
        self._view = view
        self._leases = leases
        self._bundles = bundles
        self._tap = tap
        self._flows: dict[Flow, Inflow] = {}
        self._connections: dict[str, int] = {}
        self._early: dict[str, deque[Bundle]] = {}

    def receive(self, bundle: Bundle) -> None:
        """Take the frames of a bundle."""
        early = self._early.get(bundle.relay)
        if early is not None:
            early.append(bundle)
        elif self._may_be_placed(bundle) or not self._uplink.confirmed():
            self._place(bundle)
        else:
            self._early[bundle.relay] = deque((bundle,))

    def go_on(self) -> None:
        """Place the bundles whose reports have come."""
        for relay, early in list(self._early.items()):
            while early and self._may_be_placed(early[0]):
                self._place(early.popleft())
            if not early:
                del self._early[relay]

    def _may_be_placed(self, bundle: Bundle) -> bool:
        return max(bundle.sources.values(), default=0) <= self._view.revision

    def _place(self, bundle: Bundle) -> None:
        if self._is_fenced(bundle):
            self._fence(bundle)
            return
        leased = {source for source, token in bundle.sources.items() if self._is_leased(source, token, bundle.relay)}
        for piece in bundle.pieces:
            self._place_piece(bundle, piece, leased)

    def _is_fenced(self, bundle: Bundle) -> bool:
        newest = self._connections.get(bundle.relay, 0)
        if not self._uplink.confirmed() or bundle.connection < newest or bundle.relay == self._uplink.nonce:
            return True
        if bundle.connection > newest:
            self._connections[bundle.relay] = bundle.connection
            self._flows = {key: flow for key, flow in self._flows.items() if key[0] != bundle.relay or flow.waits}
        return False

    def _fence(self, bundle: Bundle) -> None:
        for piece in bundle.pieces:
            self._drop(piece.destination, frames_of(piece)[1], DropReason.FENCED)

    def _is_leased(self, source: int, token: int, relay: str) -> bool:
        lease = self._view.get(source, relay)
        return lease is not None and lease.token == token

    def _place_piece(self, bundle: Bundle, piece: Piece, leased: set[int]) -> None:
        destination = piece.destination
        frames, counts = frames_of(piece)
        size = len(frames)
        lease = self._leases.get(destination)
        if lease is None or lease.token != piece.token:
            self._drop(destination, counts, DropReason.FENCED)
            return
        flow = self._flow((bundle.relay, bundle.connection, piece.token), destination)
        lost = flow.arrive(piece.offset, size)
        self.lost += lost >> 1
        if lost or not counts:
            flow.tell()
        fenced = [(source, count) for source, count in counts if source not in leased]
        if fenced:
            self._drop(destination, fenced, DropReason.FENCED)
            counts = [(source, count) for source, count in counts if source in leased]
            for source, _ in fenced:
                frames = split_by_source(frames, source)[1]
        holders = self._exchange.registry.holders(destination)
        if not holders:
            self._drop(destination, counts, DropReason.PEER_GONE)
        elif counts and not self._put([holder.outbox for holder in holders], flow, frames, counts):
            flow.settled(size - len(frames))
            return
        flow.settled(size)

    def _flow(self, key: Flow, destination: int) -> Inflow:
        if key not in self._flows:
            self._flows[key] = Inflow(self._uplink, self._bundles, key, destination)
        return self._flows[key]

    def _put(self, outboxes: Sequence[Outbox], flow: Inflow, frames: bytes, counts: Counts) -> bool:
        """Put frames into the queues of clients here, or let them wait for those; return whether they are settled."""
        flow.outboxes = outboxes
        self._accept(counts)
        self._exchange.ledger.copied += (len(outboxes) - 1) * (len(frames) >> 1)
        tap = self._tap()
        if tap is not None:
            for source, _ in counts:
                tap(source, flow.destination, split_by_source(frames, source)[0])
        source = counts[0][0] if len(counts) == 1 else SEVERAL
        full = [outbox for outbox in outboxes if not self._offer(outbox, frames, source)]
        if full:
            flow.wait(full, frames)
        return not full

    def _offer(self, outbox: Outbox, frames: bytes, source: int) -> bool:
        return (len(frames) == 2 and outbox.hand_over(frames)) or self._exchange.offer(outbox, frames, source)

    def _accept(self, counts: Counts) -> None:
        ledger = self._exchange.ledger
        for source, count in counts:
            ledger.imported += count
            ledger.accepted[source] += count

    def _drop(self, destination: int, counts: Counts, reason: DropReason) -> None:
        self._accept(counts)
        for source, count in counts:
            self._exchange.drop(source, destination, reason, count)

    def _dropped_here(self, source: int, destination: int) -> None:
        """Tell the relay of a client elsewhere that frames of it were dropped, so that it gets DROPPED."""
        for lease in self._view.holders(source):
            self._bundles.add_drop(lease.relay, source, destination)

    def dropped_elsewhere(self, dropped: Dropped) -> None:
        """Tell clients here what the relay of the destinations dropped."""
        with self._exchange.round.step():
            for source, destination in dropped.pairs:
                if self._view.get(destination, dropped.relay) is not None:
                    self._exchange.dropped_elsewhere(source, destination)

    def source_left(self, relay: str) -> None:
        """Place what waits of a relay that a client has left, before clients here get LEFT."""
        for (nonce, _, _), flow in self._flows.items():
            if nonce == relay and flow.waits:
                flow.place_all()

    def session_left(self, token: int) -> None:
        """Forget the flows to the session here whose lease had this token; the session drops its queue."""
        for key in [key for key in self._flows if key[2] == token]:
            del self._flows[key]

    def capture(self) -> list[tuple[str, int, int, int, int]]:
        """Place all that waits, and describe how many bytes came in each flow."""
        for flow in self._flows.values():
            flow.place_all()
        return [(*key, flow.destination, flow.received) for key, flow in self._flows.items()]

    def restore(self, received: Iterable[tuple[str, int, int, int, int]]) -> None:
        """Continue the flows of the relay before this one, so that bytes lost meanwhile are counted and credited."""
        for relay, connection, token, destination, count in received:
            self._flow((relay, connection, token), destination).restore(count)
            self._connections[relay] = max(connection, self._connections.get(relay, 0))

    def connection_lost(self) -> None:
        """Drop what waits for reports."""
        early, self._early = self._early, {}
        for bundle in itertools.chain(*early.values()):
            self._fence(bundle)
