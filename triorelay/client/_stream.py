"""A byte stream to one peer.

1. Bytes travel as messages of up to `BLOCK` bytes, each queued whole or not at all: so a cancelled send leaves the peer
   with a prefix, never with a torn message.
2. One task sends and one receives at a time; a second one gets BusyResourceError.
3. A send that waits for room is woken by cancelling the scope that it waits in, when the stream is closed, stopped or
   broken; the state then says what it raises.
4. Ending and closing queue a few bytes in spite of the limit, so they never wait, and a cancelled close is a close.
"""

from operator import index
from typing import final

import trio

from ..protocol import Half, RelayError, StreamKind, check_octets, encode_message, id_name, id_text
from ._exclusive import Exclusive
from ._incoming import Incoming
from ._link import Link

BLOCK = 65536
"""Stream bytes in one message: large enough that the cost of a message does not show, small enough that one end encodes
while the other decodes."""

ROUND = 4 * BLOCK
"""Bytes that are queued without a checkpoint, if there is room for them: a fraction of a millisecond."""


@final
class PeerStream(trio.abc.HalfCloseableStream):
    """A byte stream to one client that opened a stream to this one; what `Client.stream` returns.

    It is a `trio.abc.HalfCloseableStream`, so `trio.SSLStream` and everything else that runs over a stream runs over
    it. `send_all` waits until the peer has opened its side too, while the peer does not receive, and while a claim of
    either client is full. Streams of the same two clients may follow one another: each is of its own.

    Attributes:
        peer: the other client's id, as a one-character string.
    """

    def __init__(self, peer: int, link: Link) -> None:
        self.peer: str = id_text(peer)
        self._id = peer
        self._incoming = Incoming(peer, link)
        self._link = link
        name = id_name(peer)
        self._one_sender = Exclusive(f"another task is sending on the stream to {name}; one task sends at a time")
        self._one_receiver = Exclusive(
            f"another task is receiving from the stream to {name}; one task receives at a time"
        )

    def __repr__(self) -> str:
        return f"<triorelay.PeerStream to {id_name(self._id)}>"

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send all of `data`, waiting for the peer to open its side, and for room as needed.

        Cancelled, some of the first of it may have been sent, and the rest not.

        Raises:
            trio.BrokenResourceError: the peer is not connected, left or reads no more, frames were lost, or the relay
                was.
            trio.ClosedResourceError: after `send_eof` or `aclose`.
            trio.BusyResourceError: another task is sending.
            TypeError: `data` is not bytes.
        """
        check_octets(data)
        state = self._incoming.state
        with self._one_sender:
            await trio.lowlevel.checkpoint_if_cancelled()
            self._check_sending()
            has_yielded = False
            with memoryview(data) as view, view.cast("B") as octets:
                for start in range(0, len(octets), BLOCK):
                    if (start and start % ROUND == 0) or not (state.paired and self._link.has_room):
                        await self._wait_room()
                        has_yielded = True
                    message = state.encode(StreamKind.DATA, octets[start : start + BLOCK])
                    self._link.put(self._id, encode_message(message))
            if not has_yielded:
                await trio.lowlevel.cancel_shielded_checkpoint()

    async def wait_send_all_might_not_block(self) -> None:
        """Wait until there is room; errors as those of `send_all`."""
        with self._one_sender:
            await trio.lowlevel.checkpoint()
            await self._wait_room()

    async def _wait_room(self) -> None:
        incoming = self._incoming
        self._check_sending()
        try:
            with trio.CancelScope() as incoming.waiting_send:
                await self._link.wait_room()
        except RelayError as error:
            raise trio.BrokenResourceError(f"the stream to {id_name(self._id)} is broken: {error}") from error
        finally:
            incoming.waiting_send = None
        self._check_sending()
        while not incoming.state.paired:
            if self._id not in self._link.presence.there:
                raise trio.BrokenResourceError(f"no client holds {id_name(self._id)}; wait_for() waits until one does")
            await incoming.arrived.park()
            self._check_sending()

    def _check_sending(self) -> None:
        self._check_open()
        match self._incoming.state.sending:
            case Half.ENDED:
                raise trio.ClosedResourceError("this stream's sending side was ended by send_eof()")
            case Half.STOPPED:
                raise trio.BrokenResourceError(f"{id_name(self._id)} reads no more from this stream")
            case Half.BROKEN:
                raise self._broken()

    def _check_open(self) -> None:
        if self._incoming.closed:
            raise trio.ClosedResourceError("this stream is closed; open another one with stream()")
        self._link.check_open()

    def _broken(self) -> trio.BrokenResourceError:
        if self._incoming.lost:
            self._link.loss_reported()
        why = self._incoming.why or "it broke the stream off"
        return trio.BrokenResourceError(f"the stream to {id_name(self._id)} is broken: {why}")

    async def send_eof(self) -> None:
        """Send the end of file; receiving continues. A second call does nothing.

        Raises:
            trio.BrokenResourceError: the stream is broken.
            trio.ClosedResourceError: after `aclose`.
            trio.BusyResourceError: another task is sending.
        """
        with self._one_sender:
            await trio.lowlevel.checkpoint()
            if self._incoming.closed or self._incoming.state.sending not in (Half.ENDED, Half.STOPPED):
                self._check_sending()
            self._incoming.state.end()
            self._incoming.settle()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Wait for bytes and return them, at most `max_bytes` of them; none at the peer's end of file.

        Cancelled, nothing was taken.

        Raises:
            trio.BrokenResourceError: the peer left before its end of file, frames were lost, or the relay was.
            trio.ClosedResourceError: after `aclose`.
            trio.BusyResourceError: another task is receiving.
            ValueError: `max_bytes` is less than 1.
        """
        limit = None if max_bytes is None else index(max_bytes)
        if limit is not None and limit < 1:
            raise ValueError(f"max_bytes must be at least 1, not {limit}")
        with self._one_receiver:
            incoming = self._incoming
            if incoming.closed or incoming.buffer or not self._is_receiving():
                await trio.lowlevel.checkpoint()
            while not incoming.buffer or incoming.closed:
                if not self._is_receiving():
                    return b""
                await incoming.arrived.park()
            return incoming.take(len(incoming.buffer) if limit is None else limit)

    def _is_receiving(self) -> bool:
        self._check_open()
        if self._incoming.state.receiving is Half.BROKEN:
            raise self._broken()
        return self._incoming.state.receiving is Half.OPEN

    async def aclose(self) -> None:
        """Close both directions; what was sent is still delivered, what was not received is discarded.

        The peer sees the end of file; or, when this is cancelled, as `trio.aclose_forcefully` does, a broken stream.
        It never waits for the peer.
        """
        if self._incoming.closed:
            await trio.lowlevel.checkpoint()
            return
        kind = StreamKind.BROKEN
        try:
            await trio.lowlevel.checkpoint()
            kind = StreamKind.CLOSE
        finally:
            self._incoming.close(kind)
