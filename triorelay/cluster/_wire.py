"""Subjects, messages and the value of a key, as they go over the engine.

Messages are MessagePack arrays that begin with their kind; the value of a key is JSON, so that people can read it with
the engine's own tools. Reading checks both: anything else that is published there is a `BadMessage`.
"""

from collections.abc import Callable
from typing import Annotated

import msgspec

from ..protocol import address_frames, source_counts

Id = Annotated[int, msgspec.Meta(ge=1, le=255)]
Count = Annotated[int, msgspec.Meta(ge=0)]
Nonce = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{16}$")]
"""A nonce becomes part of a subject, so it may contain nothing else."""


class BadMessage(Exception):
    """Bytes; longer ones are not from a relay of this version."""


class _Part(msgspec.Struct, frozen=True, array_like=True, gc=False, forbid_unknown_fields=True):
    """A part of a message."""


class _Message(_Part, frozen=True):
    """One of the messages below, under the subject of the relay that it is for.

    Attributes:
        relay: which relay sends it: its `nonce`.
    """

    relay: Nonce


class Piece(_Part, frozen=True):
    """Frames for one id; without frames, a request for credit.

    Attributes:
        destination: the id that it is for.
        token: the fencing token of the destination's lease.
        offset: how many bytes of frames went before, under this connection and token.
        source: the source of all of them, 0 if they are of several or few.
        data: their data bytes; with 0 as source, frames as the destination receives them.
    """

    destination: Id
    token: Count
    offset: Count
    source: Annotated[int, msgspec.Meta(ge=0, le=255)]
    data: bytes


class Credit(_Part, frozen=True):
    """Credit: how many bytes that the addressed relay sent to an id were placed.

    Attributes:
        connection: the addressed relay's connection, as in its bundles.
        destination: as in its pieces.
        token: as in its pieces.
        placed: how many bytes of frames were placed or lost, in all.
    """

    connection: Count
    destination: Id
    token: Count
    placed: Count


class Bundle(_Message, frozen=True, tag=0):
    """All that one relay has for another at the end of a step.

    Attributes:
        connection: which of the sending relay's connections to the engine it came by; they are numbered upwards.
        sources: the fencing token of each source that has frames in it.
        pieces: frames.
        credits: credit.
    """

    connection: Count
    sources: dict[Id, Count]
    pieces: list[Piece]
    credits: list[Credit]


class Question(_Message, frozen=True, tag=1):
    """A claim of an id that the addressed relay holds: is its client still connected?

    Attributes:
        id: the id.
        token: of the lease.
        principal: the principal whose session this claim may replace; empty if none.
    """

    id: Id
    token: Count
    principal: str


class Held(_Message, frozen=True, tag=2):
    """The answer: the client is connected, and keeps the id.

    Attributes:
        id: the id.
        token: of the lease.
    """

    id: Id
    token: Count


class Dropped(_Message, frozen=True, tag=3):
    """Frames were dropped at the relay of their destination, so that the relay of their source can tell it.

    Attributes:
        pairs: their sources and destinations.
    """

    pairs: list[tuple[Id, Id]]


Message = Bundle | Question | Held | Dropped


class LeaseValue(msgspec.Struct, frozen=True, kw_only=True):
    """The lease of one relay.

    Attributes:
        relay: the holder's `nonce`, another one for each run of a relay.
        name: the holder's name, for people.
        session: which of the holder's claims it is; they are numbered upwards.
        token: the fencing token: the revision by which the lease was created; 0 in the value that created it.
        renewed: counts the times that the holder wrote it.
        former: where the lease follows one that ran out while the engine was away, that one's token.
        adopted: whether the id was taken while the engine was away, or held through that time.
        to: the ids that the holder's clients may send to, as a number of 256 bits in hexadecimal; None for all.
        clients: how many clients of the holder had the id when it wrote this.
    """

    relay: Nonce
    name: str
    session: Count = 0
    token: Count = 0
    renewed: Count = 0
    former: Count = 0
    adopted: bool = False
    to: str | None = None
    clients: Count = 1


class KeyValue(msgspec.Struct, frozen=True, kw_only=True):
    """The value of an id's key: the holder of the id.

    Attributes:
        shared: whether it is shared, by clients of any number of relays.
        leases: those of the relays that have a holder; one if the id is not shared.
    """

    shared: bool = False
    leases: Annotated[list[LeaseValue], msgspec.Meta(min_length=1)]


encode: Callable[[Message], bytes] = msgspec.msgpack.Encoder().encode
encode_key: Callable[[KeyValue], bytes] = msgspec.json.Encoder().encode
_decode: Callable[[bytes | memoryview], Message] = msgspec.msgpack.Decoder(Message).decode
_decode_key = msgspec.json.Decoder(KeyValue).decode


def decode(payload: bytes | memoryview) -> Message:
    """Return what was published.

    Raises:
        BadMessage: no relay sends this, or its frames are not whole.
    """
    try:
        message = _decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadMessage(str(error)) from None
    if isinstance(message, Bundle) and any(not piece.source and len(piece.data) & 1 for piece in message.pieces):
        raise BadMessage("half a frame")
    return message


def frames_of(piece: Piece) -> tuple[bytes, list[tuple[int, int]]]:
    """Return the frames of a piece as its destination receives them, and how many there are of each source."""
    if piece.source:
        return bytes(address_frames(piece.source, piece.data)), [(piece.source, len(piece.data))]
    return piece.data, source_counts(piece.data[0::2])


def split_by_source(frames: bytes, source: int) -> tuple[bytes, bytes]:
    """Return the frames of `source`, and the others, both in order."""
    count = frames[0::2].count(source)
    if 2 * count == len(frames):
        return frames, b""
    pairs = [frames[at : at + 2] for at in range(0, len(frames), 2)]
    return b"".join(p for p in pairs if p[0] == source), b"".join(p for p in pairs if p[0] != source)


def decode_key(value: bytes, revision: int) -> KeyValue:
    """Return the value that a key got by the change `revision`; each lease in it has its token.

    Raises:
        BadMessage: no relay wrote it.
    """
    try:
        key = _decode_key(value)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadMessage(str(error)) from None
    leases = [lease if lease.token else msgspec.structs.replace(lease, token=revision) for lease in key.leases]
    if len({lease.relay for lease in leases}) < len(leases) or (len(leases) > 1 and not key.shared):
        raise BadMessage("leases that contradict each other")
    return KeyValue(shared=key.shared, leases=leases)


def encode_ids(ids: frozenset[int] | None) -> str | None:
    """Return a set of ids as a lease has it."""
    return None if ids is None else f"{sum(1 << id for id in ids):x}"


def decode_ids(text: str | None) -> frozenset[int] | None:
    """Return the set of ids.

    Raises:
        BadMessage: the text is no such set.
    """
    if text is None:
        return None
    try:
        bits = int(text[:64], 16)
    except ValueError:
        raise BadMessage("a set of ids in hexadecimal was expected") from None
    return frozenset(id for id in range(256) if bits >> id & 1)


def key_of(id: int) -> str:
    """Return the key of an id's lease: two hexadecimal digits."""
    return f"{id:02x}"


def id_of(key: str) -> int:
    """Return the id of a key.

    Raises:
        BadMessage: it is the key of none.
    """
    id = _IDS.get(key)
    if id is None:
        raise BadMessage(f"the key {key[:20]!r} is no id's")
    return id


_IDS = {key_of(id): id for id in range(1, 256)}


def subject_of_relay(realm: str, nonce: str) -> str:
    """Return the subject of what relays tell one relay."""
    return f"triorelay.{realm}.relay.{nonce}"
