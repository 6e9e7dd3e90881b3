"""A client of a relay, as a Trio program uses it."""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from typing import final

import trio

from .._fields import check_count
from ..protocol import (
    DEFAULT_MESSAGE_LIMIT,
    RELAY,
    LocalProtocolError,
    check_octets,
    id_byte,
    id_name,
    id_text,
)
from ._calls import CALL_LIMIT, Calls, open_calls
from ._channel import PeerChannel
from ._link import PIECE, Link
from ._messages import MessageChannel
from ._presence import Events
from ._stream import PeerStream


@final
class Client:
    """A connection to a relay with an id. `open_client` makes it and closes it.

    `async for source, data in client` receives: `source` is a one-character string, `data` one or more bytes that it
    sent, in order. All methods may be called from several tasks, unless they say otherwise.
    """

    def __init__(self, link: Link, name: str) -> None:
        self._inbox = link.inbox
        self._presence = link.presence
        self._link = link
        self._name = name

    def __repr__(self) -> str:
        name = id_name(self._presence.own) if self._presence.own else "an observer"
        return f"<triorelay.Client {name} at {self._name}>"

    @property
    def id(self) -> str:
        """The id that this client holds, as a one-character string; empty for an observer."""
        return id_text(self._presence.own) if self._presence.own else ""

    async def send(self, destination: str | bytes | int, data: bytes | bytearray | memoryview) -> None:
        """Send each byte of `data`, of any length, to `destination`, waiting for room as needed.

        It returns when all of `data` is queued; `flush` waits until it is written. Order holds for each destination.
        If cancelled, a first part of `data` may be queued; of up to 32,768 bytes, all or nothing. The client stays
        usable.

        Raises:
            ConnectionLost: there is no relay any more, or it went away in the middle of `data`.
            NotDelivered: with `strict`, something sent before did not arrive; nothing of `data` was sent.
            LocalProtocolError: an observer cannot send.
            ValueError: `destination` is not one byte from 1 to 255.
            TypeError: `data` is not bytes.
            trio.ClosedResourceError: the block of this client was left.
        """
        id = id_byte(destination)
        check_octets(data)
        self._check_has_id("send")
        if isinstance(data, memoryview) or len(data) > PIECE:
            with memoryview(data) as view, view.cast("B") as octets:
                await self._link.send(id, octets)
        else:
            await self._link.send(id, data)

    def _send_nowait(self, destination: str | bytes | int, data: bytes | bytearray | memoryview) -> None:
        """As `send`, if one step can do it; else raise WouldBlock."""
        id = id_byte(destination)
        check_octets(data)
        self._check_has_id("send")
        self._link.check_open()
        if memoryview(data).nbytes > PIECE:
            raise trio.WouldBlock
        self._link.session_now(id).put(id, bytes(data))

    async def receive(self) -> tuple[str, bytes]:
        """Wait for data from a client that `stream` and `messages` have not claimed; return (source, data).

        While `messages` is open, it takes everything, and nothing comes here. Data that is not received blocks
        everything that arrives after it, so a client that only sends still needs a task that receives, unless no other
        client writes to it.

        One task at a time. If cancelled, nothing is taken. Data that arrived before a loss is still received; with
        `reconnect` the call then waits for more.

        Raises:
            ConnectionLost: there is no relay any more, and all that had arrived was received.
            HelloRefused: there is one, but it does not give the id back.
            LocalProtocolError: an observer receives nothing.
            trio.BusyResourceError: another task is receiving.
            trio.ClosedResourceError: the block of this client was left.
        """
        self._check_has_id("receive")
        source, data = await self._inbox.unclaimed.receive()
        return id_text(source), data

    def receive_nowait(self) -> tuple[str, bytes]:
        """Return (source, data) as `receive` does, if data has arrived.

        Raises:
            trio.WouldBlock: there is no data.
            trio.BusyResourceError: another task is receiving; and the other errors of `receive`.
        """
        self._check_has_id("receive")
        source, data = self._inbox.unclaimed.receive_nowait()
        return id_text(source), data

    def __aiter__(self) -> AsyncIterator[tuple[str, bytes]]:
        return self

    async def __anext__(self) -> tuple[str, bytes]:
        return await self.receive()

    async def flush(self) -> None:
        """Wait until the relay has written or dropped all that was sent before, and has reported what it dropped.

        Written means that the receiver's kernel has it, not that the receiver read it. While a claim of this client is
        full, the answer waits behind what was not received. If cancelled, nothing is undone.

        Raises:
            ConnectionLost: the connection broke, now or since the last flush, and what was sent may not have arrived.
            NotDelivered: with `strict`, something did not arrive.
            LocalProtocolError: a bound path has no way to ask.
            trio.ClosedResourceError: the block of this client was left.
        """
        self._check_has_events("flush")
        await self._link.flush()

    async def ping(self) -> float:
        """Ask the relay for an answer and return the seconds that it took.

        All that was sent before has then been queued, written or dropped by the relay. Errors as those of `flush`.
        """
        self._check_has_events("ping")
        start = trio.current_time()
        await self._link.ping()
        return trio.current_time() - start

    @property
    def peers(self) -> frozenset[str]:
        """The ids that other clients hold now. Empty while there is no connection.

        Raises:
            LocalProtocolError: a client with a bound path gets no events.
        """
        self._check_has_events("know its peers")
        return self._presence.peers

    def events(self) -> Events:
        """Return an iterator over the relay's events from now on: JOINED, LEFT, NO_ROUTE, DROPPED, DRAINING, CLOSING.

        With `reconnect` there are two more, of the class `ConnectionEvent`. After LOST come DROPPED for each id to
        which something was sent that no flush confirmed, and LEFT for each id that was held. Any number of iterators
        may be open; an iterator with 1,024 unread events ends with `trio.BrokenResourceError`.

        Raises:
            LocalProtocolError: a client with a bound path gets no events.
        """
        self._check_has_events("have events")
        return self._presence.subscribe()

    async def wait_for(self, id: str | bytes | int) -> None:
        """Wait until a client holds `id`.

        Raises:
            ConnectionLost: there is no relay any more.
            LocalProtocolError: a client with a bound path gets no events.
            trio.ClosedResourceError: the block of this client was left.
        """
        wanted = id_byte(id)
        self._check_has_events("wait for others")
        await trio.lowlevel.checkpoint()
        while True:
            self._link.check_open()
            if wanted == self._presence.own or wanted in self._presence.there:
                return
            self._link.check()
            await self._presence.changed.park()

    def stream(self, peer: str | bytes | int) -> PeerStream:
        """Open a byte stream to `peer`, and claim all that comes from it.

        The claim lasts until the stream is closed on both sides, or the peer has left. In between, what arrives is
        discarded, and a stream that is opened then takes over the claim: nothing reaches `receive`.

        `peer` must open a stream to this client too, before or after; nothing is sent until both have. It must be
        connected before something is sent: wait for it with `wait_for`. The caller closes the stream, best with `async
        with`. A stream that is closed before the peer has opened its side ends there as soon as the peer opens it,
        unless this client has opened another one by then.

        Raises:
            trio.BusyResourceError: a stream to `peer` is open.
            LocalProtocolError: a client with a bound path gets no events, so it cannot detect a broken stream; an
                observer has no data.
            trio.ClosedResourceError: the block of this client was left.
        """
        id = id_byte(peer)
        self._check_can_claim("open a stream")
        return PeerStream(id, self._link)

    def messages(self, *, limit: int = DEFAULT_MESSAGE_LIMIT) -> MessageChannel:
        """Open a channel of whole messages, and claim all data that no stream claims until it is closed.

        The caller closes it, best with `async with`. A message that is not complete takes up to `limit` bytes of memory
        for each source.

        Args:
            limit: bytes of payload that a message may have, in both directions; the peers must use the same or less.

        Raises:
            trio.BusyResourceError: such a channel is open.
            LocalProtocolError: an observer has no data.
            ValueError: a negative limit.
            trio.ClosedResourceError: the block of this client was left.
        """
        self._check_can_claim("exchange messages", limit, needs_events=False)
        return MessageChannel(limit, self._link)

    def channel(self, peer: str | bytes | int, *, limit: int = DEFAULT_MESSAGE_LIMIT) -> PeerChannel:
        """Open a channel of whole messages with one client, and claim all that comes from it until it is closed.

        The caller closes it, best with `async with`. The peer may use `messages` or `channel`.

        Args:
            peer: the other client's id.
            limit: bytes of payload that a message may have, in both directions; the peer must use the same or less.

        Raises:
            trio.BusyResourceError: a channel or stream to `peer` is open.
            LocalProtocolError: a client with a bound path gets no events; an observer has no data.
            ValueError: a negative limit.
            trio.ClosedResourceError: the block of this client was left.
        """
        id = id_byte(peer)
        self._check_can_claim("open a channel", limit)
        return PeerChannel(id, limit, self._link)

    def calls(self, *, limit: int = CALL_LIMIT) -> AbstractAsyncContextManager[Calls]:
        """Make and serve calls in an `async with` block, and claim all that no stream claims for as long as it lasts.

        Args:
            limit: bytes of payload that a call or a reply may have; the peers must use the same or less. A message that
                is not complete takes that much memory for each source.

        Raises:
            LocalProtocolError: a client with a bound path gets no events; an observer has no data.
            ValueError: a negative limit.
            trio.BusyResourceError: a channel of messages or of calls is open; raised by the block's beginning.
            trio.ClosedResourceError: the block of this client was left.
        """
        self._check_can_claim("make calls", limit)
        return open_calls(limit, self._link)

    async def aclose(self) -> None:
        """Leave: flush, shut the sending side, read to end of file; at most 30 s in all. `open_client` does it.

        Raises:
            ConnectionLost: something was sent that may not have arrived, and no call has reported that yet.
            NotDelivered: with `strict`, something did not arrive.
        """
        await self._link.aclose()

    def _check_can_claim(self, verb: str, limit: int = 0, *, needs_events: bool = True) -> None:
        if needs_events:
            self._check_has_events(verb)
        self._check_has_id(verb)
        self._link.check_open()
        check_count("limit", limit, 0)

    def _check_has_id(self, verb: str) -> None:
        if self._presence.own == RELAY:
            raise LocalProtocolError(f"an observer cannot {verb}: open a client with an id")

    def _check_has_events(self, verb: str) -> None:
        if not self._link.has_events:
            raise LocalProtocolError(f"a client with a bound path cannot {verb}: open it with identity='hello'")
