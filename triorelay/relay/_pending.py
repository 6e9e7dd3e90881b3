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
from ._connection import Connection, Peer
from ._policy import Grant, Refused

_NOT_HEARD = Hello(0, HelloOption.NONE)


@dataclass(slots=True, eq=False)
class Arrival:
    """A connection without an id, and what it asks for.

    Attributes:
        connection: the connection.
        number: its place in the order of accept.
        place: cancelled when its place among those without an id is needed for another.
        wait: cancelled once the relay has decided on its hello.
        said: the bytes read so far.
        hello: its hello; for a client without one, the hello that means the same.
        rest: the bytes after the hello.
        mapped: whether it has its id without a hello.
        decided: whether there is nothing more to read of it: its claim has begun, or there is an `error`.
        error: why the relay refused it at once.
        id: the id that it claims; 0 for an observer, and for any free id until one is chosen.
        grant: what the policy lets it do, once its claim has begun.
        called: set when its claim has its turn.
    """

    connection: Connection
    number: int
    place: trio.CancelScope = field(default_factory=trio.CancelScope)
    wait: trio.CancelScope = field(default_factory=trio.CancelScope)
    said: bytearray = field(default_factory=bytearray)
    hello: Hello = _NOT_HEARD
    rest: bytes = b""
    mapped: bool = False
    decided: bool = False
    error: Exception | None = None
    id: int = 0
    grant: Grant = field(init=False)
    called: trio.Event = field(default_factory=trio.Event)


class Pending:
    """The sessions without an id yet, oldest first.

    Attributes:
        arrivals: the connections that may still get an id, in the order in which they came, and the bytes that they
            sent.
    """

    def __init__(self, limit: int, limit_per_origin: int) -> None:
        self.arrivals: dict[Connection, bytearray] = {}
        self._limit = limit
        self._limit_per_origin = limit_per_origin
        self._origins: Counter[str] = Counter()
        self._places: dict[Arrival, str] = {}

    def take(self, arrival: Arrival) -> None:
        """Take a place for a connection.

        Raises:
            Refused: the peer's address has all the places it may have.
        """
        origin = origin_of(arrival.connection.peer)
        if self._origins[origin] >= self._limit_per_origin:
            raise Refused(Refusal.FULL, "too many sessions without an id from this address")
        if len(self._places) >= self._limit:
            self._make_room()
        self._places[arrival] = origin
        self._origins[origin] += 1

    def leave(self, arrival: Arrival) -> None:
        """Give back the place of a connection that gets no id any more, or has it. Idempotent."""
        self.arrivals.pop(arrival.connection, None)
        origin = self._places.pop(arrival, None)
        if origin is not None:
            self._origins[origin] -= 1
            if not self._origins[origin]:
                del self._origins[origin]

    def _make_room(self) -> None:
        crowded = max(self._origins, key=self._origins.__getitem__)
        oldest = next(arrival for arrival, origin in self._places.items() if origin == crowded)
        self.leave(oldest)
        oldest.place.cancel()

    def cancel_all(self) -> None:
        """Cancel every place."""
        for arrival in list(self._places):
            arrival.place.cancel()


def origin_of(peer: Peer) -> str:
    """Return for what `peer` shares its limits: its IPv4 address, its IPv6 /64, or its uid."""
    return f"uid {peer.uid}" if peer.ip is None else origin_of_address(peer.ip)


def origin_of_address(ip: IPv4Address | IPv6Address) -> str:
    """Return for what an address shares limits with others: itself, and with IPv6 its /64."""
    return str(ip) if isinstance(ip, IPv4Address) else str(IPv6Network((ip, 64), strict=False))
