"""Whole messages from and to any client that agrees on them.

1. A message is queued in one step: a cancelled send has sent all of it or nothing, and messages of several tasks never
   mix. Each begins with a 0 of its own, so that a cut message before it, of whatever session, costs only itself.
2. `send_nowait` and `receive_nowait` are for many small messages: each is a few calls and no checkpoint.
"""

from typing import final

import trio

from ..protocol import id_byte, seal_message
from ._arrivals import Arrivals
from ._link import Link


@final
class MessageChannel(trio.abc.ReceiveChannel[tuple[str, bytes]]):
    """Messages of 0 to `limit` bytes, whole or not at all; what `Client.messages` returns.

    `async for source, payload in channel` receives from every client that no stream claimed; `await channel.send("B",
    payload)` sends to any client. Messages of one session arrive in the order in which they were sent, at most once
    each.

    Attributes:
        limit: bytes of payload that a message may have, in both directions.
    """

    def __init__(self, limit: int, link: Link) -> None:
        self.limit: int = limit
        self._arrivals = Arrivals(limit, link.inbox, self._check)
        self._link = link
        link.inbox.claim_rest(self._arrivals)

    @property
    def discarded(self) -> int:
        """Messages discarded so far because they arrived cut, damaged or over the limit."""
        return self._arrivals.assembler.discarded

    async def send(self, destination: str | bytes | int, payload: bytes | bytearray | memoryview) -> None:
        """Send one message, waiting for room as needed; several tasks may send.

        Cancelled, all of the message was queued or nothing of it.

        Raises:
            LocalProtocolError: the payload has more bytes than `limit`.
            TypeError: the payload is not bytes.
            ConnectionLost: there is no relay any more.
            NotDelivered: with `strict`, something sent before did not arrive.
            trio.ClosedResourceError: this channel or the client was closed.
        """
        id = id_byte(destination)
        self._check_open()
        await self._link.send_message(id, seal_message(payload, limit=self.limit))

    def send_nowait(self, destination: str | bytes | int, payload: bytes | bytearray | memoryview) -> None:
        """Send one message, if there is room for it now. There is no checkpoint, so a loop of these needs another one.

        Raises:
            trio.WouldBlock: there is no room, or no connection; nothing was sent.
            LocalProtocolError: and the other errors of `send`.
        """
        id = id_byte(destination)
        if self._arrivals.released or self._link.closed:
            self._check_open()
        sealed = seal_message(payload, limit=self.limit)
        self._link.session_now(id).put_message(id, sealed)

    def receive_nowait(self) -> tuple[str, bytes]:
        """Return a message as `receive` does, if one has arrived: after one `receive`, the rest of a burst.

        Raises:
            trio.WouldBlock: there is none.
            trio.BusyResourceError: another task is receiving; and the other errors of `receive`.
        """
        return self._arrivals.receive_nowait()

    async def receive(self) -> tuple[str, bytes]:
        """Wait for a message and return (source, payload).

        Cancelled, nothing was taken.

        Raises:
            ConnectionLost: there is no relay any more, and all that had arrived was received.
            trio.BusyResourceError: another task is receiving.
            trio.ClosedResourceError: this channel or the client was closed.
        """
        return await self._arrivals.receive()

    def _check_open(self) -> None:
        if self._arrivals.released:
            raise trio.ClosedResourceError("this channel is closed; open another one with messages()")
        self._link.check_open()

    def _check(self) -> None:
        self._check_open()
        self._link.check()

    async def aclose(self) -> None:
        """Give the claim back; messages not yet received are discarded. What was sent is still delivered."""
        self._link.inbox.release(self._arrivals)
        await trio.lowlevel.checkpoint()
