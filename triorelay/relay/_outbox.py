"""The queue of one destination, and the only code that writes to its connection.

1. Frames enter through `put`, into the newest batch, which grows until it is taken. Bytes are counted, not frames.
2. `flush` runs at the end of the step that put them there. While no batch is being written it offers the newest one
   to the connection at once, in that same step. That is right for three reasons: the batch is the head of the queue;
   no write is in progress, and a paused sender has nothing in the queue yet; and in a step without a checkpoint the
   connection cannot be closed and its descriptor reused, because the session takes it back in `close`.
3. When the kernel does not take everything, a writer task starts. From then on frames only collect, until the writer
   has written the batch, found no newer one, and ends. Either way, frames leave in the order of `put`.
4. A sender that finds the queue full leaves its chunk here, in `paused`, first come first served. The step that makes
   room places it and calls the sender's `unpause`. No sender overtakes: while one is paused, the next one pauses too.
5. A failure here ends this destination and never the sender: the outbox is `broken`, and drops its frames.
6. A batch of one source is counted for that source as it is written. In any other batch the outbox reads the sources
   out of the written bytes: it keeps no record for a frame.
"""

from bisect import bisect_right, insort
from collections.abc import Callable, Iterable, Mapping
from operator import itemgetter
from typing import Final, Protocol

from ..protocol import DropReason, source_counts
from ._connection import SMALL_PIECE, Sink
from ._ledger import open_counts
from ._round import Round
from ._state import QueueState

SMALL: Final[int] = SMALL_PIECE
SPENT: Final = 32768
"""After so many written bytes a batch is cut, if they are half of it: so each byte is copied once."""
SEVERAL: Final = -1
"""The source of frames that are of several clients, or of the relay itself."""
_PLACE: Final = itemgetter(0)
"""Marks are kept in the order of their places."""


class Sender(Protocol):
    """A source of frames that can be paused for a destination.

    Attributes:
        id: its id.
        waiting_since: when it began to wait.
        wait_logged: whether the log reports the wait.
    """

    id: int
    waiting_since: float
    wait_logged: bool

    def unpause(self, outbox: "Outbox") -> None:
        """Note that the chunk left with `outbox` was placed or dropped."""


def do_nothing() -> None:
    pass


