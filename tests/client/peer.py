"""Another client that has a stream with the one under test, of which the test writes every message."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from triorelay.protocol import MessageReader, StreamKind, encode_message

if TYPE_CHECKING:
    from tests.client.scripted import Script
    from triorelay.client import Client

OPEN_BYTES = 1 + len(encode_message(b"\x08abcdefgh"))
"""Data bytes of the first message of a stream, with the 0 before it."""


class Peer:
    """A peer behind a scripted relay.

    Attributes:
        own: the number that it gave its stream, which the client's messages carry.
        number: the number that the client gave its stream, which this peer's messages carry; 0 until it is known.
    """

    def __init__(self, script: Script, id: bytes = b"B", own: int = 7) -> None:
        self.script = script
        self.own, self.number = own, 0
        self._id = id[0]

    def frames(self, data: bytes) -> bytes:
        """Return these data bytes as the relay forwards them from this peer."""
        return b"".join(bytes((self._id, octet)) for octet in data)

    def message(self, kind: StreamKind, data: bytes = b"") -> bytes:
        """Return a message of its stream."""
        return bytes((kind,)) + self.number.to_bytes(4) + data

    def opening(self, to: int | None = None) -> bytes:
        """Return the message that says that this side is open, to the client's number."""
        return bytes((StreamKind.OPEN,)) + (self.number if to is None else to).to_bytes(4) + self.own.to_bytes(4)

    async def say(self, *messages: StreamKind | bytes) -> None:
        """Send messages of its stream: a kind, or the bytes of one with data."""
        payloads = [
            self.message(message) if isinstance(message, StreamKind) else self.message(StreamKind.DATA, message)
            for message in messages
        ]
        await self.say_whole(*payloads)

    async def say_whole(self, *payloads: bytes) -> None:
        """Send these messages as they are."""
        await self.script.say(self.frames(b"".join(map(encode_message, payloads))))

    async def hear_opening(self, to: int = 0) -> None:
        """Take the number that the client gives its stream."""
        sent = await self.script.read(2 * OPEN_BYTES)
        assert set(sent[0::2]) == {self._id}
        assert sent[1:2] == b"\0"
        (opened,) = MessageReader().feed(sent[1::2])
        assert opened[:5] == bytes((StreamKind.OPEN,)) + to.to_bytes(4)
        self.number = int.from_bytes(opened[5:])
        assert self.number

    async def meet(self) -> Peer:
        """Take the number that the client gives its stream, and open this side too."""
        await self.hear_opening()
        await self.say_whole(self.opening())
        return self

    async def meet_first(self) -> Peer:
        """Open this side, and take the number that the client gives its stream in answer."""
        await self.say_whole(self.opening())
        await self.hear_opening(self.own)
        return self

    async def heard(self, client: Client) -> list[StreamKind | bytes]:
        """Return what the client has said on this stream by now: kinds, and data."""
        heard: list[StreamKind | bytes] = []
        for message in await self.heard_whole(client):
            assert int.from_bytes(message[1:5]) == self.own
            kind = StreamKind(message[0])
            heard.append(message[5:] if kind is StreamKind.DATA else kind)
        return heard

    async def heard_whole(self, client: Client) -> list[bytes]:
        """Return the messages that the client has sent to this peer by now."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.flush)
            sent = await self.script.answer_flush()
        assert set(sent[0::2]) <= {self._id}
        return MessageReader().feed(sent[1::2])
