"""The status of a relay, as one JSON-ready value taken in one step.

The step holds up every client, so what clients can make large is bounded. Pairs are at most 65,025, which takes 7 ms.
Drops have a reason besides, and need no receiver: 253 short sessions that send to absent ids make 64,000 of them. Those
with most frames are listed, and the rest in one entry a reason.
"""

import os
import time
from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, cast

import trio

from .. import _version
from ..protocol import id_name

if TYPE_CHECKING:
    from ._relay import Relay
    from ._session import Session

DROPS_LISTED = 1024
"""Finding them among 64,000 takes 5 ms; sorting all of those took 130."""


def snapshot(relay: "Relay") -> dict[str, object]:
    """Return the contents of `GET /status`."""
    ledger = relay.ledger.summary(relay.queued_frames())
    return {
        "version": _version.__version__,
        "uptime_seconds": round(time.monotonic() - relay.started, 3),
        "draining": relay.draining,
        "listeners": [_text(address) for address in relay.addresses],
        "clients": [_client(relay, session) for session in sorted(relay.registry, key=lambda session: session.id)],
        "pairs": relay.ledger.pairs(),
        "drops": _drops(relay, cast("Mapping[str, int]", ledger["dropped"])),
        "ledger": ledger,
        **({"cluster": relay.remote.snapshot()} if relay.remote is not None else {}),
    }


def _drops(relay: "Relay", totals: Mapping[str, int]) -> list[list[int | str | None]]:
    """Return [source, destination, reason, frames], most first; the sums by reason are `totals`."""
    dropped = relay.ledger.dropped
    rest = Counter(totals)
    listed: list[list[int | str | None]] = []
    for (source, destination, reason), count in dropped.most_common(DROPS_LISTED):
        listed.append([source, destination, reason.value, count])
        rest[reason.value] -= count
    return listed + [[None, None, name, count] for name, count in rest.items() if count]


def _text(address: str) -> str:
    # A path may hold bytes that are no UTF-8. They are shown as in `Peer.address`: not every reader of JSON takes
    # what Python has for them.
    return os.fsencode(address).decode("utf-8", "backslashreplace")


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
