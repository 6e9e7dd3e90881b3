"""Whole messages with one peer.

1. The channel claims that peer's id only, so data of others goes elsewhere, and several channels may be open at a time.
2. The channel ends when the peer leaves: messages that had arrived are still received, then receiving ends and sending
   raises. The channel breaks if messages to the peer were lost, or the connection was. A new channel starts fresh.
"""

from collections.abc import Callable
from typing import final

import trio

from ..protocol import Event, EventCode, RelayError, id_name, id_text, seal_message
from ._arrivals import Arrivals
from ._inbox import Inbox
from ._link import Link


@final
class PeerArrivals(Arrivals):
    """Messages of one peer that were not yet received, and the state of the channel.

    Attributes:
        left: whether the peer left.
        why: what broke the channel, in words.
        lost: whether that was the loss of the connection.
    """

    def __init__(self, limit: int, inbox: Inbox, check: Callable[[], None]) -> None:
        super().__init__(limit, inbox, check)
        self.left: bool = False
        self.why: str = ""
        self.lost: bool = False

    @property
    def over(self) -> bool:
        """Whether nothing more comes."""
        return self.left or bool(self.why)

    def deliver(self, source: int, data: bytes) -> None:
        if not self.over:
            super().deliver(source, data)

    def tell(self, event: Event) -> None:
        super().tell(event)
        match event.code:
            case EventCode.LEFT:
                self.left = True
            case EventCode.NO_ROUTE:
                self.why = self.why or "no client holds that id; wait_for() waits until one does"
            case EventCode.DROPPED:
                self.why = self.why or "messages to it were dropped"
        self.arrived.unpark_all()

    def lose(self) -> None:
        super().lose()
        self.why = self.why or "the connection to the relay was lost"
        self.lost = True


@final
class PeerChannel(trio.abc.Channel[bytes]):
    """Whole messages to and from one client; what `Client.channel` returns.

    It is a `trio.abc.Channel`. `async for payload in channel` ends when the peer leaves.

    Attributes:
        peer: the other client's id, as a one-character string.
        limit: bytes of payload that a message may have, in both directions.
    """

    def __init__(self, peer: int, limit: int, link: Link) -> None:
        self.peer: str = id_text(peer)
        self.limit: int = limit
        self._id = peer
        self._arrivals = PeerArrivals(limit, link.inbox, self._check)
        self._link = link
        link.inbox.claim(peer, self._arrivals)

    def __repr__(self) -> str:
        return f"<triorelay.PeerChannel to {id_name(self._id)}>"

    @property
    def discarded(self) -> int:
        """Messages discarded so far because they arrived cut, damaged or over the limit."""
        return self._arrivals.assembler.discarded

    async def send(self, value: bytes | bytearray | memoryview) -> None:
        """Send one message, waiting for room as needed; several tasks may send.

        Cancelled, all of the message was queued or nothing of it.

        Raises:
            trio.BrokenResourceError: the peer left or is not there, messages were lost, or the relay was.
            trio.ClosedResourceError: this channel or the client was closed.
            LocalProtocolError: the message has more bytes than `limit`.
            TypeError: the message is not bytes.
        """
        sealed = seal_message(value, limit=self.limit)
        self._check_open()
        if self._arrivals.over:
            raise self._broken()
        try:
            await self._link.send_message(self._id, sealed, despite_loss=True)
        except RelayError as error:
            raise trio.BrokenResourceError(f"the channel to {id_name(self._id)} is broken: {error}") from error

    async def receive(self) -> bytes:
        """Wait for a message and return it.

        Cancelled, nothing was taken.

        Raises:
            trio.EndOfChannel: the peer left, and all that had arrived was received.
            trio.BrokenResourceError: messages to the peer were lost, or the relay was; likewise.
            trio.ClosedResourceError: this channel or the client was closed.
            trio.BusyResourceError: another task is receiving.
        """
        _, payload = await self._arrivals.receive()
        return payload

    def _check_open(self) -> None:
        if self._arrivals.released:
            raise trio.ClosedResourceError("this channel is closed; open another one with channel()")
        self._link.check_open()

    def _check(self) -> None:
        self._check_open()
        if self._arrivals.why:
            raise self._broken()
        if self._arrivals.left:
            raise trio.EndOfChannel(f"{id_name(self._id)} left")

    def _broken(self) -> trio.BrokenResourceError:
        if self._arrivals.lost:
            self._link.loss_reported()
        return trio.BrokenResourceError(
            f"the channel to {id_name(self._id)} is broken: {self._arrivals.why or 'it left'}"
        )

    async def aclose(self) -> None:
        """Give the claim back; messages not yet received are discarded. What was sent is still delivered."""
        self._link.inbox.release(self._arrivals)
        await trio.lowlevel.checkpoint()
