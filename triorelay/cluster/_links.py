"""Frames for ids that other relays hold.

1. A link is what an outbox writes to where a session's has a connection. It takes frames while it has credit; without
   credit frames collect in the outbox, which fills and pauses the sender, as it would for a slow client here.
2. Credit is counted in bytes under way: what was ever sent less what the other relay says was ever placed. Both only
   grow, so a lost word of credit is made good by the next.
3. What the link takes goes out as one batch. The next one waits until the engine's connection took this one; meanwhile
   frames collect: so small messages of a busy moment share a batch, and a message alone goes at once.
4. A batch names the fencing token of its destination and of each source in it. Frames of a source that has no lease,
   because another relay took its id, are dropped as `fenced` instead.
5. Batches are lost when an engine is killed, and credit with them. A link that has waited for a second asks for credit
   with an empty batch, whose offset tells the other relay how much went missing.
6. A link ends with the lease that it leads to, or with the connection to the engine. A new one begins at nothing.
"""

from typing import TYPE_CHECKING

import trio

from ..relay import DropReason, report_waiting, source_counts
from ._engine import no_matter
from ._view import Seen
from ._wire import Batch, encode, split_by_source, subject_of_id

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..relay import Outbox
    from ._cluster import Cluster

BATCH_BYTES = 1 << 18
"""Frames that a batch has at most: four chunks, a quarter of what NATS lets a message have."""
HEADER_BYTES = 4096
"""What a batch may have besides its frames: at most 255 tokens of at most 11 bytes, and some names."""
ASK_AFTER = 1.0


class Link:
    """The way to one id elsewhere.

    Attributes:
        seen: the lease that it leads to.
        outbox: what waits for it.
    """

    def __init__(self, cluster: "Cluster", seen: Seen) -> None:
        self.seen = seen
        self._cluster = cluster
        self._relay = cluster.relay
        self._engine = cluster.engine
        self._subject = subject_of_id(cluster.config.realm, seen.id)
        self._limit = min(BATCH_BYTES, self._engine.max_payload - HEADER_BYTES)
        self._written = self._relay.ledger.written_to(seen.id)
        self._sent = 0
        self._placed = 0
        self._in_hand = False
        self._moved_at = trio.current_time()
        self.send_frame: Callable[[bytes], int] = self.send_nowait
        self.outbox: Outbox = self._relay.exchange.open_outbox(seen.id, self)

    def send_nowait(self, data: bytes | bytearray | memoryview, /) -> int:
        """Take whole frames from the beginning of `data`, as many as there is credit for; return how many bytes."""
        size = min(len(data), self._limit, self._cluster.config.window - self._sent + self._placed) & ~1
        if self._in_hand or size <= 0 or not self._cluster.confirmed():
            raise BlockingIOError
        frames = bytes(data if size == len(data) else data[:size])
        tokens = self._cluster.leases.tokens
        sources: dict[int, int] = {}
        for source, count in source_counts(frames[0::2]):
            if tokens[source]:
                sources[source] = tokens[source]
            else:
                # The outbox is about to count them as written.
                self._written[source] -= count
                self._relay.exchange.drop(source, self.seen.id, DropReason.FENCED, count)
                frames = split_by_source(frames, source)[1]
        if frames:
            self._in_hand = not self._publish(frames, sources)
            self._relay.ledger.forwarded += len(frames) >> 1
        return size

    def _publish(self, frames: bytes, sources: dict[int, int]) -> bool:
        cluster, seen = self._cluster, self.seen
        batch = Batch(cluster.nonce, cluster.connection, seen.id, seen.token, self._sent, sources, frames)
        self._sent += len(frames)
        self._moved_at = trio.current_time()
        return self._engine.publish(self._subject, encode(batch), self._taken if frames else no_matter)

    def _taken(self) -> None:
        self._in_hand = False
        self._go_on()

    def credit(self, placed: int) -> None:
        """Take note of how many bytes the other relay has placed."""
        if self._placed < placed <= self._sent:
            self._placed = placed
            self._moved_at = trio.current_time()
            self._go_on()

    def _go_on(self) -> None:
        outbox = self.outbox
        if not outbox.busy or self._in_hand:
            return
        with self._relay.exchange.round.step():
            outbox.write_more()
            if not outbox.busy and not outbox.broken:
                # What a session's writer does: it has nothing more to write.
                outbox.batches.receive_nowait()
                outbox.writer_rests()

    def look(self, now: float) -> None:
        """Ask for credit where it has waited long, and tell the log who waits."""
        if self.outbox.busy and not self._in_hand and now - self._moved_at >= ASK_AFTER:
            self._publish(b"", {})
        report_waiting(self.outbox, now, self._relay.wait_log, relay=self.seen.name)
