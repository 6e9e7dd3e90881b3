"""Connections without an id yet, and how many there may be, in all and from one address or user.

There may be `max_pending_per_address` from one IPv4 address, IPv6 /64 or uid: one more is closed at once. There may be
`max_pending` in all: one more evicts the oldest from the address that has most. So a peer that opens many silent
connections only evicts its own.
"""

from collections import Counter
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address, IPv6Network

import trio

from ..protocol import Hello, HelloOption, Refusal
from ._config import Config
from ._connection import Connection, Peer
from ._policy import Grant, Refused

_NOT_HEARD = Hello(0, HelloOption.NONE)


@dataclass(slots=True, eq=False)
class Arrival:
    """A connection without an id, and what it asks for.

    Attributes:
        connection: the connection.
        said: the bytes read so far.
        origin: for what it shares its limits with others.
        place: cancelled when its place among those without an id is needed for another, and by the drain.
        heard: set once there is nothing more to read of it: its claim has begun, or there is an `error`.
        hello: its hello; for a client without one, the hello that means the same.
        rest: the bytes after the hello.
        mapped: whether it has its id without a hello.
        error: why it gets no id.
        id: the id that it claims; 0 for an observer, and for any free id until one is chosen.
        grant: what the policy lets it do, once its claim has begun.
        called: set when its claim has its turn.
        joined: whether a session has its connection.
        refused: whether its refusal was logged, and answered if its hello asked for that.
    """

    connection: Connection
    said: bytearray = field(default_factory=bytearray)
    origin: str = field(init=False)
    place: trio.CancelScope = field(default_factory=trio.CancelScope)
    heard: trio.Event = field(default_factory=trio.Event)
    hello: Hello = _NOT_HEARD
    rest: bytes = b""
    mapped: bool = False
    error: Exception | None = None
    id: int = 0
    grant: Grant = field(init=False)
    called: trio.Event = field(default_factory=trio.Event)
    joined: bool = False
    refused: bool = False

    def __post_init__(self) -> None:
        self.origin = origin_of(self.connection.peer)


def take_place(arrivals: dict[Arrival, None], arrival: Arrival, config: Config) -> None:
    """Put a connection among the `arrivals`, which are in the order of accept.

    Raises:
        Refused: the peer's address has all the places it may have.
    """
    taken = Counter(other.origin for other in arrivals)
    if taken[arrival.origin] >= config.max_pending_per_address:
        raise Refused(Refusal.FULL, "too many sessions without an id from this address")
    if len(arrivals) >= config.max_pending:
        crowded = max(taken, key=taken.__getitem__)
        oldest = next(other for other in arrivals if other.origin == crowded)
        del arrivals[oldest]
        oldest.place.cancel()
    arrivals[arrival] = None


def origin_of(peer: Peer) -> str:
    """Return for what `peer` shares its limits: its IPv4 address, its IPv6 /64, or its uid."""
    return f"uid {peer.uid}" if peer.ip is None else origin_of_address(peer.ip)


def origin_of_address(ip: IPv4Address | IPv6Address) -> str:
    """Return for what an address shares limits with others: itself, and with IPv6 its /64."""
    return str(ip) if isinstance(ip, IPv4Address) else str(IPv6Network((ip, 64), strict=False))
