"""The status of a relay, as one JSON-ready value taken in one step.

All clients wait during the step, so its size is bounded. There are at most 65,025 pairs, which take 7 ms. Drops also
have a reason, and need no receiver: 253 short sessions that send to absent ids make 64,000 entries. The status lists
the entries with most frames, and sums up the rest by reason.
"""

import os
from heapq import nlargest
from operator import itemgetter

import trio

from ..protocol import id_name
from ._exchange import Exchange
from ._ledger import Ledger
from ._session import Session

DROPS_LISTED = 1024
"""To find these among 64,000 takes 5 ms; to sort all 64,000 took 130 ms."""


def snapshot(exchange: Exchange) -> dict[str, object]:
    """Return what the status says of clients and frames."""
    return {
        "clients": [_client(exchange, session) for session in exchange.registry],
        "pairs": exchange.ledger.pairs(),
        "drops": _drops(exchange.ledger),
        "ledger": exchange.ledger.summary(exchange.queued_frames()),
    }


def _drops(ledger: Ledger) -> list[list[int | str | None]]:
    """Return [source, destination, reason, frames], most first."""
    rest = ledger.dropped_by_reason()
    listed: list[list[int | str | None]] = []
    for (source, destination, reason), count in nlargest(DROPS_LISTED, ledger.dropped.items(), key=itemgetter(1)):
        listed.append([source, destination, reason.value, count])
        rest[reason] -= count
    return listed + [[None, None, reason.value, count] for reason, count in rest.items() if count]


def shown(address: str) -> str:
    """Return an address as valid JSON text: bytes of a path that are not UTF-8 are shown as in `Peer.address`."""
    return os.fsencode(address).decode("utf-8", "backslashreplace")


def _client(exchange: Exchange, session: Session) -> dict[str, object]:
    now = trio.current_time()
    peer = session.connection.peer
    waiting_for = session.waiting_for
    return {
        "id": session.id,
        "name": id_name(session.id),
        "transport": peer.transport,
        "address": peer.address,
        "principal": session.principal,
        "pid": peer.pid,
        "process": peer.process,
        "connected_seconds": round(now - session.since, 3),
        "sent": exchange.ledger.accepted[session.id],
        "received": exchange.ledger.received(session.id),
        "queued": session.outbox.queued_frames(),
        "events": session.events,
        "shared": session.shared,
        "waiting_for": waiting_for,
        "waiting_seconds": round(now - session.waiting_since, 3) if waiting_for is not None else 0,
    }
