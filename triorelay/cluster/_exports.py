"""Frames for ids that other relays hold: which ids these are, the sinks for them, and how much may be in flight.

1. A relay that has an id is in the registry with an outbox like that of a session, which writes to a `RemoteSink`. Of a
   shared id each relay with a holder gets one copy, and spreads it. If a session here has just lost the id and has not
   ended yet, the registry gets the relay after its end.
2. A sink takes frames while it has credit and the connection is not congested. Otherwise frames collect in the outbox,
   which fills and pauses the sender, as it would for a slow client here.
3. Credit bounds the bytes in flight: all bytes ever sent, less those that the other relay says it ever placed. Both
   numbers only grow, so the next message of credit makes up for a lost one.
4. A piece names the fencing token of its destination, and the bundle those of its sources. Frames of a source that has
   no lease, because another relay took its id, are dropped as `fenced` instead.
5. When an engine is killed, pieces and credit are lost. A sink that has waited for a second asks for credit with an
   empty piece. The offset of that piece shows the other relay how many bytes were lost.
6. A sink ends with the lease of its destination, or with the connection to the engine. A new sink begins at 0 bytes.
7. While the relay is not up, sinks are broken: frames for their outboxes are dropped as `cluster_down`. The outboxes
   stay in the registry even when their leases run out, because this relay does not know which relay has those ids then:
   the reason is not `no_route`. When the relay is up again, each id gets a new sink. Ids that stayed are not announced
   again.
"""

from typing import TYPE_CHECKING

import trio

from ..relay import (
    Countdown,
    DropReason,
    Exchange,
    Outbox,
    RemoteLease,
    Throttle,
    open_counts,
    report_waiting,
    source_counts,
)
from ._bundles import Bundles
from ._leases import Leases
from ._uplink import Uplink
from ._view import View
from ._wire import Credit, Piece, split_by_source

if TYPE_CHECKING:
    from collections.abc import Callable

FEW = 64
"""Bytes of frames that go as they are: to take out the data of so few saves less than it costs."""
ASK_AFTER = 1.0
"""Seconds that a sink waits for credit before it asks."""


class RemoteSink:
    """What an outbox for one id elsewhere writes to.

    Attributes:
        lease: the lease of its destination.
        outbox: the frames that wait for it.
    """

    def __init__(
        self, lease: RemoteLease, exchange: Exchange, uplink: Uplink, bundles: Bundles, tokens: list[int]
    ) -> None:
        self.lease = lease
        self._id, self._token, self._relay = lease.id, lease.token, lease.relay
        self._exchange = exchange
        self._uplink = uplink
        self._bundles = bundles
        self._tokens = tokens
        self._limit = bundles.limit & ~1
        self._written = exchange.ledger.written_to(self._id)
        self._sent = 0
        self._placed = 0
        self._moved_at = trio.current_time()
        self.send_small: Callable[[bytes | bytearray | memoryview], int] = self.send_nowait
        self.outbox: Outbox = exchange.open_outbox(lease.id, self, shared=lease.shared)

    def send_nowait(self, data: bytes | bytearray | memoryview, /) -> int:
        """Take whole frames from the beginning of `data`, as many as there is credit for; return how many bytes."""
        uplink = self._uplink
        size = min(len(data), uplink.config.window - self._sent + self._placed) & ~1
        if size <= 0 or not uplink.confirmed():
            raise BlockingIOError
        source = data[0] if size == 2 else max(0, self.outbox.batch_source)
        limit = 2 * self._limit if source else self._limit
        # It must send everything that it has credit for, in several pieces if needed: only credit or the connection
        # wakes it again.
        taken = 0
        while taken < size and not uplink.congested:
            end = min(taken + limit, size)
            self._take(bytes(data if end - taken == len(data) else data[taken:end]), source)
            taken = end
        if not taken:
            raise BlockingIOError
        return taken

    def _take(self, frames: bytes, only: int) -> None:
        """Send `frames`, all of which are of the source `only` if that is not 0."""
        sources: dict[int, int] = {}
        for source, count in [(only, len(frames) >> 1)] if only else source_counts(frames[0::2]):
            if token := self._tokens[source]:
                sources[source] = token
            else:
                # The outbox is about to count them as written.
                if source >= len(self._written):
                    open_counts(self._written, source)
                self._written[source] -= count
                self._exchange.drop(source, self._id, DropReason.FENCED, count)
                frames = split_by_source(frames, source)[1]
        if sources:
            size = len(frames)
            if len(sources) == 1 and size > FEW:
                (only,) = sources
                self._send(only, frames[1::2], size, sources)
            else:
                self._send(0, frames, size, sources)
            self._exchange.ledger.forwarded += len(frames) >> 1

    def _send(self, source: int, data: bytes, size: int, sources: dict[int, int]) -> None:
        self._bundles.add_piece(self._relay, Piece(self._id, self._token, self._sent, source, data), sources)
        self._sent += size
        self._moved_at = trio.current_time()

    def credit(self, placed: int) -> None:
        """Note how many bytes the other relay has placed."""
        if self._placed < placed <= self._sent:
            self._placed = placed
            self._moved_at = trio.current_time()
            self.outbox.write_more()

    def check_stalled(self, now: float, wait_log: Throttle) -> None:
        """Ask for credit after a long wait, and log which clients wait."""
        if self.outbox.busy and now - self._moved_at >= ASK_AFTER and not self._uplink.congested:
            self._send(0, b"", 0, {})
        report_waiting(self.outbox, now, wait_log, relay=self.lease.name)


