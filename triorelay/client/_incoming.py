"""The protocol side of a stream to one peer; `_stream.py` is the public side.

1. Messages of the peer are decoded as they arrive, not as they are received, because they may be about the other
   direction: a peer that reads no more must stop a sender that never receives.
2. The peer gets an OPEN as soon as it is connected, and sends data only once it has opened its own side. So
   nothing ever waits here for a stream that is not open.
3. LEFT, NO_ROUTE, DROPPED, a lost connection or a message with a wrong CRC breaks the stream, if it was not over.
   Bytes that arrived before are still received; then both directions raise.
4. After closing, the claim stays until the peer's last message has come, so that late bytes do not reach `receive()`.
   If both have ended the stream, at most one more message comes: data that is not this message is passed on. The next
   stream with this peer takes the claim over, and discards messages with another number.
"""

from random import randint
from typing import TYPE_CHECKING

from ..protocol import (
    LARGEST_NUMBER,
    Event,
    EventCode,
    Half,
    MessageReader,
    RemoteProtocolError,
    StreamKind,
    StreamState,
    encode_message,
)
from ._inbox import Receiver
from ._link import Link

if TYPE_CHECKING:
    import trio


class Incoming(Receiver):
    """What arrives for a stream, and what that says of both directions. Making it claims all that the peer sends.

    Args:
        peer: the other client.
        link: the connection.

    Raises:
        trio.BusyResourceError: there is a claim on the peer, and not by a stream that is closed here.

    Attributes:
        state: how the two directions stand.
        buffer: stream bytes not yet received.
        closed: whether the stream was closed here, so that no task receives any more.
        why: what broke the stream, in words.
        lost: whether the connection was lost.
        waiting_send: the scope of a send that waits for room.
    """

    def __init__(self, peer: int, link: Link) -> None:
        super().__init__()
        self.state: StreamState = StreamState(randint(1, LARGEST_NUMBER), decides=link.presence.own > peer)
        self.buffer: bytearray = bytearray()
        self.closed: bool = False
        self.why: str = ""
        self.lost: bool = False
        self.waiting_send: trio.CancelScope | None = None
        self._peer = peer
        self._link = link
        self._reader = MessageReader()
        earlier = self._link.inbox.by_source.get(peer)
        if isinstance(earlier, Incoming) and earlier.closed:
            self._link.inbox.release(earlier)
            self._reader = earlier._reader
            self.state.follow(earlier.state)
        self._link.inbox.claim(peer, self)
        self.announce()

    def announce(self) -> None:
        """Tell the peer of this side once, as soon as it is there and the connection is made."""
        if self._link.is_made and self._peer in self._link.presence.there and not self.state.finished:
            self.state.announce()
        self._send()

    def wake(self) -> None:
        self.announce()
        super().wake()

    def deliver(self, source: int, data: bytes) -> None:
        discarded, was_paired = self._reader.discarded, self.state.paired
        start = 0
        while start < len(data) and not (self.closed and self.state.peer_ended):
            # Closed here, the stream may be over after any message.
            end = (data.find(0, start) + 1 if self.closed else 0) or len(data)
            for message in self._reader.feed(data[start:end]):
                self._take(message)
            start = end
        # Before the peer has opened this stream, a damaged message is what an earlier session of it left unfinished.
        if self._reader.discarded > discarded and was_paired:
            self._break("a message from it arrived damaged")
        self.settle()
        if start < len(data):
            self._deliver_late(source, data[start:])

    def _take(self, message: bytes) -> None:
        try:
            data = self.state.receive(message)
        except RemoteProtocolError as error:
            self._break(str(error))
        else:
            self.buffer += data
            self.size += len(data)

    def _deliver_late(self, source: int, data: bytes) -> None:
        late = bytes(self._reader.begun) + data
        for message in map(encode_message, self.state.late_messages()):
            if message != late and message.startswith(late):
                self._reader.feed(data)
                return
            if late.startswith(message):
                late = late[len(message) :]
                break
        self._link.inbox.release(self)
        if late:
            self._link.inbox.deliver(source, late)

    def tell(self, event: Event) -> None:
        match event.code:
            case EventCode.JOINED:
                self.announce()
            case EventCode.LEFT:
                self._break("it left", is_gone=True)
            case EventCode.NO_ROUTE if not self.state.paired:
                # Nothing but OPEN was sent, so nothing is lost; LEFT says that the peer is gone.
                self._link.presence.drop_reported(self._peer)
            case EventCode.NO_ROUTE:
                self._break("no client held that id; wait_for() waits until one does", is_gone=True)
            case EventCode.DROPPED:
                self._break("frames to it were dropped")
        self.settle()

    def lose(self) -> None:
        self.lost = True
        self._break("the connection to the relay was lost", is_gone=True)
        self.settle()

    def _break(self, why: str, *, is_gone: bool = False) -> None:
        if not self.state.finished:
            self.why = why
        if is_gone:
            self.state.part()
        else:
            self.state.break_off()

    def settle(self) -> None:
        """Send what is to be said, let every waiting task check the state again, and release a claim that is over."""
        self._send()
        if self.state.sending is not Half.OPEN and self.waiting_send is not None:
            self.waiting_send.cancel()
        self.arrived.unpark_all()
        if self.closed:
            self.clear()
            if self.state.peer_finished or not (self.state.paired or self._peer in self._link.presence.there):
                self._link.inbox.release(self)
            self._link.inbox.relieve()

    def clear(self) -> None:
        self.buffer.clear()
        self.size = 0

    def _send(self) -> None:
        # What arrives with the welcome comes before anything can be sent; `wake` follows when it can.
        for message in self.state.take_messages() if self._link.is_made else ():
            # A 0 before the first message, as before every sender's.
            begin = b"\0" if message[0] == StreamKind.OPEN else b""
            self._link.put(self._peer, begin + encode_message(message))

    def take(self, max_bytes: int) -> bytes:
        """Remove and return up to `max_bytes` stream bytes."""
        if max_bytes >= len(self.buffer):
            data = bytes(self.buffer)
            self.buffer.clear()
        else:
            data = bytes(self.buffer[:max_bytes])
            del self.buffer[:max_bytes]
        self.size -= len(data)
        self._link.inbox.took(self)
        return data

    def close(self, kind: StreamKind) -> None:
        """No task receives or sends here any more; `kind` is the last message to the peer, CLOSE or BROKEN."""
        self.closed = True
        self.state.close(kind)
        self.settle()
