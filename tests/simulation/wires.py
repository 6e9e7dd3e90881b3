"""What clients wrote to their connections, held against what the relay counts as accepted from them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from triorelay.protocol import CloseReason
from triorelay.testing._memory import MemoryConnection, MemoryStream

if TYPE_CHECKING:
    from triorelay.relay import Relay, Session


class Wire:
    """What one client wrote to its connection, to be held against what the relay accepted from it until it left."""

    def __init__(self, stream: MemoryStream, *, hello: bool, events: bool) -> None:
        self._pipe = stream._outgoing
        self._hello = hello
        self._events = events
        self._written = bytearray()
        self._before = (0, 0, 0)
        self.has_joined = False
        write = self._pipe.write

        def note(data: bytes | bytearray | memoryview) -> int:
            count = write(data)
            self._written += data[:count]
            return count

        self._pipe.write = note  # type: ignore[method-assign]

    def leads_to(self, session: Session) -> bool:
        """Return whether `session` reads what was written here."""
        return isinstance(session.connection, MemoryConnection) and session.connection.incoming is self._pipe

    def joined(self, relay: Relay, session: Session) -> None:
        self._before = counted(relay, session.id)
        self.has_joined = True

    def left(self, relay: Relay, session: Session) -> bool:
        """Check a session whose client shut its sending side; return whether it did so, and nothing else ended it."""
        if session.ended is not CloseReason.LEFT or session.shared or self._pipe.reset:
            return False
        now = counted(relay, session.id)
        difference = tuple(after - before for before, after in zip(self._before, now, strict=True))
        accepted, control, partial = self._expected()
        # Requests and halves are counted for all ids together, so others may have had some meanwhile.
        assert difference[0] == accepted, f"{difference[0]} of {accepted} frames of {session.id} accepted"
        assert difference[1] >= control
        assert difference[2] >= partial
        return True

    def _expected(self) -> tuple[int, int, int]:
        """Return how many frames of what was written are accepted, how many are requests, and the bytes left over."""
        data = bytes(self._written[2 * self._hello :])
        whole, at, accepted, control = len(data) & ~1, 0, 0, 0
        while at < whole:
            if data[at] or not self._events:
                accepted, at = accepted + 1, at + 2
            elif at + 2 == whole:
                break  # the first half of a request
            elif data[at + 2] == 0:
                understood = data[at + 1] in (6, 7, 8)
                accepted, control, at = accepted + 2 * (not understood), control + 2 * understood, at + 4
            else:
                accepted, at = accepted + 1, at + 2
        return accepted + (at < whole), control, len(data) - whole


def counted(relay: Relay, id: int) -> tuple[int, int, int]:
    return relay.ledger.accepted[id], relay.ledger.control, relay.ledger.partial
