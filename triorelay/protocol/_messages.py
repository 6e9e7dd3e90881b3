"""Whole messages between two clients that agree on it. The relay does not know about them.

A message is its payload and the CRC-32 of it (big-endian), COBS-encoded, ended by a data byte 0. COBS leaves no zero
inside, so a receiver that lost bytes resumes after the next zero, and the checksum shows which blocks were cut. A
sender begins with a zero, which ends what an earlier session of its id left unfinished; empty blocks mean nothing.

COBS: S. Cheshire, M. Baker, Consistent Overhead Byte Stuffing, IEEE/ACM Transactions on Networking 7 (2), 1999.
"""

import zlib

from cobs import cobs

from .._build import COMPILED
from . import _stuffing
from ._errors import LocalProtocolError
from ._frames import address_frames
from ._octets import check_octets

DEFAULT_MESSAGE_LIMIT = 1 << 20
"""Bytes of payload that a message may have unless another limit is agreed on: 1 MiB."""

_LONG_PIECE = 1024
"""Bytes up to the next zero from which finding it by itself is quicker than splitting at all of them."""


def encode_message(payload: bytes | bytearray | memoryview, *, limit: int = DEFAULT_MESSAGE_LIMIT) -> bytes:
    """Return the data bytes of one message, its closing 0 included.

    Raises:
        LocalProtocolError: the payload has more bytes than `limit`.
        TypeError: the payload is not bytes.
    """
    encoded: bytes = cobs.encode(seal_message(payload, limit=limit))
    return encoded + b"\0"


def seal_message(payload: bytes | bytearray | memoryview, *, limit: int = DEFAULT_MESSAGE_LIMIT) -> bytes:
    """Return a payload and its CRC-32, for `stuff_sealed` or `frame_sealed`; errors as those of `encode_message`."""
    if not isinstance(payload, bytes):
        check_octets(payload, "payload")
        payload = bytes(payload)
    if len(payload) > limit:
        raise LocalProtocolError(
            f"a message has at most {limit} bytes, not {len(payload)}: split it, or raise the limit on both sides"
        )
    return payload + zlib.crc32(payload).to_bytes(4)


def stuff_sealed(sealed: bytes) -> bytes:
    """Return the data bytes of a sealed message, after a 0 of its own."""
    encoded: bytes = cobs.encode(sealed)
    return b"\0" + encoded + b"\0"


def frame_sealed(destination: int, sealed: bytes) -> bytes | bytearray:
    """Return the frames to `destination` that carry what `stuff_sealed` returns; quicker only when compiled."""
    if COMPILED:
        return _stuffing.frame_block(destination, sealed)
    return address_frames(destination, stuff_sealed(sealed))


def _split(data: bytes) -> list[bytes]:
    """Split at each zero. To find the next one costs a tenth of what split() costs a byte, and more for each piece."""
    pieces: list[bytes] = []
    begin = 0
    while True:
        if data.startswith(b"\0", begin):  # a message begins with a zero of its own
            pieces.append(b"")
            begin += 1
        end = data.find(b"\0", begin)
        if end < 0:
            return [*pieces, data[begin:]]
        if end - begin <= _LONG_PIECE:
            return pieces + data[begin:].split(b"\0")
        pieces.append(data[begin:end])
        begin = end + 1


class MessageReader:
    """Assembles the messages of one source, from data in any split and with any losses.

    Attributes:
        begun: what came of a message that has not ended; if that is over the limit, no more than shows it.
        discarded: number of blocks discarded so far: cut, corrupt or over the limit.
    """

    def __init__(self, *, limit: int = DEFAULT_MESSAGE_LIMIT) -> None:
        self._limit = limit
        # COBS adds one byte for each 254 begun, and one: its published worst case.
        self._encoded_limit = (limit + 4) + (limit + 4) // 254 + 1
        self.begun: bytearray = bytearray()
        self.discarded: int = 0

    def feed(self, data: bytes) -> list[bytes]:
        """Take data bytes of the source; return the payloads of the messages that they complete."""
        payloads: list[bytes] = []
        *complete, rest = _split(data)
        for piece in complete:
            block = piece
            if self.begun:
                self._extend(piece)
                block = bytes(self.begun)
                self.begun.clear()
            if block:
                payload = self._check(block)
                if payload is None:
                    self.discarded += 1
                else:
                    payloads.append(payload)
        if rest:
            self._extend(rest)
        return payloads

    def _extend(self, piece: bytes) -> None:
        self.begun += piece[: self._encoded_limit + 1 - len(self.begun)]

    def _check(self, block: bytes) -> bytes | None:
        if len(block) > self._encoded_limit:
            return None
        try:
            plain: bytes = cobs.decode(block)
        except cobs.DecodeError:
            return None
        payload = plain[:-4]
        if len(plain) < 4 or len(payload) > self._limit or zlib.crc32(payload) != int.from_bytes(plain[-4:]):
            return None
        return payload

    def abandon(self) -> None:
        """Discard a message that has begun: its source will not complete it."""
        self.discarded += bool(self.begun)
        self.begun.clear()
