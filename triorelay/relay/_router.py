"""From what a client sent to the outboxes of its destinations. No checkpoint, and no system call but the read.

1. `read` reads once, and `take` routes what came. A frame that comes alone to an idle destination takes the shortest
   way: it is offered to the destination's connection in this step. Everything else goes through `feed`.
2. `feed` takes one chunk. It joins it to the rest of an earlier chunk, counts the whole frames as accepted, groups them
   by destination, and puts each piece into its outbox. This keeps the order of each pair: all frames of a chunk for one
   destination are one piece, in order. For a shared id, each holder except the sender gets the piece.
3. If a destination is full, its outbox keeps the piece (`Outbox.pause`); the other pieces of the chunk still go out.
   The session counts in `waits` the pieces that wait, and the relay does not read it until the count is 0.
4. Frames of a session with EVENTS to id 0 are a barrier: what came before them is routed first. If that pauses the
   session, they and all that follows stay in its `rest`, and the ledger does not count them yet; `take` continues.
5. The work of one step is bounded: after `REQUESTS_A_STEP` requests the rest waits for the pump's next round. A FLUSH
   counts as many requests as it looks at queues.
"""

from collections.abc import Callable, Sequence

from ..protocol import LARGE_CHUNK, CloseReason, DropReason, EventCode, encode_event, regroup, source_counts
from ._exchange import Exchange
from ._outbox import Outbox
from ._session import SMALL_CHUNK, Session

REQUESTS_A_STEP = 32
"""About 50 µs of work, a part of what regrouping a large chunk takes."""

Tap = Callable[[int, int, bytes | bytearray], None]
"""Looks at frames as they are routed: called with source, destination and frames."""