class Exports:
    """The ids of one realm that other relays hold, for clients of this one."""

    def __init__(self, exchange: Exchange, uplink: Uplink, bundles: Bundles, leases: Leases) -> None:
        self._exchange = exchange
        self._uplink = uplink
        self._bundles = bundles
        self._leases = leases
        self._sinks: dict[tuple[int, str], RemoteSink] = {}

    @property
    def outboxes(self) -> list[Outbox]:
        """The queues of frames for them."""
        return [sink.outbox for sink in self._sinks.values()]

    async def handed_over(self, id: int) -> None:
        """Wait until no frame of `id` is queued for elsewhere, and publish the frames that have left the queues."""
        done = trio.Event()
        Countdown([(outbox, outbox.last_places((id,)).get(id, 0)) for outbox in self.outboxes], done.set)
        await done.wait()
        self._bundles.flush()

    def come_up(self, view: View) -> None:
        """Make new sinks for all ids elsewhere."""
        for sink in list(self._sinks.values()):
            self._end(sink, DropReason.CLUSTER_DOWN)
        for lease in view:
            self.joined(lease)

    def discard(self, reason: DropReason) -> None:
        """Break all sinks: drop what is queued for them, and all that is still sent to them."""
        for sink in self._sinks.values():
            sink.outbox.discard(reason)

    def joined(self, lease: RemoteLease) -> None:
        """Let clients here reach `lease`, once the relay is up and no client here has its id alone. Idempotent."""
        sink = self._sinks.get((lease.id, lease.relay))
        known = sink is not None and sink.lease == lease
        if known or not self._uplink.up or self._is_held_here(lease):
            return
        outbox = self._new_sink(lease).outbox
        self._exchange.registry.add_remote(lease, outbox)
        self._exchange.hand_over(outbox)

    def _is_held_here(self, lease: RemoteLease) -> bool:
        """Return whether a client here has the id of `lease`, and does not share it with that."""
        session, ours = self._exchange.registry.holder(lease.id), self._leases.get(lease.id)
        holders = [holder for holder in (session, ours) if holder is not None]
        return not all(holder.shared and lease.shared for holder in holders)

    def restore(self, view: View) -> None:
        """Continue where a relay before this one went down; what is sent to ids elsewhere is dropped until it is up."""
        for lease in view:
            if not self._is_held_here(lease):
                outbox = self._new_sink(lease).outbox
                outbox.discard(DropReason.CLUSTER_DOWN)
                self._exchange.registry.place_remote(lease, outbox)

    def _new_sink(self, lease: RemoteLease) -> RemoteSink:
        sink = RemoteSink(lease, self._exchange, self._uplink, self._bundles, self._leases.tokens)
        self._sinks[lease.id, lease.relay] = sink
        return sink

    def left(self, lease: RemoteLease) -> None:
        """Note that `lease` has ended."""
        sink = self._sinks.get((lease.id, lease.relay))
        if sink is not None and self._uplink.up:
            self._end(sink, DropReason.PEER_GONE)
        self._exchange.registry.remove_remote(lease)

    def _end(self, sink: RemoteSink, reason: DropReason) -> None:
        sink.outbox.discard(reason)
        del self._sinks[sink.lease.id, sink.lease.relay]
        self._exchange.registry.remove_queue(sink.outbox)

    def credit(self, relay: str, credit: Credit) -> None:
        """Note credit that another relay gives."""
        sink = self._sinks.get((credit.destination, relay))
        if sink is not None and (credit.token, credit.connection) == (sink.lease.token, self._uplink.connection):
            sink.credit(credit.placed)

    def go_on(self) -> None:
        """Send what waited while the connection was congested."""
        for sink in self._sinks.values():
            sink.outbox.write_more()

    def check_stalled(self, wait_log: Throttle) -> None:
        """Check sinks that wait."""
        now = trio.current_time()
        for sink in self._sinks.values():
            sink.check_stalled(now, wait_log)
