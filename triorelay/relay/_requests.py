"""What a session with EVENTS may ask of the relay: PING, LIST, FLUSH."""

from typing import TYPE_CHECKING

from ..protocol import EventCode, encode_event

if TYPE_CHECKING:
    from ._relay import Relay
    from ._session import Session

FLUSHES_AT_ONCE = 64
"""Unanswered FLUSHes that a session may have; with more it is not read until one is answered."""


def is_request(code: int) -> bool:
    """Return whether the relay understands a request of this code."""
    return code in (EventCode.PING, EventCode.LIST, EventCode.FLUSH)


def answer(relay: "Relay", session: "Session", code: int, argument: int) -> None:
    """Answer a request, now or, for FLUSH, when what came before it is settled."""
    if code == EventCode.PING:
        session.outbox.put(encode_event(EventCode.PONG, argument))
    elif code == EventCode.LIST:
        session.outbox.put(presence(relay, session))
    else:
        _Flush(relay, session, argument)


def presence(relay: "Relay", session: "Session") -> bytes:
    """Return JOINED for each id present that `session` may know of, its own included, and SYNCED."""
    present = {holder.id for holder in relay.registry if session.may_know(holder)}
    present |= {other.id for other in relay.registry.elsewhere.values() if session.may_know(other)}
    return b"".join(encode_event(EventCode.JOINED, id) for id in sorted(present)) + encode_event(EventCode.SYNCED, 0)


class _Flush:
    """A FLUSH that waits for frames of its sender, one mark in each queue that has any."""

    def __init__(self, relay: "Relay", session: "Session", number: int) -> None:
        self._session = session
        self._number = number
        session.flushes += 1
        # One more than there are marks, so that no mark can complete it while they are being set.
        self._remaining = 1
        for outbox in relay.outboxes:
            self._remaining += outbox.mark_last_of(session.id, self)
        self._remaining += relay.hold.mark_last_of(session.id, self)
        self.reached()
        if session.flushes >= FLUSHES_AT_ONCE:
            session.wait_for_flush()

    def reached(self) -> None:
        self._remaining -= 1
        if self._remaining == 0:
            self._session.outbox.put(encode_event(EventCode.FLUSHED, self._number))
            self._session.flushed()
