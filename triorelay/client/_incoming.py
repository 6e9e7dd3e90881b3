"""The protocol side of a stream to one peer; the side that its user sees is `_stream.py`.

1. What the peer sends is decoded as it arrives, not as it is received, because it may be about the other direction: a
   peer that reads no more must stop a sender that never receives.
2. LEFT, NO_ROUTE, DROPPED, a lost connection or a message with a wrong CRC breaks the stream, if it was not over.
   Bytes that arrived before are still received; then both directions raise.
3. Each direction ends with exactly one END or BROKEN of its sender. After closing, the claim stays until the peer's has
   come, so that late bytes reach neither `receive()` nor the next stream with this peer, which takes over what is its
   own.
4. A peer may begin its next streams before this side has closed. What waits for them fills the claim, and so stops the
   socket, while this client could still open them: until `OPENING_PATIENCE` after closing. Then they are broken off:
   each is answered by its one BROKEN, the rest of the last is discarded as it comes, and the next stream that is opened
   is broken and says so. It is one for all of them: what comes after it is the peer's next again.
"""

import trio

from ..protocol import (
    Event,
    EventCode,
    Half,
    MessageReader,
    RemoteProtocolError,
    StreamKind,
    StreamState,
    encode_message,
)
from ._inbox import CLAIM_BYTES, Inbox, Receiver
from ._link import Link

OPENING_PATIENCE = 1.0
"""Seconds after closing for which a full claim waits until the next stream is opened: enough for a program that
takes one after another, and a tenth of the stall timeout, after which the relay would close this client."""

FINISHING = (StreamKind.END, StreamKind.BROKEN)
"""The kinds after which a sender's next stream begins."""


def _kind(message: bytes) -> int:
    return message[0] if message else -1


