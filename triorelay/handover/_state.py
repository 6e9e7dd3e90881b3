"""The state of a relay as bytes: what an old relay sends, and its successor reads.

1. The bytes are one MessagePack map of `HandoverState`, whose `version` is that of the offer. A release reads its own
   version and the one before; `tests/handover/states/` holds a recorded state of each.
2. Descriptors are positions in the list that comes with the state: first the connections of `relay`, in their order,
   then those that the listeners name.
"""

from dataclasses import dataclass
from ipaddress import ip_address

from ..relay import Peer, RelayState, Transport

VERSION = 1
READABLE = [VERSION]
"""The versions that this release can continue from, newest first."""


class BadState(Exception):
    """The state cannot be read; the text says why, in one line."""


@dataclass(frozen=True, slots=True)
class PeerState:
    """A `Peer`, with its address as text."""

    transport: Transport
    address: str
    ip: str = ""
    bound_id: int = 0
    uid: int | None = None
    pid: int | None = None
    process: str = ""

    @classmethod
    def of(cls, peer: Peer) -> "PeerState":
        """Describe `peer`, which has shown no certificate."""
        ip = "" if peer.ip is None else str(peer.ip)
        return cls(peer.transport, peer.address, ip, peer.bound_id, peer.uid, peer.pid, peer.process)

    def peer(self) -> Peer:
        """Return the peer that this describes.

        Raises:
            BadState: it is none.
        """
        if self.transport == "tls":
            raise BadState("the state has a connection with TLS, which cannot be handed over")
        try:
            ip = ip_address(self.ip) if self.ip else None
        except ValueError:
            raise BadState(f"the state has a connection from {self.ip}, which is no address") from None
        return Peer(self.transport, self.address, ip, self.bound_id, self.uid, self.pid, self.process)


@dataclass(frozen=True, slots=True)
class ListenerState:
    """A socket that listens.

    Attributes:
        socket: position of its descriptor.
        place: the bytes of an absolute path or an abstract name, or host, port and zone.
        keeper: positions of the descriptors of its path's lock and file; None if it has none, or another made it.
        given: whether a supervisor had given it to the relay, so that its path is not the relay's to remove.
    """

    socket: int
    place: bytes | tuple[str, int, int]
    keeper: tuple[int, int] | None = None
    given: bool = False


@dataclass(frozen=True, slots=True)
class HandoverState:
    """All that an old relay hands over.

    Attributes:
        version: of this format.
        release: of the old relay, for people.
        peers: of the connections, in their order.
        listeners: the sockets that listen for clients, for the admin endpoint, and for successors.
        relay: the relay.
    """

    version: int
    release: str
    peers: list[PeerState]
    listeners: list[ListenerState]
    relay: RelayState


def encode(state: HandoverState) -> bytes:
    """Return `state` as bytes."""
    import msgspec

    return msgspec.msgpack.encode(state)


def decode(data: bytes) -> HandoverState:
    """Return the state that `data` holds.

    Raises:
        BadState: it holds none, or one that contradicts itself.
    """
    import msgspec

    try:
        state = msgspec.msgpack.decode(data, type=HandoverState)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise BadState(f"the state cannot be read: {error}") from None
    if state.version not in READABLE:
        raise BadState(f"the state has version {state.version}, and this release reads {READABLE[0]}")
    return state
