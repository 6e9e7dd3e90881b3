"""The sessions without an id yet: how many there may be, in all and from one place.

There may be `max_pending_per_address` from one IPv4 address, IPv6 /64 or uid: one more is closed at once. There may be
`max_pending` in all: one more evicts the oldest from the address that has most. So a peer that opens many silent
connections only evicts its own.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import IPv4Address, IPv6Address, IPv6Network

import trio

from ..protocol import Refusal
from ._connection import Connection, Peer
from ._policy import Refused


class Pending:
    """The sessions without an id yet, oldest first.

    Attributes:
        arrivals: the connections that may still get an id, in the order in which they came, and what they have said.
    """

    def __init__(self, limit: int, limit_per_origin: int) -> None:
        self.arrivals: dict[Connection, bytearray] = {}
        self._limit = limit
        self._limit_per_origin = limit_per_origin
        self._origins: Counter[str] = Counter()
        self._places: dict[trio.CancelScope, str] = {}

    @contextmanager
    def place(self, peer: Peer) -> Iterator[trio.CancelScope]:
        """Take a place for `peer`; the scope that it gives is cancelled when the place is needed for another.

        Raises:
            Refused: the peer's address has all the places it may have.
        """
        origin = origin_of(peer)
        if self._origins[origin] >= self._limit_per_origin:
            raise Refused(Refusal.FULL, "too many sessions without an id from this address")
        if len(self._places) >= self._limit:
            self._make_room()
        with trio.CancelScope() as scope:
            self._places[scope] = origin
            self._origins[origin] += 1
            try:
                yield scope
            finally:
                self._leave(scope)

    @contextmanager
    def arrival(self, connection: Connection) -> Iterator[bytearray]:
        """Note that `connection` may get an id during the block, which notes in what it yields what the client said."""
        said = self.arrivals.setdefault(connection, bytearray())
        try:
            yield said
        finally:
            del self.arrivals[connection]

    def _make_room(self) -> None:
        crowded = max(self._origins, key=self._origins.__getitem__)
        oldest = next(scope for scope, origin in self._places.items() if origin == crowded)
        self._leave(oldest)
        oldest.cancel()

    def _leave(self, scope: trio.CancelScope) -> None:
        origin = self._places.pop(scope, None)
        if origin is not None:
            self._origins[origin] -= 1
            if not self._origins[origin]:
                del self._origins[origin]

    def cancel_all(self) -> None:
        """Cancel every place."""
        for scope in list(self._places):
            scope.cancel()


def origin_of(peer: Peer) -> str:
    """Return for what `peer` shares its limits: its IPv4 address, its IPv6 /64, or its uid."""
    return f"uid {peer.uid}" if peer.ip is None else origin_of_address(peer.ip)


def origin_of_address(ip: IPv4Address | IPv6Address) -> str:
    """Return for what an address shares limits with others: itself, and with IPv6 its /64."""
    return str(ip) if isinstance(ip, IPv4Address) else str(IPv6Network((ip, 64), strict=False))
