"""The sockets that this process listens on, and those that an old relay handed over to it.

1. Code that opens a listener notes it here, with what keeps its path. The table belongs to the process, as the
   sockets do: the relay, its admin endpoint and the handover each open some, and a successor gets all of them.
2. A successor puts the sockets that it inherits here before it opens any, and a relay those that a supervisor gave to
   it. Code that opens a listener looks here first, by its place: the bytes of an absolute path or an abstract name, or
   host, port and zone. When all listeners are open, the successor closes the sockets that are left.
3. Until the old relay has ended, this process must not remove its paths: `owns_paths`.
"""

import os
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass

Place = bytes | tuple[str, int, int]


@dataclass(frozen=True, slots=True)
class ListeningSocket:
    """A socket that listens, or was inherited and listens since before this process.

    Attributes:
        socket: the socket; the code that takes an inherited one closes it.
        place: where.
        path_descriptors: lock and file of its path; None if it has none, or another process made it.
        given: whether a supervisor gave it to the relay; its path is not the relay's to change.
    """

    socket: socket.socket
    place: Place
    path_descriptors: tuple[int, int] | None = None
    given: bool = False


class Listening:
    """The table.

    Attributes:
        owns_paths: whether paths are removed when their listeners end.
        inherited: sockets that no listener has taken yet.
    """

    def __init__(self) -> None:
        self.owns_paths: bool = True
        self.inherited: list[ListeningSocket] = []
        # By path, for those that may be listened on again; the others by descriptor.
        self._noted: dict[object, ListeningSocket] = {}

    def note(self, listener: ListeningSocket) -> None:
        """Note a socket that listens from now on, in place of the one before at its path. Safe in any thread."""
        key = listener.socket.fileno() if listener.path_descriptors is None else listener.place
        self._noted[key] = listener

    def __iter__(self) -> Iterator[ListeningSocket]:
        """Return the sockets that still listen."""
        return (noted for noted in list(self._noted.values()) if noted.socket.fileno() >= 0)

    def close_rest(self) -> None:
        """Close inherited sockets that no listener has taken: the settings do not name them any more."""
        for one in self.inherited:
            one.socket.close()
            for descriptor in one.path_descriptors or ():
                os.close(descriptor)
        self.inherited = []

    def take(self, matches: Callable[[ListeningSocket], bool]) -> ListeningSocket | None:
        """Return the first inherited one that matches; the caller owns it from now on."""
        for one in self.inherited:
            if matches(one):
                self.inherited.remove(one)
                return one
        return None


LISTENING = Listening()
