"""The events that a session may get, checked against its requests and what the relay did."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from triorelay.protocol import EventCode

if TYPE_CHECKING:
    from collections.abc import Callable

    from triorelay.relay import Relay


def settled(relay: Relay, source: int) -> int:
    """Return how many frames of `source` were ever written or dropped."""
    written = sum(count for of, _, count in relay.ledger.pairs() if of == source)
    return written + sum(count for (of, _, _), count in relay.ledger.dropped.items() if of == source)


@dataclass
class EventLog:
    """Follows one session with EVENTS, frame by frame.

    1. An event is two adjacent frames. SYNCED ends a list of those present, and there is one list for each LIST.
    2. A frame comes between the JOINED of its source and its LEFT, unless it was held for this session.
    3. Each PING has its PONG, in order. A FLUSHED comes once for its FLUSH, when all that was sent before is settled.
    4. After CLOSING comes nothing.
    """

    relay: Callable[[], Relay]
    me: int
    held: bool
    present: set[int] = field(default_factory=set)
    pings: deque[int] = field(default_factory=deque)
    flushes: list[tuple[int, int]] = field(default_factory=list)
    lists: int = 1
    sent: int = 0
    settled_before: int = 0
    closing: bool = False
    _code: int | None = None
    _welcomed: bool = False

    def __post_init__(self) -> None:
        self.settled_before = settled(self.relay(), self.me)

    def sends(self, frames: bytes | bytearray) -> None:
        """Note whole frames that the session sends; those to the relay come in pairs."""
        at = 0
        while at < len(frames):
            if frames[at]:
                self.sent += 1
                at += 2
            else:
                self._asks(frames[at + 1], frames[at + 3])
                at += 4

    def _asks(self, code: int, argument: int) -> None:
        if code == EventCode.PING:
            self.pings.append(argument)
        elif code == EventCode.FLUSH:
            self.flushes.append((argument, self.sent))
        elif code == EventCode.LIST:
            self.lists += 1
        else:
            self.sent += 2

    def receives(self, source: int, data: int) -> None:
        """Check one frame that the session received."""
        assert not self.closing, "something after CLOSING"
        if not self._welcomed:
            self._welcomed = True
            if source == self.me and data:
                self.closing = True  # a refusal
                return
            assert (source, data) == (self.me, 0), "no welcome"
        elif self._code is not None:
            assert source == 0, "a frame between the two of an event"
            code, self._code = self._code, None
            self._told(EventCode(code), data)
        elif source == 0:
            self._code = data
        else:
            assert self.held or source in self.present, f"a frame of {source}, which is not here"

    def _told(self, code: EventCode, argument: int) -> None:
        if code is EventCode.JOINED:
            self.present.add(argument)
        elif code is EventCode.LEFT:
            assert argument in self.present, f"LEFT of {argument}, which is not here"
            self.present.remove(argument)
        elif code is EventCode.SYNCED:
            self.lists -= 1
            assert self.lists >= 0, "more lists than were asked for"
        elif code is EventCode.PONG:
            assert self.pings, "a PONG without a PING"
            assert self.pings.popleft() == argument, "a PONG out of order"
        elif code is EventCode.FLUSHED:
            flush = next(flush for flush in self.flushes if flush[0] == argument)
            self.flushes.remove(flush)
            done = settled(self.relay(), self.me) - self.settled_before
            assert done >= flush[1], f"FLUSHED with {done} of {flush[1]} frames settled"
        elif code is EventCode.CLOSING:
            self.closing = True
