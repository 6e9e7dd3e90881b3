"""The sockets that this process listens on, and those that an old relay handed over to it.

1. Code that opens a listener notes it here, with the keeper of its path. The table belongs to the process, as the
   sockets do: the relay, its admin endpoint and the handover each open some, and a successor gets all of them.
2. A successor puts the sockets that it inherits here before it opens any. Code that opens a listener looks here first,
   by its place: the bytes of an absolute path or an abstract name, or host, port and zone. When all listeners are open,
   the successor closes the sockets that are left.
3. Until the old relay has ended, this process must not remove its paths: `owns_paths`.
"""

import os
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol
from weakref import WeakKeyDictionary

Place = bytes | tuple[str, int, int]


class PathKeeper(Protocol):
    """Keeps a path for a listener."""

    @property
    def descriptors(self) -> tuple[int, int]:
        """Its lock and the file that was bound."""


@dataclass(frozen=True, slots=True)
class Noted:
    """A socket that listens.

    Attributes:
        socket: the socket.
        place: where.
        keeper: keeps its path; None if it has none, or another process made it.
        given: whether a supervisor gave it to the relay.
    """

    socket: socket.socket
    place: Place
    keeper: PathKeeper | None = None
    given: bool = False


@dataclass(frozen=True, slots=True)
class Inherited:
    """A socket that listens since before this process, with the descriptors of its path's keeper.

    Attributes:
        socket: the socket; the code that takes it closes it.
        place: where.
        descriptors: lock and file of its path; None if it has none.
        given: whether a supervisor had given it to the old relay.
    """

    socket: socket.socket
    place: Place
    descriptors: tuple[int, int] | None = None
    given: bool = False


class Listening:
    """The table.

    Attributes:
        owns_paths: whether paths are removed when their listeners end.
        inherited: sockets that no listener has taken yet.
    """

    def __init__(self) -> None:
        self.owns_paths: bool = True
        self.inherited: list[Inherited] = []
        self._noted: WeakKeyDictionary[socket.socket, tuple[Place, PathKeeper | None, bool]] = WeakKeyDictionary()

    def note(self, sock: socket.socket, place: Place, keeper: PathKeeper | None = None, *, given: bool = False) -> None:
        """Note a socket that listens from now on."""
        self._noted[sock] = place, keeper, given

    def __iter__(self) -> Iterator[Noted]:
        """Return the sockets that still listen."""
        return (Noted(sock, *rest) for sock, rest in list(self._noted.items()) if sock.fileno() >= 0)

    def close_rest(self) -> None:
        """Close inherited sockets that no listener has taken: the settings do not name them any more."""
        for one in self.inherited:
            one.socket.close()
            for descriptor in one.descriptors or ():
                os.close(descriptor)
        self.inherited = []

    def take(self, matches: Callable[[Place], bool]) -> Inherited | None:
        """Return the first that was inherited at a place that matches; the caller owns it from now on."""
        for one in self.inherited:
            if matches(one.place):
                self.inherited.remove(one)
                return one
        return None


LISTENING = Listening()
