"""From a chunk that a client sent to the outboxes of those whom it names. No checkpoint, and no system call of its own.

1. `feed` takes what was read, in one piece: it joins it to what an earlier chunk left over, counts its whole frames as
   accepted, regroups them by destination and puts each piece into its outbox. Order per pair is kept: regrouping keeps
   it, and the frames of one chunk for one destination are one piece.
2. A full destination gets its piece to keep (`Outbox.pause`); the other pieces of the chunk still go out. The session
   counts in `waits` what it waits for, and nobody reads it until that is nothing.
3. Frames of a session with EVENTS to id 0 are a barrier: what came before them is routed first. If that pauses the
   session, they and all that follows stay in its `rest`, unread as far as the ledger goes; `resume` takes them up.
4. The work of one step is bounded: after `REQUESTS_A_STEP` requests, or one FLUSH, which looks through every queue,
   the rest waits for the session's own task.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import trio

from ..protocol import DropReason, EventCode, regroup, source_counts
from ._requests import answer, is_request

if TYPE_CHECKING:
    from ._outbox import Outbox
    from ._relay import Relay
    from ._session import Session

REQUESTS_A_STEP = 64
"""Some 100 µs of work, as much as regrouping a large chunk."""

LARGE_MIX = 4096
"""Bytes from which regrouping with numpy pays."""

Tap = Callable[[int, int, bytes | bytearray], None]


class Router:
    """Routes for one relay.

    Attributes:
        large_mixes: set once a large chunk has come that was for several destinations.
        tap: called with source, destination and frames as they are routed; None while nobody looks.
    """

    def __init__(self, relay: "Relay") -> None:
        self._relay = relay
        self._outboxes = relay.registry.outboxes
        self._accepted = relay.ledger.accepted
        self._drop_when_full = relay.config.overflow == "drop"
        self.large_mixes: trio.Event = trio.Event()
        self.tap: Tap | None = None

    def feed(self, session: "Session", chunk: bytes) -> None:
        """Route what was read from `session`. Afterwards `session.blocked` tells whether it may be read again."""
        if session.half:
            chunk = session.half + chunk
            session.half = b""
        if session.events and 0 in chunk[0::2]:
            self._feed_with_requests(session, chunk)
            return
        if len(chunk) & 1:
            session.half = chunk[-1:]
            chunk = chunk[:-1]
        if chunk:
            self._route(session, chunk)

    def resume(self, session: "Session") -> None:
        """Go on with the rest of a chunk that had to stop; the session waits for nothing now."""
        rest, session.rest = session.rest, b""
        self.feed(session, rest)

    def discard(self, session: "Session", chunk: bytes, reason: DropReason) -> None:
        """Count whole frames of `session` that nobody routes any more: accepted, and dropped."""
        left = session.half + session.rest + chunk
        session.half, session.rest = left[len(left) & ~1 :], b""
        for destination, count in source_counts(left[0 : len(left) & ~1 : 2]):
            self._accepted[session.id] += count
            self._relay.drop(session.id, destination, reason, count)

    def finish(self, session: "Session", reason: DropReason) -> None:
        """Count what a session that sends no more leaves over: frames that nobody routed, and a half frame."""
        self.discard(session, b"", reason)
        self._relay.ledger.partial += len(session.half)
        session.half = b""

    def _route(self, session: "Session", frames: bytes) -> None:
        source = session.id
        self._accepted[source] += len(frames) >> 1
        if source == 0:
            for destination, count in source_counts(frames[0::2]):
                self._relay.drop(0, destination, DropReason.NO_ROUTE, count)
            return
        pieces: Sequence[tuple[int, bytes | bytearray]]
        if len(frames) == 2:
            pieces = ((frames[0], session.name_byte + frames[1:]),)
        else:
            pieces = regroup(frames, source)
            if len(pieces) > 1 and len(frames) >= LARGE_MIX:
                self.large_mixes.set()
        for destination, piece in pieces:
            outbox = self._outboxes[destination]
            if self.tap is not None:
                self.tap(source, destination, piece)
            if session.to is not None and destination not in session.to:
                self._relay.drop(source, destination, DropReason.DENIED, len(piece) >> 1)
            elif outbox is None:
                self._nobody(source, destination, piece)
            elif outbox.full:
                self._full(session, outbox, piece)
            else:
                outbox.put(piece)

    def _full(self, session: "Session", outbox: "Outbox", piece: bytes | bytearray) -> None:
        # What was put here in this very step may not have been offered to the connection yet.
        outbox.flush()
        if not outbox.full:
            outbox.put(piece)
        elif self._drop_when_full:
            self._relay.drop(session.id, outbox.id, DropReason.QUEUE_FULL, len(piece) >> 1)
        else:
            session.pause_for(outbox, piece)

    def _nobody(self, source: int, destination: int, piece: bytes | bytearray) -> None:
        relay = self._relay
        relay.accept_waiting()
        if (outbox := self._outboxes[destination]) is not None:
            outbox.put(piece)
        elif relay.hold.frames and destination:
            relay.hold.put(destination, piece)
        else:
            relay.drop(source, destination, DropReason.NO_ROUTE, len(piece) >> 1)

    def _feed_with_requests(self, session: "Session", chunk: bytes) -> None:
        destinations = chunk[0 : len(chunk) & ~1 : 2]
        at = 0
        for _ in range(REQUESTS_A_STEP):
            request = destinations.find(0, at)
            before = request if request >= 0 else len(destinations)
            if before > at:
                self._route(session, chunk[2 * at : 2 * before])
                at = before
            if request < 0 or session.waits or session.outbox.full or at + 1 == len(destinations):
                break
            code, argument = chunk[2 * at + 1], chunk[2 * at + 3]
            if destinations[at + 1] == 0 and is_request(code):
                self._relay.ledger.control += 2
                answer(self._relay, session, code, argument)
                at += 2
                if code == EventCode.FLUSH:
                    break
            else:
                count = 2 if destinations[at + 1] == 0 else 1
                self._accepted[session.id] += count
                self._relay.drop(session.id, 0, DropReason.NO_ROUTE, count)
                at += count
        rest = chunk[2 * at :]
        if (len(destinations) - at == 1 and not destinations[at] and not session.waits) or len(rest) < 2:
            session.half = rest
        else:
            session.rest = rest
            if not session.waits and session.outbox.full:
                session.pause_for(session.outbox, b"")