class Outbox:
    """The queue of one session.

    Attributes:
        id: the destination; 0 for an observer.
        limit: with so many bytes the queue counts as full.
        broken: the connection failed or was taken back; what is put here is dropped.
        put_bytes: bytes ever put here.
        taken_bytes: bytes ever taken by the kernel or dropped.
        paused: (sender, frames) of the senders that wait for room.
        lossy: whether frames that find it full are dropped instead of pausing their sender.
        dropped_sent: sources that got DROPPED for this queue; a source leaves it when one of its frames is written.
        has_writer: whether a writer was called, which has not ended.
        on_blocked: called when there is something for a writer, and none at work.
        on_broken: called when it is; wakes the session's own task, which ends the session.
        busy: whether there is a batch that the connection has not taken all of.
        batch_source: the source of the frames that are offered to the connection, if they are of one.
    """

    def __init__(
        self,
        id: int,
        connection: Sink,
        *,
        limit: int,
        written: list[int],
        dropped_sent: set[int],
        drop: Callable[[int, int, DropReason, int], None],
        round: Round,
        lossy: bool = False,
    ) -> None:
        """Make an empty queue.

        Args:
            id, limit, dropped_sent, lossy: as above; several outboxes may share the set.
            connection: where the frames go; the session still owns it.
            written: counters of frames written to this id, by source, up to the highest that was counted.
            drop: called with source, destination, reason and count of dropped frames.
            round: flushes it at the end of a step that put something here.
        """
        self.id = id
        self.limit = limit
        self.broken: bool = False
        self.put_bytes: int = 0
        self.taken_bytes: int = 0
        self.paused: list[tuple[Sender, bytes | bytearray]] = []
        self.on_blocked: Callable[[], None] = do_nothing
        self.on_broken: Callable[[], None] = do_nothing
        self._connection = connection
        self._written = written
        self.lossy = lossy
        self.dropped_sent = dropped_sent
        self._drop = drop
        self._round = round
        self._handed_over_in = -1
        self._send_small = connection.send_small
        self._dropped_as = DropReason.PEER_GONE
        self._newest: bytes | bytearray = b""
        self._newest_source = SEVERAL
        self._batch: bytes | bytearray = b""
        self.batch_source: int = SEVERAL
        self._offset = 0
        self.busy: bool = False
        self._sealed = False
        self._flush_due = False
        self.has_writer: bool = False
        self._marks: list[tuple[int, Callable[[], None]]] = []

    @property
    def queued_bytes(self) -> int:
        return self.put_bytes - self.taken_bytes

    @property
    def full(self) -> bool:
        """Whether the next chunk has to wait, or be dropped."""
        return bool(self.paused) or self.put_bytes - self.taken_bytes >= self.limit

    def hand_over(self, frame: bytes) -> bool:
        """Offer one frame to the connection without queueing it; return whether it was written or dropped.

        It does nothing if other frames are before it, or if the step has handed one over already, so that several
        frames of one step leave in one write.
        """
        if self.busy or self._newest or self.broken or self.paused or self._handed_over_in == self._round.number:
            return False
        self._handed_over_in = self._round.number
        try:
            taken = self._send_small(frame)
        except OSError:
            return False  # the next flush detects whether the connection was full or broken
        if taken == 2:
            source = frame[0]
            if source >= len(self._written):
                open_counts(self._written, source)
            self._written[source] = self._written[source] + 1  # as a number of the machine: see Router.receive
            if self.dropped_sent:
                self.dropped_sent.discard(source)
        else:
            self.put_bytes += 2
            self.taken_bytes += 1
            self._batch, self.batch_source, self._offset, self.busy = frame, SEVERAL, 1, True
            self._need_writer()
        return True

    def put(self, frames: bytes | bytearray, source: int = SEVERAL, *, news: bool = False) -> None:
        """Append whole frames, whether or not the queue is full. If the system has no memory, nothing changes.

        Args:
            frames: the outbox keeps this object; do not change it.
            source: the id that all of them are from, if the caller knows one.
            news: whether they may leave some passes later (`_round`).
        """
        if self.broken:
            self.drop(frames, self._dropped_as)
            return
        put_bytes = self.put_bytes + len(frames)
        if not self._newest:
            self._newest, self._newest_source = frames, source
        else:
            if source != self._newest_source:
                self._newest_source = SEVERAL
            if type(self._newest) is not bytearray:
                self._newest = bytearray(self._newest)
            self._newest += frames
        self.put_bytes = put_bytes
        if not (self._flush_due or self.busy or (news and self._round.defers(self))):
            self._flush_due = True
            self._round.add(self)

    def pause(self, sender: Sender, frames: bytes | bytearray) -> None:
        """Keep `frames` of `sender` until there is room; do not read it until then. Empty frames only wait for room."""
        self.paused.append((sender, frames))

    def withdraw(self, sender: Sender) -> list[bytes | bytearray]:
        """Give back what `sender` left here, in order, and forget it."""
        given_back = [frames for paused, frames in self.paused if paused is sender]
        self.paused = [item for item in self.paused if item[0] is not sender]
        return given_back

    def deny(self, sender: Sender) -> None:
        """Drop what `sender` left here, because it may not send here any more."""
        for frames in self.withdraw(sender):
            self.drop(frames, DropReason.DENIED)
            sender.unpause(self)

    def flush(self) -> None:
        """Offer the newest batch to the connection, unless a write is in progress."""
        self._flush_due = False
        if self.busy or self.broken or not self._newest:
            return
        self._batch, self.batch_source, self._offset, self.busy = self._newest, self._newest_source, 0, True
        self._newest = b""
        self.write_more()
        if self.busy:
            self._need_writer()

    def _need_writer(self) -> None:
        if not self.has_writer:
            self.has_writer = True
            self.on_blocked()

    def welcome(self, answer: bytes) -> None:
        """Write the answer to a hello, before anything else: so there is room for all of it."""
        try:
            self._send_small(answer)
        except OSError:
            self.discard(DropReason.PEER_GONE)

    def write_more(self, at_most: int = 1 << 30) -> int:
        """Offer the batch in hand, then newer ones while the connection takes all; return how many bytes it took."""
        total = 0
        while self.busy and not self._sealed:
            batch, source, offset = self._batch, self.batch_source, self._offset
            size = min(len(batch) - offset, at_most)
            try:
                # A bound method of the socket, where it can be: a call of a Python function less for each small piece.
                send = self._send_small if size <= SMALL else self._connection.send_nowait
                taken = send(batch if size == len(batch) else memoryview(batch)[offset : offset + size])
            except BlockingIOError:
                break
            except OSError:
                self.discard(DropReason.PEER_GONE)
                break
            total += taken
            self._offset = offset + taken
            if self._offset == len(batch):
                self._batch, self.batch_source, self._offset = self._newest, self._newest_source, 0
                self._newest = b""
                self.busy = bool(self._batch)
            self._count_written(batch, source, offset, offset + taken)
            if taken < size or at_most < 1 << 30:
                break
        if self._offset >= SPENT and 2 * self._offset >= len(self._batch):
            cut = self._offset & ~1
            self._batch, self._offset = self._batch[cut:], self._offset - cut
        return total

    def _count_written(self, batch: bytes | bytearray, source: int, start: int, end: int) -> None:
        # A frame is written when its last byte is taken.
        self.taken_bytes += end - start
        if source != SEVERAL:
            if count := (end >> 1) - (start >> 1):
                if source >= len(self._written):
                    open_counts(self._written, source)
                self._written[source] += count
                if self.dropped_sent:
                    self.dropped_sent.discard(source)
        else:
            for each, count in source_counts(batch[start & ~1 : end & ~1 : 2]):
                if each >= len(self._written):
                    open_counts(self._written, each)
                self._written[each] += count
                self.dropped_sent.discard(each)
        if self.paused or self._marks:
            self._moved()

    def _moved(self) -> None:
        # Once the outbox is discarded all of this holds too: nothing is queued, and `put` drops what was paused.
        if self._marks:
            count = bisect_right(self._marks, self.taken_bytes, key=_PLACE)
            marks = self._marks[:count]
            del self._marks[:count]
            for _, reached in marks:
                reached()
        while self.paused and self.put_bytes - self.taken_bytes < self.limit:
            sender, frames = self.paused.pop(0)
            if frames:
                self.put(frames)
            sender.unpause(self)

    def mark(self, place: int, reached: Callable[[], None]) -> None:
        """Call `reached` when all bytes before `place` are written or dropped; at once if they are already."""
        if place <= self.taken_bytes:
            reached()
        else:
            insort(self._marks, (place, reached), key=_PLACE)

    def last_places(self, sources: Iterable[int]) -> dict[int, int]:
        """Return the place after the last frame of each of `sources` that has one here. It looks through the queue."""
        places: dict[int, int] = {}
        newest = self.put_bytes - len(self._newest)
        unwritten = self._unwritten()
        for frames, start in ((unwritten, newest - len(unwritten)), (self._newest, newest)):
            ids = bytes(frames[0::2])
            for source in sources:
                last = ids.rfind(source)
                if last >= 0:
                    places[source] = start + 2 * last + 2
        return places

    def queued_frames(self) -> int:
        """Count the frames that wait here or are paused for here, the relay's own left out."""
        sources = self._unwritten()[0::2], self._newest[0::2]
        waiting = sum(len(frames) - frames.count(0) for frames in sources)
        return waiting + sum(len(frames) // 2 for _, frames in self.paused)

    def _unwritten(self) -> bytes | bytearray:
        """Return the frames of the batch in hand of which the last byte is not taken."""
        return self._batch[self._offset & ~1 :]

    def seal(self) -> None:
        """Write nothing more: frames here, and frames still put here, wait until they are dropped or moved."""
        self._sealed = self.busy = True

    def drop_before(self, place: int, reason: DropReason) -> None:
        """Drop the frames before `place`, as `reason`; the queue was sealed before anything was put here."""
        size = place - self.taken_bytes
        if size > 0:
            newest = self._newest if isinstance(self._newest, bytearray) else bytearray(self._newest)
            self._newest = newest
            frames = newest[:size]
            del newest[:size]
            self.taken_bytes = place
            self.drop(frames, reason)
            self._moved()

    def move_to(self, other: "Outbox") -> None:
        """Move all frames to the end of `other`, with their marks; the queue is as for `drop_before`."""
        frames, marks = bytes(self._newest), self._marks
        self._newest, self._marks = b"", []
        self.taken_bytes = self.put_bytes
        if frames:
            other.put(frames)
        further = other.put_bytes - self.put_bytes
        for place, reached in marks:
            other.mark(place + further, reached)

    def discard(self, reason: DropReason) -> None:
        """Drop what is queued and paused here, and what is still put here, as `reason`. Idempotent."""
        if self.broken:
            return
        self.broken = True
        self._dropped_as = reason
        unwritten = self._unwritten(), self._newest
        self._batch = self._newest = b""
        self._offset = 0
        self.busy = False
        self.taken_bytes = self.put_bytes
        for frames in unwritten:
            self.drop(frames, self._dropped_as)
        self._moved()
        self.on_broken()

    def capture(self, sessions: Mapping[object, int]) -> QueueState:
        """Describe the queue; `sessions` gives the positions of those that wait here."""
        return QueueState(
            frames=bytes(self._unwritten()) + bytes(self._newest),
            taken=self._offset & 1,
            paused=[(sessions[sender], bytes(frames)) for sender, frames in self.paused],
            dropped_sent=sorted(self.dropped_sent),
            dropped_as=self._dropped_as.value if self.broken else "",
        )

    def restore(self, state: QueueState) -> None:
        """Continue from `state`, before anything is put here; the caller lets senders and FLUSHes wait again."""
        self.dropped_sent.update(state.dropped_sent)
        if state.dropped_as:
            self.discard(DropReason(state.dropped_as))
            return
        self.put_bytes = len(state.frames)
        self.taken_bytes = state.taken
        if state.frames:
            self._batch, self._offset, self.busy = state.frames, state.taken, True
            self._need_writer()

    def drop(self, frames: bytes | bytearray, reason: DropReason) -> None:
        """Count `frames` for here as dropped, except the relay's own."""
        for source, count in source_counts(frames[0::2]):
            if source:
                self._drop(source, self.id, reason, count)
