"""The status of a relay, as one JSON-ready value taken in one step."""

import time
from typing import TYPE_CHECKING

import trio

from .. import _version
from ..protocol import id_name

if TYPE_CHECKING:
    from ._relay import Relay
    from ._session import Session


def snapshot(relay: "Relay") -> dict[str, object]:
    """Return the contents of `GET /status`."""
    return {
        "version": _version.__version__,
        "uptime_seconds": round(time.monotonic() - relay.started, 3),
        "draining": relay.draining,
        "listeners": list(relay.addresses),
        "clients": [_client(relay, session) for session in sorted(relay.registry, key=lambda session: session.id)],
        "pairs": relay.ledger.pairs(),
        "drops": [
            [source, destination, reason.value, count]
            for (source, destination, reason), count in sorted(
                relay.ledger.dropped.items(), key=lambda item: (item[0][0], item[0][1], item[0][2].value)
            )
        ],
        "ledger": relay.ledger.summary(relay.queued_frames()),
        **({"cluster": relay.remote.snapshot()} if relay.remote is not None else {}),
    }


def _client(relay: "Relay", session: "Session") -> dict[str, object]:
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
        "sent": relay.ledger.accepted[session.id],
        "received": relay.ledger.received(session.id),
        "queued": session.outbox.queued_frames(),
        "events": session.events,
        "waiting_for": waiting_for,
        "waiting_seconds": round(now - session.waiting_since, 3) if waiting_for is not None else 0,
    }
