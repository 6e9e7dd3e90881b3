"""From one relay's part in a realm to plain data, and from that data to the part of a successor.

1. The successor acts under the same nonce, with the same leases and tokens. To other relays it is the same relay, whose
   connection to the engine was lost for a moment: it connects, gets all leases, and settles its own.
2. Frames queued for ids elsewhere do not move: the relay hands them over before, or drops them as `cluster_down`.
   Frames from elsewhere are in queues of clients here, and move with those.
3. Frames that other relays send while no relay is connected are lost. The counts of received bytes move, so the
   successor knows how many were lost, and the senders get credit for them.
4. A session may have an id without a lease, because the old relay was in no realm or in another one. The successor
   adopts that id: it holds the id as if it had granted it while the engine was away.
"""

from ..relay import RealmState
from ._exports import Exports
from ._imports import Imports
from ._leases import Leases
from ._uplink import Uplink
from ._view import View


def capture(uplink: Uplink, view: View, leases: Leases, imports: Imports) -> RealmState:
    """Describe the part in a realm of a relay that has gone down."""
    return RealmState(
        realm=uplink.config.realm,
        nonce=uplink.nonce,
        name=uplink.name,
        connection=uplink.connection,
        claims=leases.claims,
        leases=leases.capture(),
        elsewhere=list(view),
        received=imports.capture(),
        lost=imports.lost,
    )


def restore(
    state: RealmState | None, uplink: Uplink, view: View, leases: Leases, imports: Imports, exports: Exports
) -> None:
    """Continue from `state`; the sessions are there, and nothing is connected yet."""
    if state is None or state.realm != uplink.config.realm:
        leases.restore((), 0)
        return
    uplink.nonce, uplink.name, uplink.connection = state.nonce, uplink.config.name or state.name, state.connection
    leases.restore(state.leases, state.claims)
    view.restore(state.elsewhere)
    exports.restore(view)
    imports.restore(state.received)
    imports.lost = state.lost