class Incoming(Receiver):
    """What arrives for a stream, and what that says of both directions.

    Attributes:
        state: how the two directions stand.
        buffer: stream bytes not yet received.
        closed: whether the stream was closed here, so that no task receives any more.
        why: what broke the stream, in words.
        lost: whether the connection was lost.
        waiting_send: the scope of a send that waits for room.
    """

    size: int

    def __init__(self, peer: int, inbox: Inbox, link: Link) -> None:
        super().__init__()
        self.state: StreamState = StreamState()
        self.buffer: bytearray = bytearray()
        self.closed: bool = False
        self.why: str = ""
        self.lost: bool = False
        self.waiting_send: trio.CancelScope | None = None
        self._peer = peer
        self._inbox = inbox
        self._link = link
        self._reader = MessageReader()
        self._in_step = False
        self._leftover = 0
        self._next: list[bytes] = []
        self._end_said = False
        self._peer_gone = False
        self._opening = b"\0"
        self._owes_stop = False
        self._discarded = 0
        self._closed_at = 0.0

    def take_over(self, earlier: "Incoming") -> None:
        """Begin where a closed stream with the same peer ends."""
        self._reader, self._in_step = earlier._reader, True
        if self.state.finished:
            self.state.peer_finished = earlier.state.peer_finished
        else:
            self._leftover = earlier._leftover + (not earlier.state.peer_finished)
        for message in earlier._next:
            self._take(message)

    def stand_for_shed(self) -> None:
        """Be the stream that `shed` broke off, before anything is taken over: there only to say that it is broken."""
        self.why = "the peer began it before it was opened here, and more came than is kept; open the next one"
        self.state.break_off()
        self.state.peer_finished = self._end_said = True

    def deliver(self, source: int, data: bytes) -> None:
        discarded, was_in_step = self._reader.discarded, self._in_step
        for message in self._reader.feed(data):
            self._take(message)
        # A first block that does not check is what an earlier session of the peer left unfinished; later it is a gap.
        if self._reader.discarded > discarded and was_in_step:
            self._break("a message from it arrived damaged")
        self.settle()

    def _take(self, message: bytes) -> None:
        self._in_step = True
        kind = _kind(message)
        if self._leftover:
            self._leftover -= kind in FINISHING
        elif self.state.peer_finished and kind != StreamKind.STOP:
            self._next.append(message)
            self.size += len(message) + 1
        else:
            self._take_own(message)

    def _take_own(self, message: bytes) -> None:
        try:
            data = self.state.receive(message)
        except RemoteProtocolError as error:
            self._break(str(error))
            return
        self.buffer += data
        self.size += len(data)
        self._discarded += len(message) if self.closed else 0

    def tell(self, event: Event) -> None:
        match event.code:
            case EventCode.LEFT:
                self._part("it left")
            case EventCode.NO_ROUTE:
                self._part("no client held that id; wait_for() waits until one does")
            case EventCode.DROPPED:
                self._break("frames to it were dropped")
        self.settle()

    def lose(self) -> None:
        self.lost = True
        self._part("the connection to the relay was lost")
        self.settle()

    def _part(self, why: str) -> None:
        self._peer_gone = True
        self._break(why)
        self.state.peer_finished, self._leftover = True, 0
        self._next.clear()
        self.size = len(self.buffer)
        self._reader, self._in_step = MessageReader(), False

    def _break(self, why: str) -> None:
        if not self.state.finished:
            self.why = self.why or why
            self.state.break_off()
            self._end_said = True
            self._put(StreamKind.BROKEN)

    def settle(self) -> None:
        """Let every waiting task check the state again, and release the claim once nothing more belongs to it."""
        if self.state.sending is not Half.OPEN and self.waiting_send is not None:
            self.waiting_send.cancel()
        self.arrived.unpark_all()
        if self.closed:
            self.size -= len(self.buffer)
            self.buffer.clear()
            self._stop_late()
            if self.state.peer_finished and not self._next and not self._reader.unfinished:
                self._inbox.release(self)
            self.shed()
            self._inbox.relieve()

    def shed(self) -> None:
        due = self.closed and self._end_said and trio.current_time() >= self._closed_at + OPENING_PATIENCE
        if not (due and self._next and self.size >= CLAIM_BYTES):
            return
        ends = [_kind(message) in FINISHING for message in self._next]
        for _ in range(ends.count(True) + (not ends[-1])):
            self._put(StreamKind.BROKEN)
        # From here on this claim is that of the last of them: nothing of it is kept, and it ends with the peer's end.
        self.state.peer_finished = ends[-1]
        self._owes_stop = False
        self._next.clear()
        self.size = len(self.buffer)
        self._inbox.shed_sources.add(self._peer)
        self.settle()

    def encode(self, kind: StreamKind, data: bytes | memoryview = b"") -> bytes:
        """Return the data bytes of one message; a 0 comes before the first, as before every sender's."""
        opening, self._opening = self._opening, b""
        return opening + encode_message(bytes((kind,)) + data)

    def _put(self, kind: StreamKind) -> None:
        if not self._peer_gone:
            self._link.put(self._peer, self.encode(kind))

    def end(self, kind: StreamKind = StreamKind.END) -> None:
        """Say that this side sends no more, once."""
        self.state.end()
        if not self._end_said:
            self._end_said = True
            self._put(kind)

    def take(self, max_bytes: int) -> bytes:
        """Remove and return up to `max_bytes` stream bytes."""
        if max_bytes >= len(self.buffer):
            data = bytes(self.buffer)
            self.buffer.clear()
        else:
            data = bytes(self.buffer[:max_bytes])
            del self.buffer[:max_bytes]
        self.size -= len(data)
        self._inbox.took(self)
        return data

    def close(self) -> None:
        """No task receives here any more; ask the peer to stop, if it has not finished."""
        self.closed = True
        self._closed_at = trio.current_time()
        if self.state.receiving is Half.OPEN:
            if self._end_said:
                self._owes_stop = True
            else:
                self._put(StreamKind.STOP)
        self.state.stop()

    def _stop_late(self) -> None:
        # After our own END the peer may have let go of this stream, and a STOP would hit whatever comes next. So it is
        # sent only to a peer that is seen to continue sending.
        if self._owes_stop and self._discarded > CLAIM_BYTES and not self.state.peer_finished:
            self._owes_stop = False
            self._put(StreamKind.STOP)