class Router:
    """Routes for one relay.

    Attributes:
        tap: called with source, destination and frames as they are routed; None without a viewer.
        pieces: counts the pieces that chunks were regrouped into, as a measure of work.
        accept_waiting: called when an absent id may be one that has just connected, to accept what waits at listeners.
    """

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._outboxes = exchange.registry.outboxes
        self._accepted = exchange.ledger.accepted
        self.tap: Tap | None = None
        self._alone: list[bytes] | None = None
        self._taps: dict[Tap, list[bytes] | None] = {}
        self.accept_waiting: Sequence[Callable[[], object]] = ()
        self._accepted_in = -1
        self.pieces: int = 0

    def add_tap(self, tap: Tap, alone: list[bytes] | None = None) -> None:
        """Have `tap` called from now on.

        Where it is the only one, a frame that comes alone is appended to `alone` instead, if that is given: its source
        as one byte, and then the frame as it was sent. Both bytes objects are there anyway, and appending is no call.
        """
        self._taps[tap] = alone
        self._set_tap()

    def remove_tap(self, tap: Tap) -> None:
        """Do not call it any more. Idempotent."""
        self._taps.pop(tap, None)
        self._set_tap()

    def _set_tap(self) -> None:
        # One tap, the common case, is called without a loop: a call less for each frame.
        only = next(iter(self._taps)) if len(self._taps) == 1 else None
        self._alone = None if only is None else self._taps[only]
        self.tap = only or (self._call_taps if self._taps else None)

    def _call_taps(self, source: int, destination: int, frames: bytes | bytearray) -> None:
        for tap in self._taps:
            tap(source, destination, frames)

    def receive(self, session: Session) -> bool:
        """Read once from `session` and route what came; return whether to continue reading."""
        return self.read(session) and self.take(session)

    def read(self, session: Session) -> bool:
        """Read once from `session`, into its `rest`, which `take` routes; return whether to continue reading.

        It never reads a blocked session: new input would overtake or overwrite frames that are not routed yet.
        """
        if session.waits or session.rest:
            return False
        try:
            chunk = session.recv_nowait(session.chunk_size)
        except BlockingIOError:
            return True
        except OSError:
            session.ended = session.ended or CloseReason.RESET
            return False
        if not chunk:
            session.ended = session.ended or CloseReason.LEFT
            return False
        session.rest = chunk
        return True

    def take(self, session: Session) -> bool:
        """Route what is in `rest`, if `session` waits for nothing; return whether it may be read again."""
        if session.waits:
            return False
        chunk, session.rest = session.rest, b""
        if len(chunk) == 2 and session.unrestricted and not session.half:
            # The shortest way, for one frame to a client with an empty queue; the result is that of `feed`.
            outbox = self._outboxes[chunk[0]]
            if outbox is not None:
                frame = session.name_byte + chunk[1:]
                if outbox.hand_over(frame):
                    # Not `+=`, which mypyc makes an addition of objects, three times as long.
                    self._accepted[session.id] = self._accepted[session.id] + 1
                    if session.events:
                        session.sent_to[outbox] = outbox.put_bytes
                    if self.tap is not None:
                        if self._alone is not None:
                            self._alone.append(session.name_byte)
                            self._alone.append(chunk)
                        else:
                            self.tap(session.id, chunk[0], frame)
                    return True
        elif not chunk:
            return True
        session.chunk_size = LARGE_CHUNK if len(chunk) >= SMALL_CHUNK else SMALL_CHUNK
        return self.feed(session, chunk)

    def feed(self, session: Session, chunk: bytes) -> bool:
        """Route what was read from `session`; return whether it may be read again."""
        if session.half:
            chunk = session.half + chunk
            session.half = b""
        if session.events and 0 in chunk[0::2]:
            self._feed_with_requests(session, chunk)
            return not (session.waits or session.rest)
        if len(chunk) & 1:
            session.half = chunk[-1:]
            chunk = chunk[:-1]
        if chunk:
            self._route(session, chunk)
        return not session.waits

    def discard(self, session: Session, chunk: bytes, reason: DropReason) -> None:
        """Count whole frames of `session` that will not be routed any more as accepted and dropped."""
        left = session.half + session.rest + chunk
        session.half, session.rest = left[len(left) & ~1 :], b""
        for destination, count in source_counts(left[0 : len(left) & ~1 : 2]):
            self._accepted[session.id] += count
            self._exchange.drop(session.id, destination, reason, count)

    def finish(self, session: Session, reason: DropReason) -> None:
        """Count what is left of a session that has ended: frames that were not routed, and a half frame."""
        self.discard(session, b"", reason)
        self._exchange.ledger.partial += len(session.half)
        session.half = b""

    def _route(self, session: Session, frames: bytes) -> None:
        source = session.id
        self._accepted[source] += len(frames) >> 1
        if source == 0:
            for destination, count in source_counts(frames[0::2]):
                self._exchange.drop(0, destination, DropReason.NO_ROUTE, count)
            return
        alone = len(frames) == 2
        pieces = [(frames[0], session.name_byte + frames[1:])] if alone else regroup(frames, source)
        self.pieces += len(pieces)
        for destination, piece in pieces:
            outbox = self._outboxes[destination]
            if self.tap is not None:
                self.tap(source, destination, piece)
            if session.to is not None and destination not in session.to:
                self._exchange.drop(source, destination, DropReason.DENIED, len(piece) >> 1)
            elif outbox is None:
                self._not_one_holder(session, destination, piece)
            elif not outbox.full:
                outbox.put(piece, source)
                if session.events:
                    session.sent_to[outbox] = outbox.put_bytes
            else:
                self._offer(session, outbox, piece)

    def _offer(self, session: Session, outbox: Outbox, piece: bytes | bytearray) -> None:
        if not self._exchange.offer(outbox, piece):
            session.pause_for(outbox, piece)
        elif session.events:
            session.sent_to[outbox] = outbox.put_bytes

    def _not_one_holder(self, session: Session, destination: int, piece: bytes | bytearray) -> None:
        """Route to an id that several sessions share, or that is absent."""
        exchange = self._exchange
        shared = exchange.registry.shared
        step = exchange.round.number
        if destination not in shared and self._accepted_in != step:
            # Once a step: a chunk for many absent ids, and many such chunks, cost no more.
            self._accepted_in = step
            for accept in self.accept_waiting:
                accept()
        if destination in shared:
            self._copy(session, shared[destination], piece)
        elif (outbox := self._outboxes[destination]) is not None:
            self._offer(session, outbox, piece)
        elif exchange.hold.frames and destination:
            queue = exchange.hold.put(destination, piece)
            if session.events:
                session.sent_to[queue] = queue.put_bytes
        else:
            exchange.drop(session.id, destination, DropReason.NO_ROUTE, len(piece) >> 1)

    def _copy(self, session: Session, holders: list[Outbox], piece: bytes | bytearray) -> None:
        """Put `piece` into the outbox of every holder except `session`, which waits for each that is full.

        All queues share the same immutable bytes; a queue copies them only to append to them.
        """
        exchange = self._exchange
        others = [outbox for outbox in holders if outbox is not session.outbox]
        if not others:
            exchange.drop(session.id, session.id, DropReason.NO_ROUTE, len(piece) >> 1)
            return
        exchange.ledger.copied += (len(others) - 1) * (len(piece) >> 1)
        same = bytes(piece)
        for outbox in others:
            self._offer(session, outbox, same)

    def _feed_with_requests(self, session: Session, chunk: bytes) -> None:
        destinations = chunk[0 : len(chunk) & ~1 : 2]
        at = 0
        work = 0
        while work < REQUESTS_A_STEP:
            work += 1
            request = destinations.find(0, at)
            before = request if request >= 0 else len(destinations)
            if before > at:
                self._route(session, chunk[2 * at : 2 * before])
                at = before
            if request < 0 or session.waits or session.outbox.full or at + 1 == len(destinations):
                break
            code, argument = chunk[2 * at + 1], chunk[2 * at + 3]
            if destinations[at + 1] == 0 and code in (EventCode.PING, EventCode.LIST, EventCode.FLUSH):
                self._exchange.ledger.control += 2
                self._answer(session, code, argument)
                at += 2
                if code == EventCode.FLUSH:
                    work += len(session.sent_to)
            else:
                count = 2 if destinations[at + 1] == 0 else 1
                self._accepted[session.id] += count
                self._exchange.drop(session.id, 0, DropReason.NO_ROUTE, count)
                at += count
        rest = chunk[2 * at :]
        if (len(destinations) - at == 1 and not destinations[at] and not session.waits) or len(rest) < 2:
            session.half = rest
        else:
            session.rest = rest
            if not session.waits and session.outbox.full:
                session.pause_for(session.outbox, b"")

    def _answer(self, session: Session, code: int, argument: int) -> None:
        """Answer a request, now or, for FLUSH, when what came before it is written or dropped."""
        registry = self._exchange.registry
        if code == EventCode.PING:
            session.outbox.put(encode_event(EventCode.PONG, argument))
        elif code == EventCode.LIST:
            session.outbox.put(registry.presence(session))
        else:
            registry.forget_dropped_sent(session.id)
            session.flush(argument)
