"""The requests of a session with EVENTS: PING, LIST, FLUSH."""

from ..protocol import EventCode, encode_event
from ._exchange import Exchange
from ._session import Session

FLUSHES_AT_ONCE = 64
"""Unanswered FLUSHes that a session may have; with more, the relay does not read it until one is answered."""


def is_request(code: int) -> bool:
    """Return whether the relay understands a request of this code."""
    return code in (EventCode.PING, EventCode.LIST, EventCode.FLUSH)


def answer(exchange: Exchange, session: Session, code: int, argument: int) -> None:
    """Answer a request, now or, for FLUSH, when what came before it is written or dropped."""
    if code == EventCode.PING:
        session.outbox.put(encode_event(EventCode.PONG, argument))
    elif code == EventCode.LIST:
        session.outbox.put(exchange.registry.presence(session))
    else:
        exchange.registry.forget_dropped_sent(session.id)
        session.flush(argument)
        if len(session.flushes) >= FLUSHES_AT_ONCE:
            session.wait_for_flush()
